"""Runs and the queue in front of them: every way to wait, to end and to be forgotten."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tiny import write_model

from rsd_local import CancelToken, Limits, Message, Params, Prompt, Reasoner, RoleConfig, Run, Sampling, Trio, Weighting
from rsd_local.config import Search, Strategy
from rsd_local.errors import Closed, ContextFull, QuestionRefused, QueueFull, WaitsForItself
from rsd_local.events import Finished, StepDone, TextWritten

QUESTION = "What is the number of the day after the last one?"
SHORT = Params(Sampling(0.8, seed=3), Weighting("constant", probability=0.5), Limits(tokens=40, step_tokens=7, repeats=0))
LONG = replace(SHORT, limits=Limits(tokens=1500, steps=10_000, step_tokens=7, repeats=0))
SEARCH = Search(samples=2, beams=1, branches=2)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    folder = tmp_path_factory.mktemp("runs")
    roles = [RoleConfig(write_model(folder / f"{seed}.gguf", "dense", seed), 2048, threads=1, trusted=True) for seed in range(3)]
    return Trio(*roles, width=4)


@pytest.fixture
def reasoner(trio: Trio) -> Iterator[Reasoner]:
    with Reasoner.open(trio) as opened:
        yield opened


def begun(reasoner: Reasoner, params: Params = LONG) -> Run:
    run = reasoner.run(QUESTION, params)
    next(run)
    return run


def in_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def hold(reasoner: Reasoner) -> threading.Event:
    """The draft's engine decodes nothing until the event is set."""
    gate = threading.Event()
    reasoner.trio.draft.device.order(gate.wait)  # type: ignore[arg-type]
    return gate


def test_the_queue_is_first_in_first_out_with_places_that_are_seen(reasoner: Reasoner) -> None:
    first, order = begun(reasoner), list[int]()
    waiting = [reasoner.run(QUESTION, SHORT) for _ in range(3)]
    assert [run.position for run in (first, *waiting)] == [0, 1, 2, 3]
    threads = []
    for number in (2, 0, 1):  # in whatever order they are begun
        threads.append(in_thread(lambda number=number: (waiting[number].result(), order.append(number))))
        time.sleep(0.05)
    assert order == []
    first.close()
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2] and [run.position for run in waiting] == [0, 0, 0]


def test_a_full_queue_refuses_with_an_error_of_its_own(trio: Trio) -> None:
    with Reasoner.open(replace(trio, queue=1)) as reasoner:
        first, second = begun(reasoner), reasoner.run(QUESTION, SHORT)
        with pytest.raises(QueueFull, match="1 prompts wait already"):
            reasoner.run(QUESTION, SHORT)
        second.close()
        third = reasoner.run(QUESTION, SHORT)
        first.close()
        assert third.result().steps


def test_a_waiting_run_can_be_cancelled(reasoner: Reasoner) -> None:
    first, token, results = begun(reasoner), CancelToken(), list[str]()
    waits = reasoner.run(QUESTION, SHORT, cancel=token)
    thread = in_thread(lambda: results.append(waits.result().finish_reason))
    time.sleep(0.05)
    token.cancel()
    thread.join(10)
    assert results == ["cancelled"] and next(first)
    never = reasoner.run(QUESTION, SHORT)  # one that nobody has begun
    never.cancel()
    result = never.result()
    assert (result.finish_reason, result.text, result.steps, result.counters) == ("cancelled", "", (), {})
    token = CancelToken()
    token.cancel()
    assert reasoner.run(QUESTION, SHORT, cancel=token).result().finish_reason == "cancelled"
    assert reasoner.run(QUESTION, SHORT).position == 1 and next(first)


def test_whoever_leaves_the_queue_lets_the_others_move_up(reasoner: Reasoner) -> None:
    runs = [reasoner.run(QUESTION, SHORT) for _ in range(5)]
    runs[2].close()
    assert [run.position for run in runs] == [0, 1, 0, 2, 3]
    runs[0].close()
    assert [run.position for run in runs] == [0, 0, 0, 1, 2]
    assert runs[1].result().steps and [run.position for run in runs[3:]] == [0, 1]
    assert [run.result().finish_reason for run in runs[3:]] == ["length"] * 2


