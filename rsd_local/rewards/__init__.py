"""Rewards: the text of a step becomes a number in [0, 1]. One file for each way to read it; the choice is here."""

from __future__ import annotations

from rsd_local.config import Trio
from rsd_local.rewards.base import Reward, Scoring
from rsd_local.rewards.judge import Judge
from rsd_local.rewards.layouts import make_layout
from rsd_local.rewards.logits import LogitReward
from rsd_local.runtime import Engine

__all__ = ["Reward", "Scoring", "check_reward", "open_reward"]


def open_reward(trio: Trio, engine: Engine, question: str) -> Reward:
    """The trio's kind of reward for one question.

    Raises:
        MissingTokens, NoChatTemplate: the model cannot be read in this way.
        ContextFull: the question does not fit the reward model's context.
    """
    if trio.reward_kind == "judge":
        return LogitReward.open(engine, Judge(engine.model, question))
    return LogitReward.open(engine, make_layout(trio.layout, engine.model, question))


def check_reward(trio: Trio, engine: Engine) -> None:
    """Fails before the first question where the model cannot be read in the trio's way."""
    open_reward(trio, engine, "1+1").close()
