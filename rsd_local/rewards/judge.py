"""The layout of a judge: any instruct model, and how likely it answers Yes to "is this step correct?"."""

from __future__ import annotations

from rsd_local.errors import MissingTokens
from rsd_local.runtime import Model, render_chat, tokenize_chat, with_bos

_ASK = "A student solves a problem step by step. Check the student's last step.\n\nProblem: {question}\n\nThe student's steps so far:\n\n\0"
_QUERY = "Is the last step above correct, in its reasoning and in its arithmetic? Answer with Yes or No only."


class Judge:
    """A chat that holds the question and the steps; a query after each step asks for Yes or No.

    Raises:
        MissingTokens: the vocabulary cannot tell Yes from No by one token.
        NoChatTemplate: the model cannot be asked.
    """

    def __init__(self, model: Model, question: str) -> None:
        self._model = model
        words = [model.tokenize(word) for word in ("Yes", "No")]
        if words[0][0] == words[1][0]:  # a vocabulary that knows neither word with a space in front
            words = [model.tokenize(word, continues=True) for word in ("Yes", "No")]
        self.good, self.bad = words[0][0], words[1][0]
        if self.good == self.bad:
            raise MissingTokens(f"{model.path} has no tokens for Yes and No", hint="choose an instruct model as the judge")
        head, _, tail = render_chat(model, [{"role": "user", "content": _ASK.format(question=question)}]).partition("\0")
        self._opening = with_bos(model, tokenize_chat(model, head, [question]))
        self.query = tokenize_chat(model, _QUERY + tail, [], continues=True)

    def opening(self) -> list[int]:
        """The request to check, and the question."""
        return self._opening

    def step(self, index: int, text: str) -> list[int]:
        """The step and a blank line."""
        return self._model.tokenize(text + "\n\n", continues=True)
