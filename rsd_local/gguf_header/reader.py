"""Reading a GGUF header: every count and offset is checked before it is used.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import hashlib
import math
import mmap
import stat
import struct
from pathlib import Path

from rsd_local.errors import ModelNotFound, NotAModel
from rsd_local.gguf_header.header import BLOCKS, Array, Header, Refused, Tensor, Value

MOST_KEYS, MOST_TENSORS, MOST_ELEMENTS = 10_000, 100_000, 20_000_000
LONGEST_KEY, LONGEST_NAME, MOST_DIMENSIONS = 65_535, 63, 4
LONGEST_TEXT = 1 << 20  # bytes of a text that is kept; longer ones are skipped
KEPT_ARRAY = 1_024
DEFAULT_ALIGNMENT = 32
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")


class KnownTexts:
    """Arrays of texts that were walked through before: models of a family have the same vocabulary, and it is read by its bytes then.

    Walking through 150,000 texts takes a tenth of a second, comparing them a few thousandths.
    """

    def __init__(self) -> None:
        self._found: dict[int, dict[tuple[int, bytes], int]] = {}  # by count: bytes and hash of all texts, and the longest one's bytes

    def find(self, data: mmap.mmap, start: int, count: int) -> tuple[int, int] | None:
        """The bytes of the texts that begin at an offset, and those of the longest one; None where they are not known."""
        for (size, digest), longest in self._found.get(count, {}).items():
            if start + size <= len(data) and _digest(data, start, size) == digest:
                return size, longest
        return None

    def note(self, data: mmap.mmap, start: int, count: int, size: int, longest: int) -> None:
        """Keeps what walking through them gave."""
        if count > KEPT_ARRAY:
            self._found.setdefault(count, {})[size, _digest(data, start, size)] = longest


def _digest(data: mmap.mmap, start: int, size: int) -> bytes:
    return hashlib.sha256(data[start : start + size]).digest()


def read_part(path: Path, known: KnownTexts | None = None) -> Header:
    """Read the header of one file, which may be one part of a model; its values are not checked.

    Args:
        path: the file.
        known: what files read before have in common with it, where several are read.

    Raises:
        ModelNotFound: there is no such file, or it cannot be read.
        NotAModel: it is no GGUF file, or breaks a rule of the format; the message says which.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise Refused("it is no regular file")  # opening a pipe would wait for its other end
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise Refused("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size, known).header(path)
    except IsADirectoryError:
        raise ModelNotFound(f"{path} is a directory", hint="give the GGUF file in it") from None
    except FileNotFoundError:
        raise ModelNotFound(f"no model file {path}", hint="check the path") from None
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"{path} cannot be read: {error}") from None
    except Refused as why:
        raise NotAModel(f"{path} is not a GGUF file that can be used: {why}", hint="download it again, or choose another file") from None


