"""What every reward does for one question, and the choice among them."""

from __future__ import annotations

import math
from typing import Protocol

from rsd_local.config import Trio
from rsd_local.events import CancelToken, Counters
from rsd_local.runtime import Engine


class Reward(Protocol):
    """Scores the steps of one question. The question and the steps that stand stay in the cache."""

    def score(self, step: str, cancel: CancelToken | None = None) -> float:
        """The reward of the next step, in [0, 1], or NaN where the model's logits are no numbers.

        The step is provisional until the next call: ``forget`` takes it back, anything else lets it stand.
        """

    def forget(self) -> None:
        """Takes back the step that was scored last; the cache is as before it."""

    def read(self, step: str) -> None:
        """Notes a step that stands without a score; it is evaluated together with the next one."""

    def counters(self) -> Counters:
        """What was evaluated so far."""

    def close(self) -> None:
        """Gives the cache back."""


def open_reward(trio: Trio, engine: Engine, question: str) -> Reward:
    """The trio's kind of reward for one question.

    Raises:
        MissingTokens, NoChatTemplate: the model cannot be read in this way.
        ContextFull: the question does not fit the reward model's context.
    """
    if trio.reward_kind == "judge":
        from rsd_local.rewards.judge import Judge

        return Judge(engine, question)
    from rsd_local.rewards.tag_logits import TagLogits

    return TagLogits(engine, trio.layout, question)


def check_reward(trio: Trio, engine: Engine) -> None:
    """Fails before the first question where the model cannot be read in the trio's way."""
    open_reward(trio, engine, "1+1").close()


def share(logit: float, other: float) -> float:
    """The softmax of two logits, the first one's part; NaN where one is not finite."""
    if not (math.isfinite(logit) and math.isfinite(other)):
        return math.nan
    return 1.0 / (1.0 + math.exp(min(other - logit, 700.0)))
