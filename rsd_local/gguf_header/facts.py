"""What a header tells of a model as a whole: its weights, those that one token meets, and how far its positions reach."""

from __future__ import annotations

import math
import re

from rsd_local.gguf_header.header import Header, Tensor

_EXPERTS = re.compile(r"blk\.(\d+)\.ffn_\w+_(ch)?exps\.(weight|bias|scale)")
"""Tensors that hold one part for each expert; a router (``ffn_gate_inp``) and shared experts (``_shexp``) serve every token."""


def parameters(header: Header) -> int:
    """The number of weights, as llama.cpp counts them."""
    return sum(math.prod(tensor.shape) for tensor in header.tensors)


def active_parameters(header: Header) -> int:
    """The number of weights that one token is multiplied with: of a mixture of experts, those that its router chooses, and the rest.

    So Mixtral 8x7B, with 2 of 8 experts, has 46.7 billion weights, of which 12.9 billion are active.
    """
    return sum(round(math.prod(tensor.shape) * active_share(header, tensor)) for tensor in header.tensors)


def active_share(header: Header, tensor: Tensor) -> float:
    """The share of a tensor that one token reads: experts used of experts there, 1 for every other tensor."""
    found = _EXPERTS.fullmatch(tensor.name)
    if found is None or tensor.shape[-1] < 1:
        return 1.0
    used = experts_used(header, int(found[1]))
    return min(1.0, used / tensor.shape[-1]) if used else 1.0


def experts_used(header: Header, layer: int) -> int:
    """The experts that one token uses in a layer; 0 where the header says nothing of it."""
    value = header.metadata.get(f"{header.metadata.get('general.architecture')}.expert_used_count")
    if isinstance(value, tuple):
        value = value[layer] if layer < len(value) else 0
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def longest_context(header: Header) -> int:
    """The tokens that a model was trained for, with what RoPE scaling in the header makes of them; 0 where it does not say.

    The factor stretches ``rope.scaling.original_context_length`` where that is given, otherwise ``context_length``.
    """
    arch = header.metadata.get("general.architecture")

    def number(key: str) -> float:
        value = header.metadata.get(f"{arch}.{key}")
        return value if isinstance(value, int | float) and 0 < value < 1 << 40 else 0

    trained, factor = int(number("context_length")), number("rope.scaling.factor")
    if header.metadata.get(f"{arch}.rope.scaling.type", "linear") == "none" or factor <= 1:
        return trained
    return max(trained, int((number("rope.scaling.original_context_length") or trained) * factor))
