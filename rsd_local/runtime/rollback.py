"""How a sequence forgets a rejected step: by cutting its cache, or by going back to a snapshot.

Which one is right is found by a probe when an engine opens, never by a list of names: llama.cpp refuses to cut the
memory of recurrent and hybrid models. Sliding-window models are cut too, since engines ask for room for the full text
(``swa_full``). llama.cpp gives cells out of a sequence's window to others all the same, and a cut moves the window back: it cuts
without complaint and would compute wrong logits, so whether the window is still there is looked at.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from typing import Any, Protocol

from llama_cpp import llama_cpp as C

from rsd_local.errors import EngineError
from rsd_local.runtime import llama

_CUT, _COPY = llama.quick(C.llama_memory_seq_rm, ctypes.c_bool), llama.quick(C.llama_memory_seq_cp, None)
_FIRST, _LAST = llama.quick(C.llama_memory_seq_pos_min, ctypes.c_int32), llama.quick(C.llama_memory_seq_pos_max, ctypes.c_int32)
MOST_SHARING = 2
"""Slots in one batch of which llama.cpp keeps the states before the last tokens: it computes those two at once, or each by itself."""
_PARTIAL_ONLY = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: the recurrent state, without the keys and values


class Rollback(Protocol):
    """What an engine asks of a way back. For the device's thread only."""

    needs_marks: bool
    """Whether it can go back only to places that were marked, and evaluates again from the nearest one before."""

    def evaluated(self, slots: dict[int, int]) -> None:
        """Takes note of a batch: the slots that had rows in it, and how many each."""

    def mark(self, slot: int, position: int) -> None:
        """Remembers the state of a slot that holds ``position`` tokens."""

    def back(self, slot: int, position: int) -> int:
        """Makes the slot hold at most its first ``position`` tokens; returns how many it holds."""

    def copy(self, source: int, slot: int) -> None:
        """Lets an empty slot hold what another one holds."""

    def clear(self, slot: int) -> None:
        """Empties the slot."""


class Truncation:
    """Cuts the cache: exact, and a matter of microseconds.

    Args:
        memory: llama.cpp's.
        window: tokens that a sliding window holds, 0 where there is none.
    """

    needs_marks = False

    def __init__(self, memory: Any, window: int = 0) -> None:
        self._memory, self._window = memory, window

    def evaluated(self, slots: dict[int, int]) -> None:
        """Nothing to note."""

    def mark(self, slot: int, position: int) -> None:
        """Nothing to remember: every place can be gone back to."""

    def back(self, slot: int, position: int) -> int:
        """Cut the slot after ``position`` tokens; where llama.cpp refuses, or a window has lost cells, the slot starts from nothing."""
        if not _CUT(self._memory, slot, position, -1) or not self._has_window(slot, position):
            self.clear(slot)
            return 0
        return position

    def _has_window(self, slot: int, position: int) -> bool:
        """Whether all cells are there that the token at a position looks at; cells are lost from the first one on."""
        return not self._window or position == 0 or 0 <= _FIRST(self._memory, slot) <= max(0, position - self._window)

    def copy(self, source: int, slot: int) -> None:
        """Shares the source's cells with the slot; no number is copied."""
        _COPY(self._memory, source, slot, -1, -1)

    def clear(self, slot: int) -> None:
        """Empties the slot."""
        empty(self._memory, slot)


