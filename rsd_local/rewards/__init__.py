"""Rewards: the text of a step becomes a number in [0, 1]. One file for each way to read it."""

from rsd_local.rewards.base import Reward, open_reward

__all__ = ["Reward", "open_reward"]
