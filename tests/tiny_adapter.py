"""Tiny random LoRA adapters, and models whose weights have one merged into them by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from changed import write_changed

from rsd_local.gguf_header import read_header

RANK = 3
TABLE = "token_embd.weight"


def write_adapter(
    path: Path, base: Path, names: Sequence[str], *, alpha: float | None = 6.0, seed: int = 0, size: float = 1.0, **more: Any
) -> Path:
    """Writes an adapter for some of a model's tensors, as llama.cpp's ``convert_lora_to_gguf.py`` does, and returns its path.

    Args:
        path: of the file.
        base: the model.
        names: of its tensors.
        alpha: of the adapter, None to leave it away.
        seed: of its numbers.
        size: of its numbers.
        more: texts of its metadata, by key with ``__`` for a dot.
    """
    chance, header = np.random.default_rng(seed), read_header(base)
    shapes = {tensor.name: tensor.shape[::-1] for tensor in header.tensors}
    out = gguf.GGUFWriter(path, str(header.metadata["general.architecture"]))
    said = {"general.type": "adapter", "adapter.type": "lora"} | {key.replace("__", "."): text for key, text in more.items()}
    for key, text in said.items():
        out.add_string(key, text)
    if alpha is not None:
        out.add_float32("adapter.lora.alpha", alpha)
    for name in names:
        *experts, rows, columns = shapes[name]
        first, second = ((rows, RANK), (columns, RANK)) if name == TABLE else ((*experts, RANK, columns), (*experts, rows, RANK))
        for half, shape in (("lora_a", first), ("lora_b", second)):
            out.add_tensor(f"{name}.{half}", (size * chance.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def write_merged(path: Path, base: Path, adapter: Path, scale: float = 1.0) -> Path:
    """Writes a model whose weights are W + scale · alpha / rank · B A, and returns its path."""
    read = gguf.GGUFReader(adapter)
    field = read.fields.get("adapter.lora.alpha")
    alpha = 0.0 if field is None else field.contents()
    factor = scale * alpha / RANK if alpha else scale  # an alpha of 0 is none
    halves = {tensor.name: np.array(tensor.data) for tensor in read.tensors}

    def merged(name: str) -> Any:
        first, second = halves[f"{name}.lora_a"], halves[f"{name}.lora_b"]
        added = first @ second.T if name == TABLE else second @ first
        return lambda data: (data + factor * added).astype(np.float32)

    return write_changed(base, path, {}, {name: merged(name) for name in {half.rpartition(".")[0] for half in halves}})
