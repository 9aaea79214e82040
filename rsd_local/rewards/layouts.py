"""The texts that process reward models of the tag kind were trained on.

A layout turns a question and its steps into tokens such that, after each step (and its query, where there is one),
the output of the last token says whether the step is good. Opening and steps together are tokenized as the whole text would be.
"""

from __future__ import annotations

from typing import Protocol

from rsd_local.errors import MissingTokens
from rsd_local.prompt import Prompt
from rsd_local.rewards.base import sigmoid
from rsd_local.runtime import HOLE, Floats, Part, TextModel, opening_tokens, render_chat, tokens_of
from rsd_local.steps import Step


class Layout(Protocol):
    """One prompt's text as a reward model reads it."""

    query: list[int]
    """Tokens behind a step that ask for its score, and are rolled back; empty where the step's own end is read."""
    hidden: bool
    """Whether the hidden state (n_embd,) is read, otherwise logits (n_vocab,)."""

    def opening(self) -> list[int]:
        """The tokens before the first step."""

    def step(self, index: int, step: Step) -> list[int]:
        """The tokens of step ``index`` (from 0), the last of them the one to read at."""

    def reward(self, values: Floats) -> float:
        """The reward in [0, 1] from what was read, NaN where that is no number."""


class TwoTokens:
    """A reward that is the softmax over the logits of two tokens, the good one's part.

    Attributes:
        answers: the two.
    """

    hidden = False

    def __init__(self, good: int, bad: int) -> None:
        self._good, self._bad = good, bad
        self.answers = [good, bad]
        self.query: list[int] = []

    def reward(self, values: Floats) -> float:
        """The softmax of the two logits, the first one's part; NaN where one is not finite."""
        return sigmoid(float(values[self._good]) - float(values[self._bad]))


class MathShepherd(TwoTokens):
    """``question step ки⏎step ки``: plain text, read at the tag ``ки`` (Math-Shepherd, arXiv 2312.08935).

    Args:
        model: the reward model.
        prompt: of which the last question is read.

    Raises:
        MissingTokens: the vocabulary has no such tag.
    """

    def __init__(self, model: TextModel, prompt: Prompt) -> None:
        super().__init__(single_token(model, "+"), single_token(model, "-"))
        self._model, self._question = model, prompt.question
        self._tag = single_token(model, " ки")

    def opening(self) -> list[int]:
        """The question; the space behind it belongs to the first step, whose first word it begins."""
        return opening_tokens(self._model, [Part(self._question.encode("utf-8", "replace"))], followed=True)

    def step(self, index: int, step: Step) -> list[int]:
        """The step, on a line of its own, and its tag."""
        text = Part((b"\n" if index else b" ") + step.shown.strip())
        tokens = tokens_of(self._model, [text, Part(" ки".encode(), own=True)], continues=True)
        return tokens if tokens[-1] == self._tag else [*tokens_of(self._model, [text], continues=True), self._tag]


class StepsAsTurns(TwoTokens):
    """A chat whose user brings the steps, one a turn, and whose assistant answers to each whether it is good.

    Read where the assistant's answer is predicted. Turns stay in the conversation, and earlier answers are always the good one,
    as in training.

    Args:
        model: the reward model.
        prompt: of which the last question is read; the first step's turn begins with it and a space.
        layout: its name, for messages.
        good, bad: the two answers, each a token.
        ask: what the user says behind each step.

    Raises:
        MissingTokens: the vocabulary or the chat template does not fit.
        NoChatTemplate: the model has none.
    """

    def __init__(self, model: TextModel, prompt: Prompt, layout: str, good: str, bad: str, ask: str = "") -> None:
        super().__init__(single_token(model, good), single_token(model, bad))
        self._model = model
        first, second = (prompt.question, HOLE, ask), (HOLE, ask)
        self._before, between, self._behind = render_chat(model, [("user", first), ("assistant", good), ("user", second)])
        asked = [part for part in self._behind if not part.own]
        head = b"".join(part.data for part in self._behind if part.own)
        same, rest = between[: len(asked)] == asked, between[len(asked) :]
        if not same or not rest or not rest[0].own or not rest[0].data.startswith(head):
            raise MissingTokens(f"{model.path}: its chat template does not fit the layout {layout}", hint="choose another --layout")
        self._between = [Part(rest[0].data.removeprefix(head), own=True), *rest[1:]]
        # Behind a control token, SentencePiece begins a word anew.
        self._goes_on = not model.special_tokens(tokens_of(model, self._behind, continues=True)[-1:])

    def opening(self) -> list[int]:
        """The chat up to the end of the question."""
        return opening_tokens(self._model, self._before, followed=True)

    def step(self, index: int, step: Step) -> list[int]:
        """The step and what is asked of it as the user's turn, and the head of the assistant's answer."""
        before, text = (self._between, step.shown.strip()) if index else ([], b" " + step.shown.strip())
        return tokens_of(self._model, [*before, Part(text), *self._behind], continues=index == 0 or self._goes_on)


class RLHFlow(StepsAsTurns):
    """The turns of the RLHFlow PRMs: the step alone, answered by ``+`` or ``-``.

    Raises:
        MissingTokens, NoChatTemplate: as ``StepsAsTurns``.
    """

    def __init__(self, model: TextModel, prompt: Prompt) -> None:
        super().__init__(model, prompt, "rlhflow", "+", "-")


class Granite(StepsAsTurns):
    """The turns of Granite's math PRMs: the step, a space and a question, answered by ``Y`` or ``N``.

    Source: the model cards of ibm-granite/granite-3.3-8b-math-prm-v2 and granite-3.3-8b-lora-math-prm, "Usage". There the reward is
    the probability of ``Y`` in the whole vocabulary; here it is that of ``Y`` among the two, which hold nearly all of it after
    training, so that what a quantization spreads over other tokens lowers no reward. The system message is the template's own.

    Raises:
        MissingTokens, NoChatTemplate: as ``StepsAsTurns``.
    """

    def __init__(self, model: TextModel, prompt: Prompt) -> None:
        super().__init__(model, prompt, "granite", "Y", "N", " Is this response correct so far (Y/N)?")


def single_token(model: TextModel, text: str) -> int:
    """The token that stands for a text: the last one of its encoding, which must spell all of it but a space.

    Raises:
        MissingTokens: the vocabulary has no such token.
    """
    tokens = model.tokenize(text, special=True)
    if not tokens or model.piece(tokens[-1]).strip() != text.strip().encode():
        raise MissingTokens(
            f"{model.path} has no token for {text!r}, so it is no reward model of this layout",
            hint="choose another --layout, or --reward-kind judge for an instruct model",
        )
    return tokens[-1]
