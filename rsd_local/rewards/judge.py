"""The reward of any instruct model: how likely it answers Yes to "is this step correct?"."""

from __future__ import annotations

from rsd_local.errors import MissingTokens
from rsd_local.events import CancelToken, Counters
from rsd_local.rewards.base import share
from rsd_local.runtime import Engine, render_chat, tokenize_chat, with_bos

_ASK = "A student solves a problem step by step. Check the student's last step.\n\nProblem: {question}\n\nThe student's steps so far:\n\n\0"
_QUERY = "Is the last step above correct, in its reasoning and in its arithmetic? Answer with Yes or No only."


class Judge:
    """Scores one question's steps by a query after each, which is rolled back once it is read."""

    def __init__(self, engine: Engine, question: str) -> None:
        model = self._model = engine.model
        words = [model.tokenize(word) for word in ("Yes", "No")]
        if words[0][0] == words[1][0]:  # a vocabulary that knows neither word with a space in front
            words = [model.tokenize(word, continues=True) for word in ("Yes", "No")]
        self._yes, self._no = words[0][0], words[1][0]
        if self._yes == self._no:
            raise MissingTokens(f"{model.path} has no tokens for Yes and No", hint="choose an instruct model as the judge")
        text = render_chat(model, [{"role": "user", "content": _ASK.format(question=question)}])
        head, _, tail = text.partition("\0")
        opening = with_bos(model, tokenize_chat(model, head, [question]))
        self._query = tokenize_chat(model, _QUERY + tail, [], continues=True)
        self._sequence = engine.sequence()
        try:
            self._sequence.append(opening)
        except BaseException:
            self._sequence.close()
            raise
        self._opening = self._before = len(opening)

    def score(self, step: str, cancel: CancelToken | None = None) -> float:
        """The reward of the next step: softmax over Yes and No."""
        self.read(step)
        after = len(self._sequence)
        self._sequence.mark()
        self._sequence.append(self._query)
        logits = self._sequence.read_logits(cancel).result()
        self._sequence.counters.opening_tokens = self._opening
        self._sequence.truncate(after)
        return share(float(logits[self._yes]), float(logits[self._no]))

    def forget(self) -> None:
        """Takes back the step that was scored last."""
        self._sequence.truncate(self._before)

    def read(self, step: str) -> None:
        """Notes a step that stands without a score."""
        self._before = len(self._sequence)
        self._sequence.mark()
        self._sequence.append(self._model.tokenize(step.strip() + "\n\n", continues=True))

    def counters(self) -> Counters:
        """What was evaluated so far."""
        return self._sequence.take_counters()

    def close(self) -> None:
        """Gives the cache back."""
        self._sequence.close()
