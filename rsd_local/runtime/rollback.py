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
_FIRST = llama.quick(C.llama_memory_seq_pos_min, ctypes.c_int32)
_PARTIAL_ONLY = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: the recurrent state, without the keys and values


class Rollback(Protocol):
    """What an engine asks of a way back. For the device's thread only."""

    needs_marks: bool
    """Whether it can go back only to places that were marked, and evaluates again from the nearest one before."""

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
    """Keeps the recurrent state at marked places, restores the last one before the wish, and cuts the rest."""

    needs_marks = True

    def __init__(self, context: Any, memory: Any, kept: int = 4) -> None:
        self._context, self._memory, self._kept = context, memory, kept
        self._states: defaultdict[int, dict[int, bytes]] = defaultdict(dict)

    def mark(self, slot: int, position: int) -> None:
        """Takes a snapshot of the slot's state, unless there is one of this place."""
        states = self._states[slot]
        if position in states or position == 0:
            return
        size = C.llama_state_seq_get_size_ext(self._context, slot, _PARTIAL_ONLY)
        room = (ctypes.c_uint8 * size)()
        if size == 0 or C.llama_state_seq_get_data_ext(self._context, room, size, slot, _PARTIAL_ONLY) != size:
            return  # without the snapshot the way back is from an earlier one
        states[position] = bytes(room)
        if len(states) > self._kept:
            del states[sorted(states)[1]]  # the first one is the prompt's end, which another prompt may go on from

    def back(self, slot: int, position: int) -> int:
        """Restores the last snapshot at or before ``position``; without one the slot starts from nothing."""
        states = self._states[slot]
        for later in [place for place in states if place > position]:
            del states[later]
        if not states:
            self.clear(slot)
            return 0
        place = max(states)
        state = (ctypes.c_uint8 * len(states[place])).from_buffer_copy(states[place])
        if C.llama_state_seq_set_data_ext(self._context, state, len(state), slot, _PARTIAL_ONLY) == 0:
            self.clear(slot)
            return 0
        if not _CUT(self._memory, slot, place, -1):
            self.clear(slot)
            return 0
        return place

    def copy(self, source: int, slot: int) -> None:
        """Lets the slot go on from the source's state, snapshots included."""
        _COPY(self._memory, source, slot, -1, -1)
        self._states[slot] = dict(self._states[source])

    def clear(self, slot: int) -> None:
        """Empties the slot and forgets its snapshots."""
        self._states[slot].clear()
        empty(self._memory, slot)


def empty(memory: Any, slot: int) -> None:
    """Take all cells of a slot.

    Raises:
        EngineError: llama.cpp refuses.
    """
    if not _CUT(memory, slot, -1, -1):
        raise EngineError(f"llama.cpp does not empty slot {slot} of its cache")


def way_back(context: Any, can_cut: bool) -> Rollback:
    """How sequences of a context forget tokens, by what ``probe`` has found of its model."""
    memory = C.llama_get_memory(context)
    return Truncation(memory, C.llama_model_n_swa(C.llama_get_model(context))) if can_cut else Snapshots(context, memory)


def probe(context: Any) -> bool:
    """Whether the memory of a context's model can be cut, found by cutting one of two tokens.

    The context must be empty and is empty again afterwards.

    Raises:
        EngineError: the model cannot decode two tokens.
    """
    memory = C.llama_get_memory(context)
    tokens = (C.llama_token * 2)(0, 0)  # the batch points to it
    status = C.llama_decode(context, C.llama_batch_get_one(tokens, 2))
    if status != 0:
        raise EngineError(f"llama.cpp cannot decode two tokens with this model, its status is {status}", hint="choose another GGUF file")
    can_cut = bool(C.llama_memory_seq_rm(memory, 0, 1, -1))
    C.llama_memory_clear(memory, True)
    return can_cut
