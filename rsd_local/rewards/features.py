"""What a read-out looks at: the states after steps, and how sure their writer was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rsd_local.runtime import Floats
from rsd_local.steps import Trace

FEATURES = 2
"""What the parts mean, counted up with each change: a head and rollouts belong to one meaning."""
PARTS = ("last", "lasts", "surprise", "course")
"""``last``: the state (n_embd,) after the step's last token of text. ``lasts``: the mean of these states (n_embd,) over the
solution's steps so far. ``surprise``: eight numbers, the mean, least and exponentiated mean log-probability, the mean, largest and
first entropy, the logarithm of the tokens and of the step's number. ``course``: fifteen numbers of the steps so far, see
``course_of``."""
_SURPRISES, _COURSE = 8, 15


def width_of(parts: tuple[str, ...], n_embd: int) -> int:
    """How many numbers some parts are, of a model with states of ``n_embd`` numbers."""
    return sum({"surprise": _SURPRISES, "course": _COURSE}.get(part, n_embd) for part in parts)


@dataclass(frozen=True, slots=True)
class Course:
    """What is known of a solution's steps so far.

    Attributes:
        steps: how many stand.
        surprises: the eight numbers (8,) of those that the draft wrote; of the target's there is no trace.
        lasts: the sum of their last states (n_embd,).
    """

    steps: int = 0
    surprises: tuple[Floats, ...] = ()
    lasts: Floats | float = 0.0

    def after(self, trace: Trace | None) -> Course:
        """The course with one more step."""
        if trace is None:
            return replace(self, steps=self.steps + 1)
        return Course(self.steps + 1, (*self.surprises, surprise(trace, self.steps)), self.lasts + trace.end)


def step_features(trace: Trace, before: Course, parts: tuple[str, ...]) -> Floats:
    """The features (d,) of a step.

    Args:
        trace: of the step's tokens, at least one; without states its features are shorter.
        before: the steps before it.
        parts: some of ``PARTS``, in this order.
    """
    now = before.after(trace)
    surprises = np.stack(now.surprises)
    made = {
        "last": trace.end,
        "lasts": np.asarray(now.lasts) / len(surprises),
        "surprise": surprises[-1],
        "course": course_of(surprises)[-1],
    }
    return np.concatenate([made[part] for part in parts]).astype(np.float32)


def confidence(trace: Trace) -> float:
    """The geometric mean of the probabilities that a step's tokens had, at temperature 1."""
    return float(np.exp(trace.log_probabilities.mean(dtype=np.float64)))


def surprise(trace: Trace, index: int) -> Floats:
    """The eight numbers (8,) of a step, the ``index``-th of its solution, from 0."""
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


def course_of(surprises: Floats) -> Floats:
    """How a solution went up to the end of each step.

    Args:
        surprises: (n, 8), of its steps in order.

    Returns:
        (n, 15): the running means of the eight numbers; the least so far of the three log-probabilities; the largest so far
        of the three entropies; the mean log-probability of all tokens so far.
    """
    tokens = np.exp(surprises[:, 6])
    means = np.cumsum(surprises, axis=0) / np.arange(1, len(surprises) + 1)[:, None]
    least, largest = np.minimum.accumulate(surprises[:, :3]), np.maximum.accumulate(surprises[:, 3:6])
    whole = np.cumsum(surprises[:, 0] * tokens) / np.cumsum(tokens)
    return np.column_stack([means, least, largest, whole]).astype(np.float32)
