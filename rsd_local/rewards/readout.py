"""The layout of a read-out of the target: the text as the target itself would have written it."""

from __future__ import annotations

from rsd_local.rewards.heads import ReadOut
from rsd_local.runtime import Floats, Model, chat_tokens, next_turn_tokens


class OwnSteps:
    """The target's own prompt and the steps behind it, read at each step's last token.

    Args:
        model: the target.
        head: the read-out; it looks at the last state only.
        messages: the prompt.
    """

    hidden = True

    def __init__(self, model: Model, head: ReadOut, messages: list[dict[str, str]]) -> None:
        self._model, self._head, self._messages = model, head, messages
        self._opening = chat_tokens(model, messages)
        self.query: list[int] = []

    def opening(self) -> list[int]:
        """The prompt."""
        return self._opening

    def step(self, index: int, text: str) -> list[int]:
        """The step and a blank line."""
        return self._model.tokenize(text + "\n\n", continues=True)

    def another(self, question: str) -> list[int]:
        """The end of the target's turn, and the question."""
        return next_turn_tokens(self._model, self._messages, question)

    def reward(self, values: Floats) -> float:
        """The read-out's probability."""
        return self._head.reward(values)
