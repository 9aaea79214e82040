"""A reward that is asked about some steps of a thought only."""

from __future__ import annotations

from collections.abc import Set
from typing import Self

from rsd_local.events import Counters, Role
from rsd_local.rewards.reading import PendingScore, PendingScores
from rsd_local.roles import Pending, Reward, RewardAbilities
from rsd_local.steps import SKIPPED, Score, Step


class SomeThoughts:
    """Asks a reward about every n-th step of a thought and each one of the answer; see ``roles.Reward``.

    Args:
        reward: that is asked.
        every: n; 0 for none: then it does not see the thought at all.
        thoughts: steps of the thought so far.
    """

    def __init__(self, reward: Reward, every: int, thoughts: int = 0) -> None:
        self._reward, self._every, self._thoughts = reward, every, thoughts
        self._last: Step | None = None

    @property
    def can_check(self) -> bool:
        """As of the reward itself."""
        return self._reward.can_check

    def start_score(self, step: Step) -> Pending[Score]:
        """Begin to score the next step, where it is one to score; otherwise only read it."""
        if self._is_asked(step):
            self._note(step)
            return self._reward.start_score(step)
        self.read(step)
        return PendingScore(lambda: SKIPPED, lambda: None)

    @property
    def abilities(self) -> RewardAbilities:
        """Of the reward."""
        return self._reward.abilities

    def start_scores(self, steps: list[Step], asked: Set[int]) -> PendingScores:
        """Begin to score those that are to be scored."""
        seen: list[int] = []
        wanted: set[int] = set()
        for place, step in enumerate(steps):
            if place in asked and self._is_asked(step):
                wanted.add(len(seen))
            if self._sees(step):
                seen.append(place)
            self._note(step)
        pending = self._reward.start_scores([steps[place] for place in seen], wanted)

        def finish() -> list[Score]:
            scores = [SKIPPED] * len(steps)
            for place, score in zip(seen, pending.result(), strict=True):
                scores[place] = score
            return scores

        return PendingScores(finish, pending.cancel)

    def forget(self) -> None:
        """Take back the step that was scored or read last."""
        if self._last is None:
            return
        if self._sees(self._last):
            self._reward.forget()
        self._thoughts -= self._last.part == "thought"
        self._last = None

    def read(self, step: Step) -> None:
        """Note an accepted step without a score."""
        self._note(step)
        if self._sees(step):
            self._reward.read(step)

    def settle(self) -> None:
        """Evaluate what is noted, so that forks share it."""
        self._reward.settle()

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the cache."""
        return type(self)(self._reward.fork(), self._every, self._thoughts)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self._reward.adopt(fork._reward)
        self._thoughts, fork._thoughts = fork._thoughts, self._thoughts
        self._last, fork._last = fork._last, self._last

    def counters(self) -> dict[Role, Counters]:
        """Of the reward."""
        return self._reward.counters()

    def close(self) -> None:
        """Give the reward's cache back."""
        self._reward.close()

    def _note(self, step: Step) -> None:
        self._thoughts += step.part == "thought"
        self._last = step

    def _sees(self, step: Step) -> bool:
        return step.part == "answer" or self._every > 0

    def _is_asked(self, step: Step) -> bool:
        return step.part == "answer" or (self._every > 0 and (self._thoughts + 1) % self._every == 0)
