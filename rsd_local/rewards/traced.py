"""Rewards that the draft's own trace gives, so that no token is evaluated for scoring."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Self

from rsd_local.errors import EngineError
from rsd_local.events import Counters, Role
from rsd_local.rewards.features import Course
from rsd_local.rewards.reading import PendingScore, PendingScores, as_score, one_by_one
from rsd_local.roles import RewardAbilities
from rsd_local.steps import UNCHECKED, Step, Trace

TraceScore = Callable[[Trace, Course], float]
"""From a step's trace and the steps before it to the reward."""

_NO_STEPS = Course()


class TraceReward:
    """Scores one answer's steps by their traces; it holds no cache, only what is known of the accepted steps. See ``roles.Reward``.

    Args:
        score: from a trace to the reward.
        by: the reward's name in scores.
        course: the steps so far.
    """

    def __init__(self, score: TraceScore, by: str, course: Course = _NO_STEPS) -> None:
        self._score, self._by, self._course = score, by, course
        self._before = course  # the last step

    can_check, abilities = True, RewardAbilities(whole=True, immediate=True)

    def start_score(self, step: Step) -> PendingScore:
        """Score the next step at once; of a step of the target, whose trace is empty, there is nothing to read."""
        if step.trace is None:
            raise EngineError("the draft was not traced, so its steps cannot be scored")
        if not len(step.trace.entropies):
            self.read(step)
            return PendingScore(lambda: UNCHECKED, lambda: None)
        score = as_score(self._score(step.trace, self._course), self._by)
        self._before, self._course = self._course, self._course.after(step.trace)
        return PendingScore(lambda: score, lambda: None)

    def start_scores(self, steps: list[Step], asked: Set[int]) -> PendingScores:
        """Score steps, each by its own trace."""
        return one_by_one(self, steps, asked)

    def forget(self) -> None:
        """Take back the step that was scored last."""
        self._course = self._before

    def read(self, step: Step) -> None:
        """Note an accepted step without a score: the target's, of which there is no trace."""
        self._before, self._course = self._course, self._course.after(None)

    def settle(self) -> None:
        """There is nothing to evaluate."""

    def fork(self) -> Self:
        """Another scorer that goes on from here."""
        return type(self)(self._score, self._by, self._course)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to."""
        self._course, fork._course = fork._course, self._course
        self._before, fork._before = fork._before, self._before

    def counters(self) -> dict[Role, Counters]:
        """All zero."""
        return {"reward": Counters()}

    def close(self) -> None:
        """There is nothing to give back."""
