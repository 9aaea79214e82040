"""A reasoner inside another program: loading, idle times, reloads, loops and futures, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import write_model

from rsd_local import CancelToken, Limits, Params, Reasoner, RoleConfig, Sampling, Trio, Weighting
from rsd_local.errors import Cancelled, Closed, ConfigError, ModelNotFound
from rsd_local.events import Finished

ANY = "What is the number of the day after the last one?"
SHORT = Params(Sampling(0.8, seed=3), Weighting("constant", probability=0.5), Limits(tokens=40, step_tokens=7, repeats=0))
LONG = replace(SHORT, limits=Limits(tokens=400, steps=10_000, step_tokens=7, repeats=0))


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    folder = tmp_path_factory.mktemp("embedding")
    return Trio(*(RoleConfig(write_model(folder / f"{seed}.gguf", "dense", seed), 512, threads=1, trusted=True) for seed in range(3)))


@pytest.fixture
def reasoner(trio: Trio) -> Iterator[Reasoner]:
    with Reasoner.open(trio) as opened:
        yield opened


def missing(trio: Trio, folder: Path) -> Trio:
    return replace(trio, draft=replace(trio.draft, path=folder / "none.gguf"))


def freed(models: object) -> bool:
    """Whether these engines' contexts are gone."""
    return all(engine._context is None for engine in models.engines().values())  # type: ignore[attr-defined]


def within(seconds: float, holds: object) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(holds())  # type: ignore[operator]


def test_idle_models_are_freed_and_the_next_run_loads_them_again(trio: Trio) -> None:
    with Reasoner.open(trio, idle_unload=0.3) as reasoner:
        text, models = reasoner.solve(ANY, SHORT).text, reasoner.trio
        assert within(20, lambda: freed(models)) and not reasoner.loaded
        with reasoner.run(ANY, LONG) as run:
            next(run)
            time.sleep(0.6)
            assert reasoner.loaded, "a run that is read slowly is no idleness"
        assert reasoner.solve(ANY, SHORT).text == text
        assert within(20, lambda: not reasoner.loaded)
    with pytest.raises(Closed):
        reasoner.solve(ANY)
    with pytest.raises(ConfigError):
        Reasoner.open(trio, idle_unload=0)


