"""Rewards that the target gives with the pass in which it reads a drafted step anyway: how likely the step is to it, or its state."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from rsd_local.events import Counters, Role
from rsd_local.rewards.base import sigmoid
from rsd_local.rewards.reading import PendingScore, PendingScores, as_score, one_by_one
from rsd_local.roles import Reader, RewardAbilities
from rsd_local.runtime import Floats
from rsd_local.steps import UNCHECKED, Reading, Score, Step

Likelihood = Literal["mean", "least", "running"]
CHUNK = 32
"""Tokens that a contrast is summed over."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of the steps so far that the draft wrote; of the target's own nothing is known.

    Attributes:
        tokens: how many they have in the target's vocabulary.
        likelihood: the sum of their log-probabilities there.
        contrasts: the last of their tokens' contrasts (n,), n < ``CHUNK``.
    """

    tokens: int = 0
    likelihood: float = 0.0
    contrasts: tuple[float, ...] = ()


_NO_PAST = Past()
ReadingScore = Callable[[Reading, Step, Past], tuple[float, Past]]
"""From the target's reading of a step, the step and the past to the reward, and the past with this step."""


def likelihood(how: Likelihood) -> ReadingScore:
    """The probability that the target gives a step's tokens, at temperature 1, as one number in [0, 1].

    Args:
        how: ``mean`` is the geometric mean of the step's tokens, ``least`` the least of them, ``running`` the geometric mean of all
            tokens so far that the draft wrote.
    """

    def score(reading: Reading, step: Step, past: Past) -> tuple[float, Past]:
        logs = reading.trace.log_probabilities.astype(np.float64)
        after = replace(past, tokens=past.tokens + len(logs), likelihood=past.likelihood + float(logs.sum()))
        value = {"mean": float(logs.mean()), "least": float(logs.min()), "running": after.likelihood / after.tokens}[how]
        return float(np.exp(value)), after

    return score


def contrast(reading: Reading, step: Step, past: Past) -> tuple[float, Past]:
    """How much likelier a step is to the target than to the draft: σ(Σ log p_target − log p_draft) over chunks of one length.

    Sums over steps of different lengths compare badly (arXiv 2606.01682), so they are taken over ``CHUNK`` tokens each, cut from the
    step's end; the first chunk is filled up with tokens of the steps before, and where the answer has none its mean counts for
    all of it. A step's value is the mean of its chunks'.

    Of a step that the target has to read in other tokens there is no number.
    """
    own = np.zeros(0) if step.trace is None else step.trace.log_probabilities
    own = own[:-1] if step.ended == "end" else own
    if len(own) != len(reading.trace.log_probabilities):
        return math.nan, past
    differences = np.concatenate([past.contrasts, reading.trace.log_probabilities.astype(np.float64) - own])
    count = -(-len(own) // CHUNK)
    chunks = [differences[max(0, end - CHUNK) : end] for end in range(len(differences), len(differences) - count * CHUNK, -CHUNK)]
    mean = float(np.mean([chunk.mean() * CHUNK for chunk in chunks]))
    return sigmoid(mean), replace(past, contrasts=tuple(differences[1 - CHUNK :].tolist()))


def read_out(score: Callable[[Floats], float]) -> ReadingScore:
    """What a head reads out of the target's state after the step's last token."""

    def of(reading: Reading, step: Step, past: Past) -> tuple[float, Past]:
        return score(reading.trace.end), past

    return of


class AheadReward:
    """Scores one answer's steps by what a target says that reads them ahead; of its own steps it says nothing. See ``roles.Reward``.

    Args:
        reader: reads with the target.
        score: from a reading to the reward.
        by: the reward's name in scores.
        state: whether it looks at the target's state; otherwise at its tokens' probabilities.
        role: whose counters they are where the reader is this reward's own.
        past: of the steps so far.
    """

    can_check = True

    def __init__(self, reader: Reader, score: ReadingScore, by: str, *, state: bool, role: Role = "reward", past: Past = _NO_PAST) -> None:
        self._reader, self._score, self._by, self._state, self._role = reader, score, by, state, role
        self._past = self._before = past

    @property
    def abilities(self) -> RewardAbilities:
        """Of the target that reads."""
        return RewardAbilities(devices=self._reader.devices)

    def start_score(self, step: Step) -> PendingScore:
        """Begin to score the next step; the target reads it, unless it is its own, with an empty trace."""
        self._before = self._past
        if step.trace is not None and not len(step.trace.entropies):
            self.read(step)
            return PendingScore(lambda: UNCHECKED, lambda: None)
        pending = self._reader.read(step, tokens=not self._state, state=self._state)

        def finish() -> Score:
            value, self._past = self._score(pending.result(), step, self._before)
            return as_score(value, self._by)

        return PendingScore(finish, pending.cancel)

    def start_scores(self, steps: list[Step], asked: Set[int]) -> PendingScores:
        """Score steps, one after another."""
        return one_by_one(self, steps, asked)

    def forget(self) -> None:
        """Take back the step that was scored last."""
        self._past = self._before
        self._reader.forget()

    def read(self, step: Step) -> None:
        """Note an accepted step without a score."""
        self._before = self._past
        self._reader.note(step)

    def settle(self) -> None:
        """Evaluate what is noted, so that forks share it."""
        self._reader.settle()

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the cache."""
        return type(self)(self._reader.fork(), self._score, self._by, state=self._state, role=self._role, past=self._past)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self._reader.adopt(fork._reader)
        self._past, fork._past = fork._past, self._past
        self._before, fork._before = fork._before, self._before

    def counters(self) -> dict[Role, Counters]:
        """What was evaluated for it alone: nothing where the target that writes has read."""
        return {self._role: self._reader.counters() or Counters()}

    def close(self) -> None:
        """Give the cache back, where it is this reward's own."""
        self._reader.close()