class Snapshots:
    """Keeps the recurrent state at marked places, restores the last one before the wish, and cuts the rest.

    Where the context keeps the states before the last tokens of a batch (llama.cpp's ``n_rs_seq``), those tokens are cut without a
    snapshot. llama.cpp itself looks at the number of tokens alone. But it writes such states only for the rows of a slot's last batch,
    leaves them behind where a part of a batch with several other slots moves the slot's newest state, and takes a state that two slots
    share to be one: so here a slot can be cut so only between its own batch and the next one of any slot, once, not after a copy, and
    not where that batch was of more than two slots.
    """

    needs_marks = True

    def __init__(self, context: Any, memory: Any, kept: int = 4, recent: int = 0) -> None:
        self._context, self._memory, self._kept, self._most_recent = context, memory, kept, recent
        self._states: defaultdict[int, dict[int, bytes]] = defaultdict(dict)
        self._recent: dict[int, tuple[int, int]] = {}  # by slot: the tokens that it holds, and how many of the last can be cut
        self._pending = set[int]()  # slots whose state lies elsewhere until the next batch, because it was cut so

    def evaluated(self, slots: dict[int, int]) -> None:
        """The last states of these slots are there, of others no more."""
        self._pending.difference_update(slots)
        self._recent = {}
        if self._most_recent and len(slots) <= MOST_SHARING:
            self._recent = {slot: (_LAST(self._memory, slot) + 1, min(rows - 1, self._most_recent)) for slot, rows in slots.items()}

    def mark(self, slot: int, position: int) -> None:
        """Takes a snapshot of the slot's state, unless there is one of this place."""
        states = self._states[slot]
        if position in states or position == 0:
            return
        state = self._take(slot)
        if state is None:
            return  # without the snapshot the way back is from an earlier one
        states[position] = state
        if len(states) > self._kept:
            del states[sorted(states)[1]]  # the first one is the prompt's end, which another prompt may go on from

    def back(self, slot: int, position: int) -> int:
        """Cuts the last tokens where their states are there; otherwise restores the last snapshot at or before ``position``.

        Without a snapshot the slot starts from nothing.
        """
        states = self._states[slot]
        for later in [place for place in states if place > position]:
            del states[later]
        held, recent = self._recent.pop(slot, (0, 0))
        if 0 < held - recent <= position < held and _CUT(self._memory, slot, position, -1):
            self._pending.add(slot)
            return position
        if not states:
            self.clear(slot)
            return 0
        place = max(states)
        if not self._put(slot, states[place]) or not _CUT(self._memory, slot, place, -1):
            self.clear(slot)
            return 0
        return place

    def copy(self, source: int, slot: int) -> None:
        """Lets the slot go on from the source's state, snapshots included."""
        if source in self._pending:
            state = self._take(source)
            if state is None or not self._put(source, state):  # so that it is where llama.cpp looks for it from both slots
                raise EngineError(f"llama.cpp does not write back the state of slot {source} of its cache")
        for one in (source, slot):
            self._recent.pop(one, None)
        _COPY(self._memory, source, slot, -1, -1)
        self._states[slot] = dict(self._states[source])

    def clear(self, slot: int) -> None:
        """Empties the slot and forgets its snapshots."""
        self._states[slot].clear()
        self._recent.pop(slot, None)
        self._pending.discard(slot)
        empty(self._memory, slot)

    def _take(self, slot: int) -> bytes | None:
        """The slot's recurrent state."""
        size = C.llama_state_seq_get_size_ext(self._context, slot, _PARTIAL_ONLY)
        room = (ctypes.c_uint8 * size)()
        if size == 0 or C.llama_state_seq_get_data_ext(self._context, room, size, slot, _PARTIAL_ONLY) != size:
            return None
        return bytes(room)

    def _put(self, slot: int, state: bytes) -> bool:
        """Give the slot a recurrent state; False where llama.cpp refuses."""
        room = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        done = C.llama_state_seq_set_data_ext(self._context, room, len(state), slot, _PARTIAL_ONLY) != 0
        if done:
            self._pending.discard(slot)
        return bool(done)


def empty(memory: Any, slot: int) -> None:
    """Take all cells of a slot.

    Raises:
        EngineError: llama.cpp refuses.
    """
    if not _CUT(memory, slot, -1, -1):
        raise EngineError(f"llama.cpp does not empty slot {slot} of its cache")


def kept_states(context: Any) -> int:
    """Of how many last tokens a context keeps the recurrent states before them; 0 in older versions of llama.cpp."""
    return int(C.llama_n_rs_seq(context)) if hasattr(C, "llama_n_rs_seq") else 0


def way_back(context: Any, can_cut: bool) -> Rollback:
    """How sequences of a context forget tokens, by what ``probe`` has found of its model."""
    memory = C.llama_get_memory(context)
    if can_cut:
        return Truncation(memory, C.llama_model_n_swa(C.llama_get_model(context)))
    return Snapshots(context, memory, recent=kept_states(context))


def probe(context: Any) -> bool:
    """Whether the memory of a context's model can be cut, found by cutting all but the first of some tokens.

    They are more than the context keeps states of. The context must be empty and is empty again afterwards.

    Raises:
        EngineError: the model cannot decode them.
    """
    memory = C.llama_get_memory(context)
    count = 2 + kept_states(context)
    tokens = (C.llama_token * count)()  # the batch points to it
    status = C.llama_decode(context, C.llama_batch_get_one(tokens, count))
    if status != 0:
        raise EngineError(
            f"llama.cpp cannot decode {count} tokens with this model, its status is {status}", hint="choose another GGUF file"
        )
    can_cut = bool(C.llama_memory_seq_rm(memory, 0, 1, -1))
    C.llama_memory_clear(memory, True)
    return can_cut
