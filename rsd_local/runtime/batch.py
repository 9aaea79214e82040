"""A llama.cpp batch over arrays of our own: set up once, filled row by row."""

from __future__ import annotations

import ctypes
from typing import Any

from llama_cpp import llama_cpp as C


class Batch:
    """Rows for one decode.

    Args:
        capacity: the most rows.
    """

    def __init__(self, capacity: int) -> None:
        self.rows, self.outputs, self._capacity = 0, 0, capacity
        self._token, self._position = (C.llama_token * capacity)(), (C.llama_pos * capacity)()
        self._slot, self._output = (C.llama_seq_id * capacity)(), (ctypes.c_int8 * capacity)()
        # Each row belongs to one slot: a pointer to its own place in the array of slots.
        pointer, first, size = ctypes.POINTER(C.llama_seq_id), ctypes.addressof(self._slot), ctypes.sizeof(C.llama_seq_id)
        self._slots = (pointer * capacity)(*(ctypes.cast(first + size * row, pointer) for row in range(capacity)))
        self._counts = (ctypes.c_int32 * capacity)(*[1] * capacity)
        self.struct: Any = C.llama_batch(
            n_tokens=0,
            token=self._token,
            embd=None,
            pos=self._position,
            n_seq_id=self._counts,
            seq_id=self._slots,
            logits=self._output,
        )

    @property
    def room(self) -> int:
        """Rows that can still be added."""
        return self._capacity - self.rows

    def clear(self) -> None:
        """Takes all rows out."""
        self.rows = self.outputs = self.struct.n_tokens = 0

    def add(self, slot: int, position: int, tokens: list[int], outputs: int) -> None:
        """Adds tokens of one slot from a position on.

        Args:
            slot: the sequence's slot.
            position: of the first token.
            tokens: at most ``room`` of them.
            outputs: how many of the last tokens are to give an output.
        """
        first, end = self.rows, self.rows + len(tokens)
        for row, token in enumerate(tokens, first):  # mostly one, and setting it costs a quarter of what slices of arrays do
            self._token[row], self._position[row], self._slot[row] = token, position + row - first, slot
            self._output[row] = row >= end - outputs
        self.rows = self.struct.n_tokens = end
        self.outputs += outputs

    def give_output(self, row: int) -> None:
        """Lets a row that was added without one give an output."""
        self._output[row] = 1
        self.outputs += 1
