"""The statistics of a comparison: intervals of a share, of a paired difference and of a ratio, and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Sequence

RESAMPLES = 10_000
Z95 = 1.959963984540054
"""The normal distribution's 97.5 % point: two-sided intervals of 95 %."""
Z99 = 2.5758293035489004
"""Its 99.5 % point: two-sided intervals of 99 %."""


def wilson(right: float, total: float, z: float = Z95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), of 95 % where ``z`` is not given; 0 to 1 where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    # At the ends the formula gives the share itself, but for a rounding that would put it outside its interval.
    return (0.0 if right == 0 else middle - half), (1.0 if right == total else middle + half)


def paired_bootstrap(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the difference in accuracy, first minus second, over resampled questions.

    Args:
        first: whether one strategy answered each question right.
        second: the same of the other, in the same order.
        seed: of the resamples.
    """
    import numpy as np

    total = len(first)
    if total == 0:
        return -1.0, 1.0
    won, lost = discordant(first, second)
    # Only the difference of a question counts, so a resample of questions is a draw from these three kinds.
    shares = [won / total, lost / total, (total - won - lost) / total]
    drawn = np.random.default_rng(seed).multinomial(total, shares, size=RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / total, [2.5, 97.5])
    return float(low), float(high)


def ratio_bootstrap(costs: Sequence[float], others: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """The 95 % percentile interval of the ratio of two sums over the same questions, which are resampled; None where one could be 0.

    Args:
        costs: of each question.
        others: the costs that they are divided by, in the same order.
        seed: of the resamples.
    """
    import numpy as np

    above, below = np.array(costs, np.float64), np.array(others, np.float64)
    if not len(below) or below.min() <= 0:
        return None
    # How often each question is in a resample: a row a resample, some at a time, for thousands of questions would fill the memory.
    draws, ratios = np.random.default_rng(seed), []
    for _ in range(20):
        times = draws.multinomial(len(below), np.full(len(below), 1 / len(below)), size=RESAMPLES // 20)
        ratios.append((times @ above) / (times @ below))
    low, high = np.percentile(np.concatenate(ratios), [2.5, 97.5])
    return float(low), float(high)


def discordant(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    """How many questions only the first, and only the second, answered right."""
    pairs = list(zip(first, second, strict=True))
    return pairs.count((True, False)), pairs.count((False, True))


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p-value of McNemar's test (McNemar 1947): a fair coin over the discordant questions.

    Args:
        won: questions that only one strategy answered right.
        lost: those that only the other did.
    """
    total = won + lost
    tail = sum(math.comb(total, count) for count in range(min(won, lost) + 1))
    return min(1.0, float(2 * tail / (1 << total)))


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979), in the order given."""
    adjusted, least = [1.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = least
    return adjusted


def area_under_curve(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The area under the ROC curve: how likely a right one scores above a wrong one, ties counted half; NaN without both."""
    import numpy as np

    _, inverse, counts = np.unique(np.array(scores), return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    labels = np.array(right, bool)
    good, bad = int(labels.sum()), int((~labels).sum())
    if not good or not bad:
        return math.nan
    return float((middle_rank[inverse][labels].sum() - good * (good + 1) / 2) / (good * bad))
