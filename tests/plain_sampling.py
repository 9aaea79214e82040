"""The plain definition of what ``Draws`` draws: float64, everything sorted, one thing after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rsd_local.config import Sampling

Doubles = npt.NDArray[np.float64]


def penalties(logits: npt.NDArray[np.floating], context: Sequence[int], sampling: Sampling) -> Doubles:
    """The logits in float64, less what the last tokens of the context cost."""
    changed = logits.astype(np.float64)
    recent = list(context)[max(len(context) - sampling.penalty_last_n, 0) :]
    for token, count in Counter(recent).items():
        if 0 <= token < len(changed):
            value = changed[token]
            value = value / sampling.repeat_penalty if value > 0 else value * sampling.repeat_penalty
            changed[token] = value - count * sampling.frequency_penalty - sampling.presence_penalty
    return changed


def probabilities(logits: npt.NDArray[np.floating], sampling: Sampling, context: Sequence[int] = ()) -> Doubles:
    """The probability of each token (n_vocab,), above temperature 0."""
    changed = penalties(logits, context, sampling)
    weights = np.exp((changed - changed.max()) / sampling.temperature)
    order = np.lexsort((np.arange(len(weights)), -changed))
    if sampling.top_k:
        order = order[: sampling.top_k]
    if sampling.top_p < 1:
        reached = np.cumsum(weights[order]) / weights[order].sum()
        order = order[: int(np.searchsorted(reached, sampling.top_p)) + 1]
    order = order[weights[order] >= sampling.min_p * weights[order[0]]]
    kept = np.zeros_like(weights)
    kept[order] = weights[order]
    result: Doubles = kept / kept.sum()
    return result


def parts(chances: Doubles) -> tuple[Doubles, Doubles]:
    """Where the part of [0, 1) begins and ends that draws each token: they follow one another in ascending order of their ids."""
    ends = np.cumsum(chances)
    return ends - chances, ends


def owns(token: int, u: float, chances: Doubles, slack: float) -> bool:
    """Whether a number u, changed by no more than ``slack``, draws the token."""
    begins, ends = parts(chances)
    return bool(chances[token] > 0 and begins[token] - slack <= u < ends[token] + slack)
