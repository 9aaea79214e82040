"""Ratios over answers, such as the share of steps that was accepted, with intervals that know that steps of one answer are alike."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rsd_local.evaluation.stats import Z95, Z99, wilson


@dataclass(slots=True)
class Ratio:
    """The sum of one figure over the sum of another one, answer by answer.

    Attributes:
        answers: how many were added.
        above, below: the two sums.
    """

    answers: int = 0
    above: float = 0.0
    below: float = 0.0
    _above2: float = 0.0
    _below2: float = 0.0
    _both: float = 0.0

    def add(self, above: float, below: float) -> None:
        """Add an answer; one with nothing below says nothing of the ratio and is left out."""
        if below <= 0:
            return
        self.answers += 1
        self.above, self.below = self.above + above, self.below + below
        self._above2, self._below2, self._both = self._above2 + above * above, self._below2 + below * below, self._both + above * below

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Ratio:
        """The ratio over answers that are given as pairs of what is above and what is below."""
        made = cls()
        for above, below in pairs:
            made.add(above, below)
        return made

    @property
    def value(self) -> float | None:
        """The ratio; None where nothing is below."""
        return self.above / self.below if self.below else None

    @property
    def variance(self) -> float | None:
        """Of the ratio, by its linear approximation (Cochran 1977, Sampling Techniques, section 6.4); None for fewer than two answers."""
        if self.answers < 2 or not self.below:
            return None
        ratio = self.above / self.below
        squares = max(0.0, self._above2 - 2 * ratio * self._both + ratio * ratio * self._below2)
        return self.answers / (self.answers - 1) * squares / (self.below * self.below)

    def interval(self, z: float = Z95) -> tuple[float, float] | None:
        """The interval of the ratio of two figures that are not negative; None for fewer than two answers."""
        value, variance = self.value, self.variance
        if value is None or variance is None:
            return None
        half = z * math.sqrt(variance)
        return max(0.0, value - half), value + half

    @property
    def design_effect(self) -> float:
        """By how much the variance of a share is larger than that of as many independent steps (Kish 1965, Survey Sampling).

        At least 1: a few answers can look more even than steps by chance are, and that is no reason to be surer.
        """
        value, variance = self.value, self.variance
        if value is None or variance is None or not 0 < value < 1:
            return 1.0
        return max(1.0, variance / (value * (1 - value) / self.below))

    def share_interval(self, z: float = Z95) -> tuple[float, float]:
        """The interval of a share (Wilson's, with the steps divided by their design effect); 0 to 1 where nothing was counted."""
        effect = self.design_effect
        return wilson(self.above / effect, self.below / effect, z)


def differ(first: float, first_steps: float, second: float, second_steps: float, z: float = Z99) -> bool:
    """Whether two shares differ by more than chance: the interval of their difference leaves 0 out.

    The interval is Newcombe's hybrid of two Wilson intervals (Newcombe 1998, Statistics in Medicine 17, 873-890, method 10), which
    holds near 0 and 1 too.

    Args:
        first, second: the shares.
        first_steps, second_steps: of how many independent steps.
        z: how many standard deviations wide.
    """
    one, other = (wilson(share * steps, steps, z) for share, steps in ((first, first_steps), (second, second_steps)))
    gap = first - second
    below = math.hypot(first - one[0], other[1] - second)
    above = math.hypot(one[1] - first, second - other[0])
    return gap - below > 0 or gap + above < 0
