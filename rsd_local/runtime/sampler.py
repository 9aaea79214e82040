"""From logits to a token: greedy, temperature, top-k, top-p, min-p, in this order."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rsd_local.config import Sampling
from rsd_local.errors import DecodeFailed

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Drawer(Protocol):
    """Whatever draws tokens."""

    def draw(self, logits: Floats) -> int:
        """One token of logits (n_vocab,), which hold until the next decode."""


def greedy(logits: Floats) -> int:
    """The most likely token; the first of equals.

    Raises:
        DecodeFailed: the model's logits are no numbers.
    """
    best = int(logits.argmax())
    if not math.isfinite(logits[best]):
        raise DecodeFailed("the model's logits are not finite", hint="the file may be damaged: download it again")
    return best


def distribution(logits: Floats, sampling: Sampling) -> tuple[npt.NDArray[np.int64], Doubles]:
    """The tokens that can be drawn and their probabilities, which sum to 1.

    Args:
        logits: (n_vocab,) of the model, not changed.
        sampling: with a temperature above 0.

    Returns:
        ids and probabilities, both (kept,), the most likely first where anything is cut off.
    """
    best = greedy(logits)
    if sampling.temperature == 0:
        return np.array([best]), np.ones(1)
    scaled = (logits.astype(np.float64) - float(logits[best])) / sampling.temperature
    ids = np.arange(len(scaled))
    if 0 < sampling.top_k < len(scaled):
        ids = np.argpartition(scaled, -sampling.top_k)[-sampling.top_k :]
    weights = np.exp(scaled[ids])
    if sampling.top_k or sampling.top_p < 1 or sampling.min_p > 0:
        order = np.lexsort((ids, -weights))  # equal weights by id: the same cut everywhere
        ids, weights = ids[order], weights[order]
    if sampling.top_p < 1:
        reached = np.cumsum(weights / weights.sum())
        kept = int(np.searchsorted(reached, sampling.top_p)) + 1
        ids, weights = ids[:kept], weights[:kept]
    if sampling.min_p > 0:
        likely = weights >= sampling.min_p * weights[0]
        ids, weights = ids[likely], weights[likely]
    return ids, weights / weights.sum()


class Sampler:
    """Draws the tokens of one question from a random stream of its own.

    Args:
        sampling: how.
        stream: sets apart the streams of one question under the same seed (of role, place and candidate, say).
    """

    def __init__(self, sampling: Sampling, stream: tuple[int, ...] = ()) -> None:
        self.sampling = sampling
        self._chance = np.random.default_rng((sampling.seed, *stream))

    def draw(self, logits: Floats) -> int:
        """One token of logits (n_vocab,); takes one number from the stream unless greedy."""
        if self.sampling.temperature == 0:
            return greedy(logits)
        ids, probabilities = distribution(logits, self.sampling)
        place = int(np.searchsorted(np.cumsum(probabilities), self._chance.random(), side="right"))
        return int(ids[min(place, len(ids) - 1)])
