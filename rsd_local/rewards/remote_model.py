"""A model on a server as the texts of rewards see one: its vocabulary and its template."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsd_local.remote import ReadingEngine
from rsd_local.remote.vocabulary import same_tokens
from rsd_local.runtime import Model
from rsd_local.runtime.thinking import FAMILIES, Tags

_MARKS = ("\n", "\x01")  # in front of a text that goes on from another, the next one where the first merges with what follows
_NEXT = "a"  # a word of a text that follows


@dataclass(frozen=True, slots=True)
class Spelled:
    """How it spells its thoughts."""

    tags: Tags | None


class RemoteModel:
    """See ``runtime.TextModel``; the server is asked for tokens, but for those of plain text where a model here makes the same.

    Args:
        engine: of the server.

    Attributes:
        near: that model; None where there is none.
    """

    def __init__(self, engine: ReadingEngine) -> None:
        self._engine = engine
        self.near: Model | None = None
        self._pieces: dict[int, bytes] = {}
        self._special: dict[int, bool] = {}
        bos, eos = engine.marks_of_text
        self.bos, self.eos = self._only(bos), self._only(eos)
        self._texts = {token: text for token, text in ((self.bos, bos), (self.eos, eos)) if token >= 0}
        self.adds_bos = engine.server.tokenize(_NEXT, opening=True) != engine.server.tokenize(_NEXT)
        self._spaced = b"".join(piece for _, piece in engine.pieces(_NEXT, special=False)).startswith(b" ")
        self.spelling = Spelled(self._tags())

    @property
    def path(self) -> str:
        """Where it is, for people."""
        return self._engine.config.url

    @property
    def chat_template(self) -> str | None:
        """The server's template."""
        return self._engine.facts.template or None

    def meet(self, models: Iterable[Model]) -> None:
        """Find a model here that makes the same tokens of a dozen probe texts."""
        self.near = next((one for one in models if same_tokens(one.tokenize, lambda text: self._asked(text, special=False))), None)

    def tokenize(self, text: str | bytes, *, special: bool = False, continues: bool = False, followed: bool = False) -> list[int]:
        """The tokens of a text; see ``Model.tokenize``. At the server, bytes that are no UTF-8 become U+FFFD."""
        if self.near is not None and not special:
            return self.near.tokenize(text, continues=continues, followed=followed)
        said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text.encode("utf-8", "replace").decode()
        if not said:
            return []
        if followed and said[-1].isspace():
            longer = self._behind(said + _NEXT, special, continues)
            if longer and self._pieces.get(longer[-1]) == _NEXT.encode():
                return longer[:-1]
        tokens = self._behind(said, special, continues)
        if special:
            self._special |= dict.fromkeys(self._asked(said, special=False), False)  # what is text anyhow
        return tokens

    def special_tokens(self, tokens: Iterable[int]) -> list[int]:
        """Those of some tokens that come of the text of a control token alone, in order."""
        return [token for token in tokens if self._is_special(token)]

    def piece(self, token: int) -> bytes:
        """What a token stands for, as the server spells it."""
        if token not in self._pieces:
            self._pieces[token] = self._engine.server.piece(token).encode()
        return self._pieces[token]

    def token_text(self, token: int) -> str:
        """A token as its vocabulary spells it."""
        return self._texts.get(token) or self.piece(token).decode("utf-8", "replace")

    def _asked(self, text: str, *, special: bool) -> list[int]:
        found = self._engine.pieces(text, special=special)
        self._pieces |= dict(found)
        return [token for token, _ in found]

    def _behind(self, text: str, special: bool, continues: bool) -> list[int]:
        """Of a text, behind another one where it goes on from it and a space would be put before it."""
        if not (continues and self._spaced):
            return self._asked(text, special=special)
        for mark in _MARKS:
            before, tokens = self._asked(mark, special=special), self._asked(mark + text, special=special)
            if tokens[: len(before)] == before:
                break
        return tokens[len(before) :]

    def _is_special(self, token: int) -> bool:
        known = self._special.get(token)
        if known is None:
            text = self.piece(token).decode("utf-8", "replace").strip()
            known = bool(text) and self._asked(text, special=True) == [token] != self._asked(text, special=False)
            self._special[token] = known
        return known

    def _only(self, text: str) -> int:
        """The token that a text is."""
        tokens = self._asked(text, special=True) if text else []
        return tokens[0] if len(tokens) == 1 else -1

    def _tags(self) -> Tags | None:
        """Of the first family whose tags stand in the template and are tokens; ``<think>`` may be text."""
        template = self.chat_template or ""
        for tags in FAMILIES:
            if all(mark in template and self._only(mark) >= 0 for mark in tags.marks):
                return tags
        return FAMILIES[-1] if FAMILIES[-1].end in template else None
