"""The plots of a bench as PNG files, which can be read on a phone: one panel above the other, large letters, legends beneath."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsd_local.bench.drawing import (
    COLOURS,
    INK,
    LETTERS,
    MARKERS,
    SMALL,
    WIDTH,
    curve,
    legend_below,
    new_figure,
    plain_log_ticks,
    save,
    wrapped,
)
from rsd_local.bench.results import Row
from rsd_local.bench.summary import StrategyFigures, Summary
from rsd_local.evaluation.journal import Config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = dict[str, dict[str, Row]]
_RIGHT, _WRONG = "#009E73", "#D55E00"
_FEWEST = 5  # solutions that reach a step index, for a share of them to be drawn
_BINS = 20


def draw(summary: Summary, table: Table, folder: Path) -> dict[str, Path]:
    """Draws what there are figures for, and returns titles and files in the order of a report.

    Args:
        summary: the figures.
        table: rows by strategy and question.
        folder: where the PNG files go.
    """
    made = {
        "Accuracy against compute": ("accuracy_flops.png", _against(summary, _FLOPS)),
        "Accuracy against time": ("accuracy_seconds.png", _against(summary, _SECONDS)),
        "What each threshold gives": ("thresholds.png", _thresholds(summary)),
        "Draft steps that stood, by their place": ("accepted_by_step.png", _accepted(summary.config, table)),
        "Rewards of right and wrong questions": ("rewards.png", _rewards(summary.config, table)),
    }
    return save(made, folder)


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a plot shows accuracy against.

    Attributes:
        name: with its unit.
        value: per question.
        ratio: of the target's to it or the other way round, whichever way reports say it; None without a target.
        interval: of the ratio.
        ratio_name: what the ratio is.
    """

    name: str
    value: Callable[[StrategyFigures], float]
    ratio: Callable[[StrategyFigures], float | None]
    interval: Callable[[StrategyFigures], tuple[float, float] | None]
    ratio_name: str


