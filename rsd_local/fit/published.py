"""What a model that is not here will need, from the figures that the catalogue has of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rsd_local.catalogue.models import ModelEntry
from rsd_local.gguf_header import Header, Tensor, Value

_ARCH = "published"


def published_headers(entries: Iterable[ModelEntry]) -> dict[Path, Header]:
    """Stand-ins for the headers of GGUF files that are not here, by the paths that the files will have.

    Args:
        entries: of the catalogue; those whose file is here, with all its parts, are left out.
    """
    return {entry.path: published_header(entry) for entry in entries if entry.path.suffix == ".gguf" and entry.state != "here"}


def published_header(entry: ModelEntry) -> Header:
    """A header with the size and the layers that the catalogue gives; the bytes are shared out by the layers' weights.

    Where the catalogue has no shape of it, the model is one layer that keeps nothing of a token, so only its weights count.
    """
    size = round(entry.gigabytes * 1e9)
    metadata: dict[str, Value] = {"general.architecture": _ARCH, f"{_ARCH}.block_count": 1}
    if entry.context is not None:
        metadata[f"{_ARCH}.context_length"] = entry.context
    tensors = [Tensor("blk.0", (1,), size, 0)]
    shape = entry.shape
    if shape is None:
        metadata[f"{_ARCH}.attention.head_count_kv"] = 0
    else:
        metadata |= {
            f"{_ARCH}.block_count": shape.layers,
            f"{_ARCH}.embedding_length": shape.width,
            f"{_ARCH}.feed_forward_length": shape.feed_forward,
            f"{_ARCH}.attention.head_count": shape.heads,
            f"{_ARCH}.attention.head_count_kv": shape.kv_heads,
            f"{_ARCH}.attention.key_length": shape.head_size,
            f"{_ARCH}.attention.value_length": shape.head_size,
            f"{_ARCH}.full_attention_interval": shape.full_attention_interval,
        }
        table = shape.vocabulary * shape.width
        layer = shape.width * (2 * (shape.heads + shape.kv_heads) * shape.head_size + 3 * shape.feed_forward)
        each = size * layer // (table + shape.layers * layer)
        tensors = [Tensor(f"blk.{number}", (layer,), each, 0) for number in range(shape.layers)]
        tensors.append(Tensor("token_embd.weight", (shape.width, shape.vocabulary), size - shape.layers * each, 0))
    return Header(3, metadata, tuple(tensors), size, {}, 0, (entry.path,))
