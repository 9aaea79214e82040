"""The layout of a read-out of the target: the text as the target itself would have written it."""

from __future__ import annotations

from rsd_local.prompt import Prompt
from rsd_local.rewards.heads import ReadOut
from rsd_local.runtime import Floats, Model, prompt_tokens
from rsd_local.steps import Step


class OwnSteps:
    """The target's own prompt and the steps behind it as they were written, read at each step's last token.

    Args:
        model: the target.
        head: the read-out; it looks at the last state only.
        prompt: the conversation.

    Raises:
        NoChatTemplate: the target cannot be asked.
    """

    hidden = True

    def __init__(self, model: Model, head: ReadOut, prompt: Prompt) -> None:
        self._model, self._head = model, head
        self._opening = prompt_tokens(model, prompt)
        self.query: list[int] = []

    def opening(self) -> list[int]:
        """The prompt."""
        return self._opening

    def step(self, index: int, step: Step) -> list[int]:
        """The step, byte for byte."""
        return self._model.tokenize(step.shown, continues=True, followed=True)

    def reward(self, values: Floats) -> float:
        """The read-out's probability."""
        return self._head.reward(values)
