"""The texts that process reward models of the tag kind were trained on.

A layout turns a question and its steps into tokens such that, after each step (and its query, where there is one),
the output of the last token says whether the step is good.
"""

from __future__ import annotations

from typing import Protocol

from rsd_local.errors import MissingTokens
from rsd_local.rewards.base import sigmoid
from rsd_local.runtime import Floats, Model, render_chat, tokenize_chat, with_bos


class Layout(Protocol):
    """One question's text as a reward model reads it."""

    query: list[int]
    """Tokens behind a step that ask for its score, and are rolled back; empty where the step's own end is read."""
    hidden: bool
    """Whether the hidden state (n_embd,) is read, otherwise logits (n_vocab,)."""

    def opening(self) -> list[int]:
        """The tokens before the first step."""

    def step(self, index: int, text: str) -> list[int]:
        """The tokens of step ``index`` (from 0), the last of them the one to read at."""

    def another(self, question: str) -> list[int] | None:
        """The tokens of another question behind the steps, None where the model was trained on one question only."""

    def reward(self, values: Floats) -> float:
        """The reward in [0, 1] from what was read, NaN where that is no number."""


class OneQuestion:
    """A layout of one question."""

    def another(self, question: str) -> None:
        """There is no way to ask another."""


class TwoTokens:
    """A reward that is the softmax over the logits of two tokens, the good one's part."""

    hidden = False

    def __init__(self, good: int, bad: int) -> None:
        self._good, self._bad = good, bad
        self.query: list[int] = []

    def reward(self, values: Floats) -> float:
        """The softmax of the two logits, the first one's part; NaN where one is not finite."""
        return sigmoid(float(values[self._good]) - float(values[self._bad]))


class MathShepherd(OneQuestion, TwoTokens):
    """``question step ки⏎step ки``: plain text, read at the tag ``ки`` (Math-Shepherd, arXiv 2312.08935)."""

    def __init__(self, model: Model, question: str) -> None:
        super().__init__(single_token(model, "+"), single_token(model, "-"))
        self._model, self._question = model, question
        self._tag = single_token(model, " ки")

    def opening(self) -> list[int]:
        """The question and the space behind it."""
        start = [self._model.bos] if self._model.adds_bos else []
        return start + self._model.tokenize(self._question + " ")

    def step(self, index: int, text: str) -> list[int]:
        """The step, on a line of its own, and its tag."""
        return [*self._model.tokenize(("\n" if index else "") + text, continues=True), self._tag]


class RLHFlow(OneQuestion, TwoTokens):
    """A chat whose user brings the steps, one a turn, and whose assistant answers ``+`` to each (RLHFlow PRMs).

    Read where the assistant's answer is predicted; earlier answers are always ``+``, as in training.
    """

    def __init__(self, model: Model, question: str) -> None:
        super().__init__(single_token(model, "+"), single_token(model, "-"))
        self._model, self._question = model, question
        whole = render_chat(model, [{"role": "user", "content": f"{question} \0"}])
        self._head, _, self._tail = whole.partition(" \0")
        two = [{"role": "user", "content": "\0"}, {"role": "assistant", "content": "+"}, {"role": "user", "content": "\1"}]
        between = render_chat(model, two).partition("\0")[2].partition("\1")[0]
        if not between.startswith(self._tail):
            raise MissingTokens(f"{model.path}: its chat template does not fit the layout rlhflow", hint="choose another --layout")
        self._between = between.removeprefix(self._tail)

    def opening(self) -> list[int]:
        """The chat up to the end of the question."""
        return with_bos(self._model, tokenize_chat(self._model, self._head, [self._question]))

    def step(self, index: int, text: str) -> list[int]:
        """The step as the user's turn, and the head of the assistant's answer."""
        before = self._between if index else " "
        return tokenize_chat(self._model, before + text + self._tail, [text], continues=True)


def single_token(model: Model, text: str) -> int:
    """The token that stands for a text: the last one of its encoding, which must spell all of it but a space.

    Raises:
        MissingTokens: the vocabulary has no such token.
    """
    tokens = model.tokenize(text)
    if not tokens or model.piece(tokens[-1]).strip() != text.strip().encode():
        raise MissingTokens(
            f"{model.path} has no token for {text!r}, so it is no reward model of this layout",
            hint="choose another --layout, or --reward-kind judge for an instruct model",
        )
    return tokens[-1]
