"""What a prompt's text needs of the model that reads it, whether that runs here or on another machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from rsd_local.runtime.thinking import Tags


class Thoughts(Protocol):
    """How a model spells its thoughts."""

    @property
    def tags(self) -> Tags | None:
        """Around a thought; None where the model does not think."""


class TextModel(Protocol):
    """A vocabulary and a chat template."""

    @property
    def path(self) -> Path | str:
        """The file, or where the model is, for people."""

    @property
    def chat_template(self) -> str | None:
        """Its template."""

    @property
    def spelling(self) -> Thoughts:
        """Of its thoughts."""

    @property
    def bos(self) -> int:
        """The beginning-of-text token, −1 where there is none."""

    @property
    def eos(self) -> int:
        """The end-of-text token, −1 where there is none."""

    @property
    def adds_bos(self) -> bool:
        """Whether a text begins with a beginning-of-text token."""

    def tokenize(self, text: str | bytes, *, special: bool = False, continues: bool = False, followed: bool = False) -> list[int]:
        """The tokens of a text; see ``Model.tokenize``."""

    def special_tokens(self, tokens: Iterable[int]) -> list[int]:
        """Those of some tokens that are no text, in order."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token."""

    def token_text(self, token: int) -> str:
        """A token as its vocabulary spells it."""
