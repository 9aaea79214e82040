"""The verifier ``command:CMD``: a program of the user's that is kept running and asked about each step.

A question is one line of JSON on its standard input::

    {"prompt": [{"role": "user", "content": "…"}], "question": "…", "steps": ["…", "…"], "step": "…"}

and its answer one line on its standard output, flushed: ``{"reward": 0.5}``, or ``{"reward": null}`` where there is nothing to check.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rsd_local.config import require
from rsd_local.errors import Cancelled, Closed, ConfigError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.program import MAX_LINE, Program
from rsd_local.rewards.verifier.values import reward_of, short


class Command:
    """Asks a program, which is started with the first question and then answers one question after another.

    It runs with the user's rights, environment and current directory, in a session of its own, so that a Ctrl-C in the terminal does not
    reach it. After a failure, a time-out or a cancelled check it is ended with all that it started, and started anew for the next question.

    Args:
        command: the program and its arguments, split as a shell would on POSIX, as given on Windows; no shell runs it.
        seconds: that an answer may take, the program's start included; the time in which others are answered is not counted.

    Raises:
        ConfigError: the command is empty or cannot be split, or ``seconds`` is not above 0.
    """

    def __init__(self, command: str, seconds: float = 30.0) -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"the verifier's command {short(command)!r} cannot be split: {error}", hint="close its quotes") from None
        require(bool(words) and "\0" not in command, "the verifier's command is empty, or holds a NUL", "as in command:'python check.py'")
        require(0 < seconds <= threading.TIMEOUT_MAX, f"the verifier's time limit of {seconds} seconds is not above 0")
        self._arguments: str | list[str] = command if sys.platform == "win32" else words
        self._name, self._seconds = f"verifier program {short(command, 60)!r}", seconds
        self._turn = threading.Condition()
        self._taken = self._closed = False
        self._program: Program | None = None

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None = None) -> float | None:
        """The reward of a step.

        Raises:
            VerifierFailed: the program does not start, ended, took too long, or answered something else.
            Cancelled: ``cancel`` was called.
            Closed: the verifier was closed.
        """
        said = [{"role": message.role, "content": message.content} for message in prompt.messages]
        asked = {"prompt": said, "question": prompt.question, "steps": list(steps), "step": step}
        line = json.dumps(asked).encode() + b"\n"
        token = cancel or CancelToken()
        with self._own_turn(token):
            try:
                return self._read(self._ask(line, token))
            except BaseException:
                self._end()
                raise

    def checks(self, prompt: Prompt) -> bool:
        """Always true: only the program knows."""
        return True

    def close(self) -> None:
        """End the program and what it started; a check that waits for it ends with Closed. A second call does nothing."""
        with self._turn:
            self._closed = True
            program, self._program = self._program, None
            self._turn.notify_all()
        if program is not None:
            program.end(gently=True)

    @contextmanager
    def _own_turn(self, cancel: CancelToken) -> Iterator[None]:
        def wake() -> None:
            with self._turn:
                self._turn.notify_all()

        with self._turn:
            with cancel.calling(wake):
                while self._taken and not cancel.cancelled and not self._closed:
                    self._turn.wait()
            self._refuse(cancel)
            self._taken = True
        try:
            yield
        finally:
            with self._turn:
                self._taken = False
                self._turn.notify()

    def _refuse(self, cancel: CancelToken) -> None:
        if self._closed:
            raise Closed("the verifier was closed")
        if cancel.cancelled:
            raise Cancelled("the check of a step was cancelled")

    def _ask(self, line: bytes, cancel: CancelToken) -> bytes:
        """The program's next line of output."""
        program = self._started()
        unasked = program.unasked()
        if unasked:
            hint = "one line for each line read; other output belongs on standard error"
            raise VerifierFailed(f"{self._name} wrote {short(unasked.decode('utf-8', 'replace'))!r} without being asked", hint=hint)
        if unasked is not None:
            raise self._ended(program)
        with cancel.calling(program.wake):
            answer = program.ask(line, self._seconds)
        self._refuse(cancel)
        if answer is None:
            raise VerifierFailed(f"{self._name} did not answer within {self._seconds:g} seconds{program.last_words()}")
        if not answer.endswith(b"\n"):
            if len(answer) >= MAX_LINE:
                raise VerifierFailed(f"{self._name} answered with a line of more than {MAX_LINE:,} bytes")
            raise self._ended(program)
        return answer

    def _ended(self, program: Program) -> VerifierFailed:
        message = f"{self._name} {program.how_it_ended()} before it answered{program.last_words()}"
        return VerifierFailed(message, hint="it has to answer one line after another until its input ends")

    def _started(self) -> Program:
        with self._turn:
            program = self._program
        if program is None:
            try:
                program = Program(self._arguments)
            except (OSError, ValueError) as error:
                hint = "give its full path, or a command that the terminal finds"
                raise VerifierFailed(f"{self._name} cannot be started: {error}", hint=hint) from None
            with self._turn:
                closed = self._closed
                self._program = None if closed else program
            if closed:
                program.end(gently=False)
                raise Closed("the verifier was closed")
        return program

    def _read(self, line: bytes) -> float | None:
        text = line.decode("utf-8", "replace")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or "reward" not in answer:
            hint = 'one line of JSON for each line read, as {"reward": 0.5}, flushed; other output belongs on standard error'
            raise VerifierFailed(f"{self._name} answered {short(text)!r}, which is no reward", hint=hint)
        return reward_of(answer["reward"], self._name)

    def _end(self) -> None:
        with self._turn:
            program, self._program = self._program, None
        if program is not None:
            program.end(gently=False)
