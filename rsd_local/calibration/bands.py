"""The bands of a cascade, chosen on the user's questions: where a cheap reward decides as the last one would.

The bands come first, for the last reward's decisions at the threshold that the trio has, and the threshold is then swept with these
bands, so that its figures are those of the cascade that is kept. Where the sweep chooses another threshold, a second run of
``rsd tune`` chooses the bands for that one.

A reward is sure where it agrees with the last one on a share of the steps, and lets through no more than the rest of that share of all
that the last one would decide otherwise.

Every reward scores every step of the draft's own solutions. A part of the questions chooses the bands and is used for nothing else; what
the bands do is measured on the others, each at the threshold that was chosen without it (``rsd_local.calibration.choice``). That
a small model decides where it is sure, and a large one where it is not, is ConfSpec's idea (arXiv 2602.18447).
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rsd_local.calibration.choice import require_enough
from rsd_local.calibration.stage_scores import StepScores, Watch, collect
from rsd_local.config import Params, RewardConfig, Trio, require
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.stats import wilson
from rsd_local.events import CancelToken
from rsd_local.reasoner import Reasoner
from rsd_local.steps import Score

AGREEMENT = 0.95
FEWEST = 20
"""Steps that each side of a band needs: with fewer, one disagreement alone is more than the usual 5 %."""
_SHARE = 3  # one question of so many chooses the bands

_COUNTS = ("steps", "asked", "decided", "compared", "agreed")

Band = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ChosenBands:
    """Bands, and what they were chosen from.

    Attributes:
        bands: of each reward but the last; None where the one that it has stays.
        threshold: of the last reward, that they belong to.
        agreement: the share of steps on which a reward that is sure must decide as the last one does.
        questions, steps: that chose them.
        measured: steps of each other question, none where it could not be worked on.
        lost: questions that the draft or a reward could not work on.
    """

    bands: tuple[Band | None, ...]
    threshold: float
    agreement: float
    questions: int
    steps: int
    measured: tuple[tuple[StepScores, ...], ...]
    lost: int

    def accepted_by_last(self, thresholds: Sequence[float]) -> float | None:
        """The share of the measured steps that the last reward accepts: what a reward that accepts everything agrees on.

        Args:
            thresholds: of the last reward, one for each measured question.
        """
        questions = zip(self.measured, thresholds, strict=True)
        verdicts = [step[-1].value >= threshold for steps, threshold in questions for step in steps if step[-1].value is not None]
        return sum(verdicts) / len(verdicts) if verdicts else None


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What one reward of a cascade does on some steps.

    Attributes:
        name: of the reward.
        band: below the first number it rejects, from the second on it accepts; None for the last reward.
        chosen: whether the band was chosen, and not kept as it was.
        steps: all of them.
        asked: steps about which it is asked: no reward before it was sure.
        decided: those of them about which it is sure.
        compared: those of them of which the last reward gives a number too.
        agreed: those of them about which the last reward decides alike.
    """

    name: str
    band: Band | None
    chosen: bool
    steps: int
    asked: int
    decided: int
    compared: int
    agreed: int

    @property
    def agreement(self) -> float | None:
        """The share of compared steps about which the last reward decides alike; None where there is none."""
        return self.agreed / self.compared if self.compared else None

    @property
    def interval(self) -> Band:
        """Its 95 % interval (Wilson), each step counted as one trial."""
        return wilson(self.agreed, self.compared)

    @property
    def saved(self) -> float:
        """The share of all steps about which no reward behind it is asked, because it was sure."""
        return self.decided / max(self.steps, 1)


