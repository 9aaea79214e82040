"""A reward that a program gives: each step is checked in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from typing import Self

from rsd_local.errors import Cancelled, SandboxTooWeak, VerifierFailed
from rsd_local.events import CancelToken, Counters, Role
from rsd_local.prompt import Prompt
from rsd_local.rewards.reading import PendingScore
from rsd_local.rewards.verifier.base import Verifier
from rsd_local.steps import UNCHECKED, Score, Step


class CheckReward:
    """Scores one answer's steps by a verifier; it holds no cache, only the texts of the steps. See ``roles.Reward``.

    Args:
        verifier: checks the steps.
        prompt: as the models are asked.
        by: the reward's name in scores.
        tolerant: whether a verifier that does not work is a failed score, and no error.
        cancel: ends whatever it checks.
        steps: the texts of the steps so far.
    """

    def __init__(
        self, verifier: Verifier, prompt: Prompt, by: str, tolerant: bool, cancel: CancelToken | None, steps: tuple[str, ...] = ()
    ) -> None:
        self._verifier, self._prompt, self._by, self._tolerant, self._cancel = verifier, prompt, by, tolerant, cancel
        self._steps = self._before = steps

    @property
    def can_check(self) -> bool:
        """Whether the verifier finds something to check in answers to this prompt."""
        return self._verifier.checks(self._prompt)

    def start_score(self, step: Step) -> PendingScore:
        """Begin to check the next step."""
        future: Future[Score] = Future()
        stop, steps = CancelToken(), self._steps

        def work() -> None:
            with contextlib.ExitStack() as linked:
                try:
                    if self._cancel is not None:
                        linked.enter_context(self._cancel.calling(stop.cancel))
                    future.set_result(self._score(steps, step.text, stop))
                except BaseException as error:  # whatever it is, whoever waits is told
                    future.set_exception(error)

        threading.Thread(target=work, name=f"rsd-check-{self._by}", daemon=True).start()
        self.read(step)
        return PendingScore(future.result, stop.cancel)

    def _score(self, steps: tuple[str, ...], step: str, stop: CancelToken) -> Score:
        try:
            value = self._verifier.check(self._prompt, steps, step, stop)
        except Cancelled:
            raise
        except (VerifierFailed, SandboxTooWeak):
            if not self._tolerant:
                raise
            return Score(None, self._by, failed=True)
        return UNCHECKED if value is None else Score(value, self._by)

    def forget(self) -> None:
        """Take back the step that was scored last."""
        self._steps = self._before

    def read(self, step: Step) -> None:
        """Note an accepted step without a score."""
        self._before, self._steps = self._steps, (*self._steps, step.text)

    def settle(self) -> None:
        """There is nothing to evaluate."""

    def fork(self) -> Self:
        """Another scorer that goes on from here."""
        return type(self)(self._verifier, self._prompt, self._by, self._tolerant, self._cancel, self._steps)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to."""
        self._steps, fork._steps = fork._steps, self._steps
        self._before, fork._before = fork._before, self._before

    def counters(self) -> dict[Role, Counters]:
        """All zero: no model is asked."""
        return {"reward": Counters()}

    def close(self) -> None:
        """There is nothing to give back: the verifier serves other answers too."""
