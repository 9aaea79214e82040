"""Text to tokens: text never becomes a control or user-defined token, and none is too long or too odd for llama.cpp."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

LONGEST_PIECE = 512
"""Characters that llama.cpp is given at once.

Its pre-tokenizers match regular expressions by recursion: with some, 2,048 equal characters overflow a stack of 512 KB (a
thread's on macOS), and 30,000 one of 8 MB. Cutting special tokens out of a text takes time with the square of their number.
"""

# Where a word of every pre-tokenizer ends, best first: behind a line, before white space, between a word and a sign.
_BREAKS = [re.compile(place) for place in (r"(?<=\S\n)(?=\S)", r"(?<=\w)(?=\s)", r"(?<=\S)(?= \w)", r"(?<=\w)(?=[^\w\s])")]
_STRAY_BYTES = re.compile("([\udc80-\udcff]+)")  # as Python's "surrogateescape" spells bytes that are no UTF-8
_OTHER_SURROGATES = re.compile("[\ud800-\udfff]")
# Text in front of a text that goes on from another; the next one is tried where the first merges with what follows.
_MARKS = (b"\n", b"\x01")
_NEXT = b"a"  # a word of a text that follows: many pre-tokenizers read "\n\n" otherwise before one than at the end


class Vocabulary(Protocol):
    """What a tokenizer needs of a model."""

    @property
    def n_vocab(self) -> int:
        """How many tokens there are."""

    def encode(self, data: bytes, special: bool) -> list[int]:
        """llama.cpp's own tokens of valid UTF-8, with the text of control tokens read as such or not."""

    def is_control(self, token: int) -> bool:
        """Whether it is a control or unknown token."""

    def is_user_defined(self, token: int) -> bool:
        """Whether it is a user-defined token."""

    def token_text(self, token: int) -> str:
        """A token as its vocabulary spells it."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""


class Tokenizer:
    """The tokens of texts.

    llama.cpp reads the text of a user-defined token (``</think>``, ``<tool_call>``) as that token even where it is told not to
    read control tokens, and merges of a SentencePiece vocabulary can give control tokens. Such a place is cut after its first
    character here, and each side tokenized for itself. User-defined tokens that are words, white space or single characters
    (``\\boxed{``, ``▁▁``, ``ü``) are ordinary text.

    Args:
        vocabulary: the model's.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._special: dict[int, bool] = {}

    def tokens(self, text: str | bytes, special: bool, continues: bool, followed: bool) -> list[int]:
        """See ``Model.tokenize``."""
        if followed and text[-1:].isspace():
            data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
            longer = self.tokens(data + _NEXT, special, continues, False)
            if longer and self._vocabulary.piece(longer[-1]) == _NEXT:
                return longer[:-1]
        found: list[int] = []
        for index, part in enumerate(_STRAY_BYTES.split(_as_text(text))):
            if index % 2:
                found += self._stray(part.encode("utf-8", "surrogateescape"), continues or bool(found))
                continue
            for piece in pieces(part):
                found += self._piece(piece, special, continues or bool(found))
        return found

    def special_tokens(self, tokens: Iterable[int]) -> list[int]:
        """Those of some tokens that are no text: see ``Model.special_tokens``."""
        return [token for token in tokens if self._is_special(token)]

    def _is_special(self, token: int) -> bool:
        known = self._special.get(token)
        if known is None:
            text = self._vocabulary.token_text(token).replace("▁", " ").strip()
            sign = len(text) > 1 and not text[0].isalnum() and text[0] != "\\"
            known = bool(text) and (self._vocabulary.is_control(token) or (sign and self._vocabulary.is_user_defined(token)))
            self._special[token] = known
        return known

    def _piece(self, text: str, special: bool, continues: bool) -> list[int]:
        tokens = self._encode(text.encode(), special, continues)
        if special:
            return tokens
        for token in dict.fromkeys(self.special_tokens(tokens)):
            if len(text) == 1:
                data = text.encode()
                return [self._bytes[byte] for byte in data] if all(byte in self._bytes for byte in data) else tokens
            if parts := self._cut(text, token):
                return [one for index, part in enumerate(parts) for one in self._piece(part, False, continues or index > 0)]
        return tokens

    def _cut(self, text: str, token: int) -> list[str]:
        """The text in parts none of which holds the token's; none where it does not stand there, as of an unknown token."""
        spelled = self._vocabulary.token_text(token)
        for form in (spelled, spelled.replace("▁", " ").strip()):
            if form in text:
                parts = re.split(f"(?<={re.escape(form[0])})(?={re.escape(form[1:])})" if form[1:] else f"({re.escape(form)})", text)
                return [part for part in parts if part]
        return []

    def _encode(self, data: bytes, special: bool, continues: bool) -> list[int]:
        if not (continues and self._begins_with_space):
            return self._vocabulary.encode(data, special)
        for mark in _MARKS:
            before = self._vocabulary.encode(mark, special)
            tokens = self._vocabulary.encode(mark + data, special)
            if tokens[: len(before)] == before:
                break
        return tokens[len(before) :]

    @functools.cached_property
    def _begins_with_space(self) -> bool:
        """Whether a space is put before every text, as SentencePiece does."""
        return any(self._vocabulary.piece(token).startswith(b" ") for token in self._vocabulary.encode(b"a", False)[:1])

    def _stray(self, data: bytes, continues: bool) -> list[int]:
        """Bytes that are no UTF-8, which llama.cpp would replace: a token each, or U+FFFD in a vocabulary without such tokens."""
        tokens: list[int] = []
        for byte in data:
            token = self._bytes.get(byte)
            tokens += [token] if token is not None else self._encode("\ufffd".encode(), False, continues or bool(tokens))
        return tokens

    @functools.cached_property
    def _bytes(self) -> dict[int, int]:
        """Byte → its token. Nearly every vocabulary has them all at its beginning."""
        found: dict[int, int] = {}
        for token in range(self._vocabulary.n_vocab):
            piece = self._vocabulary.piece(token)
            if len(piece) == 1 and not self._is_special(token):
                found.setdefault(piece[0], token)
                if len(found) == 256:
                    break
        return found


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most ``LONGEST_PIECE`` characters, cut where tokenizers end a word if there is such a place."""
    start = 0
    while len(text) - start > LONGEST_PIECE:
        first, last = start + LONGEST_PIECE // 2, start + LONGEST_PIECE
        places = next(filter(None, ([match.start() for match in place.finditer(text, first, last)] for place in _BREAKS)), [last])
        yield text[start : places[-1]]
        start = places[-1]
    if start < len(text):
        yield text[start:]


def _as_text(text: str | bytes) -> str:
    """A text whose only surrogates stand for bytes that are no UTF-8."""
    if isinstance(text, bytes):
        return text.decode("utf-8", "surrogateescape")
    return _OTHER_SURROGATES.sub("?", text) if not text.isascii() else text