@pytest.mark.parametrize("waits", [False, True])
def test_closing_the_reasoner_ends_runs_with_closed_and_nobody_hangs(trio: Trio, waits: bool) -> None:
    reasoner, errors = Reasoner.open(trio), list[BaseException]()

    begun_once = threading.Event()

    def answer(run: Run) -> None:
        try:
            next(run)
            begun_once.set()
            run.result()
        except Closed as error:
            errors.append(error)

    runs = [reasoner.run(QUESTION, LONG) for _ in range(1 + waits)]
    threads = [in_thread(lambda run=run: answer(run)) for run in runs]
    begun_once.wait(30)
    closers = [in_thread(reasoner.close) for _ in range(2)]
    for thread in (*threads, *closers):
        thread.join(30)
        assert not thread.is_alive()
    assert len(errors) == len(runs)
    with pytest.raises(Closed):
        reasoner.run(QUESTION)


def test_a_run_that_would_wait_for_its_own_thread_says_so_at_once(reasoner: Reasoner) -> None:
    first = begun(reasoner)
    began = time.monotonic()
    with pytest.raises(WaitsForItself):
        reasoner.solve(QUESTION, SHORT)
    assert time.monotonic() - began < 0.4, "it waited for another thread to begin what has begun"
    first.close()
    unbegun = reasoner.run(QUESTION, SHORT)
    with pytest.raises(WaitsForItself):
        reasoner.solve(QUESTION, SHORT)
    unbegun.close()
    with reasoner.converse(SHORT) as talk:  # a conversation holds no place between its turns
        assert talk.solve("One?").steps and reasoner.solve(QUESTION, SHORT).steps and talk.solve("Two?").steps


def test_whoever_waits_for_another_thread_waits(reasoner: Reasoner) -> None:
    held, done, results = threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        with reasoner.run(QUESTION, LONG) as run:
            next(run)
            held.set()
            done.wait(30)

    holder = in_thread(hold)
    held.wait(30)
    waiting = in_thread(lambda: results.append(len(reasoner.solve(QUESTION, SHORT).steps)))
    time.sleep(0.2)
    assert results == [] and waiting.is_alive()
    done.set()
    for thread in (holder, waiting):
        thread.join(30)
    assert results[0] > 0


def test_an_abandoned_run_gives_its_place_back(reasoner: Reasoner) -> None:
    run = begun(reasoner)
    del run
    for _ in reasoner.run(QUESTION, LONG):
        break
    gc.collect()
    reasoner.run(QUESTION, LONG)  # never begun
    gc.collect()
    assert reasoner.solve(QUESTION, SHORT).steps
    assert all(engine._opened == 0 for engine in reasoner.engines().values())


def test_a_run_ends_once_for_everybody(reasoner: Reasoner) -> None:
    run = begun(reasoner)
    run.close()
    run.close()
    assert list(run) == []
    with pytest.raises(Closed):
        run.result()
    cancelled = begun(reasoner)
    cancelled.cancel()
    result = cancelled.result()
    assert result.finish_reason == "cancelled" and result.steps == tuple(cancelled._steps)


def test_errors_come_to_whoever_iterates_and_free_the_place(reasoner: Reasoner) -> None:
    with pytest.raises(ContextFull):
        reasoner.solve("word " * 5000, SHORT)
    with pytest.raises(QuestionRefused, match="NUL"):
        reasoner.solve("a\0b", SHORT)
    assert reasoner.solve(QUESTION, SHORT).steps


def test_async_iteration_leaves_the_loop_free(reasoner: Reasoner) -> None:
    async def main() -> tuple[list[str], int]:
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0)
                beats += 1

        beating = asyncio.create_task(heart())
        kinds = [type(event).__name__ async for event in reasoner.run(QUESTION, LONG)]
        beating.cancel()
        return kinds, beats

    kinds, beats = asyncio.run(main())
    assert kinds[-1] == "Finished" and "TextWritten" in kinds and beats > len(kinds) / 2
    assert reasoner.solve(QUESTION, SHORT).steps


def test_a_loop_goes_on_while_a_run_works_and_while_it_waits_for_its_turn(reasoner: Reasoner) -> None:
    """The engine decodes nothing for half a second, and then another thread holds the only place for as long."""

    async def longest_pause(run: Run) -> float:
        longest, over = 0.0, False

        async def heart() -> None:
            nonlocal longest
            while not over:
                began = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - began)

        beating = asyncio.create_task(heart())
        assert [event async for event in run]
        over = True
        await beating
        return longest

    gate = hold(reasoner)
    threading.Timer(0.5, gate.set).start()
    assert asyncio.run(longest_pause(reasoner.run(QUESTION, SHORT))) < 0.3
    first = begun(reasoner)
    waits = reasoner.run(QUESTION, SHORT)
    threading.Timer(0.5, first.close).start()
    began = time.monotonic()

    async def from_another_task() -> float:
        return await asyncio.create_task(longest_pause(waits))

    assert asyncio.run(from_another_task()) < 0.3 and time.monotonic() - began > 0.4


