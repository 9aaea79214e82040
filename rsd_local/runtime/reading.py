"""Reading a step ahead: one pass over the tokens that another model wrote says how likely each was, and what would have stood there."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from typing import TYPE_CHECKING

import numpy as np

from rsd_local.events import CancelToken
from rsd_local.runtime.outputs import Output
from rsd_local.runtime.requests import Request
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.trace import Tracer
from rsd_local.steps import Reading, Trace

if TYPE_CHECKING:
    from rsd_local.runtime.sequence import Sequence

_CHUNK = 1024  # tokens in one batch; the batch's own room is less


class ReadAhead(Request[Reading]):
    """Evaluates tokens that stand behind a sequence, each with an output; they are then part of it.

    The output before the first of them may be known already, and that after the last one is kept: it is the first of the next
    step. So each token is evaluated once.

    Args:
        sequence: that they stand behind.
        tokens: at least one.
        draws: what would be drawn at each place, up to the first that differs; None where nobody asks.
        traced: whether log-probabilities and entropies are noted.
        state: whether the state after the last one is kept.
        cancel: ends it; the sequence is then as before.
    """

    def __init__(
        self, sequence: Sequence, tokens: Tokens[int], draws: Draws | None, *, traced: bool, state: bool, cancel: CancelToken | None
    ) -> None:
        super().__init__(sequence, cancel)
        self.hidden, self.ahead, self.chunk = state, list(tokens), _CHUNK
        self._draws, self._tracer = draws, Tracer() if traced else None
        self._own: list[int] = []
        self._kept = 0

    def accepts(self, known: Output) -> bool:
        """The output before the first token needs no state."""
        return True

    def process_output(self, outputs: list[Output]) -> bool:
        """Look at each row that a token stands behind."""
        sequence = self.sequence
        sequence.cached_output = None
        if len(sequence.tokens) == self.start and (self._tracer is not None or self._draws is not None):
            sequence.earlier_output = self.start, outputs[0].copy()
        sequence.counters.prompt_tokens += len(outputs) - 1  # the rows ahead; the one before them stood in the sequence
        for output in outputs:
            if not self.ahead:
                return self._finish(output)
            token = self.ahead.pop(0)
            if self._tracer is not None:
                self._tracer.note(token, output.logits, None)
            if self._draws is not None:
                self._draw(token, output)
            sequence.tokens.append(token)
            sequence.written.append(0)
        return False

    def _draw(self, token: int, output: Output) -> None:
        assert self._draws is not None
        own = self._draws.draw(output.logits, self.sequence.tokens)
        self._own.append(own)
        if own == token:
            self._kept += 1
        else:
            self._draws = None

    def _finish(self, output: Output) -> bool:
        last = self.sequence.cached_output = output.copy()
        state = last.hidden if self.hidden else None
        self.value = Reading(trace_of(self._tracer, state), tuple(self._own), self._kept)
        return True


def trace_of(tracer: Tracer | None, state: Floats | None) -> Trace:
    """What a tracer noted, and the state after it."""
    if tracer is not None:
        return tracer.trace(state)
    none = np.zeros(0, np.float32)
    return Trace(np.zeros((0, 0), np.float32), none, none, state)
