"""What a measured saving is worth: machine hours and money a day, against the target alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rsd_local.bench.results import Row
from rsd_local.bench.summary import baseline, by_strategy, mean
from rsd_local.bench.tables import percent, points
from rsd_local.config import require
from rsd_local.evaluation.journal import Config
from rsd_local.evaluation.stats import discordant, paired_bootstrap

Lines = dict[str, Row]


@dataclass(frozen=True, slots=True)
class Worth:
    """One strategy against the target, on the questions that both have lines for.

    Attributes:
        label: the strategy's spec.
        questions: that both answered.
        seconds: of the wall per question.
        machine_seconds: of the whole machine per question: ``seconds`` / questions at once.
        hours: of the machine a day.
        cost: a day, in the currency of the price.
        saved_hours: the target's hours minus these.
        saved_cost: a day.
        accuracy: share of right answers.
        difference: accuracy minus the target's, with its 95 % paired bootstrap interval.
        arithmetic: how the figures above come about, line by line.
    """

    label: str
    questions: int
    seconds: float
    machine_seconds: float
    hours: float
    cost: float
    saved_hours: float
    saved_cost: float
    accuracy: float
    difference: float
    interval: tuple[float, float]
    arithmetic: tuple[str, ...]


def estimate(config: Config, rows: Iterable[Row], per_day: float, price: float) -> list[Worth]:
    """What each strategy costs a day, and what it saves against the target.

    Args:
        config: of the folder.
        rows: its lines.
        per_day: questions a day.
        price: of one machine for an hour, in any currency.

    Raises:
        ConfigError: there are no lines of ``target``, or a number is none that can be.
    """
    require(0 < per_day < math.inf, f"questions per day {per_day:g} is no number above 0")
    require(0 <= price < math.inf, f"price per hour {price:g} is no number from 0 on")
    table = by_strategy(config, rows)
    base = baseline(table)
    require(base is not None, "there are no lines of the strategy target", "run rsd bench with --strategy target beside the others")
    assert base is not None
    parallel = config["trio"]["parallel"]
    return [_worth(label, lines, base, table[base], parallel, per_day, price) for label, lines in table.items() if label != base]


def _worth(label: str, lines: Lines, base_label: str, base: Lines, parallel: int, per_day: float, price: float) -> Worth:
    common = [name for name in lines if name in base and lines[name]["error"] is None and base[name]["error"] is None]
    require(bool(common), f"{label} and the target have no question in common that both answered")
    own, other = [lines[name] for name in common], [base[name] for name in common]
    seconds, base_seconds = (mean([row["seconds"] for row in rows]) for rows in (own, other))
    right, base_right = [row["correct"] for row in own], [row["correct"] for row in other]
    hours, base_hours = (per_day * value / parallel / 3600 for value in (seconds, base_seconds))
    won, lost = discordant(right, base_right)
    low, high = paired_bootstrap(right, base_right)
    difference = (won - lost) / len(common)
    return Worth(
        label=label,
        questions=len(common),
        seconds=seconds,
        machine_seconds=seconds / parallel,
        hours=hours,
        cost=hours * price,
        saved_hours=base_hours - hours,
        saved_cost=(base_hours - hours) * price,
        accuracy=mean(right),
        difference=difference,
        interval=(low, high),
        arithmetic=(
            _day(base_label, base_seconds, parallel, per_day, base_hours, price),
            _day(label, seconds, parallel, per_day, hours, price),
            _difference(base_hours, hours, price),
            f"accuracy: {percent(mean(right))} − {percent(mean(base_right))} = {points(difference)} points "
            f"(95 % interval {points(low)} to {points(high)}) on {len(common)} questions",
        ),
    )


def _difference(base: float, own: float, price: float) -> str:
    """What is saved against the target, or what is to be paid more; with as many digits as the difference needs."""
    word, more, less = ("saved", base, own) if own <= base else ("costs more", own, base)
    digits = _digits(more - less)
    more, less = round(more, digits), round(less, digits)
    return (
        f"{word}: {more:,.{digits}f} h − {less:,.{digits}f} h = {more - less:,.{digits}f} h a day; × {_shown(price)} an hour = "
        f"{_shown((more - less) * price)} a day, × 30 = {_shown(30 * (more - less) * price)} a month"
    )


def _day(label: str, seconds: float, parallel: int, per_day: float, hours: float, price: float) -> str:
    each = max(3, _digits(seconds / parallel))
    return (
        f"{label}: {seconds:,.{each}f} s a question / {parallel} at once = {seconds / parallel:,.{each}f} s of the machine; "
        f"× {per_day:,.0f} a day / 3,600 = {_shown(hours)} h a day; × {_shown(price)} an hour = {_shown(hours * price)} a day"
    )


def _shown(value: float) -> str:
    return f"{value:,.{_digits(value)}f}"


def _digits(value: float) -> int:
    """Two digits behind the point, and more of a small number, so that three of its own are seen."""
    return 2 if value >= 0.1 or value <= 0 else min(12, 2 - math.floor(math.log10(value)))
