"""Rewards that the draft's own trace gives, so that no token is evaluated for scoring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from rsd_local.errors import EngineError
from rsd_local.events import CancelToken, Counters
from rsd_local.rewards.base import Scoring
from rsd_local.runtime import Trace

TraceScore = Callable[[Trace, int], float]
"""From a step's trace and its place in the solution, from 0, to the reward."""


class TraceReward:
    """Scores one question's steps by their traces; it holds no cache, only how many steps stand."""

    def __init__(self, score: TraceScore, steps: int = 0) -> None:
        self._score, self._steps = score, steps

    def start_score(self, step: str, trace: Trace | None = None, cancel: CancelToken | None = None) -> Scoring:
        """Scores the next step at once."""
        if trace is None:
            raise EngineError("the draft was not traced, so its steps cannot be scored")
        value = self._score(trace, self._steps)
        self._steps += 1
        return lambda: value

    def forget(self) -> None:
        """Takes back the step that was scored last."""
        self._steps -= 1

    def read(self, step: str) -> None:
        """Notes a step that stands without a score."""
        self._steps += 1

    def go_on(self, steps: list[str], question: str) -> bool:
        """Counts the next answer's steps from its first."""
        self._steps = 0
        return True

    def settle(self, cancel: CancelToken | None = None) -> None:
        """There is nothing to evaluate."""

    def fork(self) -> Self:
        """Another scorer that goes on from here."""
        return type(self)(self._score, self._steps)

    def adopt(self, fork: Self) -> None:
        """Goes on where a fork has come to."""
        self._steps, fork._steps = fork._steps, self._steps

    def counters(self) -> Counters:
        """All zero."""
        return Counters()

    def close(self) -> None:
        """There is nothing to give back."""
