"""Models in a process of their own: the same answers, and a program that goes on when that process does not."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tiny import write_model

from rsd_local import CancelToken, Limits, Params, Prompt, Reasoner, RoleConfig, Sampling, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.errors import Cancelled, Closed, ConfigError, ContextFull, EngineCrashed, EngineError, ModelNotFound, QuestionRefused
from rsd_local.events import Counters, Event, Finished, StepDone
from rsd_local.isolated import IsolatedBackend
from rsd_local.isolated_child import WINDOW

QUESTION, ANSWER = "(37+48)*6-129", "381"
ANY = "What is the number of the day after the last one?"
DRAWN = Params(Sampling(0.8, seed=3), Weighting("constant", probability=0.5), Limits(tokens=60, step_tokens=7, repeats=0))
LONG = replace(DRAWN, limits=Limits(tokens=1500, steps=10_000, step_tokens=7, repeats=0))
KILLS = 20
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """Random models, which write whatever bytes there are."""
    folder = tmp_path_factory.mktemp("isolated")
    return Trio(*(RoleConfig(write_model(folder / f"{seed}.gguf", "dense", seed), 2048, threads=1, trusted=True) for seed in range(3)))


@pytest.fixture(scope="module")
def shared(tiny: Trio) -> Iterator[Reasoner]:
    with Reasoner.open(replace(tiny, parallel=2), isolated=True) as reasoner:
        yield reasoner


def backend(reasoner: Reasoner) -> IsolatedBackend:
    held = reasoner._models._held
    assert held is not None and isinstance(held.backend, IsolatedBackend)
    return held.backend


def child(reasoner: Reasoner) -> int:
    found = backend(reasoner).pid
    assert found is not None
    return found


def ends(pid: int, seconds: float = 30) -> bool:
    """Whether a process is gone, zombies included."""
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not psutil.pid_exists(pid)


def untimed(event: Event) -> Event:
    """Without what two runs in one process do not have in common either: seconds, and the rows that are guessed by them."""
    if isinstance(event, StepDone):
        return replace(event, seconds=0.0)
    if isinstance(event, Finished):
        return replace(event, counters={role: counted(one) for role, one in event.counters.items()})
    return event


def counted(one: Counters) -> Counters:
    surely = one.evaluated_tokens - one.ahead_tokens
    changing = dict.fromkeys(("ahead_tokens", "kept_tokens", "missed_guesses", "decode_calls"), 0)
    return replace(one, seconds=0.0, waiting_seconds=0.0, evaluated_tokens=surely, **changing)


def certainly_crash(prompt: Prompt, steps: tuple[str, ...], step: str) -> float:
    """A verifier that reads where nothing is."""
    ctypes.string_at(0)
    return 1.0


def crash_at_129(prompt: Prompt, steps: tuple[str, ...], step: str) -> float:
    """One that does so for one question only."""
    return certainly_crash(prompt, steps, step) if "129" in prompt.question else 1.0


def test_the_same_events_come_from_another_process(tiny: Trio) -> None:
    """Texts, rewards and counters, of models that draw, and write bytes that are no characters."""
    with Reasoner.open(tiny) as here, Reasoner.open(tiny, isolated=True) as there:
        for strategy in ("rsd", "target", "speculative"):
            for text in (True, False):
                events = [[untimed(event) for event in one.run(ANY, DRAWN, strategy=strategy, text=text)] for one in (here, there)]
                assert events[0] == events[1]
        whole = "".join(event.text for event in events[0] if isinstance(event, StepDone))
        assert not whole.isascii()
        result = there.solve(ANY, DRAWN)
        assert result.text == here.solve(ANY, DRAWN).text and result.steps and all(step.seconds > 0 for step in result.steps)


def test_abacus_answers_as_it_does_here() -> None:
    with Reasoner.open("abacus") as here, Reasoner.open("abacus", isolated=True) as there:
        for question in (QUESTION, "12*9-44", "7*(8+5)-31"):
            one, other = here.solve(question), there.solve(question)
            assert (one.answer, one.text, one.target_share) == (other.answer, other.text, other.target_share)
            assert one.paper_flops == other.paper_flops > 0
        with pytest.raises(QuestionRefused):
            there.solve("Who was Gauss?")
        with pytest.raises(EngineError, match="process of their own"):
            there.engines()


def test_errors_come_over_with_their_hints_and_the_process_goes_on(shared: Reasoner) -> None:
    pid = child(shared)
    with pytest.raises(ContextFull) as caught:
        shared.solve("word " * 5000, DRAWN)
    assert caught.value.hint and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="needs . sequences"):
        shared.solve(ANY, DRAWN, strategy="majority")
    assert shared.solve(ANY, DRAWN).steps and child(shared) == pid


def test_many_threads_ask_at_once() -> None:
    questions, answers = [QUESTION, "12*9-44", "7*(8+5)-31", "25+17*3"] * 3, dict[int, object]()
    with Reasoner.open(replace(find_trio("abacus"), parallel=4), isolated=True) as reasoner:
        expected = [reasoner.solve(question).answer for question in questions[:4]] * 3

        def ask(number: int) -> None:
            try:
                answers[number] = reasoner.solve(questions[number]).answer
            except Exception as error:
                answers[number] = error

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(questions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert [answers.get(number) for number in range(len(questions))] == expected and expected[0] == ANSWER


def test_a_cancel_ends_a_run_and_leaving_early_frees_its_place(shared: Reasoner) -> None:
    token, seen = CancelToken(), list[Event]()
    for event in shared.run(ANY, LONG, cancel=token):
        seen.append(event)
        if len(seen) == 5:
            token.cancel()
    end = seen[-1]
    assert isinstance(end, Finished) and end.reason == "cancelled" and len(seen) < 5 + 3 * WINDOW
    steps = [event for event in seen if isinstance(event, StepDone)]
    for author in ("draft", "target"):
        counters = end.counters[author]
        assert counters.generated_tokens - counters.discarded_tokens == sum(step.tokens for step in steps if step.author == author)
    for _ in range(3):
        next(shared.run(ANY, LONG))
    gc.collect()
    assert shared.solve(ANY, DRAWN).steps and len(backend(shared)._inboxes) == 1


def test_a_slow_reader_stops_the_writing(shared: Reasoner) -> None:
    with shared.run(ANY, LONG) as run:
        next(run)
        (inbox,) = [inbox for number, inbox in backend(shared)._inboxes.items() if number]
        sizes = list[int]()
        while len(sizes) < 4 or sizes[-1] > sizes[-2]:
            time.sleep(0.5)
            sizes.append(inbox.qsize())
        assert 0 < sizes[-1] <= WINDOW
        assert shared.solve(ANY, DRAWN).steps, "another one is not held up"


def test_conversations_futures_and_loops_work_as_they_do_here(shared: Reasoner) -> None:
    with shared.converse(DRAWN) as talk:
        talk.solve("One?")
        assert talk.solve("Two?").counters["draft"].cached_tokens > 0 and len(talk.turns) == 2
    assert all(future.result(120).steps for future in [shared.run(ANY, DRAWN).future() for _ in range(3)])
    stopped = shared.run(ANY, LONG).future()
    assert stopped.cancel()
    with pytest.raises(CancelledError):
        stopped.result(10)

    async def main() -> None:
        async with Reasoner.open_async("abacus", isolated=True) as abacus:
            assert [event.answer async for event in abacus.run(QUESTION) if isinstance(event, Finished)] == [ANSWER]
            results = await asyncio.gather(*(asyncio.wrap_future(abacus.run(QUESTION).future()) for _ in range(3)))
            assert [result.answer for result in results] == [ANSWER] * 3
        waiting = asyncio.ensure_future(asyncio.wrap_future(shared.run(ANY, LONG).future()))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert shared.solve(ANY, DRAWN).steps


@posix
def test_a_killed_process_ends_its_runs_and_the_next_question_is_answered() -> None:
    """Twenty times, at random moments, with two questions in flight; nothing is left of any of them."""
    moments, crashed, me, before = random.Random(5), 0, psutil.Process(), 0
    with Reasoner.open(replace(find_trio("abacus"), parallel=2), isolated=True) as reasoner:
        assert reasoner.solve(QUESTION).answer == ANSWER
        for _ in range(KILLS):
            outcomes, enough = list[object](), threading.Event()

            def ask(outcomes: list[object] = outcomes, enough: threading.Event = enough) -> None:
                while not enough.is_set():
                    try:
                        outcomes.append(reasoner.solve(QUESTION).answer)
                    except Exception as error:
                        outcomes.append(error)

            threads = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            time.sleep(moments.random() * 0.3)
            victim, pid = backend(reasoner), child(reasoner)
            os.kill(pid, signal.SIGKILL)
            assert victim._ended.wait(30)
            enough.set()
            for thread in threads:
                thread.join(300)  # one may have begun to start the next process
                assert not thread.is_alive()
            errors = [one for one in outcomes if one != ANSWER]
            assert all(type(one) is EngineCrashed and "SIGKILL" in str(one) and "\n" not in str(one) for one in errors), errors
            crashed += len(errors)
            assert reasoner.solve(QUESTION).answer == ANSWER
            assert ends(pid), "a zombie"
            before = before or me.num_fds()
        assert crashed >= KILLS, "hardly a question was in flight"
        assert me.num_fds() <= before, "descriptors were left behind"
        assert [one for one in me.children() if one.status() == psutil.STATUS_ZOMBIE] == []


@posix
def test_a_native_fault_ends_one_run_and_no_program(tiny: Trio) -> None:
    trio = replace(tiny, reward=None, reward_kind="verifier", verifier=crash_at_129)
    with Reasoner.open(trio, isolated=True) as reasoner:
        assert reasoner.solve(ANY, DRAWN).steps
        pid = child(reasoner)
        for _ in range(2):
            with pytest.raises(EngineCrashed, match="SIGSEGV") as caught:
                reasoner.solve("129?", replace(DRAWN, weighting=Weighting()))
            assert "again" in caught.value.hint
        assert reasoner.solve(ANY, DRAWN).steps and child(reasoner) != pid


def test_a_verifier_that_no_other_process_can_have_is_refused(tiny: Trio) -> None:
    trio = replace(tiny, reward=None, reward_kind="verifier", verifier=lambda prompt, steps, step: 1.0)
    with pytest.raises(ConfigError, match="<lambda> cannot be sent to another process") as caught:
        Reasoner.open(trio, isolated=True)
    assert "top level" in caught.value.hint and "\n" not in str(caught.value)


def test_a_trio_that_cannot_be_opened_says_why(tiny: Trio, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        Reasoner.open(replace(tiny, draft=replace(tiny.draft, path=tmp_path / "none.gguf")), isolated=True)


def test_loading_tells_how_far_it_is_and_can_be_cancelled(tiny: Trio) -> None:
    """By a token, and by what the callback raises; the process is gone at once."""
    seen = list[tuple[str, float]]()
    Reasoner.open(tiny, lambda *news: seen.append(news), isolated=True).close()
    assert {role for role, _ in seen} == {"draft", "target", "reward"} and seen[-1][1] == 1.0
    assert [share for _, share in seen if not 0 <= share <= 1] == []
    token = CancelToken()
    with pytest.raises(Cancelled):
        Reasoner.open(tiny, lambda *_: token.cancel(), isolated=True, cancel=token)

    def refuse(*_: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        Reasoner.open(tiny, refuse, isolated=True)


@pytest.mark.parametrize("hangs", [False, pytest.param(True, marks=posix)])
def test_closing_ends_runs_with_closed_in_bounded_time(tiny: Trio, hangs: bool) -> None:
    reasoner, errors, begun = Reasoner.open(tiny, isolated=True), list[BaseException](), threading.Event()
    pid = child(reasoner)

    def answer() -> None:
        try:
            while True:
                with reasoner.run(ANY, LONG) as run:
                    next(run)
                    begun.set()
                    run.result()
        except EngineError as error:
            errors.append(error)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    assert begun.wait(60)
    if hangs:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    reasoner.close()
    assert time.monotonic() - began < 20
    thread.join(10)
    assert [type(error) for error in errors] == [Closed] and ends(pid)
    reasoner.close()
    with pytest.raises(Closed):
        reasoner.run(ANY)


def test_a_reload_takes_over_and_a_failed_one_changes_nothing(tiny: Trio, tmp_path: Path) -> None:
    other = replace(tiny, target=tiny.draft, draft=tiny.target, parallel=2)
    with Reasoner.open(tiny, isolated=True) as reasoner:
        first, pid = reasoner.solve(ANY, DRAWN).text, child(reasoner)
        with pytest.raises(ModelNotFound):
            reasoner.reload(replace(tiny, draft=replace(tiny.draft, path=tmp_path / "none.gguf")))
        assert child(reasoner) == pid and reasoner.config is tiny and reasoner.solve(ANY, DRAWN).text == first
        with reasoner.run(ANY, LONG) as running:
            next(running)
            reasoner.reload(other)
            assert reasoner.config is other and reasoner.solve(ANY, DRAWN).text != first
            assert psutil.pid_exists(pid) and running.result().finish_reason in ("stop", "length")
        assert ends(pid), "the old process goes with its last run"
        assert child(reasoner) != pid


def test_idle_models_are_unloaded_and_come_back(tiny: Trio) -> None:
    with Reasoner.open(tiny, isolated=True, idle_unload=0.2) as reasoner:
        pid = child(reasoner)
        assert ends(pid) and not reasoner.loaded
        with reasoner.run(ANY, LONG) as run:
            next(run)
            time.sleep(0.5)
            assert reasoner.loaded, "a run that is read slowly is no idleness"
        assert ends(pid) and reasoner.solve(ANY, DRAWN).steps


PARENT = """
import os, sys, time
from pathlib import Path
from rsd_local import Limits, Params, Reasoner, RoleConfig, Trio