def test_tasks_of_one_loop_take_turns_and_one_that_would_wait_for_itself_is_told(reasoner: Reasoner) -> None:
    async def read(run: Run) -> str:
        return [event.text async for event in run if isinstance(event, Finished)][0]

    async def main() -> None:
        texts = await asyncio.gather(*(read(reasoner.run(QUESTION, SHORT)) for _ in range(3)))
        assert len(set(texts)) == 1 and texts[0]
        async for _ in reasoner.run(QUESTION, LONG):
            gate = hold(reasoner)  # or it might be over before it is read
            with pytest.raises(WaitsForItself):
                await read(reasoner.run(QUESTION, SHORT))
            gate.set()
            break
        assert await read(reasoner.run(QUESTION, SHORT)) == texts[0], "a loop that was left gives its place back"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_waiting_run_of_a_cancelled_task_leaves_the_queue(reasoner: Reasoner) -> None:
    first = begun(reasoner)
    waits = reasoner.run(QUESTION, SHORT)

    async def main() -> None:
        async def read() -> None:
            async for _ in waits:
                raise AssertionError("it is another one's turn")

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        assert waits.position == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    deadline = time.monotonic() + 10
    while waits.position and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waits.position == 0 and reasoner.run(QUESTION, SHORT).position == 1 and next(first)


def test_a_cancelled_task_ends_its_run_and_errors_reach_the_loop(reasoner: Reasoner) -> None:
    async def main() -> None:
        async def read() -> None:
            while True:  # until it is cancelled
                async for _ in reasoner.run(QUESTION, LONG):
                    pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ContextFull):
            async for _ in reasoner.run("word " * 5000, SHORT):
                pass
        assert [event async for event in reasoner.run(QUESTION, SHORT)]

    asyncio.run(main())


@pytest.mark.parametrize("strategy", ["rsd", "target", "draft", "speculative", "majority", "step-best-of-n"])
def test_the_text_as_it_is_written_is_the_text_of_the_steps(reasoner: Reasoner, strategy: Strategy) -> None:
    """Of each place the last try's; with bytes that are no whole characters, as random models write."""
    params = replace(SHORT, search=SEARCH)
    written: dict[int, str] = {}
    author: dict[int, str] = {}
    for event in reasoner.run(QUESTION, params, strategy=strategy):
        if isinstance(event, TextWritten):
            same = author.get(event.index) == event.author
            written[event.index] = written.get(event.index, "") + event.text if same else event.text
            author[event.index] = event.author
        elif isinstance(event, StepDone) and strategy != "majority":  # which chooses among whole solutions, and shows none before
            assert event.text == written.get(event.index, "")
            assert event.author == author.get(event.index, event.author)
        elif isinstance(event, Finished):
            assert event.text


def test_stop_strings_end_the_text_before_them_and_are_never_shown(trio: Trio) -> None:
    with Reasoner.open(replace(trio, reuse=False)) as reasoner:  # or a draw may turn by how a cached prefix was rounded
        check_stop_strings(reasoner)


def check_stop_strings(reasoner: Reasoner) -> None:
    params = replace(LONG, weighting=Weighting("constant", probability=1.0), limits=replace(LONG.limits, tokens=600))
    whole = reasoner.solve(QUESTION, params).text
    starts = [start for start in range(8, len(whole) - 4) if whole[start : start + 4].isascii()]
    assert len(starts) >= 4
    for start in starts[:4]:  # within steps of seven tokens and across them
        stop = whole[start : start + 4]
        wanted = whole[: whole.index(stop)]
        shown, result = "", None
        stopping = replace(params, limits=replace(params.limits, stop=(stop,)))
        for event in reasoner.run(QUESTION, stopping):
            if isinstance(event, TextWritten):
                shown += event.text
            elif isinstance(event, Finished):
                result = event
        assert result is not None and result.reason == "stop" and result.text == wanted
        assert stop not in shown


def test_a_slow_reader_holds_nobody_up_and_its_pauses_are_no_seconds_of_a_step(trio: Trio) -> None:
    with Reasoner.open(replace(trio, parallel=2)) as reasoner:
        slow = reasoner.run(QUESTION, SHORT)
        next(slow)
        assert reasoner.solve(QUESTION, SHORT).finish_reason == "length"  # beside one that nobody reads
        seconds = 0.0
        for event in slow:
            time.sleep(0.02)
            seconds += event.seconds if isinstance(event, StepDone) else 0.0
        assert 0 < seconds < 0.02 * 20


