"""The figures of a bench: one row a strategy, one a pair of strategies."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rsd_local.bench.results import Row
from rsd_local.evaluation.journal import Config
from rsd_local.evaluation.stats import discordant, holm, mcnemar, paired_bootstrap, ratio_bootstrap, wilson


@dataclass(frozen=True, slots=True)
class PartFigures:
    """One part of the tests of a strategy's answers.

    Attributes:
        part: its name: ``shown`` tests stand in the question too, ``hidden`` ones do not.
        passed: questions whose tests of this part all passed.
        questions: those that have such tests, errors included.
        interval: the 95 % Wilson interval of the share.
    """

    part: str
    passed: int
    questions: int
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class UncheckedFigures:
    """The questions in whose answers a reward had something that it could not check.

    Attributes:
        questions: how many.
        right: how many of them were answered right.
        by_target: how many have no step of the draft.
    """

    questions: int
    right: int
    by_target: int


@dataclass(frozen=True, slots=True)
class StrategyFigures:
    """One strategy over its questions; costs leave out questions that ended in an error.

    Attributes:
        label: the strategy's spec.
        questions: lines.
        errors: questions that could not be answered; they count as wrong.
        accuracy: share of right answers, with its 95 % Wilson interval.
        paper_flops: per question, 2·N per generated token and reward token.
        full_flops: per question, 2·N per token evaluated by any model.
        paper_ratio: of the target's paper FLOPs on the questions of both, None without a target.
        full_ratio: of the target's full FLOPs.
        full_interval: its 95 % paired bootstrap interval.
        tokens: written by draft and target per question, discarded ones included.
        seconds: of the wall per question, with the others in flight beside it.
        per_minute: questions a minute of the whole machine: ``parallel`` · 60 / seconds.
        speed: the target's seconds over this one's on the questions of both; above 1 is faster.
        speed_interval: its 95 % paired bootstrap interval.
        target_share: share of steps that the target wrote, None without a step.
        fallback_steps: steps of ``rsd`` that the target wrote because the draft's was rejected, 0 of other strategies.
        kept: tokens of a rejected step that the target kept as its own, per such step.
        fallback_seconds: of the target's batches, catch-up included, per such step.
        parts: where tests come in parts, the figures of each.
        unchecked: of questions with steps that the reward could not check, None where there is none.
        decided_by: draft steps by the reward that decided about them.
        beaten_by: strategies at least as accurate and at most as dear in full FLOPs, and better in one of the two.
    """

    label: str
    questions: int
    errors: int
    accuracy: float
    interval: tuple[float, float]
    paper_flops: float
    full_flops: float
    paper_ratio: float | None
    full_ratio: float | None
    tokens: float
    seconds: float
    per_minute: float
    speed: float | None
    target_share: float | None
    fallback_steps: int
    kept: float
    fallback_seconds: float
    full_interval: tuple[float, float] | None = None
    speed_interval: tuple[float, float] | None = None
    parts: tuple[PartFigures, ...] = ()
    unchecked: UncheckedFigures | None = None
    decided_by: dict[str, int] = field(default_factory=dict)
    beaten_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Two strategies on the questions that both have lines for.

    Attributes:
        first, second: labels.
        questions: that both have.
        difference: accuracy of the first minus that of the second.
        interval: its 95 % paired bootstrap interval.
        only_first, only_second: questions that one alone answered right.
        same_answers: questions to which both gave the same answer, or neither gave one; none that ended in an error.
        same_texts: questions whose solutions are equal to the byte (by their hashes); none that ended in an error.
        p_value: of McNemar's exact test.
        adjusted: the same after Holm's correction for all pairs of the bench.
    """

    first: str
    second: str
    questions: int
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    same_answers: int
    same_texts: int
    p_value: float
    adjusted: float


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of a folder."""

    config: Config
    strategies: tuple[StrategyFigures, ...]
    pairs: tuple[PairFigures, ...]


def summarize(config: Config, rows: Iterable[Row]) -> Summary:
    """The figures of a folder's rows; strategies in the order of the configuration."""
    table = by_strategy(config, rows)
    base = table.get(baseline(table) or "", {})
    parallel = config["trio"]["parallel"]
    figures = [_strategy(label, lines, base, parallel) for label, lines in table.items()]
    ranked = tuple(_beaten(one, figures) for one in figures)
    pairs = [_pair(*one, *other) for one, other in itertools.combinations(table.items(), 2)]
    adjusted = holm([mcnemar(pair.only_first, pair.only_second) for pair in pairs])
    return Summary(config, ranked, tuple(dataclasses.replace(pair, adjusted=value) for pair, value in zip(pairs, adjusted, strict=True)))


