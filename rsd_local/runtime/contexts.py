"""How the contexts of an engine are made: llama.cpp's parameters from a role's settings."""

from __future__ import annotations

from typing import Any

from llama_cpp import llama_cpp as C

from rsd_local.config import RoleConfig
from rsd_local.errors import EngineError
from rsd_local.runtime import llama
from rsd_local.runtime.adapters import use_adapter
from rsd_local.runtime.model import Model
from rsd_local.runtime.mtp_support import MOST, for_head
from rsd_local.runtime.sizes import Sizes

_CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}  # ggml_type
_FLASH = {"auto": -1, "off": 0, "on": 1}
_SMALLER = "give a smaller --ctx-size"


def make_contexts(
    model: Model, config: RoleConfig, sizes: Sizes, name: str, *, threads: int, unified: bool, mtp: bool
) -> tuple[Any, Any]:  # fmt: skip
    """llama.cpp's context, and one for the model's multi-token head, None where it is not asked for or cannot be made.

    Args:
        model: the weights.
        config: of the role.
        sizes: of context and batches.
        name: the role, for messages.
        threads: that compute.
        unified: whether all sequences share one piece of the cache.
        mtp: whether the head has a context too.

    Raises:
        EngineError: llama.cpp cannot make such a context.
        ModelNotFound, BadAdapter: there is no such adapter, or it is not one for the model.
    """
    params = C.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = sizes.cells, sizes.slots, unified
    params.n_batch = params.n_ubatch = sizes.rows
    params.n_outputs_max = sizes.outputs
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = _FLASH[config.flash_attention]
    params.type_k = params.type_v = _CACHE_TYPES[config.cache_type]
    params.pooling_type, params.swa_full, params.no_perf = 0, True, True
    if mtp:
        params.n_rs_seq = MOST  # of memories that cannot be cut; llama.cpp sets it to 0 for those that do not keep states
    llama.clear_errors()
    places = next((tensor.shape[-1] for tensor in model.header.tensors if tensor.name == "position_embd.weight"), sizes.context)
    if sizes.context > places:  # llama.cpp would end the process at the first token behind the last one
        raise EngineError(f"{name}: {model.path.name} has {places} positions, no context of {sizes.context}", hint=_SMALLER)
    adapter = model.adapters.load(config.lora, trusted=config.trusted) if config.lora else None
    head = None
    with model.in_use() as handle:
        context = llama.GuardedCall().run(lambda: C.llama_init_from_model(handle, params), C.llama_free)
        if not context:
            raise EngineError(
                f"{name}: llama.cpp cannot make a context of {sizes.context} tokens for {sizes.slots} sequences: "
                f"{llama.last_errors() or 'no reason given'}",
                hint=f"{_SMALLER}, or another cache type",
            )
        if mtp:
            try:
                head = llama.GuardedCall().run(lambda: C.llama_init_from_model(handle, for_head(params, context)), C.llama_free)
            except BaseException:
                C.llama_free(context)
                raise
    if adapter is not None:
        use_adapter(context, adapter, config.lora_scale)
    return context, head
