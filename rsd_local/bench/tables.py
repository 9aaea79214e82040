"""A summary as tables of text, which read well on a terminal and are Markdown too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rsd_local.bench.machine import differing, summary_lines
from rsd_local.bench.summary import PairFigures, StrategyFigures, Summary

Cells = Sequence[str]
STRATEGY_HEADS = (
    "strategy",
    "questions",
    "accuracy",
    "95 % interval",
    "paper FLOPs",
    "× target",
    "full FLOPs",
    "× target",
    "tokens",
    "seconds",
    "a minute",
    "speed",
    "target share",
)
PAIR_HEADS = (
    "pair", "questions", "difference", "95 % interval", "accuracy", "full FLOPs, first ÷ second", "only first", "only second", "McNemar p",
    "Holm p", "same answer", "same text",
)  # fmt: skip
FALLBACK_HEADS = ("strategy", "fallback steps", "tokens kept", "target seconds")
FALLBACK_READING = (
    "Steps that the target wrote because the draft's was rejected. Tokens of the rejected step that the target kept as its own, and "
    "seconds of the target's batches, catch-up included, both per such step."
)
READING = (
    "FLOPs, tokens and seconds are per question. *Paper* FLOPs: 2·N per generated token, discarded ones and the reward model's "
    "tokens after the question included. *Full* FLOPs: 2·N per token that any model evaluated, questions and catch-up included. "
    "Seconds are of the wall, with the other questions in flight beside it; *a minute* is questions a minute of the whole machine. "
    "*Speed* is the target's seconds over the strategy's, above 1 is faster. *Target share* is the share of steps that the target wrote. "
    "In parentheses: 95 % paired bootstrap intervals of the ratios (10,000 resamples of the questions)."
)
PAIR_READING = (
    "Difference in accuracy on the questions that both answered, in points, with a paired bootstrap interval (10,000 resamples). "
    "p: McNemar's exact test, and the same after Holm's correction for all pairs. A difference is called one where its interval "
    "excludes 0 and p is at most 0.05, on three questions or more; equal are two that are right on the same questions. "
    "Same answer, same text: questions on which the two do not differ at all."
)


def strategy_table(summary: Summary) -> str:
    """One line a strategy."""
    return markdown(STRATEGY_HEADS, strategy_cells(summary))


def pair_table(summary: Summary) -> str:
    """One line a pair."""
    return markdown(PAIR_HEADS, pair_cells(summary))


def fallback_cells(summary: Summary) -> list[list[str]]:
    """The cells under ``FALLBACK_HEADS``, one line a strategy that has such steps."""
    return [
        [one.label, f"{one.fallback_steps:,}", f"{one.kept:.1f}", f"{one.fallback_seconds:.3f}"]
        for one in summary.strategies
        if one.fallback_steps
    ]


def strategy_cells(summary: Summary) -> list[list[str]]:
    """The cells under ``STRATEGY_HEADS``."""
    return [_strategy(figures) for figures in summary.strategies]


def pair_cells(summary: Summary) -> list[list[str]]:
    """The cells under ``PAIR_HEADS``."""
    return [_pair(figures) for figures in summary.pairs]


def remarks(summary: Summary, *, causes: bool = True) -> list[str]:
    """What the table alone does not say: who is beaten, what failed, what is not finished.

    Args:
        summary: the figures.
        causes: whether to say why questions ended in an error, a line for each cause.
    """
    made = [_beaten(one.label, other, summary) for one in summary.strategies for other in one.beaten_by]
    made += [
        f"{pair.first} and {pair.second} are equal here: right on the same questions, for the same full FLOPs."
        for pair in summary.pairs
        if pair.accuracy == pair.cost == "equal"
    ]
    for one in summary.strategies:
        made += [
            f"{one.label}: all {part.part} tests passed on {part.passed} of {part.questions} questions "
            f"({100 * part.passed / part.questions:.1f} %, 95 % interval {100 * part.interval[0]:.1f} to {100 * part.interval[1]:.1f})."
            for part in one.parts
        ]
        if one.unchecked is not None:
            left = one.unchecked
            made.append(
                f"{one.label}: on {left.questions} of {one.questions} questions there was something that no reward could check; "
                f"{left.right} of them were answered right, {left.by_target} by the target alone."
            )
        if len(one.decided_by) > 1:
            shares = ", ".join(f"{name} ({count:,})" for name, count in one.decided_by.items())
            made.append(f"{one.label}: draft steps were decided by {shares}.")
        if one.errors:
            none = ", and none could be answered" if one.errors == one.questions else ""
            count = f"{one.errors} question{'s' * (one.errors != 1)}"
            made.append(f"Strategy {one.label}: {count} ended in an error{none}, so each counts as wrong, and in no cost.")
            made += error_causes(one) if causes else []
        missing = summary.config["questions"]["number"] - one.questions
        if missing > 0:
            made.append(f"{one.label} is not finished: {missing} questions have no line yet.")
    if differing(summary.runs):
        made.append("The runs were made on different machines or with different threads: seconds and speeds are not of one of them.")
    made += [
        f"{label} has no line yet." for label in summary.config["strategies"] if label not in {one.label for one in summary.strategies}
    ]
    return made


def error_causes(one: StrategyFigures) -> list[str]:
    """A line for each cause of a strategy's errors, with the number of questions."""
    return [f"{one.label}: {cause}" for cause in one.causes]