def _inverse(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """The interval of a ratio turned round, None where it reaches down to 0."""
    return (1 / interval[1], 1 / interval[0]) if interval is not None and interval[0] > 0 else None


_FLOPS = _Cost(
    "full FLOPs per question", lambda one: one.full_flops, lambda one: one.full_ratio, lambda one: one.full_interval,
    "full FLOPs, the target's = 1",
)  # fmt: skip
_SECONDS = _Cost(
    "seconds per question", lambda one: one.seconds, lambda one: 1 / one.speed if one.speed else None,
    lambda one: _inverse(one.speed_interval),
    "seconds per question, the target's = 1",
)  # fmt: skip


def _against(summary: Summary, cost: _Cost) -> Figure | None:
    """Accuracy against a cost: as a ratio to the target's with its interval where every strategy has one."""
    shown = [one for one in summary.strategies if cost.value(one) > 0]
    if not shown:
        return None
    ratios = {one.label: ratio for one in shown if (ratio := cost.ratio(one))}
    relative = len(ratios) == len(shown)
    costs = ratios if relative else {one.label: cost.value(one) for one in shown}
    figure, axes = new_figure(WIDTH, 3.4)
    front = sorted((one for one in shown if not any(_better(costs, other, one) for other in shown)), key=lambda one: costs[one.label])
    axes.plot(
        [costs[one.label] for one in front],
        [100 * one.accuracy for one in front],
        color="#BBBBBB",
        linewidth=1.2,
        linestyle="--",
        zorder=1,
        label="none is better and cheaper",
    )
    order, bounds = list(summary.config["strategies"]), list(costs.values())
    for one in sorted(shown, key=lambda one: -one.accuracy):
        place, at = order.index(one.label), costs[one.label]
        low, high = one.interval
        across = cost.interval(one) if relative else None
        bounds += across or ()
        axes.errorbar(
            at,
            100 * one.accuracy,
            yerr=[[100 * (one.accuracy - low)], [100 * (high - one.accuracy)]],
            xerr=None if across is None else [[max(0.0, at - across[0])], [max(0.0, across[1] - at)]],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=8,
            markeredgecolor="white",
            linestyle="none",
            elinewidth=1.2,
            capsize=3,
            label=one.label,
            zorder=3,
        )
    if max(bounds) > 4 * min(bounds):
        axes.set_xscale("log")
        plain_log_ticks(axes, min(bounds), max(bounds))
    else:
        axes.set_xlim(0, 1.1 * max(bounds))
    axes.set_xlabel(cost.ratio_name if relative else cost.name)
    axes.set_ylabel("accuracy, %")
    legend_below(axes, "bars: 95 % intervals")
    return figure


def _better(costs: Mapping[str, float], other: StrategyFigures, one: StrategyFigures) -> bool:
    worse = other.accuracy < one.accuracy or costs[other.label] > costs[one.label]
    return not worse and (other.accuracy, costs[other.label]) != (one.accuracy, costs[one.label])


def _thresholds(summary: Summary) -> Figure | None:
    """Of the ``rsd`` that most thresholds were tried with, all else equal."""
    families: dict[str, list[tuple[float, StrategyFigures]]] = {}
    for one in summary.strategies:
        params = summary.config["strategies"][one.label]
        weighting = params["weighting"]
        if one.label.partition(":")[0] == "rsd" and weighting["kind"] == "step" and one.questions > one.errors:
            rest = {**params, "weighting": {**weighting, "threshold": None}}
            families.setdefault(repr(rest), []).append((weighting["threshold"], one))
    tried = max(families.values(), key=len, default=[])
    if len(tried) < 2:
        return None
    tried.sort(key=lambda pair: pair[0])
    figure, _ = new_figure(WIDTH, 7.6, 2)
    alone = {f"{one.label} alone": one for one in summary.strategies if one.label in ("target", "draft")}
    curve(figure.axes[0], figure.axes[1], [threshold for threshold, _ in tried], [one for _, one in tried], alone)
    return figure


def _accepted(config: Config, table: Table) -> Figure | None:
    lines = {}
    for label, rows in table.items():
        steps = [[step["author"] == "draft" for step in row["steps"]] for row in rows.values() if row["steps"]]
        # One model alone has nothing to accept or refuse.
        if len({author for row in steps for author in row}) == 2:
            shares = []
            for index in range(max(map(len, steps))):
                reached = [row[index] for row in steps if len(row) > index]
                if len(reached) >= _FEWEST:
                    shares.append((index + 1, 100 * sum(reached) / len(reached)))
            if shares:
                lines[label] = shares
    if not lines:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(WIDTH, 3.2)
    order = list(config["strategies"])
    for label, shares in lines.items():
        place = order.index(label)
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.plot(*zip(*shares, strict=True), color=colour, marker=marker, linewidth=1.8, markersize=5, label=label)
    last = max(index for shares in lines.values() for index, _ in shares)
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(-3, 103)
    axes.set_xlabel("step of the solution")
    axes.set_ylabel("draft steps that stood, %")
    legend_below(axes, f"places that at least {_FEWEST} solutions reach")
    return figure


def _rewards(config: Config, table: Table) -> Figure | None:
    panels = {}
    for label, rows in table.items():
        rewards: dict[bool, list[float]] = {True: [], False: []}
        for row in rows.values():
            rewards[row["correct"]] += [step["reward"] for step in row["steps"] if step["reward"] is not None]
        if any(rewards.values()):
            panels[label] = rewards
    if not panels:
        return None
    figure, _ = new_figure(WIDTH, 2.6 * len(panels) + 0.5, len(panels))
    for axes, (label, rewards) in zip(figure.axes, panels.items(), strict=False):
        for correct, colour, name in ((True, _RIGHT, "right"), (False, _WRONG, "wrong")):
            values = rewards[correct]
            if values:
                bars: dict[str, Any] = {"bins": _BINS, "range": (0, 1), "weights": [100 / len(values)] * len(values), "color": colour}
                axes.hist(values, alpha=0.25, **bars)
                axes.hist(values, histtype="step", linewidth=1.5, label=f"{name} ({len(values):,})", **bars)
        weighting = config["strategies"][label]["weighting"]
        if label.partition(":")[0] == "rsd" and weighting["kind"] in ("step", "logistic"):
            axes.axvline(weighting["threshold"], color=INK, linewidth=1, linestyle=":", label=f"δ = {weighting['threshold']:g}")
        axes.set_title(wrapped(label), fontsize=LETTERS, color=INK)
        axes.set_xlim(0, 1)
        axes.legend(framealpha=0.7, edgecolor="none", fontsize=SMALL, loc="best")
    top = max(axes.get_ylim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_ylim(0, top)
    figure.supxlabel("reward of a draft step", fontsize=LETTERS, color=INK)
    figure.supylabel("steps, %" if len(panels) == 1 else "steps of right and of wrong questions, %", fontsize=LETTERS, color=INK)
    return figure
