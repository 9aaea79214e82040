"""Whether attention is fused (flash attention) where the settings leave that open."""

from __future__ import annotations

from rsd_local.config import FlashAttention, RoleConfig
from rsd_local.runtime.llama import C

FLASH_TYPES = {"auto": -1, "off": 0, "on": 1}  # llama_flash_attn_type
_KEPT_PLAIN = ("f16", "f32")  # types of caches that attention which is not fused reads as they are


def flash_attention(config: RoleConfig, *, on_gpu: bool) -> FlashAttention:
    """What llama.cpp is asked for.

    Left to itself it always fuses on a CPU. With AVX-512 that takes up to 2.9 times as long as the plain products
    (docs/decisions/0025), so there ``auto`` is off.

    Args:
        config: of the role.
        on_gpu: whether layers of it are on a GPU.
    """
    if config.flash_attention != "auto" or on_gpu or config.cache_type not in _KEPT_PLAIN:
        return config.flash_attention
    return "off" if b"AVX512 = 1" in C.llama_print_system_info() else "auto"
