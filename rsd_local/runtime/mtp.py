"""A model's own multi-token head (MTP, in llama.cpp also "nextn"): it guesses what the model writes next.

The head is one more block of the model. It takes a token and the model's state before it, and gives logits for the token behind, and a
state of its own to go on from. It has a cache of its own, in a second llama.cpp context on the same weights: one pair of token and state
for each position, the state of the token before, zeros before the first. As in llama.cpp's ``common/speculative.cpp``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_cpp import llama_cpp as C

from rsd_local.errors import RSDError
from rsd_local.runtime.latency import LatencyModel
from rsd_local.runtime.mtp_support import PairBatch, X, states_of
from rsd_local.runtime.outputs import Outputs
from rsd_local.runtime.rollback import Rollback
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.slots import common_prefix

if TYPE_CHECKING:
    from rsd_local.runtime.model import Model


class MtpHead:
    """The head of one engine. For the device's thread only, but for ``latency``.

    Args:
        target: llama.cpp's context of the engine; its states are asked for from now on.
        context: of the head, made for the same sequences.
        model: of both.
        rows: the most rows of a batch.
        tokens: the most tokens of a sequence.
        on_gpu: whether a decode returns before it is done.
        clock: that batches are timed by.
    """

    def __init__(
        self, target: Any, context: Any, model: Model, *, rows: int, tokens: int, on_gpu: bool, clock: Callable[[], float]
    ) -> None:  # fmt: skip
        self._target, self._context, self._memory = target, context, C.llama_get_memory(context)
        self._model, self._rows, self._tokens, self._on_gpu, self._clock = model, rows, tokens, on_gpu, clock
        self._states: defaultdict[int, list[Floats]] = defaultdict(list)  # of the engine's tokens, by slot
        self._held: defaultdict[int, list[int]] = defaultdict(list)  # tokens whose pairs the head's cache holds; it may hold more behind
        with model.in_use() as handle:
            self._batch, self._outputs = PairBatch(rows, handle), Outputs(context, model, "mtp")
        self._zeros = np.zeros(model.n_embd, np.float32)
        self.latency = LatencyModel()
        for one in (target, context):
            X.llama_set_embeddings_nextn(one, True, False)  # of every row of a batch, by its place in the batch

    def note(self, slot: int, position: int, row: int, rows: int) -> None:
        """Keep the states of what the engine has just decoded.

        Args:
            slot: of the sequence.
            position: of the first of the tokens.
            row: of the batch that it had.
            rows: how many follow one another.
        """
        self.back(slot, position)
        states = self._states[slot]
        if len(states) == position:  # otherwise some before are missing, and nothing is guessed here
            states.extend(states_of(self._target, row, rows, self._model.n_embd))

    def back(self, slot: int, position: int) -> None:
        """The engine's cache of a slot holds so many tokens from now on."""
        del self._states[slot][position:], self._held[slot][position:]

    def copy(self, source: int, slot: int) -> None:
        """An empty slot holds what another one holds; the states are shared."""
        C.llama_memory_seq_rm(self._memory, slot, -1, -1)  # what is behind the pairs that count is cut only before guessing
        C.llama_memory_seq_cp(self._memory, source, slot, -1, -1)
        self._states[slot], self._held[slot] = list(self._states[source]), list(self._held[source])

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        C.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._states[slot], self._held[slot] = [], []

    def guess(self, slot: int, tokens: list[int], most: int, draws: Draws) -> tuple[list[int], float]:
        """What the model may write behind some tokens.

        Args:
            slot: of their sequence.
            tokens: all of the sequence; the engine has decoded all but the last, or nothing is guessed.
            most: tokens to guess; an end of the text is the last one.
            draws: draws each from the head's logits as the model will draw it from its own.

        Returns:
            The guess, and the seconds that it took.
        """
        began, guessed = self._clock(), list[int]()
        if not tokens or len(self._states[slot]) < len(tokens) - 1:
            return guessed, 0.0
        first = min(common_prefix(self._held[slot], tokens), len(tokens) - 1)
        C.llama_memory_seq_rm(self._memory, slot, first, -1)
        del self._held[slot][first:]
        states = [self._states[slot][place - 1] if place else self._zeros for place in range(first, len(tokens))]
        pairs = list(zip(tokens[first:], states, strict=True))
        try:
            while len(guessed) < most and len(tokens) + len(guessed) < self._tokens:
                row = self._decode(slot, first, pairs)
                if row is None:
                    break
                if not guessed:
                    self._held[slot] = list(tokens)
                token = draws.draw(self._outputs.logits(row), [*tokens, *guessed])
                guessed.append(token)
                if self._model.is_end(token):
                    break
                pairs = [(token, states_of(self._context, row, 1, self._model.n_embd)[0])]
                first = len(tokens) + len(guessed) - 1
        except RSDError:
            pass  # logits that are no numbers, a grammar that takes nothing: no guess is worth an error
        return guessed, self._clock() - began

    def _decode(self, slot: int, position: int, pairs: list[tuple[int, Floats]]) -> int | None:
        """Decode pairs from a position on; the last one's row, None where llama.cpp refuses."""
        row = None
        for first in range(0, len(pairs), self._rows):
            part = pairs[first : first + self._rows]
            last = first + len(part) == len(pairs)
            self._batch.clear()
            self._batch.add_pairs(slot, position + first, [token for token, _ in part], [state for _, state in part], int(last))
            began = self._clock()
            status = C.llama_decode(self._context, self._batch.struct)
            if status == 0 and self._on_gpu:
                C.llama_synchronize(self._context)
            if status != 0:
                self.clear(slot)
                return None
            self.latency.note(len(part), self._clock() - began)
            row = len(part) - 1
        return row


class RollbackWithHead:
    """A way back that the head's cache goes too; see ``Rollback``."""

    def __init__(self, own: Rollback, head: MtpHead) -> None:
        self._own, self._head, self.needs_marks = own, head, own.needs_marks

    def evaluated(self, slots: dict[int, int]) -> None:
        """Take note of a batch."""
        self._own.evaluated(slots)

    def mark(self, slot: int, position: int) -> None:
        """Remembers the state of a slot; the head's needs no mark."""
        self._own.mark(slot, position)

    def back(self, slot: int, position: int) -> int:
        """Goes back with both caches."""
        held = self._own.back(slot, position)
        self._head.back(slot, held)
        return held

    def copy(self, source: int, slot: int) -> None:
        """Copies both caches."""
        self._own.copy(source, slot)
        self._head.copy(source, slot)

    def clear(self, slot: int) -> None:
        """Empties both caches."""
        self._own.clear(slot)
        self._head.clear(slot)
