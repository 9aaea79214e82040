"""What each threshold gives, question by question, so that any part of the questions has its own figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rsd_local.calibration.paths import Path
from rsd_local.evaluation.stats import ratio_bootstrap, wilson

Cost = Literal["seconds", "paper", "full"]


@dataclass(frozen=True, slots=True)
class Point:
    """What one δ, or one model alone, gives.

    Attributes:
        threshold: δ; None for a model alone.
        label: of the model alone.
        paths: one run a question, in the order of the questions.
    """

    threshold: float | None
    label: str
    paths: tuple[Path, ...]

    def on(self, places: Sequence[int]) -> Point:
        """The same on some of the questions, given by their places."""
        return replace(self, paths=tuple(self.paths[place] for place in places))

    @property
    def questions(self) -> int:
        """How many."""
        return len(self.paths)

    @property
    def right(self) -> int:
        """How many were answered right."""
        return sum(path.correct for path in self.paths)

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval (Wilson)."""
        return wilson(self.right, self.questions)

    @property
    def target_share(self) -> float:
        """The share of all steps that the target wrote."""
        return sum(path.target_steps for path in self.paths) / max(1, sum(path.steps for path in self.paths))

    @property
    def acceptance(self) -> tuple[int, int]:
        """Places with a step of the draft, and those at which it had written one."""
        return sum(path.accepted for path in self.paths), sum(path.drafted for path in self.paths)

    @property
    def seconds(self) -> float:
        """Of the wall, per answered question."""
        return self._mean("seconds")

    @property
    def paper(self) -> float:
        """Paper FLOPs per answered question."""
        return self._mean("paper")

    @property
    def full(self) -> float:
        """Full FLOPs per answered question."""
        return self._mean("full")

    def _mean(self, cost: Cost) -> float:
        costs = [getattr(path, cost) for path in self.paths if path.answered]
        return float(sum(costs)) / max(1, len(costs))

    def ratio(self, other: Point, cost: Cost) -> float | None:
        """This one's cost over another's, on the questions that both answered; None where there is none."""
        ours, theirs = self._costs(other, cost)
        return sum(ours) / sum(theirs) if sum(theirs) > 0 else None

    def ratio_interval(self, other: Point, cost: Cost) -> tuple[float, float] | None:
        """The 95 % interval of ``ratio`` over resampled questions, None where there is none."""
        return ratio_bootstrap(*self._costs(other, cost))

    def _costs(self, other: Point, cost: Cost) -> tuple[list[float], list[float]]:
        pairs = [pair for pair in zip(self.paths, other.paths, strict=True) if pair[0].answered and pair[1].answered]
        return [getattr(one, cost) for one, _ in pairs], [getattr(one, cost) for _, one in pairs]


@dataclass(frozen=True, slots=True)
class RewardsSeen:
    """What the reward said of the draft's steps in the runs at δ = 0.

    Attributes:
        values: the numbers that were compared with the threshold.
        unchecked: steps in which there was nothing to check.
        failed: steps whose reward was no number.
    """

    values: tuple[float, ...] = ()
    unchecked: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What each threshold gives on the same questions.

    Attributes:
        draft, target: the two models alone.
        points: RSD by ascending δ.
        runs: how many RSD runs it took.
        labelled: whether answers are compared with known ones, and not with the target's.
        seen: what the reward said.
        errors: questions that ended in an error in one of the runs.
        cause: the first of these errors.
    """

    draft: Point
    target: Point
    points: tuple[Point, ...]
    runs: int
    labelled: bool
    seen: RewardsSeen = field(default_factory=RewardsSeen)
    errors: int = 0
    cause: str = ""

    def on(self, places: Sequence[int]) -> Sweep:
        """The same on some of the questions, given by their places."""
        points = tuple(point.on(places) for point in self.points)
        return replace(self, draft=self.draft.on(places), target=self.target.on(places), points=points)
