"""Judges: any instruct model that is asked about a step, and answers with Yes or No, or with a digit."""

from __future__ import annotations

import math

import numpy as np

from rsd_local.errors import MissingTokens
from rsd_local.rewards.layouts import TwoTokens
from rsd_local.runtime import Floats, Model, render_chat, tokenize_chat, with_bos

_ASK = "A student solves a problem step by step. Check the student's last step.\n\nProblem: {question}\n\nThe student's steps so far:\n\n\0"
_AGAIN = "The student is asked further.\n\nProblem: {question}\n\nThe student's steps so far:\n\n"
_YES_OR_NO = "Is the last step above correct, in its reasoning and in its arithmetic? Answer with Yes or No only."
_SCORE = "Score the last step above by its reasoning and its arithmetic, from 0 (wrong) to 9 (surely correct). Answer with one digit only."


class Chat:
    """A chat that holds the question and the steps; a query after each step asks for the score, and is rolled back.

    Raises:
        NoChatTemplate: the model cannot be asked.
    """

    def __init__(self, model: Model, question: str, ask: str) -> None:
        self._model = model
        head, _, tail = render_chat(model, [{"role": "user", "content": _ASK.format(question=question)}]).partition("\0")
        self._opening = with_bos(model, tokenize_chat(model, head, [question]))
        self.query = tokenize_chat(model, ask + tail, [], continues=True)

    def opening(self) -> list[int]:
        """The request to check, and the question."""
        return self._opening

    def step(self, index: int, text: str) -> list[int]:
        """The step and a blank line."""
        return self._model.tokenize(text + "\n\n", continues=True)

    def another(self, question: str) -> list[int]:
        """The next problem, behind the steps of the one before."""
        return tokenize_chat(self._model, _AGAIN.format(question=question), [question], continues=True)


class Judge(Chat, TwoTokens):
    """How likely the model answers Yes to "is this step correct?", of Yes and No.

    Raises:
        MissingTokens: the vocabulary cannot tell Yes from No by one token.
        NoChatTemplate: the model cannot be asked.
    """

    def __init__(self, model: Model, question: str) -> None:
        TwoTokens.__init__(self, *answers(model, ["Yes", "No"]))
        Chat.__init__(self, model, question, _YES_OR_NO)


class Digit(Chat):
    """The mean of the digit that the model answers, over 9 (SpecReason, arXiv 2504.07891, reads the likeliest one).

    Raises:
        MissingTokens: the vocabulary cannot tell the digits by one token.
        NoChatTemplate: the model cannot be asked.
    """

    hidden = False

    def __init__(self, model: Model, question: str) -> None:
        super().__init__(model, question, _SCORE)
        self._digits = answers(model, list("0123456789"))

    def reward(self, values: Floats) -> float:
        """The expectation over the logits of the ten digits; NaN where one is not finite."""
        logits = values[self._digits].astype(np.float64)
        if not np.isfinite(logits).all():
            return math.nan
        weights = np.exp(logits - logits.max())
        return float(weights @ np.arange(10) / weights.sum() / 9)


def answers(model: Model, words: list[str]) -> list[int]:
    """The token that an answer begins with, for each word.

    Raises:
        MissingTokens: two begin with the same one.
    """
    for continues in (False, True):  # again without the space in front, for a vocabulary that splits it off
        first = [model.tokenize(word, continues=continues)[0] for word in words]
        if len(set(first)) == len(words):
            return first
    raise MissingTokens(f"{model.path} has no tokens for {', '.join(words)}", hint="choose an instruct model as the judge")
