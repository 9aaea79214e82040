"""Reading more than one output of a sequence in one pass: those of a step that another model wrote, or those at chosen places."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Tokens
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rsd_local.events import CancelToken
from rsd_local.runtime.outputs import Output
from rsd_local.runtime.requests import Request
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.trace import Tracer
from rsd_local.steps import Reading, Trace

if TYPE_CHECKING:
    from rsd_local.runtime.sequence import Sequence

R = TypeVar("R")
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


class ReadAt(Request[list[R]]):
    """Logits or hidden states to read at several places of what a sequence holds; the tokens between are evaluated once.

    Args:
        sequence: that is read.
        positions: of the tokens to read at, ascending. What the cache holds from the first of them on is evaluated again.
        hidden: whether states (n_embd,) are read, otherwise logits (n_vocab,).
        take: makes of llama.cpp's own row what is kept; called in the device's thread, so it must not wait.
        cancel: ends it.
    """

    def __init__(
        self, sequence: Sequence, positions: Tokens[int], hidden: bool, take: Callable[[Floats], R], cancel: CancelToken | None
    ) -> None:
        super().__init__(sequence, cancel)
        self.positions, self.hidden, self._take = list(positions), hidden, take
        self.value: list[R] = []

    def process_output(self, outputs: list[Output]) -> bool:
        """Take the outputs of the next places."""
        for output in outputs:
            values = output.hidden if self.hidden else output.logits
            assert values is not None
            self.value.append(self._take(values))
            del self.positions[0]
        return not self.positions


def trace_of(tracer: Tracer | None, state: Floats | None) -> Trace:
    """What a tracer noted, and the state after it."""
    if tracer is not None:
        return tracer.trace(state)
    none = np.zeros(0, np.float32)
    return Trace(np.zeros((0, 0), np.float32), none, none, state)
