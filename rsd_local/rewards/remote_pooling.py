"""A process reward model whose server has its head too: the text of Qwen2.5-Math-PRM, and the number at each step's tag."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rsd_local.config import SYSTEM_PROMPT
from rsd_local.errors import BadAnswer
from rsd_local.events import Counters
from rsd_local.prompt import Prompt
from rsd_local.remote import Call, PoolingEngine
from rsd_local.rewards.base import sigmoid
from rsd_local.rewards.remote import Noted

_TAG = PoolingEngine.tag
_NO_TAG = _TAG.replace("_", " ")  # what stands in its place where somebody wrote it


class PoolingQuestion:
    """One prompt there; see ``remote.Question``. Its server keeps no cache: each score evaluates question and steps anew.

    Args:
        engine: of the server.
        prompt: of which the last question is read.
    """

    whole = True

    def __init__(self, engine: PoolingEngine, prompt: Prompt) -> None:
        self._engine, self._question = engine, prompt.question

    def prepare(self, call: Call, counters: Counters) -> None:
        """The server makes the tokens."""

    def read_ahead(self, slot: int, call: Call, counters: Counters) -> None:
        """There is no cache to read into."""

    def scores(self, steps: Sequence[Noted], asked: Sequence[int], slot: int, call: Call, counters: Counters) -> list[float]:
        """See ``remote.Question``: one request for all."""
        rows, tokens = self._engine.rows(messages(self._question, [one.step.shown for one in steps]), len(steps), call)
        counters.evaluated_tokens += tokens
        counters.prompt_tokens += tokens
        counters.decode_calls += 1
        return [self._reward(rows[place]) for place in asked]

    def take_slot(self) -> int:
        """Its slots are the server's affair."""
        return -1

    def give_slot(self, slot: int) -> None:
        """There is none to give back."""

    def _reward(self, row: Sequence[float]) -> float:
        """The second class's part; of numbers that are no shares yet, after the softmax."""
        if len(row) != 2:
            raise BadAnswer(f"{self._engine.config.url} gives {len(row)} numbers a step, where two are needed: bad and good")
        bad, good = row
        shares = 0 <= bad <= 1 and 0 <= good <= 1 and math.isclose(bad + good, 1, abs_tol=0.01)
        return good if shares else sigmoid(good - bad)


def messages(question: str, steps: Sequence[bytes]) -> list[dict[str, str]]:
    """The chat that Qwen2.5-Math-PRM was trained on: each step of the assistant's answer has the tag behind it.

    Source: the model card of Qwen/Qwen2.5-Math-PRM-7B, "Usage".
    """
    texts = [step.decode("utf-8", "replace").strip().replace(_TAG, _NO_TAG) + _TAG for step in steps]
    said = (("system", SYSTEM_PROMPT), ("user", question.replace(_TAG, _NO_TAG)), ("assistant", "".join(texts)))
    return [{"role": role, "content": content} for role, content in said]
