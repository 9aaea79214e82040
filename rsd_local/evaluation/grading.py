"""Whether an answer is right: numbers and letters at once, expressions through math-verify in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import re
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

from rsd_local.answers import number, plain, same_number, without_text_commands
from rsd_local.config import require
from rsd_local.errors import RSDError
from rsd_local.evaluation.items import Item

_SECONDS_TO_START = 120.0  # importing sympy on a busy machine
_MEMORY = 4 << 30  # bytes of the grader: 10^{10^{10}} must not take the machine with it
_LETTER = re.compile(r"\W*([A-Z])\W*(?:[).:].*)?", re.DOTALL)


class Grader:
    """Grades answers from any number of threads; opens its process when the first expression comes.

    Args:
        seconds: that math-verify may take for one answer; then the answer is wrong and the process starts anew.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def grade(self, item: Item, answer: str | None) -> bool:
        """Whether an answer is right; one that cannot be read is wrong.

        Args:
            item: the question with its right answer.
            answer: the content of the box, None where there is none.

        Raises:
            RSDError: math-verify's process does not start.
        """
        if answer is None or not answer.strip():
            return False
        if item.grading == "choice":
            return letter(answer) == item.answer
        expected, given = number(item.answer), number(answer)
        if expected is not None and given is not None:
            return same_number(expected, given)
        if item.grading == "number":
            return False
        return plain(answer) == plain(item.answer) or self._ask(item.answer, answer)

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
