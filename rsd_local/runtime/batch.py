"""A llama.cpp batch over arrays of our own: set up once, filled row by row."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as C


class Batch:
    """Rows for one decode.

    Args:
        capacity: the most rows.
    """

    def __init__(self, capacity: int) -> None:
        self.rows, self.outputs, self._capacity = 0, 0, capacity
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._count = np.ones(capacity, np.int32)
        self._slot = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        # Each row belongs to one slot: a pointer to its own place in the array of slots.
        self._slots = (self._slot.ctypes.data + 4 * np.arange(capacity)).astype(np.uintp)
        self.struct: Any = C.llama_batch(
            n_tokens=0,
            token=self._pointer(self._token, C.llama_token),
            embd=None,
            pos=self._pointer(self._position, C.llama_pos),
            n_seq_id=self._pointer(self._count, ctypes.c_int32),
            seq_id=ctypes.cast(self._slots.ctypes.data, ctypes.POINTER(ctypes.POINTER(C.llama_seq_id))),
            logits=self._pointer(self._output, ctypes.c_int8),
        )

    @staticmethod
    def _pointer(array: Any, kind: Any) -> Any:
        return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))

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
        self._token[first:end] = tokens
        self._position[first:end] = range(position, position + len(tokens))
        self._slot[first:end] = slot
        self._output[first:end] = 0
        self._output[end - outputs : end] = 1
        self.rows = self.struct.n_tokens = end
        self.outputs += outputs
