"""What the lines of a run log add up to."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsd_local.config import require
from rsd_local.evaluation.ratios import Ratio, differ
from rsd_local.run_log.folder import Lines, Manifest, Row

BINS = 10
"""Of the rewards' histogram, from 0 to 1."""
_MOST_DAYS, _PARTS, _FEWEST = 31, 10, 5
Share = tuple[float, float, float]
"""A figure, and its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the figures need of one line.

    Attributes:
        time: of its end, in UTC.
        strategy: of the run.
        reason: why it ended; None where ``error`` says it.
        error: the error's code; None for none.
        both: whether draft and target took part, so that something could be accepted or not.
        accepted, drafted: places with a step of the draft, and those at which it had written one.
        target_steps, steps: of the answer.
        tokens, seconds: of the answer while it was written, its wait left out.
        waited: seconds in the queue.
        full: FLOPs of all models.
        alone: FLOPs of the target for the same tokens; 0 where it took no part.
    """

    time: datetime.datetime
    strategy: str
    reason: str | None
    error: str | None
    both: bool
    accepted: int
    drafted: int
    target_steps: int
    steps: int
    tokens: int
    seconds: float
    waited: float
    full: float
    alone: float


@dataclass(slots=True)
class Part:
    """The figures of some answers.

    Attributes:
        label: which they are.
        answers: how many, errors and cancelled ones included.
        errors: that ended in an error.
        tokens: of all of them.
        accepted: accepted steps over steps of the draft.
        target: steps of the target over all.
        speed: tokens over seconds.
        cost: FLOPs over those of the target alone.
    """

    label: str
    answers: int = 0
    errors: int = 0
    tokens: int = 0
    accepted: Ratio = field(default_factory=Ratio)
    target: Ratio = field(default_factory=Ratio)
    speed: Ratio = field(default_factory=Ratio)
    cost: Ratio = field(default_factory=Ratio)

    def add(self, one: Answered) -> None:
        """Count an answer."""
        self.answers += 1
        self.errors += one.error is not None
        self.tokens += one.tokens
        if one.error is not None:
            return
        self.speed.add(one.tokens, one.seconds if one.tokens else 0.0)
        self.target.add(one.target_steps, one.steps)
        self.cost.add(one.full, one.alone)
        if one.both:
            self.accepted.add(one.accepted, one.drafted)

    @property
    def acceptance(self) -> Share | None:
        """The share of the draft's steps that was accepted."""
        return _share(self.accepted)

    @property
    def target_share(self) -> Share | None:
        """The share of all steps that the target wrote."""
        return _share(self.target)

    @property
    def tokens_per_second(self) -> tuple[float, float | None, float | None] | None:
        """Of one answer; without an interval for fewer than two."""
        value, interval = self.speed.value, self.speed.interval()
        return None if value is None else (value, *(interval or (None, None)))

    @property
    def flops_saved(self) -> tuple[float, float | None, float | None] | None:
        """The share of the target's FLOPs that was not needed; below 0 where all models together needed more."""
        value, interval = self.cost.value, self.cost.interval()
        if value is None:
            return None
        return (1 - value, 1 - interval[1], 1 - interval[0]) if interval is not None else (1 - value, None, None)


@dataclass(frozen=True, slots=True)
class RunLogFigures:
    """The figures of a folder.

    Attributes:
        manifest: of it.
        whole: all answers.
        strategies: those of each strategy.
        parts: those of each day, or of equal parts in the order of time.
        by_day: which of the two ``parts`` are.
        first, last: when the first and the last answer ended.
        reasons: how many answers ended why.
        errors: how many ended in which error.
        rewards: accepted and replaced steps of the draft, for each tenth of rewards from 0 to 1.
        waited: seconds that answers waited in the queue, on average.
        damaged: lines that could not be read.
    """

    manifest: Manifest
    whole: Part
    strategies: tuple[Part, ...]
    parts: tuple[Part, ...]
    by_day: bool
    first: datetime.datetime
    last: datetime.datetime
    reasons: dict[str, int]
    errors: dict[str, int]
    rewards: tuple[tuple[int, int], ...]
    waited: float
    damaged: int

    @property
    def drifted(self) -> bool | None:
        """Whether the acceptance share differs from what tune saw by more than chance (99 %); None where that is not known."""
        tuned, rsd = self.manifest.tuned, self.of("rsd")
        if tuned is None or rsd is None or rsd.accepted.value is None:
            return None
        effect = rsd.accepted.design_effect
        return differ(rsd.accepted.value, rsd.accepted.below / effect, tuned.acceptance, tuned.steps / effect)

    def of(self, strategy: str) -> Part | None:
        """The answers of a strategy, None for none."""
        return next((part for part in self.strategies if part.label == strategy), None)


