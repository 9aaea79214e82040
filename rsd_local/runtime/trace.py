"""Collects what a model lets be seen of itself while it writes."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from rsd_local.runtime.sampler import SCRATCH, Floats, block_sum
from rsd_local.steps import Trace

Tracing = Literal["off", "numbers", "states"]
"""What a generation keeps: nothing, its tokens' probabilities and entropies, or these and the states."""

HOPELESS = np.float32(-200)  # its exp is 0 in float32, as that of −inf, but 0 times it is a number


def surprise(logits: Floats) -> tuple[float, float]:
    """The logarithm of the sum of all words' exponentials, and the entropy in nats of what a token is drawn from.

    Args:
        logits: (n_vocab,), not changed.
    """
    peak = logits.max()
    differences, shifted = SCRATCH.floats("shifted", len(logits))
    likelihoods, weights = SCRATCH.floats("weights", len(logits))
    with np.errstate(over="ignore"):  # a logit far below the best becomes −inf
        np.subtract(logits, peak, out=shifted)
    np.exp(shifted, out=weights)
    mass, weighed = block_sum(likelihoods), block_sum(likelihoods, differences)
    if math.isnan(weighed):  # a word of −inf
        np.maximum(shifted, HOPELESS, out=shifted)
        weighed = block_sum(likelihoods, differences)
    return float(peak) + math.log(mass), math.log(mass) - weighed / mass


class Tracer:
    """Collects a trace, token by token."""

    def __init__(self) -> None:
        self._hidden: list[Floats] = []
        self._log_probabilities: list[float] = []
        self._entropies: list[float] = []

    def note(self, token: int, logits: Floats, hidden: Floats | None) -> None:
        """Take down what a token was drawn from.

        Args:
            token: that was drawn.
            logits: (n_vocab,) of the model, not changed, before penalties and temperature.
            hidden: (n_embd,), the state behind them; None where none is kept.
        """
        normal, entropy = surprise(logits)
        self._log_probabilities.append(float(logits[token]) - normal)
        self._entropies.append(entropy)
        self._hidden.append(np.zeros(0, np.float32) if hidden is None else hidden.copy())

    def note_given(self) -> None:
        """Take down a token that was not drawn: surely it, and the state as before."""
        self._log_probabilities.append(0.0)
        self._entropies.append(0.0)
        self._hidden.append(self._hidden[-1])

    def trace(self, after: Floats | None) -> Trace:
        """What was collected, and the state after the last token."""
        log_probabilities, entropies = (np.array(values, np.float32) for values in (self._log_probabilities, self._entropies))
        return Trace(np.stack(self._hidden), log_probabilities, entropies, after)
