"""What a decode leaves behind: logits and hidden states by row."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as C

from rsd_local.errors import DecodeFailed
from rsd_local.runtime import llama
from rsd_local.runtime.model import Model
from rsd_local.runtime.sampler import Floats

_LOGITS = llama.quick(C.llama_get_logits_ith, ctypes.c_void_p)
_STATES = llama.quick(C.llama_get_embeddings_ith, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Output:
    """The outputs of one row: llama.cpp's own memory, which holds until the next decode, unless they are copies.

    Attributes:
        logits: (n_vocab,).
        hidden: (n_embd,) after the final norm; None where it was not asked for.
    """

    logits: Floats
    hidden: Floats | None = None

    def copy(self) -> Output:
        """The same, to be kept."""
        return Output(self.logits.copy(), None if self.hidden is None else self.hidden.copy())


class Outputs:
    """Views of a context's output rows; each holds until the next decode, and only the device's thread may ask for them.

    To be read once the decode is over: on a GPU that is after ``llama_synchronize``.
    """

    def __init__(self, context: Any, model: Model, name: str) -> None:
        self._context, self._name = context, name
        self._n_vocab, self._n_embd = model.n_vocab, model.n_embd
        self._views: dict[tuple[int, int], Floats] = {}  # llama.cpp's rows lie at the same places from decode to decode

    def row(self, row: int, *, hidden: bool) -> Output:
        """The outputs of a row; the state only where the batch was decoded with embeddings on."""
        return Output(self.logits(row), self._view(_STATES, row, self._n_embd) if hidden else None)

    def logits(self, row: int) -> Floats:
        """The logits (n_vocab,) of a row."""
        return self._view(_LOGITS, row, self._n_vocab)

    def _view(self, read: Any, row: int, width: int) -> Floats:
        address = read(self._context, row)
        if address is None:
            raise DecodeFailed(f"{self._name}: llama.cpp gave no output for a row")
        view = self._views.get((address, width))
        if view is None:
            view = self._views[address, width] = np.ctypeslib.as_array((ctypes.c_float * width).from_address(address))
        return view
