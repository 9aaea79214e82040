"""What a read-out looks at: the states that a step was written from, and how sure its writer was."""

from __future__ import annotations

import numpy as np

from rsd_local.runtime import Floats, Trace

PARTS = ("last", "mean", "surprise")
"""``last``: the state (n_embd,) that the step's last token was drawn from. ``mean``: the mean of the states (n_embd,) over
the step. ``surprise``: eight numbers, the mean, least and exponentiated mean log-probability, the mean, largest and first
entropy, the logarithm of the tokens and of the step's number."""
_SURPRISES = 8


def width_of(parts: tuple[str, ...], n_embd: int) -> int:
    """How many numbers some parts are, of a model with states of ``n_embd`` numbers."""
    return sum(_SURPRISES if part == "surprise" else n_embd for part in parts)


def step_features(trace: Trace, index: int, parts: tuple[str, ...]) -> Floats:
    """The features (d,) of a step.

    Args:
        trace: of the step's tokens, at least one; without states its features are shorter.
        index: of the step in the solution, from 0.
        parts: some of ``PARTS``, in this order.
    """
    made = {"last": trace.hidden[-1], "mean": trace.hidden.mean(axis=0), "surprise": _surprise(trace, index)}
    return np.concatenate([made[part] for part in parts]).astype(np.float32)


def confidence(trace: Trace) -> float:
    """The geometric mean of the probabilities that a step's tokens had, at temperature 1."""
    return float(np.exp(trace.log_probabilities.mean(dtype=np.float64)))


def _surprise(trace: Trace, index: int) -> Floats:
    logs, entropies = trace.log_probabilities, trace.entropies
    return np.array(
        [
            logs.mean(),
            logs.min(),
            np.exp(logs.mean()),
            entropies.mean(),
            entropies.max(),
            entropies[0],
            np.log(len(logs)),
            np.log1p(index),
        ],
        np.float32,
    )
