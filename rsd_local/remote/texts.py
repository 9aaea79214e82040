"""Pieces of text in the place of tokens, for servers that take and give nothing else."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rsd_local.config import TemplateValue
from rsd_local.prompt import Prompt

_SIGN = "\0"  # no message has it
_BYTES = 4  # of a token, about, in English


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation that a server templates itself.

    Attributes:
        messages: as OpenAI's API has them.
        variables: of the template.
    """

    messages: list[dict[str, str]]
    variables: dict[str, TemplateValue]

    @classmethod
    def of(cls, prompt: Prompt, variables: Mapping[str, TemplateValue]) -> Self:
        """A prompt's."""
        return cls([{"role": one.role, "content": one.content} for one in prompt.messages], dict(variables))

    def packed(self) -> str:
        """It as one text."""
        return _SIGN + json.dumps([self.messages, self.variables])

    @classmethod
    def unpacked(cls, text: str) -> Self | None:
        """It from that text; None of any other."""
        if not text.startswith(_SIGN):
            return None
        try:
            return cls(*json.loads(text[len(_SIGN) :]))
        except (ValueError, TypeError, RecursionError):  # somebody's text that begins with this sign
            return None


class TextToken(int):
    """A text, as a token that means nothing to any model: equal texts are equal numbers.

    Attributes:
        text: it.
        size: about how many tokens of a model it is.
        chat: the conversation that it stands for, if it is none that is written.
    """

    text: str
    size: int
    chat: Chat | None

    def __new__(cls, text: str, size: int = 0) -> Self:
        """A text; without a size, the usual one of its length. What a server wrote has one, and is no conversation."""
        made = super().__new__(cls, zlib.crc32(text.encode("utf-8", "replace")))
        made.chat = None if size else Chat.unpacked(text)
        made.text = "" if made.chat is not None else text
        made.size = size or -(-len(text.encode("utf-8", "replace")) // _BYTES)
        return made


def texts_of(tokens: Sequence[int]) -> str:
    """The text of tokens; a number that stands for none, as in a measurement, is a short word."""
    return "".join(one.text if isinstance(one, TextToken) else " a" for one in tokens)


def size_of(tokens: Sequence[int]) -> int:
    """About how many tokens of a model they are."""
    return sum(one.size if isinstance(one, TextToken) else 1 for one in tokens)


def chat_of(tokens: Sequence[int]) -> Chat | None:
    """The conversation that tokens begin with, if any."""
    first: Any = tokens[0] if tokens else None
    return first.chat if isinstance(first, TextToken) else None