def _beaten(label: str, other: str, summary: Summary) -> str:
    """Why a strategy is beaten by another one."""
    pair = next(pair for pair in summary.pairs if {pair.first, pair.second} == {label, other})
    sign, ratio, interval = (1, pair.full_ratio, pair.full_interval) if pair.first == other else (-1, pair.full_ratio, pair.full_interval)
    assert ratio is not None
    if sign < 0:
        ratio, interval = 1 / ratio if ratio else None, (1 / interval[1], 1 / interval[0]) if interval and interval[0] > 0 else None
    low, high = sorted(sign * bound for bound in pair.interval)
    difference = f"{points(sign * pair.difference)} points, {points(low)} … {points(high)}"
    accuracy = {
        "equal": "right on the same questions",
        "no difference seen": f"no difference in accuracy seen ({difference})",
    }.get(pair.accuracy, f"more accurate ({difference})")
    cost = "the same full FLOPs" if pair.cost == "equal" else f"{_times(ratio, interval)} of its full FLOPs"
    seen = ", a difference not seen" if pair.cost == "no difference seen" else ""
    return f"{label} is beaten on these questions by {other}: {accuracy}, for {cost}{seen}."


def setting(summary: Summary) -> list[tuple[str, str]]:
    """What was run, and where and when: names and values."""
    config, trio = summary.config, summary.config["trio"]
    questions = f"{config['dataset']}, {config['questions']['number']} questions"
    models = [
        (role, f"{trio[role]['file']} ({trio[role]['bytes'] / 1e6:,.1f} MB)") for role in ("draft", "target", "reward") if trio.get(role)
    ]
    reward = trio["reward_kind"] + (f", {trio['head']['file']}" if trio.get("head") else "")
    return [
        ("questions", questions + (f", level {config['level']}" if config["level"] else "") + f", seed {config['seed']}"),
        *models,
        ("reward", f"{reward}, δ = {trio['threshold']:g}"),
        ("at once", str(trio["parallel"])),
        *summary_lines(summary.runs),
        *(
            []
            if summary.runs
            else [("versions", ", ".join(f"{name} {version}" for name, version in config["versions"].items() if version))]
        ),
    ]


def markdown(heads: Cells, rows: Iterable[Cells]) -> str:
    """An aligned Markdown table: the first column to the left, the others to the right."""
    table = [[_safe(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in table]
    rule = [("-" * width if place == 0 else "-" * (width - 1) + ":") for place, width in enumerate(widths)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def points(value: float) -> str:
    """A difference of two shares in points."""
    return f"{100 * value:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def flops(value: float) -> str:
    """FLOPs with three digits and a prefix."""
    for size, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g}"


def _strategy(one: StrategyFigures) -> list[str]:
    low, high = one.interval
    return [
        one.label,
        str(one.questions),
        percent(one.accuracy),
        f"{100 * low:.1f} … {100 * high:.1f}",
        flops(one.paper_flops),
        _times(one.paper_ratio, one.paper_interval),
        flops(one.full_flops),
        _times(one.full_ratio, one.full_interval),
        f"{one.tokens:,.0f}",
        f"{one.seconds:.2f}",
        f"{one.per_minute:,.1f}",
        _times(one.speed, one.speed_interval),
        "–" if one.target_share is None else f"{100 * one.target_share:.0f} %",
    ]


def _pair(pair: PairFigures) -> list[str]:
    low, high = pair.interval
    return [
        f"{pair.first} − {pair.second}",
        str(pair.questions),
        points(pair.difference),
        f"{points(low)} … {points(high)}",
        {"first higher": f"{pair.first} higher", "second higher": f"{pair.second} higher"}.get(pair.accuracy, pair.accuracy),
        _times(pair.full_ratio, pair.full_interval),
        str(pair.only_first),
        str(pair.only_second),
        f"{pair.p_value:.3g}",
        f"{pair.adjusted:.3g}",
        str(pair.same_answers),
        str(pair.same_texts),
    ]


def _times(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A ratio, and its interval where it has one and is not always 1."""
    if value is None:
        return "–"
    return f"{value:.2f}" if interval is None or interval[0] == interval[1] else f"{value:.2f} ({interval[0]:.2f} … {interval[1]:.2f})"


def _safe(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _aligned(row: Cells, widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
