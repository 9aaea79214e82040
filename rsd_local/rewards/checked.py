"""A reward that a program gives: each step is checked in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Set
from concurrent import futures
from typing import Self

from rsd_local.errors import Cancelled, Closed, RSDError, VerifierFailed
from rsd_local.events import CancelToken, Counters, Role
from rsd_local.prompt import Prompt
from rsd_local.rewards.reading import PendingScore, PendingScores, one_by_one
from rsd_local.rewards.verifier.base import Verifier
from rsd_local.rewards.verifier.values import reward_of, said
from rsd_local.roles import RewardAbilities
from rsd_local.steps import UNCHECKED, Score, Step

_SECONDS_TO_LEAVE = 2.0  # for a check that was cancelled; after them nobody waits for it


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
    def abilities(self) -> RewardAbilities:
        """A program is no device's, but some checks take no time."""
        return RewardAbilities(immediate=getattr(self._verifier, "immediate", False))

    @property
    def can_check(self) -> bool:
        """Whether the verifier finds something to check in answers to this prompt."""
        try:
            return self._verifier.checks(self._prompt)
        except Exception as error:  # not a Ctrl-C, which comes here too: what a user's own object raises is one
            if not self._tolerant:
                raise self._failure(error) from error
            return True

    def start_score(self, step: Step) -> PendingScore:
        """Begin to check the next step."""
        future: futures.Future[Score] = futures.Future()
        stop, steps = CancelToken(), self._steps

        def work() -> None:
            with contextlib.ExitStack() as linked:
                try:
                    if self._cancel is not None:
                        linked.enter_context(self._cancel.calling(stop.cancel))
                    future.set_result(self._score(steps, step.text, stop))
                except BaseException as error:  # whatever it is, whoever waits is told
                    future.set_exception(error)

        def wait() -> Score:
            woken = threading.Event()
            future.add_done_callback(lambda _: woken.set())
            with stop.calling(woken.set):
                woken.wait()
            if not futures.wait([future], _SECONDS_TO_LEAVE).done:
                raise Cancelled("the check of a step was cancelled")
            return future.result()

        threading.Thread(target=work, name=f"rsd-check-{self._by}", daemon=True).start()
        self.read(step)
        return PendingScore(wait, stop.cancel)

    def _score(self, steps: tuple[str, ...], step: str, stop: CancelToken) -> Score:
        try:
            value = reward_of(self._verifier.check(self._prompt, steps, step, stop), f"verifier {self._by}")
        except BaseException as error:
            failure = self._failure(error)
            if self._tolerant and isinstance(failure, VerifierFailed):
                return Score(None, self._by, failed=True)
            if failure is error:
                raise
            raise failure from error
        return UNCHECKED if value is None else Score(value, self._by)

    def _failure(self, error: BaseException) -> RSDError:
        """An error of the verifier as one of ours: what it raises of its own must end nothing but the check."""
        if isinstance(error, Cancelled | Closed | VerifierFailed):
            return error
        if isinstance(error, RSDError):
            return VerifierFailed(str(error), hint=error.hint)
        return VerifierFailed(f"verifier {self._by} raised {said(error)}")

    def start_scores(self, steps: list[Step], asked: Set[int]) -> PendingScores:
        """Score steps, one after another."""
        return one_by_one(self, steps, asked)

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
