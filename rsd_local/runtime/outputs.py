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
class Held:
    """The outputs of one token, kept for whoever goes on from it."""

    kept_logits: Floats
    kept_hidden: Floats

    def logits(self, row: int) -> Floats:
        """The logits (n_vocab,)."""
        return self.kept_logits

    def hidden(self, row: int) -> Floats:
        """The hidden state (n_embd,)."""
        return self.kept_hidden


class Outputs:
    """Views of a context's output rows; each holds until the next decode, and only the context's own thread may look.

    To be read once the decode is over: on a GPU that is after ``llama_synchronize``.
    """

    def __init__(self, context: Any, model: Model, name: str) -> None:
        self._context, self._model, self._name = context, model, name
        self._views: dict[tuple[int, int], Floats] = {}  # llama.cpp's rows lie at the same places from decode to decode

    def logits(self, row: int) -> Floats:
        """The logits (n_vocab,) of a row."""
        return self._view(_LOGITS, row, self._model.n_vocab)

    def hidden(self, row: int) -> Floats:
        """The hidden state (n_embd,) of a row after the final norm, where the batch was decoded with embeddings on."""
        return self._view(_STATES, row, self._model.n_embd)

    def _view(self, read: Any, row: int, width: int) -> Floats:
        address = read(self._context, row)
        if address is None:
            raise DecodeFailed(f"{self._name}: llama.cpp gave no output for a row")
        view = self._views.get((address, width))
        if view is None:
            view = self._views[address, width] = np.ctypeslib.as_array((ctypes.c_float * width).from_address(address))
        return view