def by_strategy(config: Config, rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """Rows by strategy and question; strategies without a row are left out."""
    table: dict[str, dict[str, Row]] = {label: {} for label in config["strategies"]}
    for row in rows:
        table.setdefault(row["strategy"], {})[row["id"]] = row
    return {label: lines for label, lines in table.items() if lines}


def baseline(labels: Iterable[str]) -> str | None:
    """The strategy that others are measured against: ``target``, or the first with settings of its own."""
    found = [label for label in labels if label.partition(":")[0] == "target"]
    return "target" if "target" in found else next(iter(found), None)


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def _strategy(label: str, lines: dict[str, Row], base: dict[str, Row], parallel: int) -> StrategyFigures:
    rows = list(lines.values())
    answered = [row for row in rows if row["error"] is None]
    right = sum(row["correct"] for row in rows)
    steps = [step for row in answered for step in row["steps"]]
    shared = [(row, base[row["id"]]) for row in answered if row["id"] in base and base[row["id"]]["error"] is None]
    seconds = mean([row["seconds"] for row in answered])
    fallback = sum(step["author"] == "target" for step in steps) if label.partition(":")[0] == "rsd" else 0
    own = [row["counters"]["target"] for row in answered if fallback]
    return StrategyFigures(
        label=label,
        questions=len(rows),
        errors=len(rows) - len(answered),
        accuracy=right / len(rows),
        interval=wilson(right, len(rows)),
        paper_flops=mean([row["flops"]["paper"] for row in answered]),
        full_flops=mean([row["flops"]["full"] for row in answered]),
        paper_ratio=_ratio([(one["flops"]["paper"], other["flops"]["paper"]) for one, other in shared]),
        full_ratio=_ratio([(one["flops"]["full"], other["flops"]["full"]) for one, other in shared]),
        tokens=mean([_written(row) for row in answered]),
        seconds=seconds,
        per_minute=60 * parallel / seconds if seconds else 0.0,
        speed=_ratio([(other["seconds"], one["seconds"]) for one, other in shared]),
        target_share=mean([step["author"] == "target" for step in steps]) if steps else None,
        fallback_steps=fallback,
        kept=sum(counters["kept_tokens"] for counters in own) / max(1, fallback),
        fallback_seconds=sum(counters["seconds"] for counters in own) / max(1, fallback),
        full_interval=ratio_bootstrap([one["flops"]["full"] for one, _ in shared], [other["flops"]["full"] for _, other in shared]),
        speed_interval=ratio_bootstrap([other["seconds"] for _, other in shared], [one["seconds"] for one, _ in shared]),
        parts=_parts(rows),
        unchecked=_unchecked(answered),
        decided_by=dict(sum((Counter(row.get("decided_by")) for row in answered), Counter())),
    )


def _unchecked(rows: list[Row]) -> UncheckedFigures | None:
    found = [row for row in rows if row.get("unchecked")]
    if not found:
        return None
    by_target = sum(all(step["author"] == "target" for step in row["steps"]) for row in found)
    return UncheckedFigures(len(found), sum(row["correct"] for row in found), by_target)


def _parts(rows: list[Row]) -> tuple[PartFigures, ...]:
    """Parts in the order of their tests; a question that ended in an error passed none of them."""
    names = dict.fromkeys(part for row in rows for part in (row.get("checks") or {}))
    counted = [row for row in rows if row["error"] is not None or row.get("checks")]
    passed = {name: sum((row.get("checks") or {}).get(name, False) for row in counted) for name in names}
    return tuple(PartFigures(name, passed[name], len(counted), wilson(passed[name], len(counted))) for name in names)


def _written(row: Row) -> float:
    return sum(row["counters"][role]["generated_tokens"] for role in ("draft", "target") if role in row["counters"])


def _ratio(pairs: list[tuple[float, float]]) -> float | None:
    below = sum(pair[1] for pair in pairs)
    return sum(pair[0] for pair in pairs) / below if below else None


def _beaten(one: StrategyFigures, figures: list[StrategyFigures]) -> StrategyFigures:
    better = [
        other.label
        for other in figures
        if other.accuracy >= one.accuracy
        and other.full_flops <= one.full_flops
        and (other.accuracy, other.full_flops) != (one.accuracy, one.full_flops)
    ]
    return dataclasses.replace(one, beaten_by=tuple(better))


def _pair(first: str, ones: dict[str, Row], second: str, others: dict[str, Row]) -> PairFigures:
    common = [name for name in ones if name in others]
    right = [ones[name]["correct"] for name in common], [others[name]["correct"] for name in common]
    won, lost = discordant(*right)
    answered = [(ones[name], others[name]) for name in common if ones[name]["error"] is None is others[name]["error"]]
    return PairFigures(
        first=first,
        second=second,
        questions=len(common),
        difference=(won - lost) / len(common) if common else 0.0,
        interval=paired_bootstrap(*right),
        only_first=won,
        only_second=lost,
        same_answers=sum(one["answer"] == other["answer"] for one, other in answered),
        same_texts=sum(one["text"] == other["text"] for one, other in answered),
        p_value=mcnemar(won, lost),
        adjusted=1.0,
    )
