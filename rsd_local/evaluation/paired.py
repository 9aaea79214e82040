"""Two ways to answer on the same questions: intervals of the difference in accuracy, and whether one is no worse than the other."""

from __future__ import annotations

import math
from collections.abc import Callable

_Z_TWO_SIDED = 1.959963984540054  # the normal distribution's 97.5 % point
_Z_ONE_SIDED = 1.6448536269514722  # its 95 % point
_MOST_QUESTIONS = 1 << 24
"""Where so many are too few, nobody will ask more."""


def paired_interval(won: float, lost: float, total: float) -> tuple[float, float]:
    """The 95 % score interval of a paired difference in accuracy (Tango 1998, Statistics in Medicine 17, 891-908).

    It holds for few questions too, and where the two never differ, which leaves a bootstrap without a width.

    Args:
        won: questions that only the first answered right.
        lost: those that only the second did.
        total: all questions, above 0.

    Returns:
        Bounds of first minus second, from -1 to 1.
    """
    return _bound(won, lost, total, _Z_TWO_SIDED), -_bound(lost, won, total, _Z_TWO_SIDED)


def lower_bound(won: float, lost: float, total: float) -> float:
    """The one-sided 95 % lower bound of the same difference: at most so much worse is the first.

    Where it is above minus a margin, the first is no worse by more than that margin: the non-inferiority test for paired binary data
    (Tango 1998; its size with few questions: Liu, Hsueh, Hsieh and Chen 2002, Statistics in Medicine 21, 231-245).

    Args:
        won, lost, total: as for ``paired_interval``.
    """
    return _bound(won, lost, total, _Z_ONE_SIDED)


def questions_needed(won: int, lost: int, total: int, margin: float) -> int | None:
    """How many questions would bring ``lower_bound`` above minus the margin, were the shares of won and lost ones to stay as they are.

    Args:
        won, lost, total: as for ``paired_interval``.
        margin: a share, above 0.

    Returns:
        The least such number, None where the difference itself is no better than minus the margin: no number of questions shows it.
    """
    if (won - lost) / total <= -margin:
        return None

    def shows(count: int) -> bool:
        return lower_bound(won * count / total, lost * count / total, count) > -margin

    return fewest(shows)


def fewest(shows: Callable[[int], bool]) -> int | None:
    """The least number of questions that shows something, None where sixteen million do not.

    Args:
        shows: whether so many do; once it holds it holds for more.
    """
    enough = 1
    while not shows(enough):
        enough *= 2
        if enough > _MOST_QUESTIONS:
            return None
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if shows(middle) else (middle, enough)
    return enough


def _bound(won: float, lost: float, total: float, z: float) -> float:
    """Where the score statistic is z: below the difference it falls from the left to the right, so halving finds it."""
    low, high = -1.0, (won - lost) / total
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _score(won, lost, total, middle) < z else (middle, high)
    return (low + high) / 2


def _score(won: float, lost: float, total: float, difference: float) -> float:
    """The score statistic of a supposed difference, with the likeliest share of lost questions under it."""
    linear = -won - lost + (2 * total - won + lost) * difference
    constant = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, linear * linear - 8 * total * constant)) - linear) / (4 * total)
    variance = total * (2 * share + difference * (1 - difference))
    distance = won - lost - total * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
