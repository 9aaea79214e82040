"""A reward that a model reads out of a step's text, where and how a layout says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Self

import numpy as np

from rsd_local.events import CancelToken, Counters, Role, total
from rsd_local.rewards.layouts import Layout
from rsd_local.roles import Reward, RewardAbilities
from rsd_local.runtime import Engine, Sequence
from rsd_local.steps import SKIPPED, Score, Step


@dataclass(frozen=True, slots=True)
class PendingScore:
    """A score that is being read."""

    finish: Callable[[], Score]
    stop: Callable[[], None]

    def result(self) -> Score:
        """Wait for the score."""
        return self.finish()

    def cancel(self) -> None:
        """End it within one batch."""
        self.stop()


@dataclass(frozen=True, slots=True)
class PendingScores:
    """Scores of several steps that are being read."""

    finish: Callable[[], list[Score]]
    stop: Callable[[], None]

    def result(self) -> list[Score]:
        """Wait for the scores."""
        return self.finish()

    def cancel(self) -> None:
        """End it within one batch."""
        self.stop()


def one_by_one(reward: Reward, steps: list[Step], asked: Set[int]) -> PendingScores:
    """The scores of steps by a reward that looks at one after another; it begins when they are waited for."""
    stop = CancelToken()

    def finish() -> list[Score]:
        scores: list[Score] = []
        for place, step in enumerate(steps):
            if place not in asked:
                reward.read(step)
                scores.append(SKIPPED)
                continue
            pending = reward.start_score(step)
            with stop.calling(pending.cancel):
                scores.append(pending.result())
        return scores

    return PendingScores(finish, stop.cancel)


def as_score(value: float, by: str) -> Score:
    """A reward's number as a score; one that is no finite number has failed."""
    return Score(value, by) if math.isfinite(value) else Score(None, by, failed=True)


class ReadReward:
    """Scores one answer's steps; only the new step's tokens, and a query behind it, are evaluated. See ``roles.Reward``.

    Args:
        layout: the text that is read, and where.
        sequence: holds the layout's opening and the steps so far.
        family: sequences of all that were forked from the same; this one's is added.
        by: the reward's name in scores.
        cancel: ends whatever it reads.
        steps: that it has read.
        role: of its model in counters.
    """

    can_check = True

    @property
    def abilities(self) -> RewardAbilities:
        """It reads steps of a whole answer where they end; not with a query behind them, which no later step may see."""
        return RewardAbilities(whole=not self._layout.query, devices=self._sequence.engine.devices)

    def __init__(
        self,
        layout: Layout,
        sequence: Sequence,
        family: list[Sequence],
        by: str,
        cancel: CancelToken | None,
        steps: int = 0,
        role: Role = "reward",
    ) -> None:
        self._role = role
        self._layout, self._sequence, self._family, self._by, self._cancel, self._steps = layout, sequence, family, by, cancel, steps
        self._before = len(sequence)
        family.append(sequence)

    @classmethod
    def open(cls, engine: Engine, layout: Layout, by: str, cancel: CancelToken | None, role: Role = "reward") -> Self:
        """A scorer at a layout's opening.

        Raises:
            ContextFull: it does not fit.
        """
        sequence = engine.sequence(layout.opening())
        sequence.counters.opening_tokens = len(sequence)
        return cls(layout, sequence, [], by, cancel, role=role)

    def start_score(self, step: Step) -> PendingScore:
        """Begin to score the next step; its query, if any, is rolled back once it is read."""
        self.read(step)
        after = len(self._sequence)
        if self._layout.query:
            self._sequence.mark()
            self._sequence.append(self._layout.query)
        read = self._sequence.start_reading(hidden=self._layout.hidden, cancel=self._cancel)

        def finish() -> Score:
            values = read.future.result()
            self._sequence.truncate(after)
            return as_score(self._layout.reward(values), self._by)

        return PendingScore(finish, read.cancel)

    def start_scores(self, steps: list[Step], asked: Set[int]) -> PendingScores:
        """Begin to score steps, in one pass where there is no query behind them."""
        layout, sequence = self._layout, self._sequence
        if layout.query or not asked:
            return one_by_one(self, steps, asked)
        tokens: list[int] = []
        places: list[int] = []
        for place, step in enumerate(steps[: max(asked) + 1]):
            tokens += layout.step(self._steps + place, step)
            if place in asked:
                places.append(len(sequence) + len(tokens) - 1)
        sequence.append(tokens)
        if layout.hidden:  # a head is for the caller's thread, the logits of a vocabulary are too many to keep
            states = sequence.read_at(places, hidden=True, take=np.copy, cancel=self._cancel)
            return PendingScores(lambda: self._spread(map(layout.reward, states.future.result()), asked, steps), states.cancel)
        values = sequence.read_at(places, hidden=False, take=layout.reward, cancel=self._cancel)
        return PendingScores(lambda: self._spread(values.future.result(), asked, steps), values.cancel)

    def _spread(self, values: Iterable[float], asked: Set[int], steps: list[Step]) -> list[Score]:
        """What was read of the steps that were asked for, in the places of all."""
        rest = iter(values)
        return [as_score(next(rest), self._by) if place in asked else SKIPPED for place in range(len(steps))]

    def forget(self) -> None:
        """Take back the step that was scored last."""
        self._sequence.truncate(self._before)
        self._steps -= 1

    def read(self, step: Step) -> None:
        """Note an accepted step without a score."""
        self._before = len(self._sequence)
        self._sequence.mark()
        self._sequence.append(self._layout.step(self._steps, step))
        self._steps += 1

    def settle(self) -> None:
        """Evaluate what is noted but for its last token, so that forks share it."""
        self._sequence.prefill(self._cancel).result()

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the cache."""
        return type(self)(self._layout, self._sequence.fork(), self._family, self._by, self._cancel, self._steps, self._role)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self._sequence, fork._sequence = fork._sequence, self._sequence
        self._steps, fork._steps = fork._steps, self._steps
        self._before, fork._before = fork._before, self._before

    def counters(self) -> dict[Role, Counters]:
        """What was evaluated so far, by this one and all that were forked from the same."""
        return {self._role: total(sequence.counters for sequence in self._family)}

    def close(self) -> None:
        """Give the cache back."""
        self._sequence.close()
