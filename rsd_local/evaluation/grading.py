"""Whether an answer is right: numbers and letters at once, expressions through math-verify in a process of its own, code by tests
that run in the sandbox."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import re
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

from rsd_local.answers import number, plain, same_number, without_text_commands
from rsd_local.config import require
from rsd_local.errors import ConfigError, RSDError
from rsd_local.evaluation.items import HiddenTests, Item
from rsd_local.evaluation.quantities import is_another, quantity
from rsd_local.events import CancelToken
from rsd_local.programs.answers import graded_code
from rsd_local.programs.check import check_python
from rsd_local.programs.example import Example
from rsd_local.programs.syntax import parsed
from rsd_local.sandbox import Bounds, Sandbox

_SECONDS_TO_START = 120.0  # importing sympy on a busy machine
_MEMORY = 4 << 30  # bytes of the grader: 10^{10^{10}} must not take the machine with it
_NO_SANDBOX = "these questions are graded by running what the models write"
_RUN_CODE = "give --run-code to run it in a sandbox; rsd doctor shows what that keeps it from"
_LETTER = re.compile(r"\W*([A-Z])\W*(?:[).:].*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Grade:
    """What was found of a solution.

    Attributes:
        right: whether it is.
        answer: what was graded: the content of the box, or the code; None where there is none.
        checks: for each part of the tests whether all of it passed; empty where there are no parts.
    """

    right: bool
    answer: str | None
    checks: dict[str, bool] = field(default_factory=dict)


class Grader:
    """Grades answers from any number of threads; opens its process when the first expression comes.

    Args:
        seconds: that math-verify may take for one answer; then the answer is wrong and the process starts anew.
        sandbox: where the tests of code run; without it code is not graded.
        bounds: of one answer's tests, 15 seconds by default.
    """

    def __init__(self, seconds: float = 10.0, sandbox: Sandbox | None = None, *, bounds: Bounds | None = None) -> None:
        self._seconds, self._sandbox, self._bounds = seconds, sandbox, bounds or Bounds(seconds=15.0)
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def grade(self, item: Item, answer: str | None) -> bool:
        """Whether an answer is right; one that cannot be read, or does not run, is wrong.

        Where a plain number is expected, a unit behind the given one is passed over: ``80 km/h`` for 80.

        Args:
            item: the question with its right answer.
            answer: the content of the box, None where there is none; of a question with tests, the whole solution.

        Raises:
            RSDError: math-verify's process does not start.
            ConfigError: the question has tests, and there is no sandbox.
        """
        if answer is None or not answer.strip():
            return False
        if item.tests is not None:
            return self._grade_code(item.tests, answer, None).right
        if item.grading == "choice":
            return letter(answer) == item.answer
        expected = number(item.answer)
        if expected is not None:
            given = quantity(answer)
            if given is not None:
                return same_number(expected, given) and not (expected[1] and not given[1] and number(answer) is None)  # 50 % is not 50 km
            if is_another(answer):
                return False
        if item.grading == "number":
            return False
        return plain(answer) == plain(item.answer) or self._ask(item.answer, answer)

    def grade_solution(self, item: Item, text: str, answer: str | None, cancel: CancelToken | None = None) -> Grade:
        """What is found of a whole solution.

        Args:
            item: the question.
            text: the solution.
            answer: the content of its box, None where there is none.
            cancel: ends the tests early.

        Raises:
            RSDError, ConfigError: as ``grade``.
            VerifierFailed: Python does not start in the sandbox.
            Cancelled: ``cancel`` was called.
        """
        if item.tests is not None:
            return self._grade_code(item.tests, text, cancel)
        return Grade(self.grade(item, answer), answer)

    def _grade_code(self, tests: HiddenTests, text: str, cancel: CancelToken | None) -> Grade:
        if self._sandbox is None:
            raise ConfigError(_NO_SANDBOX, hint=_RUN_CODE)
        code = graded_code(text, tests.entry)
        parts = dict.fromkeys((test.part for test in tests.tests if test.part), False)
        if code is None or parsed(code) is None:
            return Grade(False, code, parts)
        examples = [Example(test.source, setup=tests.setup, names=(tests.entry,), part=test.part) for test in tests.tests]
        verdict = check_python(
            [code], examples, self._sandbox, preamble=tests.preamble, names=[tests.entry], bounds=self._bounds, cancel=cancel
        )
        for part in parts:
            parts[part] = all(passed for test, passed in zip(tests.tests, verdict.results, strict=True) if test.part == part)
        return Grade(verdict.complete, code, parts)

    def close(self) -> None:
        """Ends the process; the next expression starts it again."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, expected: str, answer: str) -> bool:
        with self._lock:
            pipe = self._opened()
            try:
                pipe.send((expected, answer))
                if pipe.poll(self._seconds):
                    return bool(pipe.recv())
            except (EOFError, OSError):
                pass  # it died of this answer
            self._stop()
            return False

    def _opened(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self._stop()
        # Spawned: a fork of a process with llama.cpp's threads may hang.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), name="rsd-grader", daemon=True)
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        if not ours.poll(_SECONDS_TO_START) or not _greeted(ours):
            self._stop()
            raise RSDError("the grader's process does not start", hint="what it says above tells why")
        return ours

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def require_math_verify(items: list[Item]) -> None:
    """Raises ConfigError where the questions need math-verify and it is not installed."""
    needed = any(item.grading == "math" for item in items)
    installed = importlib.util.find_spec("math_verify") is not None
    require(installed or not needed, "math-verify is not installed", "pip install 'rsd-local[bench]'")


def require_sandbox(items: list[Item], sandbox: Sandbox | None) -> None:
    """Raises ConfigError where questions are graded by tests and no code may run."""
    require(sandbox is not None or all(item.tests is None for item in items), _NO_SANDBOX, _RUN_CODE)


def letter(text: str) -> str | None:
    """The letter of a choice, from ``B``, ``(b)``, ``\\text{B}`` or ``B) the text of it``; None where there is none."""
    match = _LETTER.fullmatch(without_text_commands(text).strip().strip("$").upper())
    return match[1] if match else None


def _greeted(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv() == "ready")
    except (EOFError, OSError):
        return False


def _serve(pipe: Connection) -> None:
    """The process's loop: a right answer and a given one in, a verdict out."""
    import logging
    import signal

    # A Ctrl-C is for the bench, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    from math_verify import parse, verify  # type: ignore[import-untyped]

    pipe.send("ready")
    while True:
        try:
            expected, answer = pipe.recv()
        except (EOFError, OSError):
            return  # the bench is gone
        # Its own time limits are signals; ours is the end of this process.
        try:
            gold = parse(f"${expected}$", parsing_timeout=None)
            given = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
            right = bool(verify(gold, given, timeout_seconds=None))
        except Exception:  # math-verify lets through whatever sympy raises on a strange answer
            right = False
        pipe.send(right)