def test_models_are_unloaded_by_hand_but_never_under_a_run(reasoner: Reasoner) -> None:
    run, models = reasoner.run(ANY, LONG), reasoner.trio
    next(run)
    assert not reasoner.unload() and not freed(models)
    run.close()
    assert reasoner.unload() and freed(models) and not reasoner.loaded and reasoner.unload()
    texts = list[str]()
    threads = [threading.Thread(target=lambda: texts.append(reasoner.solve(ANY, SHORT).text), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(texts) == 4 and len(set(texts)) == 1, "all of them found the one trio that was loaded"


def test_a_reload_lets_runs_finish_and_frees_the_old_models_after_them(trio: Trio, reasoner: Reasoner) -> None:
    other, old = replace(trio, draft=trio.target, target=trio.draft, parallel=2), reasoner.trio
    expected = reasoner.solve(ANY, LONG).text
    with reasoner.run(ANY, LONG) as run:
        next(run)
        waits = reasoner.run(ANY, SHORT)  # begins later, and finds the new ones
        reasoner.reload(other)
        assert reasoner.config is other and not freed(old)
        with Reasoner.open(other) as fresh:
            assert waits.result().text == fresh.solve(ANY, SHORT).text
        assert run.result().text == expected
    assert freed(old) and reasoner.solve(ANY, SHORT).steps


def test_a_reload_that_fails_leaves_everything_as_it_was(trio: Trio, reasoner: Reasoner, tmp_path: Path) -> None:
    text, models = reasoner.solve(ANY, SHORT).text, reasoner.trio
    for unloaded in (False, True):
        assert not unloaded or reasoner.unload()
        with pytest.raises(ModelNotFound):
            reasoner.reload(missing(trio, tmp_path))
        with pytest.raises(Cancelled):
            token = CancelToken()
            token.cancel()
            reasoner.reload(trio, cancel=token)
        assert reasoner.config is trio and reasoner.solve(ANY, SHORT).text == text
        assert unloaded or reasoner.trio is models


def test_loading_says_how_far_it_is_and_a_token_or_an_error_ends_it(trio: Trio) -> None:
    seen = list[tuple[str, float]]()
    Reasoner.open(trio, lambda *news: seen.append(news)).close()
    assert {role for role, _ in seen} == {"draft", "target", "reward"} and all(0 <= share <= 1 for _, share in seen)
    token = CancelToken()
    with pytest.raises(Cancelled):
        Reasoner.open(trio, lambda *_: token.cancel(), cancel=token)

    def refuse(*_: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError):
        Reasoner.open(trio, refuse)


def test_closing_while_another_thread_loads_ends_the_loading(trio: Trio) -> None:
    reasoner, errors, loading, seen = Reasoner.open(trio), list[BaseException](), threading.Event(), list[str]()

    def report(role: str, _: float) -> None:
        seen.append(role)
        loading.set()
        time.sleep(0.2)

    def reload() -> None:
        try:
            reasoner.reload(trio, report)
        except Closed as error:
            errors.append(error)

    thread = threading.Thread(target=reload, daemon=True)
    thread.start()
    assert loading.wait(30)
    reasoner.close()
    thread.join(30)
    assert len(errors) == 1 and seen == ["draft"]


def test_a_future_has_the_result_and_cancelling_it_stops_the_run(reasoner: Reasoner, tmp_path: Path) -> None:
    futures = [reasoner.run(ANY, SHORT).future() for _ in range(3)]
    assert len({future.result(60).text for future in futures}) == 1
    run = reasoner.run(ANY, LONG)
    future = run.future()
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(1)
    assert reasoner.solve(ANY, SHORT).steps, "its place is free"
    refused = reasoner.run("word " * 5000, SHORT).future()
    assert type(refused.exception(60)).__name__ == "ContextFull"


def test_a_loop_opens_asks_and_closes_without_being_held_up(trio: Trio) -> None:
    beats = 0

    def waits_for_the_loop(*_: object) -> None:
        """Blocks until the loop has gone on for a while."""
        before = beats
        assert within(60, lambda: beats > before + 3), "the loop was held up"

    async def main() -> None:
        async def heart() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        beating = asyncio.create_task(heart())
        async with Reasoner.open_async(trio, waits_for_the_loop) as reasoner:
            ends = [event async for event in reasoner.run(ANY, SHORT) if isinstance(event, Finished)]
            assert (await asyncio.wrap_future(reasoner.run(ANY, SHORT).future())).text == ends[0].text
            again = asyncio.to_thread(reasoner.reload, trio, waits_for_the_loop)
            await asyncio.gather(again, *(asyncio.wrap_future(reasoner.run(ANY, SHORT).future()) for _ in range(3)))
        beating.cancel()
        with pytest.raises(Closed):
            reasoner.run(ANY)

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_models_load_leaves_none_behind(trio: Trio) -> None:
    seen = list[str]()

    async def main() -> None:
        async def use() -> None:
            def slow(role: str, _: float) -> None:
                seen.append(role)
                time.sleep(0.1)

            async with Reasoner.open_async(trio, slow):
                raise AssertionError("it was opened")

        task = asyncio.create_task(use())
        while not seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert within(20, lambda: not [one for one in threading.enumerate() if one.name == "rsd-in-thread"])
    assert set(seen) == {"draft"}


def test_a_traceback_shows_the_fix_of_an_error(trio: Trio, tmp_path: Path) -> None:
    """Also of one that came from another process; the message stays one line without it."""
    with pytest.raises(ModelNotFound) as caught:
        Reasoner.open(missing(trio, tmp_path))
    error = caught.value
    assert error.hint and error.hint not in str(error)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert traceback.format_exception_only(one)[1:] == [f"hint: {error.hint}\n"]


QUIET = """
import logging, signal, sys, threading
from dataclasses import replace
from pathlib import Path
from rsd_local import Limits, Params, Reasoner, RoleConfig, Trio
from rsd_local.errors import RSDError

def main():
    before = [signal.getsignal(one) for one in signal.valid_signals()]
    params = Params(limits=Limits(tokens=40))
    trio = Trio(*(RoleConfig(Path(path), 512, threads=1) for path in sys.argv[2:]))
    isolated = sys.argv[1] == "isolated"
    with Reasoner.open(trio, isolated=isolated, idle_unload=5) as reasoner:
        assert reasoner.solve("x", params).steps
        run = reasoner.run("x", params)
        next(run)
        for prompt, chosen in (("word " * 5000, params), ("nul \\0", params)):
            try:
                reasoner.solve(prompt, chosen)
            except RSDError:
                pass
            else:
                raise AssertionError(prompt[:5])
        run.close()
        if isolated and sys.platform != "win32":
            import os
            os.kill(reasoner._models._held.backend.pid, signal.SIGKILL)
            while reasoner.loaded:
                pass
        reasoner.reload(replace(trio, parallel=2))
        reasoner.run("x", params).cancel()
        for path in (Path(__file__), Path("none.gguf")):
            try:
                reasoner.reload(replace(trio, draft=replace(trio.draft, path=path)))
            except RSDError:
                pass
            else:
                raise AssertionError(path)
    assert [signal.getsignal(one) for one in signal.valid_signals()] == before, "a signal handler"

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("where", ["here", "isolated"])
def test_nothing_is_written_to_standard_streams_and_no_signal_is_handled(tmp_path: Path, trio: Trio, where: str) -> None:
    """Seen at the file descriptors, which C and child processes share; through opening, answers, errors, a crash and the end."""
    script = tmp_path / "quiet.py"
    script.write_text(QUIET)
    paths = [str(role.path) for role in (trio.draft, trio.target, trio.reward) if role is not None]
    done = subprocess.run(
        [sys.executable, str(script), where, *paths],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)
    assert signal.getsignal(signal.SIGINT) is not None
