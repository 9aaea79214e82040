"""Verifiers from Python: a callable of the user's, or an object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from rsd_local.config import require
from rsd_local.errors import Cancelled, RSDError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.base import Check
from rsd_local.rewards.verifier.values import reward_of, said, short

T = TypeVar("T")

SECONDS = 30.0
"""That a call of a user's code may take."""


class Called:
    """Asks a callable for the reward of a step; it must bear calls from many threads at once.

    Each call runs in a thread of its own. Python cannot end a thread: a call that takes too long, or that is cancelled, is left behind
    and goes on unheard until it returns or the process ends.

    Args:
        check: the callable.
        name: of it, for messages.
        seconds: that a call may take.

    Raises:
        ConfigError: ``check`` cannot be called, or ``seconds`` is not above 0.
    """

    def __init__(self, check: Check, name: str = "", seconds: float = SECONDS) -> None:
        require(callable(check), f"a verifier must be callable, not {short(repr(check))}", "check(prompt, steps, step) -> float | None")
        _require_time(seconds)
        self._check, self._seconds = check, seconds
        self._name = self.__name__ = name or short(getattr(check, "__qualname__", type(check).__name__))

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None = None) -> float | None:
        """The reward of a step.

        Raises:
            VerifierFailed: the callable raised, took too long, or returned no reward.
            Cancelled: ``cancel`` was called.
        """
        value = _in_time(lambda: self._check(prompt, steps, step), self._name, self._seconds, cancel)
        return reward_of(value, f"verifier {self._name}")

    def checks(self, prompt: Prompt) -> bool:
        """Always true: only the callable knows."""
        return True

    def close(self) -> None:
        """There is nothing that could be ended."""


class Limited:
    """Asks a verifier that is an object of the user's own, each call in a thread of its own and in limited time, as ``Called``.

    Args:
        verifier: the object. Without a ``checks`` it may check any answer; without a ``close`` there is nothing to end.
        name: of it, for messages.
        seconds: that a call may take.

    Raises:
        ConfigError: ``seconds`` is not above 0.
    """

    def __init__(self, verifier: Any, name: str = "", seconds: float = SECONDS) -> None:
        _require_time(seconds)
        self._verifier, self._seconds = verifier, seconds
        self._name = self.__name__ = name or type(verifier).__name__
        self.immediate = bool(getattr(verifier, "immediate", False))

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None = None) -> float | None:
        """The reward of a step.

        Raises:
            VerifierFailed: the object raised, took too long, or returned no reward.
            Cancelled: ``cancel`` was called.
        """
        value = _in_time(lambda: self._verifier.check(prompt, steps, step, cancel), self._name, self._seconds, cancel, RSDError)
        return reward_of(value, f"verifier {self._name}")

    def checks(self, prompt: Prompt) -> bool:
        """Whether a step of an answer to this prompt could be checked.

        Raises:
            VerifierFailed: the object raised, or took too long.
        """
        asked = getattr(self._verifier, "checks", None)
        return asked is None or _in_time(lambda: bool(asked(prompt)), self._name, self._seconds, None, RSDError)

    def close(self) -> None:
        """End what runs beside this process.

        Raises:
            VerifierFailed: the object raised, or took too long.
        """
        close = getattr(self._verifier, "close", None)
        if close is not None:
            _in_time(close, self._name, self._seconds, None, RSDError)


def _require_time(seconds: float) -> None:
    require(0 < seconds <= threading.TIMEOUT_MAX, f"the verifier's time limit of {seconds} seconds is not above 0")


def _in_time(
    call: Callable[[], T], name: str, seconds: float, cancel: CancelToken | None, passed_on: type[BaseException] | tuple[()] = ()
) -> T:
    """What a call gives that is made in a thread of its own.

    Args:
        call: of the user's code.
        name: of the verifier, for messages.
        seconds: that it may take.
        cancel: ends the wait early.
        passed_on: what it raises of this kind is raised as it is.

    Raises:
        VerifierFailed: it raised something else, or took too long.
        Cancelled: ``cancel`` was called.
    """
    ended = threading.Event()
    values: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            values.append(call())
        except BaseException as error:  # SystemExit and KeyboardInterrupt of the user's code end nothing but itself
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=work, name=f"rsd-verifier-{name}", daemon=True)
    if cancel is None:
        thread.start()
        ended.wait(seconds)
    else:
        with cancel.calling(ended.set):
            if not cancel.cancelled:
                thread.start()
            ended.wait(seconds)
        if cancel.cancelled:
            raise Cancelled("the check of a step was cancelled")
    if errors:
        error = errors[0]
        if isinstance(error, passed_on):
            raise error
        raise VerifierFailed(f"verifier {name} raised {said(error)}") from error
    if not values:
        hint = "a verifier that ends, or more seconds for it (Called, Limited); Python cannot end it, so its thread was left behind"
        raise VerifierFailed(f"verifier {name} took longer than {seconds:g} seconds", hint=hint)
    return values[0]
