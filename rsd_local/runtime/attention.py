"""Whether attention is fused (flash attention) where the settings leave that open."""

from __future__ import annotations

from dataclasses import replace

from rsd_local.config import RoleConfig
from rsd_local.runtime.llama import C, supports_gpu

_READ_AS_THEY_ARE = ("f16", "f32")  # types of caches that attention which is not fused reads fast


def faster_attention(config: RoleConfig) -> RoleConfig:
    """The same settings, with attention not fused where that is faster and they leave it open.

    llama.cpp fuses wherever a device can, and a CPU always can. On CPUs with AVX-512 that takes up to 2.9 times as long as the plain
    products. But these round batches of several rows otherwise than single rows, so this is for drafts and rewards, whose rows
    nobody compares (docs/decisions/0025).

    Args:
        config: of the role.
    """
    on_gpu = supports_gpu() and config.gpu_layers != 0
    if config.flash_attention != "auto" or on_gpu or config.cache_type not in _READ_AS_THEY_ARE:
        return config
    return replace(config, flash_attention="off") if b"AVX512 = 1" in C.llama_print_system_info() else config
