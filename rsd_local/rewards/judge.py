"""Judges: any instruct model that is asked about a step, and answers with Yes or No, or with a digit."""

from __future__ import annotations

import math

import numpy as np

from rsd_local.config import Thinking
from rsd_local.errors import MissingTokens, NoChatTemplate
from rsd_local.prompt import Prompt
from rsd_local.rewards.layouts import TwoTokens
from rsd_local.runtime import HOLE, Floats, TextModel, around, opens_thought
from rsd_local.steps import Step

_ASK = "A student solves a problem step by step. Check the student's last step.\n\n"
_AGAIN = "The student is asked further.\n\n"
_PROBLEM, _STEPS = "Problem: ", "\n\nThe student's steps so far:\n\n"
_YES_OR_NO = "Is the last step above correct, in its reasoning and in its arithmetic? Answer with Yes or No only."
_SCORE = "Score the last step above by its reasoning and its arithmetic, from 0 (wrong) to 9 (surely correct). Answer with one digit only."


class JudgePrompt:
    """One message that holds the conversation and the steps; a query after each step asks for the score, and is rolled back.

    The text of a longer conversation begins with that of the shorter one and the steps of its answer. A system message is left
    out: it is for the student.

    Raises:
        NoChatTemplate: the model cannot be asked.
    """

    def __init__(self, model: TextModel, prompt: Prompt, ask: str) -> None:
        self._model = model
        said = [_ASK]
        for message in prompt.messages:
            if message.role == "user":
                said += [_PROBLEM, message.content, _STEPS]
            elif message.role == "assistant":
                said += [message.content, _ending(message.content.encode("utf-8", "replace")).decode(), _AGAIN]
        asked = Thinking("off")
        self._opening, self.query = around(model, [("user", (*said, HOLE, ask))], thinking=asked)
        if opens_thought(model, Prompt.of("1+1"), asked):
            raise NoChatTemplate(f"{model.path} thinks first, and cannot judge", hint="choose another model as the judge")

    def opening(self) -> list[int]:
        """The request to check, and the problem."""
        return self._opening

    def step(self, index: int, step: Step) -> list[int]:
        """The step as it was written, and a blank line where it ends in no line break."""
        text = step.shown
        return self._model.tokenize(text + _ending(text), continues=True, followed=True)


def _ending(text: bytes) -> bytes:
    return b"" if text.endswith(b"\n") else b"\n\n"


class Judge(JudgePrompt, TwoTokens):
    """How likely the model answers Yes to "is this step correct?", of Yes and No.

    Raises:
        MissingTokens: the vocabulary cannot tell Yes from No by one token.
        NoChatTemplate: the model cannot be asked.
    """

    def __init__(self, model: TextModel, prompt: Prompt) -> None:
        TwoTokens.__init__(self, *answers(model, ["Yes", "No"]))
        JudgePrompt.__init__(self, model, prompt, _YES_OR_NO)


class Digit(JudgePrompt):
    """The mean of the digit that the model answers, over 9 (SpecReason, arXiv 2504.07891, reads the likeliest one).

    Attributes:
        answers: the digits' tokens.

    Raises:
        MissingTokens: the vocabulary cannot tell the digits by one token.
        NoChatTemplate: the model cannot be asked.
    """

    hidden = False

    def __init__(self, model: TextModel, prompt: Prompt) -> None:
        super().__init__(model, prompt, _SCORE)
        self.answers = answers(model, list("0123456789"))

    def reward(self, values: Floats) -> float:
        """The expectation over the logits of the ten digits; NaN where one is not finite."""
        logits = values[self.answers].astype(np.float64)
        if not np.isfinite(logits).all():
            return math.nan
        weights = np.exp(logits - logits.max())
        return float(weights @ np.arange(10) / weights.sum() / 9)


def answers(model: TextModel, words: list[str]) -> list[int]:
    """The token that an answer begins with, for each word.

    Raises:
        MissingTokens: two begin with the same one.
    """
    for continues in (False, True):  # again without the space in front, for a vocabulary that splits it off
        first = [model.tokenize(word, continues=continues)[0] for word in words]
        if len(set(first)) == len(words):
            return first
    raise MissingTokens(f"{model.path} has no tokens for {', '.join(words)}", hint="choose an instruct model as the judge")