def choose_bands(
    reasoner: Reasoner, items: Sequence[Item], params: Params, *, seed: int, agreement: float, cancel: CancelToken, watch: Watch
) -> tuple[ChosenBands, list[Item]]:
    """Chooses the bands of an open trio's rewards on a part of the questions.

    Args:
        reasoner: with several rewards.
        items: the questions; their answers do not matter.
        params: sampling and limits; ``weighting.threshold`` is that of the last reward.
        seed: of the part and of all draws.
        agreement: above 0.5, at most 1.
        cancel: stops it.
        watch: called after each question.

    Returns:
        The bands, and the questions that had no part in them.

    Raises:
        Cancelled: ``cancel`` was called.
        ConfigError: a setting cannot be used.
        RSDError: no question could be worked on; why the first one could not.
    """
    require(0.5 < agreement <= 1.0, f"agreement {agreement} is outside 0.5 to 1, 0.5 left out")
    require_enough(len(items), bands=True)
    part = set(random.Random(f"{seed} bands").sample(range(len(items)), max(1, len(items) // _SHARE)))
    found = collect(reasoner, items, params, seed, cancel, watch)
    choosing = [step for place in sorted(part) for step in found[place] or ()]
    others = tuple(tuple(steps or ()) for place, steps in enumerate(found) if place not in part)
    threshold = params.weighting.threshold
    bands = choose(choosing, reasoner.config.stages, threshold, agreement)
    made = ChosenBands(bands, threshold, agreement, len(part), len(choosing), others, found.count(None))
    return made, [item for place, item in enumerate(items) if place not in part]


def choose(steps: Sequence[StepScores], stages: Sequence[RewardConfig], threshold: float, agreement: float) -> tuple[Band | None, ...]:
    """The band of each reward but the last, from the first on; each is chosen on the steps that are left to it.

    A step is compared with the last reward's own decision, and does not count where one of the two gives no number. A verifier that
    never gives anything between 0 and 1 keeps its band.

    Args:
        steps: the scores of each.
        stages: the rewards.
        threshold: from which on the last one accepts.
        agreement: see ``band_of``.

    Returns:
        None where the band stays as it is.
    """
    bands: list[Band | None] = []
    waiting = list(steps)
    for place, stage in enumerate(stages[:-1]):
        graded = any(step[place].value not in (None, 0.0, 1.0) for step in steps)
        band = None
        if stage.kind != "verifier" or graded:
            pairs = [(step[place].value, step[-1].value) for step in waiting]
            band = band_of([(value, last >= threshold) for value, last in pairs if value is not None and last is not None], agreement)
        bands.append(band)
        now = band or stage.band(last=False)
        waiting = [step for step in waiting if not is_sure(now, step[place])]
    return tuple(bands)


def band_of(pairs: Sequence[tuple[float, bool]], agreement: float) -> Band:
    """The widest parts of a reward's range in which it agrees with another one.

    ``upper`` is the least value from which on at least this share of steps is accepted, and beyond which no more than the rest of that
    share of all rejected steps lies; ``lower`` the same the other way round. So a reward that knows nothing is not sure by accepting
    everything, though nearly everything be accepted. Where the two cross, one of them gives way, so that more steps are decided, or
    more of them alike. A side with fewer than ``FEWEST`` steps stays open: 0 or 1. From 1 on a step is accepted in any case.

    Args:
        pairs: of each step the reward's value in [0, 1], and whether the other one accepts.
        agreement: the share, above 0.5.

    Returns:
        ``lower`` and ``upper``: values that occur, or ``lower`` just above the largest one.
    """
    ordered = sorted(pairs)
    values = [value for value, _ in ordered]
    accepted = [0, *itertools.accumulate(int(good) for _, good in ordered)]
    total, good = len(ordered), accepted[-1]

    def enough(agreeing: int, count: int, others: int) -> bool:
        wrong = count - agreeing
        return count >= FEWEST and wrong <= (1 - agreement) * min(count, others) + 1e-9

    def worth(band: Band) -> tuple[int, int]:
        """How many steps it decides, and how many of them as the other one."""
        below, start = (bisect.bisect_left(values, bound) for bound in band)
        return below + total - start, below - accepted[below] + good - accepted[start]

    lowers, uppers = [0.0], [1.0]
    for value in dict.fromkeys([*values, *(math.nextafter(value, 1.0) for value in values[-1:])]):
        below = bisect.bisect_left(values, value)  # equal values are on one side
        if enough(below - accepted[below], below, good):
            lowers.append(value)
        if enough(good - accepted[below], total - below, total - good):
            uppers.append(value)
    lower, upper = max(lowers), min(uppers)
    if lower <= upper:
        return lower, upper
    crossing = [(max(one for one in lowers if one <= upper), upper), (lower, min(one for one in uppers if one >= lower))]
    return max(crossing, key=worth)


def is_sure(band: Band | None, score: Score) -> bool:
    """Whether a reward with this band decides about a step; without a band it does wherever it gives a number."""
    return score.value is not None and (band is None or not band[0] <= score.value < band[1])


def measure(
    steps: Sequence[StepScores], stages: Sequence[RewardConfig], bands: Sequence[Band | None], threshold: float
) -> tuple[StageFigures, ...]:
    """What each reward of a cascade does on some steps.

    Args:
        steps: the scores of each; none of them may have chosen the bands.
        stages: the rewards.
        bands: as ``choose`` gives them.
        threshold: of the last one.
    """
    made = []
    waiting = list(steps)
    for place, (stage, chosen) in enumerate(zip(stages, [*bands, None], strict=True)):
        is_last = place + 1 == len(stages)
        band = chosen or stage.band(last=is_last)
        decided = [step for step in waiting if is_sure(band, step[place])]
        verdicts = [] if band is None else [verdict for step in decided for verdict in _alike(step, place, band[1], threshold)]
        figures = len(steps), len(waiting), len(decided), len(verdicts), sum(verdicts)
        made.append(StageFigures(stage.name, band, chosen is not None, *figures))
        waiting = [step for step in waiting if not is_sure(band, step[place])]
    return tuple(made)


def measure_each(
    questions: Sequence[Sequence[StepScores]], stages: Sequence[RewardConfig], bands: Sequence[Band | None], thresholds: Sequence[float]
) -> tuple[StageFigures, ...]:
    """``measure`` where each question has a threshold of its own: the one that was chosen without it.

    Args:
        questions: the scores of each one's steps.
        stages, bands: as for ``measure``.
        thresholds: one for each question.
    """
    by_threshold: dict[float, list[StepScores]] = {}
    for steps, threshold in zip(questions, thresholds, strict=True):
        by_threshold.setdefault(threshold, []).extend(steps)
    parts = [measure(steps, stages, bands, threshold) for threshold, steps in by_threshold.items()]
    return tuple(_together(figures) for figures in zip(*parts, strict=True))


def _together(parts: Sequence[StageFigures]) -> StageFigures:
    """The figures of one reward over several sets of steps."""
    return replace(parts[0], **{name: sum(getattr(part, name) for part in parts) for name in _COUNTS})


def _alike(step: StepScores, place: int, upper: float, threshold: float) -> list[bool]:
    """Whether a reward and the last one decide alike; nothing where one of them gives no number."""
    value, last = step[place].value, step[-1].value
    return [] if value is None or last is None else [(value >= upper) == (last >= threshold)]


def with_bands(trio: Trio, bands: Sequence[Band | None]) -> Trio:
    """The trio with bands for its rewards but the last; None leaves one as it is."""
    stages = [
        stage if band is None else replace(stage, lower=band[0], upper=band[1])
        for stage, band in zip(trio.stages, [*bands, None], strict=True)
    ]
    of_one = {entry.name for entry in dataclasses.fields(RewardConfig)} | {"reward", "reward_kind"}  # settings of a trio's only reward
    usual: dict[str, Any] = {entry.name: entry.default for entry in dataclasses.fields(Trio) if entry.name in of_one}
    return replace(trio, **usual, rewards=tuple(stages))
