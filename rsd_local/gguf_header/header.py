"""What a GGUF file says of itself, as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Value = int | float | bool | str | tuple[int | float | bool, ...] | None
"""A metadata value; None for what is skipped, long arrays and arrays of strings."""

BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
"""ggml_type → weights in a block, and its bytes."""


class Refused(Exception):
    """Why a file is refused, in one line."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, shape (the fastest dimension first), size in bytes, and ggml_type."""

    name: str
    shape: tuple[int, ...]
    size: int
    type: int


@dataclass(frozen=True, slots=True)
class Array:
    """Where an array of the metadata lies in the file.

    Attributes:
        type: gguf_type of its elements: 5 int32, 6 float32, 8 text (8 bytes of length, then UTF-8).
        count: elements.
        start: offset of the first element, in bytes.
        end: offset behind the last one.
        longest: bytes of the longest text; 0 for numbers.
    """

    type: int
    count: int
    start: int
    end: int
    longest: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself; of a model in several parts, what all of them say.

    Attributes:
        version: of the format.
        metadata: values by key, of the first part.
        tensors: in the files' order.
        size: of all files, in bytes.
        arrays: all arrays of the first part's metadata, by key.
        end: bytes of the first part's header; tensor data begins behind it.
        files: the model's files in order.
    """

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    size: int
    arrays: dict[str, Array]
    end: int
    files: tuple[Path, ...]