def read_figures(folder: Path) -> RunLogFigures:
    """The figures of a folder.

    Raises:
        ConfigError: it is no run log, or has no line yet.
    """
    manifest, lines = Manifest.read(folder), Lines(folder)
    rewards = [[0, 0] for _ in range(BINS)]
    answered: list[Answered] = []
    for row in lines:
        try:
            answered.append(_answered(row))
        except (TypeError, ValueError, KeyError, AttributeError):  # changed by somebody else
            lines.damaged += 1
            continue
        _count_rewards(row, rewards)
    require(bool(answered), f"{folder} has no line yet", "it has one once an answer was given")
    answered.sort(key=lambda one: one.time)
    parts, by_day = _parts(answered)
    named = {name: [one for one in answered if one.strategy == name] for name in dict.fromkeys(one.strategy for one in answered)}
    return RunLogFigures(
        manifest,
        _part("all", answered),
        tuple(_part(name, ones) for name, ones in sorted(named.items(), key=lambda pair: -len(pair[1]))),
        parts,
        by_day,
        answered[0].time,
        answered[-1].time,
        dict(Counter(one.reason for one in answered if one.reason is not None).most_common()),
        dict(Counter(one.error for one in answered if one.error is not None).most_common()),
        tuple((accepted, replaced) for accepted, replaced in rewards),
        sum(one.waited for one in answered) / len(answered),
        lines.damaged,
    )


def _answered(row: Row) -> Answered:
    steps, counters = row["steps"], row["counters"]
    accepted = sum(step["author"] == "draft" for step in steps)
    replaced = sum(step["author"] == "target" and "rejected" in step for step in steps)
    target, tokens, both = counters.get("target"), int(row.get("tokens", 0)), {"draft", "target"} <= counters.keys()
    read = 0 if target is None else max(0, target["opening_tokens"] - target["cached_tokens"])
    when = datetime.datetime.fromisoformat(row["time"])
    return Answered(
        when.astimezone(datetime.UTC),
        str(row["strategy"]),
        row["finish_reason"],
        row["error"],
        both,
        accepted,
        accepted + replaced,
        sum(step["author"] == "target" for step in steps),
        len(steps),
        tokens,
        float(row["seconds"]),
        float(row.get("waiting_seconds", 0.0)),
        float(row.get("flops", {}).get("full", 0.0)),
        0.0 if target is None else 2.0 * target["parameters"] * (read + tokens),
    )


def _count_rewards(row: Row, rewards: list[list[int]]) -> None:
    for step in row["steps"]:
        reward = step.get("reward")
        if isinstance(reward, int | float):
            place = min(BINS - 1, max(0, int(reward * BINS)))
            rewards[place][step["author"] != "draft"] += 1


def _parts(answered: Sequence[Answered]) -> tuple[tuple[Part, ...], bool]:
    """The answers by day in UTC where that is two or more and not too many, otherwise in equal parts; those are given in order."""
    days: dict[str, list[Answered]] = {}
    for one in answered:
        days.setdefault(f"{one.time:%Y-%m-%d}", []).append(one)
    if 2 <= len(days) <= _MOST_DAYS:
        return tuple(_part(day, ones) for day, ones in days.items()), True
    count = min(_PARTS, max(1, len(answered) // _FEWEST))
    cuts = [round(place * len(answered) / count) for place in range(count + 1)]
    pieces = [answered[start:end] for start, end in zip(cuts, cuts[1:], strict=False)]
    return tuple(_part(f"from {piece[0].time:%Y-%m-%d %H:%M:%S}", piece) for piece in pieces), False


def _part(label: str, answered: Iterable[Answered]) -> Part:
    made = Part(label)
    for one in answered:
        made.add(one)
    return made


def _share(ratio: Ratio) -> Share | None:
    value = ratio.value
    return None if value is None else (value, *ratio.share_interval())
