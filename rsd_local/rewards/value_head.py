"""Process reward models whose score is a head on the hidden state at each step's end.

GGUF has no place for such a head, so it lies beside the model as a small safetensors file; ``scripts/convert_prm.py`` makes
both from a published checkpoint.
"""

from __future__ import annotations

from rsd_local.config import SYSTEM_PROMPT
from rsd_local.errors import MissingTokens
from rsd_local.prompt import Prompt
from rsd_local.rewards.base import sigmoid
from rsd_local.rewards.heads import ValueHead
from rsd_local.runtime import Floats, TextModel, prompt_tokens
from rsd_local.steps import Step

QWEN_TAG = "<extra_0>"


class Skywork:
    """The problem and a line break, then each step and a blank line, encoded apart (Skywork-o1-Open-PRM).

    Read at each blank line: the sigmoid of a linear head. The separator is the caller's choice in the published code; a
    blank line is the paper's, and where steps end here.
    """

    hidden = True

    def __init__(self, model: TextModel, head: ValueHead, prompt: Prompt) -> None:
        self._model, self._head, self._question = model, head, prompt.question
        self.query: list[int] = []
        self._separator = model.tokenize("\n\n")[-1]

    def opening(self) -> list[int]:
        """The beginning-of-text token where the vocabulary has one, and the problem."""
        start = [self._model.bos] if self._model.bos >= 0 else []
        return start + self._model.tokenize(self._question + "\n")

    def step(self, index: int, step: Step) -> list[int]:
        """The step and its separator."""
        return [*self._model.tokenize(step.shown.strip()), self._separator]

    def reward(self, values: Floats) -> float:
        """The sigmoid of the head's one output."""
        return sigmoid(float(self._head.outputs(values)[0]))


class QwenPrm:
    """A chat whose assistant's steps each end in ``<extra_0>`` (Qwen2.5-Math-PRM).

    Read at each ``<extra_0>``: two layers with a ReLU between, then the softmax over two classes, the second one's part.

    Raises:
        MissingTokens: the vocabulary has no ``<extra_0>``.
    """

    hidden = True

    def __init__(self, model: TextModel, head: ValueHead, prompt: Prompt) -> None:
        self._model, self._head = model, head
        self.query: list[int] = []
        tags = model.tokenize(QWEN_TAG, special=True)
        if len(tags) != 1:
            raise MissingTokens(f"{model.path} has no token for {QWEN_TAG}, so it is no reward model of this layout")
        self._tag = tags[0]
        self._opening = prompt_tokens(model, Prompt.of(prompt.question, SYSTEM_PROMPT))

    def opening(self) -> list[int]:
        """The chat up to the assistant's answer."""
        return self._opening

    def step(self, index: int, step: Step) -> list[int]:
        """The step and its tag."""
        return [*self._model.tokenize(step.shown.strip(), continues=True), self._tag]

    def reward(self, values: Floats) -> float:
        """The second class's part of the softmax."""
        bad, good = (float(value) for value in self._head.outputs(values))
        return sigmoid(good - bad)


class TokenClassification:
    """The question, then each step and a separator, all encoded apart (PRMTrainer of TRL, as ``tokenize_row`` makes its rows).

    Read at the last token of each separator: a linear layer, then the softmax over two classes, the second one's part, which is the
    label "right". The separator is the one of training, a blank line for HuggingFaceH4's and SHARP's models; nothing stands between
    question and first step. A beginning-of-text token comes first where the tokenizer of training has one: many GGUF files name one
    for models that were trained without.

    Raises:
        MissingTokens: the model was trained with a beginning-of-text token, and the vocabulary has none.
    """

    hidden = True

    def __init__(self, model: TextModel, head: ValueHead, prompt: Prompt) -> None:
        if head.bos and model.bos < 0:
            raise MissingTokens(f"{model.path} has no beginning-of-text token, with which the head was trained")
        self._model, self._head, self._question = model, head, prompt.question
        self.query: list[int] = []
        self._separator = model.tokenize(head.separator)

    def opening(self) -> list[int]:
        """The beginning-of-text token where there was one in training, and the question."""
        return [*([self._model.bos] if self._head.bos else []), *self._model.tokenize(self._question)]

    def step(self, index: int, step: Step) -> list[int]:
        """The step and its separator."""
        return [*self._model.tokenize(step.shown.strip()), *self._separator]

    def reward(self, values: Floats) -> float:
        """The second class's part of the softmax."""
        bad, good = (float(value) for value in self._head.outputs(values))
        return sigmoid(good - bad)
