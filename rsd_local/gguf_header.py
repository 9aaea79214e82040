"""A bounded reader of GGUF headers: a damaged or hostile file is refused here, before llama.cpp sees it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from rsd_local.errors import ModelNotFound, NotAModel

Value = int | float | bool | str | tuple[int | float | bool, ...] | None
"""A metadata value; None for what is skipped, long arrays and arrays of strings."""

MOST_KEYS, MOST_TENSORS, MOST_ELEMENTS = 10_000, 100_000, 20_000_000
LONGEST_KEY, LONGEST_NAME, MOST_DIMENSIONS = 65_535, 63, 4
LONGEST_TEXT = 1 << 20  # bytes of a text that is kept; longer ones are skipped
KEPT_ARRAY = 1_024
DEFAULT_ALIGNMENT = 32
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
"""ggml_type → weights in a block, and its bytes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, shape (the fastest dimension first), and size in bytes."""

    name: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        version: of the format.
        metadata: values by key.
        tensors: in the file's order.
        size: of the file, in bytes.
    """

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    size: int


class _Bad(Exception):
    """Why a header is refused."""


def read_header(path: Path) -> Header:
    """Reads a file's header.

    Raises:
        ModelNotFound: there is no such file, or it cannot be read.
        NotAModel: it is no GGUF file, or one that breaks a rule of the format; the message says which.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise _Bad("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size).header()
    except IsADirectoryError:
        raise ModelNotFound(f"{path} is a directory", hint="give the GGUF file in it") from None
    except FileNotFoundError:
        raise ModelNotFound(f"no model file {path}", hint="check the path") from None
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"{path} cannot be read: {error}") from None
    except _Bad as why:
        raise NotAModel(f"{path} is not a GGUF file that can be used: {why}", hint="download it again, or choose another file") from None


class _Reader:
    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data, self._size, self._at = data, size, 0

    def header(self) -> Header:
        if self._data[:4] != b"GGUF":
            raise _Bad("it does not begin with GGUF")
        self._at = 4
        version = int(self._number("I"))
        if version not in (2, 3):
            raise _Bad("it is big-endian" if version in (2 << 24, 3 << 24) else f"its version is {version}, not 2 or 3")
        tensors, keys = self._count("tensors", MOST_TENSORS), self._count("keys", MOST_KEYS)
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._text(LONGEST_KEY, "a key")
            if key in metadata:
                raise _Bad(f"the key {key[:80]!r} stands there twice")
            metadata[key] = self._value(int(self._number("I")), key)
        return Header(version, metadata, self._tensors(tensors, _alignment(metadata)), self._size)

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        found, ends = dict[str, Tensor](), 0
        for _ in range(count):
            name = self._text(LONGEST_NAME, "a tensor's name")
            dimensions = int(self._number("I"))
            if not 1 <= dimensions <= MOST_DIMENSIONS:
                raise _Bad(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(int(self._number("Q")) for _ in range(dimensions))
            kind, offset = int(self._number("I")), int(self._number("Q"))
            if kind not in BLOCKS:
                raise _Bad(f"tensor {name!r} is of type {kind}, which is not known")
            block, size = BLOCKS[kind]
            if min(shape) < 1 or shape[0] % block:
                raise _Bad(f"tensor {name!r} has the shape {shape}")
            bytes_ = math.prod(shape) // block * size
            if offset % alignment or offset + bytes_ > self._size:
                raise _Bad(f"tensor {name!r} lies outside the file" if offset + bytes_ > self._size else f"tensor {name!r} is not aligned")
            if name in found:
                raise _Bad(f"the tensor {name!r} stands there twice")
            found[name] = Tensor(name, shape, bytes_)
            ends = max(ends, offset + bytes_)
        begins = -(-self._at // alignment) * alignment
        if begins + ends > self._size and count:
            raise _Bad(f"it is cut off: {begins + ends:,} bytes are needed, it has {self._size:,}")
        return tuple(found.values())

    def _value(self, kind: int, key: str) -> Value:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._kept_text()
        if kind != _ARRAY:
            raise _Bad(f"the key {key[:80]!r} is of type {kind}, which is not known")
        kind, count = int(self._number("I")), self._count("elements", MOST_ELEMENTS)
        if kind == _STRING:
            self._skip_texts(count)
            return None
        if kind not in _SCALARS:
            raise _Bad(f"the array {key[:80]!r} is of type {kind}, which is not known")
        form = _SCALARS[kind]
        start = self._at
        self._skip(count * struct.calcsize(f"<{form}"))
        return struct.unpack_from(f"<{count}{form}", self._data, start) if count <= KEPT_ARRAY else None

    def _number(self, form: str) -> int | float | bool:
        start = self._at
        self._skip(struct.calcsize(f"<{form}"))
        value: int | float | bool = struct.unpack_from(f"<{form}", self._data, start)[0]
        return value

    def _count(self, what: str, most: int) -> int:
        count = int(self._number("Q"))
        if count > most:
            raise _Bad(f"it claims {count:,} {what}, more than {most:,}")
        return count

    def _text(self, longest: int, what: str) -> str:
        length = int(self._number("Q"))
        if length > longest:
            raise _Bad(f"{what} claims {length:,} bytes, more than {longest:,}")
        start = self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8", "replace")

    def _kept_text(self) -> str | None:
        length, start = int(self._number("Q")), self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8", "replace") if length <= LONGEST_TEXT else None

    def _skip_texts(self, count: int) -> None:
        """A vocabulary has 150,000 of them, so this loop is bare."""
        length_at, data, at, last = struct.Struct("<Q").unpack_from, self._data, self._at, self._size - 8
        for _ in range(count):
            if at > last:
                raise _Bad("its header is cut off")
            at += 8 + length_at(data, at)[0]
        self._at = min(at, self._size)
        self._skip(at - self._at)

    def _skip(self, count: int) -> None:
        if count > self._size - self._at:
            raise _Bad("its header is cut off")
        self._at += count


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or value & (value - 1) or value > 1 << 20:
        raise _Bad(f"its alignment is {value!r}, no power of two")
    return value
