"""What a multi-token head (MTP) needs of a file and of llama-cpp-python, and how its context is made, fed and read."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as C

from rsd_local.errors import DecodeFailed
from rsd_local.gguf_header import Header
from rsd_local.runtime.batch import Batch


def _calls() -> Any:
    """llama.cpp's calls for a head, which are outside its stable interface; None of an older or another build."""
    try:
        from llama_cpp import llama_cpp_ext
    except (ImportError, AttributeError):
        return None
    return llama_cpp_ext


X = _calls()
States = Sequence[npt.NDArray[np.float32]]
MOST = 4
"""Tokens that are guessed at a time; a recurrent memory keeps as many states to go back to (``n_rs_seq``)."""


def library_has_mtp() -> bool:
    """Whether the installed llama-cpp-python has what a head needs."""
    models, contexts = ({name for name, *_ in kind._fields_} for kind in (C.llama_model_params, C.llama_context_params))
    calls = hasattr(X, "llama_set_embeddings_nextn") and hasattr(X, "llama_get_embeddings_nextn_ith")
    return calls and hasattr(C, "LLAMA_CONTEXT_TYPE_MTP") and "load_mtp" in models and {"ctx_type", "ctx_other", "n_rs_seq"} <= contexts


def has_mtp(header: Header) -> bool:
    """Whether a file has one multi-token head, by its metadata and its tensors. Most of llama.cpp's models refuse several."""
    arch = header.metadata.get("general.architecture")
    declared = header.metadata.get(f"{arch}.nextn_predict_layers") == 1
    return declared and any(tensor.name.endswith(".nextn.eh_proj.weight") for tensor in header.tensors)


def for_head(params: Any, target: Any) -> Any:
    """Parameters of a context, changed for the context of its head.

    Args:
        params: llama.cpp's, of the engine's context.
        target: that context.
    """
    params.ctx_type, params.ctx_other = C.LLAMA_CONTEXT_TYPE_MTP, target
    params.n_rs_seq, params.n_outputs_max = 0, params.n_seq_max  # llama.cpp aborts with fewer outputs than sequences
    return params


class PairBatch(Batch):
    """Rows of a token and a state each.

    Args:
        capacity: the most rows.
        model: llama.cpp's, whose states they are.
    """

    def __init__(self, capacity: int, model: Any) -> None:
        super().__init__(capacity)
        self._given = np.zeros((capacity, C.llama_model_n_embd_out(model)), np.float32)
        self.struct.embd = self._given.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    def add_pairs(self, slot: int, position: int, tokens: list[int], states: States, outputs: int) -> None:
        """Add rows; as ``add``, with a state (n_embd,) for each token."""
        for row, state in enumerate(states, self.rows):
            self._given[row] = state
        self.add(slot, position, tokens, outputs)


def states_of(context: Any, row: int, rows: int, width: int) -> list[npt.NDArray[np.float32]]:
    """Copies of the states that a context's last batch gave, before it reads or decodes anything else.

    Args:
        context: llama.cpp's, told to give those of all rows.
        row: of the batch, the first one.
        rows: how many that follow one another.
        width: numbers of one state.

    Raises:
        DecodeFailed: llama.cpp has none.
    """
    address = ctypes.cast(X.llama_get_embeddings_nextn_ith(context, row), ctypes.c_void_p).value
    if address is None:
        raise DecodeFailed("llama.cpp gave no states for the multi-token head")
    return list(np.ctypeslib.as_array((ctypes.c_float * (rows * width)).from_address(address)).reshape(rows, width).copy())