def test_a_cancel_anywhere_leaves_counters_that_add_up(reasoner: Reasoner) -> None:
    for wanted in range(1, 40, 3):
        token, seen = CancelToken(), 0
        end: Finished | None = None
        steps: list[StepDone] = []
        for event in reasoner.run(QUESTION, LONG, cancel=token):
            seen += 1
            if seen == wanted:
                token.cancel()
            if isinstance(event, Finished):
                end = event
            elif isinstance(event, StepDone):
                steps.append(event)
        assert end is not None and end.reason == "cancelled"
        for author in ("draft", "target"):
            counters = end.counters[author]
            kept = sum(step.tokens for step in steps if step.author == author)
            assert counters.generated_tokens - counters.discarded_tokens == kept


def test_a_conversation_is_a_longer_prompt(reasoner: Reasoner) -> None:
    with reasoner.converse(SHORT) as talk:
        first = talk.solve("One?")
        assert talk.turns == [("One?", "".join(step.text for step in first.steps))]
        prompt = talk.prompt("Two?")
    messages = (Message("user", "One?"), Message("assistant", talk.turns[0][1].replace("\0", "\ufffd")), Message("user", "Two?"))
    assert prompt == Prompt(messages).with_system(reasoner.config.system) and prompt.turn == 1
    assert reasoner.solve(prompt, SHORT).counters["draft"].cached_tokens > 0


def test_closing_a_reasoner_from_several_threads_frees_it_once_and_for_all_of_them(trio: Trio) -> None:
    for _ in range(5):
        reasoner, freed = Reasoner.open(trio), list[bool]()
        run = begun(reasoner)
        begin = threading.Barrier(4)

        def close(reasoner: Reasoner = reasoner, begin: threading.Barrier = begin, freed: list[bool] = freed) -> None:
            begin.wait()
            reasoner.close()
            freed.append(all(engine._context is None for engine in reasoner.engines().values()))

        threads = [in_thread(close) for _ in range(4)]
        for thread in threads:
            thread.join(30)
        assert freed == [True] * 4
        with pytest.raises(Closed):
            next(run)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_other_threads_work_gets_an_error_and_ends(trio: Trio) -> None:
    """Whatever locks those threads held: they are not there to give them back."""
    code = (
        "import os, sys, threading\nfrom pathlib import Path\nfrom rsd_local import *\nfrom rsd_local.errors import EngineError\n"
        "trio = Trio(*(RoleConfig(Path(p), 2048, trusted=True, threads=1) for p in sys.argv[1:]), parallel=2)\n"
        "params = Params(weighting=Weighting('constant', probability=0.5), limits=Limits(tokens=1500, step_tokens=7, repeats=0))\n"
        "def answer(reasoner):\n"
        "    for _ in range(50):\n        reasoner.solve('x', params)\n"
        "def refused(work):\n    try:\n        work()\n    except EngineError as error:\n        return 'fork' in str(error)\n"
        "reasoner = Reasoner.open(trio)\n"
        "for _ in range(2):\n    threading.Thread(target=answer, args=(reasoner,), daemon=True).start()\n"
        "run = reasoner.run('y', params)\n"
        "for number in range(20):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        fine = refused(lambda: reasoner.solve('x')) and refused(lambda: next(run))\n"
        "        reasoner.close()\n        del run\n        sys.exit(0 if fine else 3)\n"
        "    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "    assert code == 0, (number, code)\n"
        "print('fine', flush=True)\nos._exit(0)\n"
    )
    paths = [str(role.path) for role in (trio.draft, trio.target, trio.reward) if role is not None]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *paths], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_of_a_process_with_a_model_gets_an_error_and_ends(trio: Trio) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom rsd_local import *\nfrom rsd_local.errors import EngineError\n"
        "trio = Trio(*(RoleConfig(Path(p), 512, trusted=True) for p in sys.argv[1:]))\n"
        "reasoner = Reasoner.open(trio)\nreasoner.solve('x', Params(limits=Limits(tokens=5)))\n"
        "child = os.fork()\n"
        "def refused(work):\n    try:\n        work()\n    except EngineError as error:\n        return 'fork' in str(error)\n"
        "if not child:\n    fine = refused(lambda: reasoner.solve('x')) and refused(lambda: Reasoner.open(trio))\n"
        "    reasoner.close()\n    sys.exit(0 if fine else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    paths = [str(role.path) for role in (trio.draft, trio.target, trio.reward) if role is not None]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *paths], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
