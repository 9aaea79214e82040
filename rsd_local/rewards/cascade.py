"""Rewards in cascade: the first that is sure decides, and only where it is not, the next and dearer one is asked.

The idea is ConfSpec's (arXiv 2602.18447), there with two rewards.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from typing import Self

from rsd_local.events import CancelToken, Counters, Role
from rsd_local.rewards.reading import PendingScore, PendingScores, one_by_one
from rsd_local.roles import Pending, Reward, RewardAbilities
from rsd_local.steps import SKIPPED, UNCHECKED, Score, Step


@dataclass(frozen=True, slots=True)
class Stage:
    """One reward of a cascade.

    Attributes:
        reward: it.
        band: below the first number it rejects, from the second on it accepts, between them the next one is asked; None where
            the run's threshold decides.
    """

    reward: Reward
    band: tuple[float, float] | None

    def settles(self, score: Score) -> bool:
        """Whether it is sure."""
        return score.value is not None and (self.band is None or not self.band[0] <= score.value < self.band[1])

    def marked(self, score: Score) -> Score:
        """Its score with its own threshold."""
        return score if self.band is None else replace(score, threshold=self.band[1])


@dataclass(slots=True)
class Verdict:
    """What the rewards of a cascade have said of a step so far."""

    best: Score = UNCHECKED
    failed: bool = False

    def settled_by(self, stage: Stage, score: Score) -> bool:
        """Take a stage's score; say whether no other one need be asked."""
        self.failed = self.failed or score.failed
        if score.value is not None:
            self.best = stage.marked(score)
        return stage.settles(score)

    @property
    def score(self) -> Score:
        """The step's."""
        return self.best if self.best.value is not None else Score(None, failed=self.failed)


class Cascade:
    """Scores one answer's steps by the first reward that is sure. See ``roles.Reward``.

    Where none is sure, the last one that gave a number decides; where none gave one, the step counts as unchecked, or as failed
    where one failed.

    Args:
        stages: in the order in which they are asked.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._stages = tuple(stages)
        self._step: Step | None = None  # the last one, and how many stages hold it
        self._asked = 0

    @property
    def can_check(self) -> bool:
        """Whether one of them may give a number in this answer."""
        return any(stage.reward.can_check for stage in self._stages)

    def start_score(self, step: Step) -> PendingScore:
        """Begin to score the next step with the first reward; the others are asked while the result is waited for."""
        self._catch_up()
        self._step, self._asked = step, 1
        pending: list[Pending[Score]] = [self._stages[0].reward.start_score(step)]
        stopped = False

        def finish() -> Score:
            verdict = Verdict()
            for place, stage in enumerate(self._stages):
                if place:
                    self._asked = place + 1
                    pending.append(stage.reward.start_score(step))
                    if stopped:
                        pending[-1].cancel()
                if verdict.settled_by(stage, pending[-1].result()):
                    break
            return verdict.score

        def stop() -> None:
            nonlocal stopped
            stopped = True
            pending[-1].cancel()

        return PendingScore(finish, stop)

    @property
    def abilities(self) -> RewardAbilities:
        """What all of them can do."""
        each = [stage.reward.abilities for stage in self._stages]
        whole, immediate = all(one.whole for one in each), all(one.immediate for one in each)
        return RewardAbilities(whole, immediate, frozenset().union(*(one.devices for one in each)))

    def start_scores(self, steps: list[Step], asked: Set[int]) -> PendingScores:
        """Begin to score steps with the first reward; the others are asked about what is left while the result is waited for."""
        if not self.abilities.whole:
            return one_by_one(self, steps, asked)
        self._catch_up()
        pending = [self._stages[0].reward.start_scores(steps, asked)]
        stopped = CancelToken()

        def finish() -> list[Score]:
            verdicts = [Verdict() for _ in steps]
            left = asked
            for place, stage in enumerate(self._stages):
                if place:
                    pending.append(stage.reward.start_scores(steps, left))
                with stopped.calling(pending[-1].cancel):
                    scores = pending[-1].result()
                left = {at for at in left if not verdicts[at].settled_by(stage, scores[at])}
                if not left:
                    break
            return [verdict.score if at in asked else SKIPPED for at, verdict in enumerate(verdicts)]

        def stop() -> None:
            stopped.cancel()
            pending[-1].cancel()

        return PendingScores(finish, stop)

    def forget(self) -> None:
        """Take back the step that was scored last."""
        for stage in self._stages[: self._asked]:
            stage.reward.forget()
        self._step, self._asked = None, 0

    def read(self, step: Step) -> None:
        """Note an accepted step without a score."""
        self._catch_up()
        for stage in self._stages:
            stage.reward.read(step)
        self._asked = len(self._stages)  # all of them hold it

    def settle(self) -> None:
        """Evaluate what is noted, so that forks share it."""
        self._catch_up()
        for stage in self._stages:
            stage.reward.settle()

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the caches."""
        self._catch_up()
        forks: list[Stage] = []
        try:
            for stage in self._stages:
                forks.append(replace(stage, reward=stage.reward.fork()))
        except BaseException:
            for made in forks:
                made.reward.close()
            raise
        return type(self)(forks)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        for own, other in zip(self._stages, fork._stages, strict=True):
            own.reward.adopt(other.reward)
        self._step, fork._step = fork._step, self._step
        self._asked, fork._asked = fork._asked, self._asked

    def counters(self) -> dict[Role, Counters]:
        """What was evaluated, by the role of each model."""
        made: dict[Role, Counters] = {}
        for stage in self._stages:
            for role, counters in stage.reward.counters().items():
                if counters.parameters or role not in made:  # one without a model has none
                    made[role] = counters
        return made

    def close(self) -> None:
        """Give the caches back."""
        for stage in self._stages:
            stage.reward.close()

    def _catch_up(self) -> None:
        """The step that was scored last is accepted: those that were not asked read it now."""
        step, self._step = self._step, None
        if step is not None:
            for stage in self._stages[self._asked :]:
                stage.reward.read(step)
        self._asked = 0
