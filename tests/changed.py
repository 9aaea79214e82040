"""Copies of GGUF files with single values and tensors changed, for what no writer would write by itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from rsd_local.gguf_header import Header

Kind = gguf.GGUFValueType
Dtype = gguf.GGMLQuantizationType


def write_changed(
    source: Path, target: Path, values: Mapping[str, tuple[Any, Kind]] = {}, tensors: Mapping[str, Callable[[np.ndarray], Any]] = {}
) -> Path:
    """Writes a copy.

    Args:
        source: the file.
        target: the copy.
        values: by key, what is changed or added, with its type; an element's type for a list; None leaves the key away.
        tensors: by name, what becomes of a tensor's numbers: an array, a pair of bytes and their type, or None for no tensor.
    """
    read = gguf.GGUFReader(source)
    fields = {field.name: field for field in read.fields.values() if not field.name.startswith("GGUF.")}
    out = gguf.GGUFWriter(target, fields.pop("general.architecture").contents())
    kept = {key: (field.contents(), field.types[0], field.types[-1]) for key, field in fields.items() if key not in values}
    new = {
        key: (value, Kind.ARRAY if isinstance(value, list) else kind, kind) for key, (value, kind) in values.items() if value is not None
    }
    for key, (value, kind, element) in (kept | new).items():
        out.add_key_value(key, value, kind, sub_type=element if kind == Kind.ARRAY else None)
    for tensor in read.tensors:
        changed = tensors.get(tensor.name, lambda data: data)(tensor.data.copy())
        if isinstance(changed, tuple):
            out.add_tensor(tensor.name, changed[0], raw_dtype=changed[1])
        elif changed is not None:
            out.add_tensor(tensor.name, changed, raw_dtype=tensor.tensor_type if changed.dtype == tensor.data.dtype else None)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return target


def write_parts(source: Path, first: Path, count: int = 3) -> tuple[Path, ...]:
    """Writes a copy in several parts as ``gguf-split`` does, and returns their paths.

    Args:
        source: the file.
        first: the path that the whole file would have; the parts' names are made of it.
        count: parts.
    """
    read = gguf.GGUFReader(source)
    out = gguf.GGUFWriter(first, read.fields["general.architecture"].contents(), split_max_tensors=-(-len(read.tensors) // count))
    for key, field in read.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            out.add_key_value(key, field.contents(), field.types[0], sub_type=field.types[-1] if field.types[0] == Kind.ARRAY else None)
    for tensor in read.tensors:
        out.add_tensor(tensor.name, tensor.data.copy(), raw_dtype=tensor.tensor_type)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return tuple(first.with_name(f"{first.stem}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1))


def empty_blocks(kind: Dtype) -> Callable[[np.ndarray], tuple[np.ndarray, Dtype]]:
    """Makes a tensor one of another type, all zeros."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return lambda data: (np.zeros((*data.shape[:-1], data.shape[-1] // block * size), np.uint8), kind)


def damaged(whole: bytes, header: Header, chance: random.Random) -> bytes:
    """A copy with one or two numbers wrong: in the keys and shapes, rarely in the vocabulary or the weights."""
    data, long = bytearray(whole), [(array.start, array.end) for array in header.arrays.values() if array.count > 50]
    structure = [at for at in range(24, header.end - 4) if not any(start <= at < end for start, end in long)]
    for _ in range(chance.choice((1, 1, 2))):
        at = chance.choice(structure)
        match chance.randrange(6):
            case 0 | 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data[at] = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255))
            case 3:
                data[at : at + 4] = chance.choice((0, 1, 3, 255, 513, 1 << 16, 1 << 31, (1 << 32) - 1)).to_bytes(4, "little")
            case 4:
                data[chance.randrange(24, header.end)] = chance.randrange(256)
            case 5:
                place = chance.randrange(header.end, len(data) - 4)
                data[place : place + 4] = chance.choice((b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\xff" * 4))
    return bytes(data)
