"""What every reward does for one question."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, Self

from rsd_local.events import CancelToken, Counters
from rsd_local.runtime import Trace

Scoring = Callable[[], float]
"""Waits for a score that was started."""


class Reward(Protocol):
    """Scores the steps of one question. The question and the steps that stand stay in the cache."""

    def start_score(self, step: str, trace: Trace | None = None, cancel: CancelToken | None = None) -> Scoring:
        """Begins to score the next step; the outcome is the reward in [0, 1], or NaN where a model's outputs are no numbers.

        The step is provisional until the next call: ``forget`` takes it back, anything else lets it stand.

        Args:
            step: its text.
            trace: what the draft let be seen while it wrote it, for rewards that look at it.
            cancel: ends it.
        """

    def forget(self) -> None:
        """Takes back the step that was scored last; the cache is as before it."""

    def read(self, step: str) -> None:
        """Notes a step that stands without a score; it is evaluated together with the next one."""

    def go_on(self, steps: list[str], question: str) -> bool:
        """Goes on with another question behind these steps, those of the whole answer that stand.

        Returns:
            False where this reward knows one question only; then nothing has changed.

        Raises:
            ContextFull: the question does not fit.
        """

    def settle(self, cancel: CancelToken | None = None) -> None:
        """Evaluates what stands, so that forks share it."""

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the cache."""

    def adopt(self, fork: Self) -> None:
        """Goes on where a fork has come to; the fork gets what this one had."""

    def counters(self) -> Counters:
        """What was evaluated so far, by this one and all that were forked from the same."""

    def close(self) -> None:
        """Gives the cache back."""


def sigmoid(value: float) -> float:
    """1 / (1 + e^−value), NaN where the value is no finite number."""
    return 1.0 / (1.0 + math.exp(min(-value, 700.0))) if math.isfinite(value) else math.nan
