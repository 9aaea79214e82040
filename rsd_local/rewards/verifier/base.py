"""What every verifier is: a program that checks a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt

Check = Callable[[Prompt, tuple[str, ...], str], float | None]
"""A check from Python: of the prompt, the texts of the accepted steps and that of the new one. Gives its reward in [0, 1], or None."""


class Verifier(Protocol):
    """Checks steps, from any number of threads at once, of any number of answers; it keeps nothing of one answer.

    One with ``immediate = True`` takes no time: while others check, the draft writes the next step already.
    """

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None) -> float | None:
        """The reward of a step.

        Args:
            prompt: as asked.
            steps: the texts of the accepted steps before it.
            step: its text.
            cancel: ends the check early.

        Returns:
            A number in [0, 1], where 1 is for a step that passes everything; None where there is nothing to check.

        Raises:
            VerifierFailed: the verifier itself did not work. A step that fails its check is no failure of the verifier.
            Cancelled: ``cancel`` was called.
        """

    def checks(self, prompt: Prompt) -> bool:
        """Whether a step of an answer to this prompt could be checked; where it is false, ``check`` returns None for each."""

    def close(self) -> None:
        """End what runs beside this process. A second call does nothing."""
