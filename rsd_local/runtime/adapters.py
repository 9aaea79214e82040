"""LoRA adapters of a model: loaded once each, and used by those contexts that are told to.

llama.cpp frees them together with the model, so nothing here does. Their weights lie beside the model's, which stay as they are:
each batch of a context with an adapter multiplies by both.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as C

from rsd_local.errors import BadAdapter, EngineError
from rsd_local.gguf_header import check_adapter, read_adapter
from rsd_local.runtime import llama
from rsd_local.runtime.rehearsal import rehearse

if TYPE_CHECKING:
    from rsd_local.runtime.model import Model


class Adapters:
    """The LoRA adapters of a model.

    Args:
        model: whose weights they add to.
    """

    def __init__(self, model: Model) -> None:
        self._model, self._loaded, self._lock = model, dict[Path, Any](), threading.Lock()

    def load(self, path: Path, *, trusted: bool = False) -> Any:
        """The C pointer of an adapter, to be loaded before the context that uses it is made: that reckons with its size.

        Args:
            path: the GGUF file.
            trusted: whether it is loaded without a rehearsal.

        Raises:
            ModelNotFound: there is no such file.
            BadAdapter: it is no LoRA adapter, is damaged, belongs to another model, or llama.cpp cannot use it.
            Closed: the model was closed.
        """
        with self._lock, self._model.in_use() as handle:
            known = self._loaded.get(path.resolve())
            if known is not None:
                return known
            header = read_adapter(path)
            check_adapter(header, self._model.header)
            rehearse(self._model.path, self._model.header, trusted=trusted, adapter=header)
            llama.clear_errors()
            load = functools.partial(C.llama_adapter_lora_init, handle, os.fsencode(path))
            made = llama.GuardedCall().run(load, C.llama_adapter_lora_free)
            if not made:
                raise BadAdapter(
                    f"{path} cannot be loaded: {llama.last_errors() or 'llama.cpp gave no reason'}",
                    hint="give another adapter, or another base model",
                )
            self._loaded[path.resolve()] = made
            return made


def use_adapter(context: Any, adapter: Any, scale: float) -> None:
    """Let a context compute with an adapter.

    Args:
        context: no batch of it is being decoded.
        adapter: of ``Adapters.load``, on the context's model.
        scale: what its effect is multiplied by.

    Raises:
        EngineError: llama.cpp refuses.
    """
    adapters, scales = (C.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(scale)
    if C.llama_set_adapters_lora(context, adapters, 1, scales) != 0:
        raise EngineError(f"llama.cpp cannot use a LoRA adapter: {llama.last_errors() or 'no reason given'}")
