"""A threshold chosen by a stated wish, and figures from questions that had no part in the choice.

Whoever reports a threshold on the questions that chose it flatters it. So the questions are cut into folds. Each fold is counted at the
threshold that the other folds choose, and the threshold that is kept is the choice of all of them (cross-fitting: Chernozhukov et al.
2018, Econometrics Journal 21, C1-C68). Only which thresholds are tried depends on all questions: on their rewards, and on no answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from rsd_local.calibration.points import Point, Sweep
from rsd_local.config import TunedFigures, require
from rsd_local.evaluation.paired import lower_bound, paired_interval, questions_needed
from rsd_local.evaluation.stats import discordant

WishKind = Literal["no-worse-than-target", "at-most-target-share", "best"]
FOLDS = 10
MARGIN = 0.02
"""By how much RSD may be worse than the target and still count as no worse, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a threshold is chosen for.

    Attributes:
        kind: the least δ with as many right answers as the target; or the most accurate one, of all or of those at which the target
            writes at most a share of the steps.
        share: of ``at-most-target-share``, 0 to 1.
    """

    kind: WishKind
    share: float = 1.0

    def __post_init__(self) -> None:
        require(0.0 <= self.share <= 1.0, f"target share {self.share} is outside 0 to 1")

    def __str__(self) -> str:
        return f"--{self.kind} {self.share:g}" if self.kind == "at-most-target-share" else f"--{self.kind}"

    def choose(self, sweep: Sweep) -> Point:
        """The point that fits, or comes closest."""
        if self.kind == "no-worse-than-target":
            return no_worse_than_target(sweep)
        return best(sweep) if self.kind == "best" else at_most_target_share(sweep, self.share)

    def met(self, sweep: Sweep, point: Point) -> bool:
        """Whether a point of a sweep does what is wished."""
        if self.kind == "no-worse-than-target":
            return point.right >= sweep.target.right
        return self.kind == "best" or point.target_share <= self.share


def no_worse_than_target(sweep: Sweep) -> Point:
    """The least δ that answers as many questions right as the target; without one, the most accurate."""
    fitting = [point for point in sweep.points if point.right >= sweep.target.right]
    return fitting[0] if fitting else best(sweep)


def at_most_target_share(sweep: Sweep, share: float) -> Point:
    """The most accurate δ whose target writes at most this share of the steps; of equals the one with the smaller share.

    Raises:
        ConfigError: the share is outside 0 to 1.
    """
    require(0.0 <= share <= 1.0, f"target share {share} is outside 0 to 1")
    fitting = [point for point in sweep.points if point.target_share <= share]  # δ = 0 accepts every finite reward
    return max(fitting or sweep.points[:1], key=lambda point: (point.right, -point.target_share))


def best(sweep: Sweep) -> Point:
    """The most accurate δ; of equals the one with the smaller target share."""
    return max(sweep.points, key=lambda point: (point.right, -point.target_share))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A threshold and the target alone on the same questions, in accuracy.

    Attributes:
        won: questions that only RSD answered right.
        lost: those that only the target did.
        questions: all of them.
        margin: by how much RSD may be worse and still count as no worse; a share.
    """

    won: int
    lost: int
    questions: int
    margin: float = MARGIN

    def __post_init__(self) -> None:
        require(0.0 < self.margin <= 1.0, f"margin of {100 * self.margin:g} points is outside 0 to 100, 0 left out")

    @property
    def difference(self) -> float:
        """RSD's accuracy minus the target's."""
        return (self.won - self.lost) / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference."""
        return paired_interval(self.won, self.lost, self.questions)

    @property
    def bound(self) -> float:
        """The one-sided 95 % lower bound of the difference."""
        return lower_bound(self.won, self.lost, self.questions)

    @property
    def no_worse(self) -> bool:
        """Whether these questions show that RSD is no worse by more than the margin."""
        return self.bound > -self.margin

    @property
    def needed(self) -> int | None:
        """How many questions would show it if the shares of won and lost ones stayed; None where no number would."""
        return questions_needed(self.won, self.lost, self.questions, self.margin)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen threshold.

    Attributes:
        wish: what it was chosen for.
        threshold: δ, chosen on all questions.
        met: whether it does what is wished on these questions.
        held_out: each question at the δ that was chosen without its fold; these are the figures to report.
        kept: all questions at the threshold.
        thresholds: that δ of each question.
        target: the target alone, on the same questions.
        folds: how many.
    """

    wish: Wish
    threshold: float
    met: bool
    held_out: Point
    thresholds: tuple[float, ...]
    target: Point
    folds: int
    kept: Point

    @property
    def figures(self) -> TunedFigures | None:
        """What was seen at the threshold; None where the draft wrote no step."""
        accepted, drafted = self.kept.acceptance
        return TunedFigures(self.threshold, float(f"{accepted / drafted:.6g}"), drafted) if drafted else None

    def compare(self, margin: float = MARGIN) -> Comparison:
        """Pairs the held-out figures with the target."""
        pairs = ([path.correct for path in point.paths] for point in (self.held_out, self.target))
        return Comparison(*discordant(*pairs), self.target.questions, margin)


def cross_fit(sweep: Sweep, wish: Wish, seed: int, folds: int = FOLDS) -> Choice:
    """Chooses a threshold, and reports what it gives on questions that did not choose.

    Args:
        sweep: of at least two questions.
        wish: what to choose for.
        seed: of the folds.
        folds: at most as many as questions are made.

    Raises:
        ConfigError: there is only one question.
    """
    count = sweep.target.questions
    require_enough(count)
    places = list(range(count))
    random.Random(f"{seed} folds").shuffle(places)
    cuts = [places[start::folds] for start in range(min(folds, count))]
    by_threshold = {point.threshold: point for point in sweep.points}
    chosen: dict[int, float] = {}
    for cut in cuts:
        others = sorted(set(places) - set(cut))
        chosen.update(dict.fromkeys(cut, _threshold(wish.choose(sweep.on(others)))))
    thresholds = tuple(chosen[place] for place in range(count))
    kept = wish.choose(sweep)
    held_out = replace(kept, paths=tuple(by_threshold[threshold].paths[place] for place, threshold in enumerate(thresholds)))
    return Choice(wish, _threshold(kept), wish.met(sweep, kept), held_out, thresholds, sweep.target, len(cuts), kept)


def require_enough(questions: int, *, bands: bool = False) -> None:
    """Raises ConfigError where there are too few questions to choose with some and report on others.

    Args:
        questions: how many there are.
        bands: whether some of them choose the bands of a cascade first.
    """
    least = 3 if bands else 2
    why = "some choose the bands, others the threshold, and others say what it gives" if bands else "those that choose do not report"
    require(
        questions >= least,
        f"{questions} question{' is' if questions == 1 else 's are'} too few: {why}",
        f"give at least {least}; a few hundred say more",
    )


def _threshold(point: Point) -> float:
    assert point.threshold is not None  # the models alone are never chosen
    return point.threshold
