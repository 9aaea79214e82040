"""The events of a run inside the loop of ``rsd serve``: all of them, in order, whatever the run ends with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from rsd_local import Event, Finished, Reasoner, StepDone, TextWritten
from rsd_local.catalogue import find_trio
from rsd_local.errors import Closed
from rsd_local.run import Run
from rsd_local.server.exchange import Feed

QUESTION = "(37+48)*6-129"


@pytest.fixture(scope="module")
def reasoner() -> Iterator[Reasoner]:
    trio = find_trio("abacus").with_models(lambda role: replace(role, threads=1))
    with Reasoner.open(replace(trio, parallel=1, reuse=False)) as opened:
        yield opened


async def read(feed: Feed, pause: float = 0.0) -> list[Event]:
    """All events of a run, by a reader that rests between two looks."""
    events: list[Event] = []
    while not events or not isinstance(events[-1], Finished):
        events += await asyncio.wait_for(feed.wait(30), 60)
        await asyncio.sleep(pause)
    await feed.close(30)
    return events


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.1])
def test_every_event_comes_once_and_in_order(reasoner: Reasoner, pause: float) -> None:
    async def ask() -> list[Event]:
        return await read(Feed(reasoner.run(QUESTION, strategy="target")), pause)

    true, found = list(reasoner.run(QUESTION, strategy="target")), asyncio.run(ask())
    assert [one for one in found if isinstance(one, TextWritten)] == [one for one in true if isinstance(one, TextWritten)]
    steps, known = ([one.text for one in events if isinstance(one, StepDone)] for events in (found, true))
    assert steps == known and isinstance(found[-1], Finished) and len(found) == len(true)


def test_what_a_run_fails_with_comes_behind_its_events_and_nobody_spins(reasoner: Reasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    work, made = Run._work, list[Event]()

    def fails(run: Run) -> Event:
        if len(made) == 3:
            raise ValueError("out of order")
        made.append(work(run))
        return made[-1]

    monkeypatch.setattr(Run, "_work", fails)

    async def ask() -> None:
        feed, events = Feed(reasoner.run(QUESTION, strategy="target")), list[Event]()
        await asyncio.sleep(0.3)  # all has arrived before anybody looks
        with pytest.raises(ValueError, match="out of order"):
            while True:
                events += await asyncio.wait_for(feed.wait(30), 60)
        assert events == made and len(made) == 3
        await feed.close(30)

    asyncio.run(asyncio.wait_for(ask(), 120))


def test_a_silent_run_is_waited_for_as_long_as_was_said(reasoner: Reasoner) -> None:
    async def ask() -> None:
        with reasoner.run(QUESTION) as first:
            next(iter(first))  # has the only place
            feed = Feed(reasoner.run(QUESTION))
            assert await feed.wait(0.2) == [] and await feed.wait(0.0) == []
        assert isinstance((await read(feed))[-1], Finished)

    asyncio.run(ask())


def test_where_there_can_be_no_thread_the_place_is_given_back(reasoner: Reasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Run, "pump", no_thread)
            feed = Feed(reasoner.run(QUESTION))
        with pytest.raises(RuntimeError, match="thread"):
            await feed.wait(30)
        await feed.close(30)

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert reasoner.solve(QUESTION).answer == "381"


def test_a_run_that_is_closed_by_others_is_an_error(reasoner: Reasoner) -> None:
    async def ask() -> None:
        feed = Feed(run := reasoner.run(QUESTION))
        await asyncio.to_thread(run.close)
        with pytest.raises(Closed):
            for _ in range(100):
                await feed.wait(30)

    asyncio.run(asyncio.wait_for(ask(), 60))
