"""Model files with the shape of a large model and random weights: what they write is nonsense, and takes as long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

_BLOCK, _BYTES = 32, 18  # of Q4_0: numbers, and bytes with their scale
_SPREAD = 4.6  # standard deviation of a number before its scale: it is one of −8 to 7, all equally likely
_SEED = 18


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a dense transformer.

    Attributes:
        layers: how many.
        width: n_embd, a multiple of 32.
        inner: numbers of a token in the feed-forward part, a multiple of 32.
        heads, kv_heads: of attention.
    """

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int


SHAPES = {
    "quick": Shape(2, 128, 256, 4, 2),
    "1.5b": Shape(28, 1536, 8960, 12, 2),
    "7b": Shape(28, 3584, 18944, 28, 4),
    "14b": Shape(48, 5120, 13824, 40, 8),
}
"""All but the first one Qwen2.5's (config.json of Qwen/Qwen2.5-1.5B, -7B and -14B)."""


def write_shape(folder: Path, name: str, like: Path) -> Path:
    """Write a model of random Q4_0 weights unless it is there, and return its path.

    Args:
        folder: where to.
        name: of its shape.
        like: a model of the architecture qwen2 or llama, whose tokenizer and settings it gets.
    """
    path = folder / f"{name}-like-{like.stem}.gguf"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    shape, reader = SHAPES[name], gguf.GGUFReader(like)
    arch = str(reader.fields["general.architecture"].contents())
    out = gguf.GGUFWriter(part, arch)
    _copy_settings(out, reader, arch, shape, name)
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    made = _tensors(arch, shape, vocabulary)
    for tensor, size in made.items():
        matrix = len(size) == 2
        stored = (size[0], size[1] // _BLOCK * _BYTES) if matrix else size
        kind, quantized = (np.uint8, gguf.GGMLQuantizationType.Q4_0) if matrix else (np.float32, None)
        out.add_tensor_info(tensor, stored, np.dtype(kind), int(np.prod(stored)) * np.dtype(kind).itemsize, quantized)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    chance = np.random.default_rng(_SEED)
    for tensor, size in made.items():  # one after another, for together they may not fit the memory
        out.write_tensor_data(_quantized(chance, size) if len(size) == 2 else _plain(tensor, size))
    out.close()
    part.rename(path)
    return path


def _copy_settings(out: Any, reader: Any, arch: str, shape: Shape, name: str) -> None:
    """All of a model's metadata, with the sizes of another shape."""
    sizes = {
        "block_count": shape.layers,
        "embedding_length": shape.width,
        "feed_forward_length": shape.inner,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "rope.dimension_count": shape.width // shape.heads,
    }
    changed = {f"{arch}.{key}": value for key, value in sizes.items()} | {"general.name": f"random weights, {name}"}
    left_out = {"general.architecture", "general.file_type", "general.size_label"} | {
        f"{arch}.attention.{key}_length" for key in ("key", "value")
    }
    for key, value in changed.items():
        (out.add_string if isinstance(value, str) else out.add_uint32)(key, value)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in left_out or key in changed:
            continue
        inside = field.types[1] if len(field.types) > 1 else None
        out.add_key_value(key, field.contents(), field.types[0], inside)


def _tensors(arch: str, shape: Shape, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Rows and columns of each tensor, by name."""
    keys = shape.width // shape.heads * shape.kv_heads
    made: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, shape.width),
        "output_norm.weight": (shape.width,),
        "output.weight": (vocabulary, shape.width),
    }
    for layer in range(shape.layers):
        matrices = {"attn_q": shape.width, "attn_k": keys, "attn_v": keys}
        for name, rows in matrices.items():
            made[f"blk.{layer}.{name}.weight"] = (rows, shape.width)
            if arch == "qwen2":
                made[f"blk.{layer}.{name}.bias"] = (rows,)
        made |= {
            f"blk.{layer}.attn_norm.weight": (shape.width,),
            f"blk.{layer}.attn_output.weight": (shape.width, shape.width),
            f"blk.{layer}.ffn_norm.weight": (shape.width,),
            f"blk.{layer}.ffn_gate.weight": (shape.inner, shape.width),
            f"blk.{layer}.ffn_up.weight": (shape.inner, shape.width),
            f"blk.{layer}.ffn_down.weight": (shape.width, shape.inner),
        }
    return made


def _quantized(chance: np.random.Generator, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Random Q4_0 blocks of a spread that keeps a token's numbers of one size from layer to layer."""
    rows, columns = size
    blocks = np.frombuffer(bytearray(chance.bytes(rows * columns // _BLOCK * _BYTES)), np.uint8).reshape(-1, _BYTES)
    blocks[:, :2] = np.frombuffer(np.float16(1 / (_SPREAD * columns**0.5)).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)


def _plain(name: str, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Norms of one, biases of zero."""
    return np.full(size, float(name.endswith("norm.weight")), np.float32)
