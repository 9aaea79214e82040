"""Rewards that the draft's own trace gives, so that no token is evaluated for scoring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from rsd_local.errors import EngineError
from rsd_local.events import CancelToken, Counters
from rsd_local.rewards.base import Scoring
from rsd_local.rewards.features import Course
from rsd_local.runtime import Trace

TraceScore = Callable[[Trace, Course], float]
"""From a step's trace and the steps before it to the reward."""

_NO_STEPS = Course()


class TraceReward:
    """Scores one question's steps by their traces; it holds no cache, only what is known of the steps that stand."""

    def __init__(self, score: TraceScore, course: Course = _NO_STEPS) -> None:
        self._score, self._course = score, course
        self._before = course  # the last step

    def start_score(self, step: str, trace: Trace | None = None, cancel: CancelToken | None = None) -> Scoring:
        """Scores the next step at once."""
        if trace is None:
            raise EngineError("the draft was not traced, so its steps cannot be scored")
        value = self._score(trace, self._course)
        self._before, self._course = self._course, self._course.after(trace)
        return lambda: value

    def forget(self) -> None:
        """Takes back the step that was scored last."""
        self._course = self._before

    def read(self, step: str) -> None:
        """Notes a step that stands without a score."""
        self._before, self._course = self._course, self._course.after(None)

    def go_on(self, steps: list[str], question: str) -> bool:
        """The next answer's steps are a course of their own."""
        self._before = self._course = _NO_STEPS
        return True

    def settle(self, cancel: CancelToken | None = None) -> None:
        """There is nothing to evaluate."""

    def fork(self) -> Self:
        """Another scorer that goes on from here."""
        return type(self)(self._score, self._course)

    def adopt(self, fork: Self) -> None:
        """Goes on where a fork has come to."""
        self._course, fork._course = fork._course, self._course
        self._before, fork._before = fork._before, self._before

    def counters(self) -> Counters:
        """All zero."""
        return Counters()

    def close(self) -> None:
        """There is nothing to give back."""