class _Reader:
    def __init__(self, data: mmap.mmap, size: int, known: KnownTexts | None) -> None:
        self._data, self._size, self._at, self._known = data, size, 0, known
        self._arrays: dict[str, Array] = {}

    def header(self, path: Path) -> Header:
        if self._data[:4] != b"GGUF":
            raise Refused("it does not begin with GGUF")
        self._at = 4
        version = int(self._number("I"))
        if version not in (2, 3):
            raise Refused("it is big-endian" if version in (2 << 24, 3 << 24) else f"its version is {version}, not 2 or 3")
        tensors, keys = self._count("tensors", MOST_TENSORS), self._count("keys", MOST_KEYS)
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._text(LONGEST_KEY, "a key")
            if key in metadata:
                raise Refused(f"the key {key[:80]!r} stands there twice")
            metadata[key] = self._value(int(self._number("I")), key)
        found = self._tensors(tensors, _alignment(metadata))
        return Header(version, metadata, found, self._size, self._arrays, self._at, (path,))

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        found, ends = dict[str, Tensor](), 0
        for _ in range(count):
            name = self._text(LONGEST_NAME, "a tensor's name")
            dimensions = int(self._number("I"))
            if not 1 <= dimensions <= MOST_DIMENSIONS:
                raise Refused(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(int(self._number("Q")) for _ in range(dimensions))
            kind, offset = int(self._number("I")), int(self._number("Q"))
            if kind not in BLOCKS:
                raise Refused(f"tensor {name!r} is of type {kind}, which is not known")
            block, size = BLOCKS[kind]
            if min(shape) < 1 or shape[0] % block:
                raise Refused(f"tensor {name!r} has the shape {shape}")
            bytes_ = math.prod(shape) // block * size
            if offset % alignment or offset + bytes_ > self._size:
                raise Refused(
                    f"tensor {name!r} lies outside the file" if offset + bytes_ > self._size else f"tensor {name!r} is not aligned"
                )
            if name in found:
                raise Refused(f"the tensor {name!r} stands there twice")
            found[name] = Tensor(name, shape, bytes_, kind)
            ends = max(ends, offset + bytes_)
        begins = -(-self._at // alignment) * alignment
        if begins + ends > self._size and count:
            raise Refused(f"it is cut off: {begins + ends:,} bytes are needed, it has {self._size:,}")
        return tuple(found.values())

    def _value(self, kind: int, key: str) -> Value:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._kept_text()
        if kind != _ARRAY:
            raise Refused(f"the key {key[:80]!r} is of type {kind}, which is not known")
        kind, count = int(self._number("I")), self._count("elements", MOST_ELEMENTS)
        start, longest = self._at, 0
        if kind == _STRING:
            longest = self._skip_texts(count)
        elif kind in _SCALARS:
            self._skip(count * struct.calcsize(f"<{_SCALARS[kind]}"))
        else:
            raise Refused(f"the array {key[:80]!r} is of type {kind}, which is not known")
        self._arrays[key] = Array(kind, count, start, self._at, longest)
        kept = kind != _STRING and count <= KEPT_ARRAY
        return struct.unpack_from(f"<{count}{_SCALARS[kind]}", self._data, start) if kept else None

    def _number(self, form: str) -> int | float | bool:
        start = self._at
        self._skip(struct.calcsize(f"<{form}"))
        value: int | float | bool = struct.unpack_from(f"<{form}", self._data, start)[0]
        return value

    def _count(self, what: str, most: int) -> int:
        count = int(self._number("Q"))
        if count > most:
            raise Refused(f"it claims {count:,} {what}, more than {most:,}")
        return count

    def _text(self, longest: int, what: str) -> str:
        length = int(self._number("Q"))
        if length > longest:
            raise Refused(f"{what} claims {length:,} bytes, more than {longest:,}")
        start = self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8", "replace")

    def _kept_text(self) -> str | None:
        length, start = int(self._number("Q")), self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8", "replace") if length <= LONGEST_TEXT else None

    def _skip_texts(self, count: int) -> int:
        """Skips texts and returns the bytes of the longest one. A vocabulary has 150,000 of them, so this loop is bare."""
        length_at, data, at, longest = _LENGTH.unpack_from, self._data, self._at, 0
        before = self._known.find(data, at, count) if self._known else None
        if before is not None:
            self._skip(before[0])
            return before[1]
        try:
            for _ in range(count):
                length = length_at(data, at)[0]
                at += 8 + length
                if length > longest:
                    longest = length
        except (struct.error, OverflowError):
            raise Refused("its header is cut off") from None
        start, size = self._at, at - self._at
        self._skip(size)
        if self._known:
            self._known.note(data, start, count, size, longest)
        return longest

    def _skip(self, count: int) -> None:
        if count > self._size - self._at:
            raise Refused("its header is cut off")
        self._at += count


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or value & (value - 1) or value > 1 << 20:
        raise Refused(f"its alignment is {value!r}, no power of two")
    return value
