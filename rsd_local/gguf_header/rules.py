"""Values of a header that llama.cpp ends the process on, or computes nonsense with, instead of refusing the file.

Only what no sound file has is refused here, with a clear cause. Everything else is found by trying the file
(``rsd_local.runtime.rehearsal``). What llama.cpp puts right by itself is no fault: a special token outside the vocabulary
becomes the default one, a rope scaling factor of 0 becomes 1.
"""

from __future__ import annotations

import math
import re

from rsd_local.gguf_header.header import Header, Refused, Tensor

_EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.group_norm_epsilon")
_FREQUENCIES = ("rope.freq_base", "rope.scaling.factor")
_TYPES = {0: "F32", 1: "F16", 9: "Q8_1", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
_F32 = 0
NOT_MULTIPLIED = {9, 15, 24, 25, 26, 27, 28}
"""ggml_types without a matrix product on the CPU: Q8_1 and Q8_K are for activations; a table of numbers is no matrix."""
_ADDED = re.compile(r".*norm\.weight|.*\.bias")
_MATRIX = re.compile(r"token_embd\.weight|output\.weight|blk\.\d+\.(attn_(q|k|v|qkv|output)|ffn_(gate|up|down)(_exps|_shexp)?)\.weight")


def check_values(header: Header) -> None:
    """Refuse values that no sound model has.

    Raises:
        Refused: with the cause.
    """
    _check_layers(header)
    _check_numbers(header)
    _check_vocabulary(header)
    for tensor in header.tensors:
        _check_type(tensor)


def _check_layers(header: Header) -> None:
    arch = header.metadata.get("general.architecture")
    layers = header.metadata.get(f"{arch}.block_count")
    if isinstance(layers, int) and (layers < 1 or layers > len(header.tensors) > 0):
        raise Refused(f"it claims {layers} layers and has {len(header.tensors)} tensors")
    heads = header.metadata.get(f"{arch}.attention.head_count")
    none = not any(heads) if isinstance(heads, tuple) else heads == 0
    attends = any(tensor.name.endswith(("attn_q.weight", "attn_qkv.weight")) for tensor in header.tensors)
    if heads is not None and none and attends:
        raise Refused("it claims 0 attention heads and has tensors of attention")


def _check_numbers(header: Header) -> None:
    arch = header.metadata.get("general.architecture")
    for key in (*_EPSILONS, *_FREQUENCIES):
        value = header.metadata.get(f"{arch}.{key}")
        if isinstance(value, float) and not 0 <= value < math.inf:
            raise Refused(f"{arch}.{key} is {value}")


def _check_vocabulary(header: Header) -> None:
    if header.metadata.get("tokenizer.ggml.model") in ("none", "no_vocab"):
        raise Refused("it has no vocabulary, so it can neither read nor write text")
    tokens = header.arrays.get("tokenizer.ggml.tokens")
    if tokens is None:
        return
    if tokens.count == 0:
        raise Refused("its vocabulary is empty")
    for name in ("scores", "token_type"):
        other = header.arrays.get(f"tokenizer.ggml.{name}")
        if other is not None and other.count < tokens.count:
            raise Refused(f"it has {tokens.count:,} tokens, and tokenizer.ggml.{name} is of {other.count:,}")


def _check_type(tensor: Tensor) -> None:
    if tensor.type != _F32 and _ADDED.fullmatch(tensor.name):
        raise Refused(f"tensor {tensor.name!r} is of type {_name(tensor)}, and must be F32")
    if tensor.type in NOT_MULTIPLIED and _MATRIX.fullmatch(tensor.name):
        raise Refused(f"tensor {tensor.name!r} is of type {_name(tensor)}, which is no type of weights")


def _name(tensor: Tensor) -> str:
    return _TYPES.get(tensor.type, str(tensor.type))