def main():
    params = Params(limits=Limits(tokens=40))
    trio = Trio(*(RoleConfig(Path(path), 512, threads=1, trusted=True) for path in sys.argv[2:]))
    with Reasoner.open(trio, isolated=True) as reasoner:
        pid = reasoner._models._held.backend.pid
        try:
            print(pid, flush=True)
            {body}
        except KeyboardInterrupt:
            reasoner.solve("x", params)
            assert reasoner._models._held.backend.pid == pid
            print("went on", flush=True)

if __name__ == "__main__":
    main()
"""


def parent(tmp_path: Path, tiny: Trio, body: str) -> tuple[subprocess.Popen[str], int]:
    """A program with an isolated reasoner, in a group of its own as a shell would start it, and its child."""
    script = tmp_path / "program.py"
    script.write_text(PARENT.replace("{body}", body))
    paths = [str(role.path) for role in (tiny.draft, tiny.target, tiny.reward) if role is not None]
    started = subprocess.Popen(
        [sys.executable, str(script), "x", *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line.strip().isdigit(), started.communicate(timeout=30)
    return started, int(line)


@posix
@pytest.mark.parametrize("stopped", [False, True])
def test_no_process_outlives_the_program(tmp_path: Path, tiny: Trio, stopped: bool) -> None:
    program, pid = parent(tmp_path, tiny, "time.sleep(600)")
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    program.kill()
    program.communicate(timeout=30)
    assert ends(pid)


@posix
def test_ctrl_c_in_a_terminal_is_for_the_program_alone(tmp_path: Path, tiny: Trio) -> None:
    program, pid = parent(tmp_path, tiny, "time.sleep(600)")
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert (out, err, program.returncode) == ("went on\n", "", 0) and ends(pid)


@posix
def test_a_program_that_forgets_to_close_ends_all_the_same(tmp_path: Path, tiny: Trio) -> None:
    program, pid = parent(tmp_path, tiny, "reasoner.__class__.__exit__ = lambda *_: None")
    out, err = program.communicate(timeout=60)
    assert (err, program.returncode) == ("", 0) and ends(pid)


def test_a_script_without_its_guard_is_told_what_is_missing(tmp_path: Path) -> None:
    """Spawn imports the main module again, which would open another reasoner; no traceback of that process is printed."""
    script = tmp_path / "script.py"
    script.write_text(
        "from rsd_local import Reasoner\nfrom rsd_local.errors import EngineCrashed\n"
        "try:\n    Reasoner.open('abacus', isolated=True)\n"
        "except EngineCrashed as error:\n"
        "    print(error, error.hint, sep='\\n')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    message, hint = done.stdout.splitlines()
    assert "did not start" in message and "__name__ == '__main__'" in hint
