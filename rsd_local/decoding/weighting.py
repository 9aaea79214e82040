"""The weighting functions ω(r) of the paper (arXiv 2501.19324, section 3) and the decision that follows from them."""

from __future__ import annotations

import math

import numpy as np

from rsd_local.config import Weighting

_STREAM = 0x5EED  # sets the decisions' random numbers apart from the samplers' of the same seed


def weight(weighting: Weighting, reward: float) -> float:
    """ω(r): how likely a draft step of reward r is kept; 0 for a reward that is no finite number."""
    if not math.isfinite(reward):
        return 0.0
    match weighting.kind:
        case "constant":
            return weighting.probability
        case "step":
            return float(reward >= weighting.threshold)
        case "clip":
            return min(1.0, max(0.0, reward))
        case "ratio":
            return max(0.0, reward / (1.0 + reward)) if reward > -1.0 else 0.0
        case "logistic":
            return 1.0 / (1.0 + math.exp(min(-weighting.steepness * (reward - weighting.threshold), 700.0)))


class Acceptance:
    """Decides step by step for one question, with a random stream of its own seed; counts rewards that are no numbers."""

    def __init__(self, weighting: Weighting, seed: int) -> None:
        self._weighting, self._chance = weighting, np.random.default_rng((seed, _STREAM))
        self.non_finite = 0

    def __call__(self, reward: float) -> bool:
        """Whether the step stands."""
        self.non_finite += not math.isfinite(reward)
        return float(self._chance.random()) < weight(self._weighting, reward)
