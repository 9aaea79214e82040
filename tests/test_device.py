"""One thread a device: every decode is made there, engines take turns, and the thread ends with the last of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import llama_cpp as C
from test_engine import PROMPT, draws, held, written

from rsd_local.config import RoleConfig
from rsd_local.errors import Closed, EngineError
from rsd_local.runtime import Engine, Model
from rsd_local.runtime.batch_loop import BatchLoop
from rsd_local.runtime.device import Device


@pytest.fixture
def model(tiny: dict[str, Path]) -> Iterator[Model]:
    made = Model(RoleConfig(tiny["dense"]))
    yield made
    made.close()


def opened(model: Model, threads: int, name: str = "test", slots: int = 4) -> Engine:
    return Engine(model, RoleConfig(model.path, ctx_size=256, cache_type="f32", threads=threads), slots, name, reuse=False)


def test_every_decode_of_engines_with_teams_is_made_by_one_thread(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes and trials too: a thread that ever decoded would keep an OpenMP team that slows all others."""
    decode, seen = C.llama_decode, set[int]()

    def noted(*arguments: Any) -> int:
        seen.add(threading.get_ident())
        return decode(*arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(C, "llama_decode", noted)
    one, other = opened(model, 2, "one"), opened(model, 3, "other")
    assert one.device is other.device
    for engine in (one, other):
        engine.probe_states()
        sequence = engine.sequence()
        sequence.exact_rows(4)
        written(sequence, PROMPT, 5)
    assert len(seen) == 1 and threading.get_ident() not in seen
    for engine in (one, other):
        engine.close()


def test_an_engine_of_one_thread_makes_no_team_and_has_a_device_of_its_own(model: Model) -> None:
    one, other, wide = opened(model, 1, "one"), opened(model, 1, "other"), opened(model, 2, "wide")
    assert len({id(engine.device) for engine in (one, other, wide)}) == 3
    for engine in (one, other, wide):
        engine.close()


def test_the_thread_ends_with_the_last_engine_and_comes_back_with_the_next(model: Model) -> None:
    one, other = opened(model, 2, "one"), opened(model, 2, "other")
    thread = one.device._thread
    assert thread is not None
    one.close()
    assert thread.is_alive() and len(written(other.sequence(), PROMPT, 3)) == 3
    other.close()
    thread.join(10)
    assert not thread.is_alive()
    again = opened(model, 2, "again")
    assert again.device is one.device and len(written(again.sequence(), PROMPT, 3)) == 3
    again.close()
    again.close()


def test_an_engine_that_closes_while_it_is_asked_something_leaves_nobody_waiting(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, call, raised = opened(model, 1), Device.call, list[Exception]()
    sequence = engine.sequence(PROMPT)
    asks, closed = threading.Event(), threading.Event()

    def held(device: Device, *given: Any) -> Any:
        if threading.current_thread() is late:
            asks.set()
            closed.wait()
        return call(device, *given)

    def ask() -> None:
        try:
            engine.positions(sequence)
        except Closed as error:
            raised.append(error)

    monkeypatch.setattr(Device, "call", held)
    late = threading.Thread(target=ask, daemon=True)
    late.start()
    asks.wait()
    engine.close()
    closed.set()
    late.join(10)
    assert not late.is_alive() and len(raised) == 1


def test_the_fullest_engine_goes_first_and_nobody_waits_long(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    full, lone = opened(model, 2, "full"), opened(model, 2, "lone")
    order: list[str] = []
    step = BatchLoop.step

    def noted(loop: BatchLoop) -> None:
        order.append(loop._name)
        step(loop)

    monkeypatch.setattr(BatchLoop, "step", noted)
    with held(full):
        waiting = [engine.sequence(PROMPT).generate(draws(), 12).future for engine in (full, full, full, lone)]
    for future in waiting:
        future.result(timeout=30)
    turns = [-1, *(place for place, name in enumerate(order) if name == "lone")]
    assert len(turns) == 13 and turns[1] > 1, "the one with three requests goes first"
    assert max(later - before for before, later in pairwise(turns)) <= 5
    for engine in (full, lone):
        engine.close()


def test_a_device_whose_thread_died_says_why_and_serves_engines_that_come_later(model: Model) -> None:
    engine = opened(model, 2)

    def die() -> None:
        raise SystemExit("a way out that nobody expects")

    engine.device.order(die)
    with pytest.raises(EngineError, match="died: SystemExit"):
        engine.sequence(PROMPT).generate(draws(), 3).future.result(timeout=20)
    with pytest.raises(EngineError, match="died: SystemExit"):
        engine.positions(None)  # type: ignore[arg-type]
    later = opened(model, 2, "later")
    assert len(written(later.sequence(), PROMPT, 3)) == 3
    later.close()
    engine.close()
