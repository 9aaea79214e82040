"""A verifier from a Python callable."""

from __future__ import annotations

import threading

from rsd_local.config import require
from rsd_local.errors import Cancelled, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.base import Check
from rsd_local.rewards.verifier.values import reward_of, said, short


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

    def __init__(self, check: Check, name: str = "", seconds: float = 30.0) -> None:
        require(callable(check), f"a verifier must be callable, not {short(repr(check))}", "check(prompt, steps, step) -> float | None")
        require(0 < seconds <= threading.TIMEOUT_MAX, f"the verifier's time limit of {seconds} seconds is not above 0")
        self._check, self._seconds = check, seconds
        self._name = name or short(getattr(check, "__qualname__", type(check).__name__))

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None = None) -> float | None:
        """The reward of a step.

        Raises:
            VerifierFailed: the callable raised, took too long, or returned no reward.
            Cancelled: ``cancel`` was called.
        """
        ended = threading.Event()
        values: list[object] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                values.append(self._check(prompt, steps, step))
            except BaseException as error:  # SystemExit and KeyboardInterrupt of the callable end nothing but itself
                errors.append(error)
            finally:
                ended.set()

        thread = threading.Thread(target=call, name=f"rsd-verifier-{self._name}", daemon=True)
        if cancel is None:
            thread.start()
            ended.wait(self._seconds)
        else:
            with cancel.calling(ended.set):
                if not cancel.cancelled:
                    thread.start()
                ended.wait(self._seconds)
            if cancel.cancelled:
                raise Cancelled("the check of a step was cancelled")
        if errors:
            error = errors[0]
            raise VerifierFailed(f"verifier {self._name} raised {said(error)}") from error
        if not values:
            hint = "a longer time limit, or a verifier that ends; Python cannot end it, so its thread was left behind"
            raise VerifierFailed(f"verifier {self._name} took longer than {self._seconds:g} seconds", hint=hint)
        return reward_of(values[0], f"verifier {self._name}")

    def checks(self, prompt: Prompt) -> bool:
        """Always true: only the callable knows."""
        return True

    def close(self) -> None:
        """There is nothing that could be ended."""
