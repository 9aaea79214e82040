"""The vocabularies of model files, read from the files themselves: llama.cpp gives one token a call."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsd_local.gguf_header import Header

TOKENS, TYPES, KIND = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.model"
MOST_COMPARED = 1 << 20  # tokens; the largest vocabularies have a quarter of it
_NORMAL, _UNUSED, _INT32, _TEXT = 1, 5, 5, 8
_FILLER = re.compile(rb"PAD|unused|dummy")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A file's tokens in their order.

    Attributes:
        kind: of the tokenizer; the same text is another one in another kind.
        count: tokens.
        texts: all of them, each behind its length as 8 bytes.
        types: llama.cpp's llama_token_type of each; 1 (normal) where the file has none.
    """

    kind: object
    count: int
    texts: bytes
    types: NDArray[np.int32]

    @classmethod
    def read(cls, path: Path, header: Header) -> Vocabulary:
        """The vocabulary of a file; an empty one where it has none."""
        texts, types = header.arrays.get(TOKENS), header.arrays.get(TYPES)
        if texts is None or texts.type != _TEXT:
            return cls(None, 0, b"", np.zeros(0, np.int32))
        with path.open("rb") as file:
            file.seek(texts.start)
            raw, kinds = file.read(texts.end - texts.start), np.full(texts.count, _NORMAL, np.int32)
            if types is not None and types.type == _INT32 and types.count >= texts.count:
                file.seek(types.start)
                kinds = np.frombuffer(file.read(4 * texts.count), "<i4")
        return cls(header.metadata.get(KIND), texts.count, raw, kinds)

    def common(self, other: Vocabulary) -> int:
        """How many tokens from 0 on have equal texts and types in both, where both have only fillers behind them; otherwise 0.

        So vocabularies that merely begin alike have nothing in common, and sizes that were rounded up differently do not matter.
        """
        if self.kind != other.kind:
            return 0
        smaller, shorter = min(self.count, other.count), min(len(self.texts), len(other.texts))
        different = np.flatnonzero(self.types[:smaller] != other.types[:smaller])
        same_types = int(different[0]) if different.size else smaller
        same_bytes = shorter
        if self.texts[:shorter] != other.texts[:shorter]:
            one, two = (np.frombuffer(vocabulary.texts, np.uint8, shorter) for vocabulary in (self, other))
            same_bytes = int(np.argmax(one != two))
        equal, at, length_at = 0, 0, _LENGTH.unpack_from
        if same_types == smaller and same_bytes == shorter:
            equal, at = smaller, shorter
        while equal < same_types and (end := at + 8 + length_at(self.texts, at)[0]) <= same_bytes:
            equal, at = equal + 1, end
        return equal if self._only_fillers(equal, at) and other._only_fillers(equal, at) else 0

    def repeated(self) -> str | None:
        """A text that two tokens have; None where there is none, or more tokens than any model has."""
        seen, at, length_at = set[bytes](), 0, _LENGTH.unpack_from
        for _ in range(self.count if self.count <= MOST_COMPARED else 0):
            start = at + 8
            at = start + length_at(self.texts, at)[0]
            text = self.texts[start:at]
            if text and text in seen:
                return text.decode("utf-8", "replace")
            seen.add(text)
        return None

    def _only_fillers(self, first: int, at: int) -> bool:
        """Whether the tokens from ``first``, at an offset, on only round the size up: such tokens are never written."""
        for token in range(first, self.count):
            start = at + 8
            at = start + _LENGTH.unpack_from(self.texts, at)[0]
            if self.types[token] != _UNUSED and not _FILLER.search(self.texts, start, at):
                return False
        return True
