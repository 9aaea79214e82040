"""The slots of a context's cache: which sequence has which, and what closed sequences left there to go on from.

A closed sequence's cells stay as a cached prefix. A new one whose tokens begin with the same ones continues from there:
in that slot, or in another one that shares the cells. For the device's thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_local.errors import EngineError
from rsd_local.runtime.rollback import Rollback

if TYPE_CHECKING:
    from rsd_local.runtime.sequence import Sequence

_UNKNOWN = -1
"""In place of tokens: of cells that nothing is known of, and that are cleared before the slot is used."""


@dataclass(slots=True)
class Slot:
    """One slot.

    Attributes:
        number: llama.cpp's sequence id.
        tokens: that an idle slot's cells stand for.
        sequence: whose it is, None while idle.
        used: when it became idle, in sequences that were closed.
    """

    number: int
    tokens: list[int]
    sequence: Sequence | None = None
    used: int = 0

    @property
    def cached(self) -> list[int]:
        """The tokens that its cells stand for."""
        if self.sequence is None:
            return self.tokens
        tokens = self.sequence.tokens[: self.sequence.cached]
        return tokens[: self.sequence.keep]  # read last: another thread lowers it before it changes tokens

    @property
    def cells(self) -> int:
        """How many cells it holds, those that are about to be cut included."""
        return len(self.tokens) if self.sequence is None else self.sequence.cached


class Slots:
    """All slots of one context.

    Args:
        rollback: how a slot forgets tokens.
        count: how many there are.
        reuse: whether closed sequences leave their cells behind.
        shared: whether several slots can have cells in common without a copy; otherwise a prefix is gone on from in the slot that holds it.
    """

    def __init__(self, rollback: Rollback, count: int, *, reuse: bool, shared: bool) -> None:
        self._rollback, self._reuse, self._shared = rollback, reuse, shared
        self.all = [Slot(number, []) for number in range(count)]
        self._closed = 0

    @property
    def sequences(self) -> list[Sequence]:
        """Those that have a slot."""
        return [slot.sequence for slot in self.all if slot.sequence is not None]

    def place(self, sequence: Sequence, prompt: list[int]) -> None:
        """Give a new sequence a slot, and the longest cached prefix of its prompt but for the last token, whose output is needed."""
        source, length = self._longest(prompt[:-1]) if self._reuse else (None, 0)
        slot = self._idle_slot(source, length)
        slot.sequence, sequence.slot = sequence, slot.number
        held = len(slot.tokens)
        if source is not slot:
            self._empty(slot)
            if source is not None:
                self._rollback.copy(source.number, slot.number)
                held = source.cells
        slot.tokens = []
        sequence.cached = self._rollback.back(slot.number, length) if source is not None and length < held else length
        sequence.counters.cached_tokens += sequence.cached

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let a new sequence hold what another one holds."""
        if parent.slot < 0:
            raise EngineError("it was forked from a sequence that has no place in the cache") from parent.failure
        slot = self._idle_slot(None, 0)
        slot.sequence, child.slot = child, slot.number
        self._empty(slot)
        self._rollback.copy(parent.slot, slot.number)
        child.cached = parent.cached

    def retire(self, sequence: Sequence) -> None:
        """Make a closed sequence's slot idle; its cells stay where they can be used again."""
        if sequence.slot < 0:
            return
        slot = self.all[sequence.slot]
        slot.sequence, sequence.cached_output, sequence.earlier_output = None, None, None
        self._closed += 1
        slot.used, slot.tokens = self._closed, [_UNKNOWN]
        self.sync(sequence)
        kept = sequence.tokens[: sequence.cached] if self._reuse else []
        if not kept:
            self._rollback.clear(slot.number)
        slot.tokens = kept

    def sync(self, sequence: Sequence) -> None:
        """Bring the cache in line with a sequence's tokens: forget what was cut, take a snapshot at a rollback point."""
        if sequence.keep < sequence.cached:
            sequence.cached = self._rollback.back(sequence.slot, sequence.keep)
        sequence.keep = 1 << 62
        if self._rollback.needs_marks and sequence.cached in sequence.marks:
            self._rollback.mark(sequence.slot, sequence.cached)

    def step_back(self, sequence: Sequence, length: int) -> None:
        """Make a sequence's slot hold at most its first ``length`` tokens."""
        sequence.cached = self._rollback.back(sequence.slot, length)

    def evict(self) -> bool:
        """Give up all idle cells; False where there are none."""
        full = [slot for slot in self.all if slot.sequence is None and slot.tokens]
        for slot in full:
            self._empty(slot)
        return bool(full)

    def reset(self) -> None:
        """Empty every slot; open sequences are evaluated again from their first token."""
        for slot in self.all:
            self._rollback.clear(slot.number)
            slot.tokens = []
            if slot.sequence is not None:
                slot.sequence.cached, slot.sequence.cached_output, slot.sequence.earlier_output = 0, None, None

    def _empty(self, slot: Slot) -> None:
        if slot.tokens:
            self._rollback.clear(slot.number)
            slot.tokens = []

    def _idle_slot(self, source: Slot | None, length: int) -> Slot:
        """The slot for a new sequence: the source where nothing else is lost with it, otherwise the one idle longest."""
        idle = [slot for slot in self.all if slot.sequence is None]
        if not idle:
            raise EngineError("no slot is idle")
        others = [slot for slot in idle if slot is not source]
        if source in idle and source is not None and (length == len(source.tokens) or not others or not self._shared):
            return source
        return min(others, key=lambda slot: (bool(slot.tokens), slot.used))

    def _longest(self, tokens: list[int]) -> tuple[Slot | None, int]:
        """The slot with the longest prefix of some tokens, and its length; of a model that needs snapshots, an idle one."""
        best: tuple[Slot | None, int] = None, 0
        for slot in self.all:
            if slot.sequence is not None and (self._rollback.needs_marks or not self._shared):
                continue
            length = common_prefix(slot.cached, tokens)
            if length > best[1]:
                best = slot, length
        return best


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many tokens two lists have in common from their beginning."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high:  # slices compare in C
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
