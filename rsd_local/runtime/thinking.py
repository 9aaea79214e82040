"""How models think before they answer: the tags of a thought, as each family of models spells them.

Between models, and in the bytes of every step, a thought stands between ``<think>`` and ``</think>``. What a family writes in their
place is found from the chat template and the vocabulary. It is taken out where tokens become bytes, and put in where bytes become
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rsd_local.steps import THOUGHT_BEGIN as _BEGIN
from rsd_local.steps import THOUGHT_END as _END


@dataclass(frozen=True, slots=True)
class Tags:
    """A thought's tags as a family spells them.

    Attributes:
        begin: opens a thought.
        end: closes it.
        opening: what a prompt ends with where the answer is to begin with a thought.
        empty: what it ends with where the answer is to have none: a thought with nothing in it.
        marks: the tokens that they are made of.
        answer: what stands between ``end`` and the answer: white space, or the header that an answer has.
        other: further spellings, with what they stand for; nothing for the header of an answer.
    """

    begin: str
    end: str
    opening: str
    empty: str
    marks: tuple[str, ...]
    answer: str = ""
    other: tuple[tuple[str, bytes], ...] = ()


def _tags(begin: str, end: str, gap: str = "") -> Tags:
    """A family whose tags are a token each, with white space between them and what they stand around."""
    return Tags(begin, end, begin + gap[:1], f"{begin}{gap}{end}{gap}", (begin, end), gap)


_START = "<|start|>assistant"
_ANALYSIS, _COMMENTARY, _FINAL = (f"<|channel|>{name}<|message|>" for name in ("analysis", "commentary", "final"))
_HEADERS = {_START + _ANALYSIS: _BEGIN, _COMMENTARY: _BEGIN, _START + _COMMENTARY: _BEGIN, _FINAL: b"", _START + _FINAL: b""}
_GEMMA = "<|channel>thought\n"
FAMILIES = (
    Tags(
        _ANALYSIS,
        "<|end|>",
        _ANALYSIS,
        _FINAL,
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
        _START + _FINAL,
        tuple(_HEADERS.items()),
    ),
    Tags(_GEMMA, "<channel|>", _GEMMA, f"{_GEMMA}<channel|>", ("<|channel>", "<channel|>")),
    _tags("[THINK]", "[/THINK]"),
    _tags("<|START_THINKING|>", "<|END_THINKING|>"),
    _tags("<seed:think>", "</seed:think>", "\n"),
    _tags("<mm:think>", "</mm:think>", "\n"),
    _tags("<think:opensource>", "</think:opensource>"),
    _tags("<|inner_prefix|>", "<|inner_suffix|>"),
    _tags(_BEGIN.decode(), _END.decode(), "\n\n"),
)
"""What is looked for, in this order."""


class Vocabulary(Protocol):
    """What is asked of a model."""

    @property
    def chat_template(self) -> str | None:
        """Its template."""

    def encode(self, data: bytes, special: bool) -> list[int]:
        """llama.cpp's own tokens of a short text."""

    def tokenize(self, text: str | bytes, *, special: bool = False, continues: bool = False, followed: bool = False) -> list[int]:
        """The tokens of a text."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""


class Spelling:
    """The tags of one model, between bytes and tokens.

    Args:
        model: whose vocabulary it is.

    Attributes:
        tags: None where the model does not think, as far as its file tells.
        closing: the tokens that close a thought and lead to the answer; none without tags.
        closed: their bytes in a step.
    """

    def __init__(self, model: Vocabulary) -> None:
        self._model = model
        self.tags = tags = _find(model)
        self.closing: list[int] = []
        self.closed = _END + (tags.answer.encode() if tags is not None and not tags.answer.strip() else b"")
        self._texts: dict[tuple[int, ...], bytes] = {}
        if tags is not None:
            self.closing = self._own(tags.end + tags.answer)
            spelled = {tags.begin: _BEGIN, tags.end: _END} | dict(tags.other)
            tokens = {tuple(self._own(text)): stands for text, stands in spelled.items()}
            # Where the tags are text, or tokens that show as it, nothing has to be put in their place.
            self._texts = {one: stands for one, stands in tokens.items() if b"".join(map(model.piece, one)) != stands}
        self._begun = {one[:length] for one in self._texts for length in range(1, len(one))}

    def reader(self) -> Reader:
        """Turns the tokens of one step into bytes."""
        return Reader(self._model, self._texts, self._begun)

    def tokens(self, raw: bytes, *, thought: bool) -> list[int]:
        """The tokens of a step of another model.

        Args:
            raw: its bytes.
            thought: whether it belongs to a thought, so that tags in it are tags.
        """
        if self.tags is None or not thought:
            return self._model.tokenize(raw, continues=True, followed=True)
        found: list[int] = []
        blank = len(raw) - len(raw.lstrip())
        if raw[blank:].startswith(_BEGIN):
            found, raw = self._own(self.tags.begin), raw[blank + len(_BEGIN) :]
        inside, end, behind = raw.rpartition(_END) if _END in raw else (raw, b"", b"")
        found += self._model.tokenize(inside, continues=True, followed=True) if inside else []
        if end and behind.strip() == b"":  # a step ends with the tag; white space behind it is the model's own
            return found + self.closing
        return found + (self._own(self.tags.end) if end else []) + (self._model.tokenize(behind, continues=True) if behind else [])

    def _own(self, text: str) -> list[int]:
        return self._model.tokenize(text, special=True, continues=True, followed=True)


class Reader:
    """Turns tokens into bytes, one by one; a tag of several tokens shows with its last one."""

    __slots__ = ("_begun", "_model", "_pending", "_texts")

    def __init__(self, model: Vocabulary, texts: dict[tuple[int, ...], bytes], begun: set[tuple[int, ...]]) -> None:
        self._model, self._texts, self._begun = model, texts, begun
        self._pending: tuple[int, ...] = ()

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds."""
        if not self._texts:
            return self._model.piece(token)
        tokens, plain = (*self._pending, token), b""
        while tokens and tokens not in self._begun:
            if tokens in self._texts:
                self._pending = ()
                return plain + self._texts[tokens]
            plain, tokens = plain + self._model.piece(tokens[0]), tokens[1:]
        self._pending = tokens
        return plain


def _find(model: Vocabulary) -> Tags | None:
    """The first family whose tags are tokens of the vocabulary; ``<think>`` may be text where the template has it."""
    template = model.chat_template
    if template is None:
        return None
    for tags in FAMILIES:
        if all(len(model.encode(mark.encode(), True)) == 1 for mark in tags.marks):
            return tags
    return FAMILIES[-1] if FAMILIES[-1].end in template else None
