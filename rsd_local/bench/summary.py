"""The figures of a bench: one row a strategy, one a pair of strategies."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rsd_local.bench.machine import Run
from rsd_local.bench.results import Row, same_text
from rsd_local.evaluation.journal import Config
from rsd_local.evaluation.stats import discordant, holm, mcnemar, paired_bootstrap, ratio_bootstrap, wilson

Finding = Literal["equal", "no difference seen", "first higher", "second higher"]
"""What a comparison comes to. A difference is seen where its 95 % interval excludes none."""
_FEWEST = 3  # questions, below which no interval says anything
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Cause:
    """Why questions could not be answered or graded.

    Attributes:
        code: of the error.
        message: of the first such question; others may name other numbers.
        questions: how many.
    """

    code: str
    message: str
    questions: int

    def __str__(self) -> str:
        return f"{self.questions} × {': '.join(filter(None, (self.code, self.message)))}"


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
        errors: questions that could not be answered, or whose answer could not be graded; they count as wrong.
        accuracy: share of right answers, with its 95 % Wilson interval.
        paper_flops: per question, 2·N per generated token and reward token.
        full_flops: per question, 2·N per token evaluated by any model.
        paper_ratio: of the target's paper FLOPs on the questions of both, None without a target.
        full_ratio: of the target's full FLOPs.
        paper_interval, full_interval: their 95 % paired bootstrap intervals.
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
        beaten_by: strategies at least as accurate and at most as dear in full FLOPs on the questions of both, and better in one of
            the two by a difference that is seen.
        causes: of the errors, the most frequent first.
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
    causes: tuple[Cause, ...] = ()
    paper_interval: tuple[float, float] | None = None


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
        full_ratio: the first's full FLOPs over the second's on the questions that both answered, None without any.
        full_interval: its 95 % paired bootstrap interval.
        accuracy: what the comparison of accuracies comes to: equal where both are right on the same questions; a difference is seen
            where the interval excludes 0 and McNemar's p is at most 0.05.
        cost: the same of full FLOPs: equal where the ratio is always 1; a difference is seen where the interval excludes 1.
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
    full_ratio: float | None = None
    full_interval: tuple[float, float] | None = None
    accuracy: Finding = "no difference seen"
    cost: Finding = "no difference seen"


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of a folder, and the runs that made them."""

    config: Config
    strategies: tuple[StrategyFigures, ...]
    pairs: tuple[PairFigures, ...]
    runs: tuple[Run, ...] = ()

    @property
    def unanswered(self) -> list[str]:
        """Strategies that could answer no question."""
        return [one.label for one in self.strategies if one.errors == one.questions]


def summarize(config: Config, rows: Iterable[Row], runs: tuple[Run, ...] = ()) -> Summary:
    """The figures of a folder's rows; strategies in the order of the configuration."""
    table = by_strategy(config, rows)
    base = table.get(baseline(table) or "", {})
    parallel = config["trio"]["parallel"]
    figures = [_strategy(label, lines, base, parallel) for label, lines in table.items()]
    pairs = [_pair(*one, *other) for one, other in itertools.combinations(table.items(), 2)]
    ranked = tuple(dataclasses.replace(one, beaten_by=_beaten_by(one.label, pairs)) for one in figures)
    adjusted = holm([pair.p_value for pair in pairs])
    compared = tuple(dataclasses.replace(pair, adjusted=value) for pair, value in zip(pairs, adjusted, strict=True))
    return Summary(config, ranked, compared, runs)


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
        paper_interval=ratio_bootstrap([one["flops"]["paper"] for one, _ in shared], [other["flops"]["paper"] for _, other in shared]),
        full_interval=ratio_bootstrap([one["flops"]["full"] for one, _ in shared], [other["flops"]["full"] for _, other in shared]),
        speed_interval=ratio_bootstrap([other["seconds"] for _, other in shared], [one["seconds"] for one, _ in shared]),
        parts=_parts(rows),
        unchecked=_unchecked(answered),
        decided_by=dict(sum((Counter(row.get("decided_by")) for row in answered), Counter())),
        causes=causes_of([(row["error"], row.get("message") or "") for row in rows if row["error"] is not None]),
    )


def causes_of(errors: Iterable[tuple[str, str]]) -> tuple[Cause, ...]:
    """Errors by what they say, whatever numbers and quoted texts are in it, the most frequent first.

    Args:
        errors: code and message of each.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for code, said in errors:
        message = " ".join(said.split())
        found.setdefault((code, re.sub(r"'[^']*'|\"[^\"]*\"|[0-9][0-9,.]*", "#", message)), []).append(message)
    made = [Cause(code, messages[0], len(messages)) for (code, _), messages in found.items()]
    return tuple(sorted(made, key=lambda cause: -cause.questions))


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


def _beaten_by(label: str, pairs: list[PairFigures]) -> tuple[str, ...]:
    better = []
    for pair in pairs:
        if label not in (pair.first, pair.second) or pair.full_ratio is None:
            continue
        ours: Finding = "first higher" if pair.first == label else "second higher"
        theirs: Finding = "second higher" if pair.first == label else "first higher"
        sign = 1 if pair.first == label else -1
        no_worse = sign * pair.difference <= 0 and sign * (pair.full_ratio - 1) >= 0
        if no_worse and (pair.accuracy == theirs or pair.cost == ours):
            better.append(pair.second if pair.first == label else pair.first)
    return tuple(better)


def _pair(first: str, ones: dict[str, Row], second: str, others: dict[str, Row]) -> PairFigures:
    common = [name for name in ones if name in others]
    right = [ones[name]["correct"] for name in common], [others[name]["correct"] for name in common]
    won, lost = discordant(*right)
    answered = [(ones[name], others[name]) for name in common if ones[name]["error"] is None is others[name]["error"]]
    costs = [(one["flops"]["full"], other["flops"]["full"]) for one, other in answered]
    cost_interval = ratio_bootstrap([cost for cost, _ in costs], [cost for _, cost in costs])
    interval, p_value = paired_bootstrap(*right), mcnemar(won, lost)
    seen = p_value <= _LEVEL and len(common) >= _FEWEST
    return PairFigures(
        first=first,
        second=second,
        questions=len(common),
        difference=(won - lost) / len(common) if common else 0.0,
        interval=interval,
        only_first=won,
        only_second=lost,
        same_answers=sum(one["answer"] == other["answer"] for one, other in answered),
        same_texts=sum(same_text(one, other) for one, other in answered),
        p_value=p_value,
        adjusted=1.0,
        full_ratio=_ratio(costs),
        full_interval=cost_interval,
        accuracy="equal" if common and not won and not lost else _finding(interval if seen else None, 0.0),
        cost="equal"
        if costs and all(one == other for one, other in costs)
        else _finding(cost_interval if len(costs) >= _FEWEST else None, 1.0),
    )


def _finding(interval: tuple[float, float] | None, none: float) -> Finding:
    """What an interval says, None where there is none to go by.

    Args:
        interval: of a difference or a ratio of the first and the second.
        none: its value where there is no difference.
    """
    if interval is None or interval[0] <= none <= interval[1]:
        return "no difference seen"
    return "first higher" if interval[0] > none else "second higher"
