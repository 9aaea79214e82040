"""What a model lets be seen of itself while it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rsd_local.runtime.sampler import Floats

Tracing = Literal["off", "numbers", "states"]
"""What a generation keeps: nothing, its tokens' probabilities and entropies, or these and the states."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One row for each token that was written.

    Attributes:
        hidden: (n, n_embd), the state after the final norm that each token was drawn from; (n, 0) where none is kept, and of
            a model that gives none beside logits, see ``Engine.probe_states``.
        log_probabilities: (n,), natural, of each token among the whole vocabulary at temperature 1.
        entropies: (n,), in nats, of what each was drawn from.
        after: (n_embd,), the state after the last token; None where the text ended with that one.
    """

    hidden: Floats
    log_probabilities: Floats
    entropies: Floats
    after: Floats | None = None

    @property
    def end(self) -> Floats:
        """The state (n_embd,) after the last token of text: an end-of-text token is none."""
        last: Floats = self.hidden[-1] if self.after is None else self.after
        return last

    def part(self, first: int, last: int) -> Trace:
        """The rows from ``first`` up to ``last``, that one left out."""
        after = self.hidden[last] if last < len(self.hidden) else self.after
        return Trace(self.hidden[first:last], self.log_probabilities[first:last], self.entropies[first:last], after)


class Tracer:
    """Collects a trace, token by token."""

    def __init__(self) -> None:
        self._hidden: list[Floats] = []
        self._log_probabilities: list[float] = []
        self._entropies: list[float] = []

    def note(self, token: int, logits: Floats, hidden: Floats | None) -> None:
        """Takes what a token was drawn from."""
        shifted = logits - logits.max()
        weights = np.exp(shifted)
        mass = float(weights.sum(dtype=np.float64))
        self._log_probabilities.append(float(shifted[token]) - float(np.log(mass)))
        self._entropies.append(float(np.log(mass)) - float(np.dot(weights, shifted)) / mass)
        self._hidden.append(np.zeros(0, np.float32) if hidden is None else hidden.copy())

    def trace(self, after: Floats | None) -> Trace:
        """What was collected, and the state after the last token."""
        log_probabilities, entropies = (np.array(values, np.float32) for values in (self._log_probabilities, self._entropies))
        return Trace(np.stack(self._hidden), log_probabilities, entropies, after)
