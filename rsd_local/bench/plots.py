"""The plots of a bench as PNG files, which can be read on a phone: one panel above the other, large letters, legends beneath."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rsd_local.bench.results import Row
from rsd_local.bench.summary import StrategyFigures, Summary
from rsd_local.evaluation.journal import Config

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Table = dict[str, dict[str, Row]]
# Okabe and Ito's colours, which stay apart for colour-blind readers; the markers stay apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#444444")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")  # one more than colours: no two of 72 strategies look alike
_RIGHT, _WRONG = "#009E73", "#D55E00"
_INK, _GRID = "#333333", "#DDDDDD"
_FEWEST = 5  # solutions that reach a step index, for a share of them to be drawn
_BINS = 20
_LABELS = 12  # as many fit beneath an axis
WIDTH = 4.6  # inches, nearly the 360 pixels of a phone at 80 pixels an inch, so that letters of 10 points stay legible there
DPI = 200
_LETTERS, _SMALL = 11, 10  # points
_LEGEND = 44  # characters of a line


class Measured(Protocol):
    """What a curve over thresholds shows of each."""

    @property
    def accuracy(self) -> float:
        """The share of right answers."""

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""

    @property
    def target_share(self) -> float | None:
        """Of all steps."""

    @property
    def seconds(self) -> float:
        """Of the wall, per question."""


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
    files = {}
    for title, (name, figure) in made.items():
        if figure is None:
            (folder / name).unlink(missing_ok=True)  # of an earlier report, it would be out of date
        else:
            figure.savefig(folder / name, dpi=DPI, metadata={"Software": None})
            files[title] = folder / name
    return files


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
            marker=_MARKERS[place % len(_MARKERS)],
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
        _plain_log_ticks(axes, min(bounds), max(bounds))
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


def curve(left: Axes, right: Axes, thresholds: Sequence[float], points: Sequence[Measured], alone: Mapping[str, Measured], *,
    what: str = "accuracy",
) -> None:  # fmt: skip
    """Draws accuracy and target share, and seconds, against the threshold.

    Args:
        left, right: where.
        thresholds: δ, ascending.
        points: what each gives.
        alone: of single models, by the name to show.
        what: the accuracy's name.
    """
    places = list(range(len(points)))  # by rank: a reward's values often crowd at one end
    band(left, places, points, COLOURS[0], what)
    shares = [100 * (point.target_share or 0.0) for point in points]
    left.plot(places, shares, color=COLOURS[1], marker="s", markersize=4, label="target share")
    right.plot(places, [point.seconds for point in points], color=COLOURS[0], marker="o", markersize=4, label="rsd")
    for (name, point), style in zip(alone.items(), ("--", ":"), strict=False):
        for axes, value in ((left, 100 * point.accuracy), (right, point.seconds)):
            axes.axhline(value, color=COLOURS[7], linestyle=style, linewidth=1.2, label=name)
    marked = places[:: -(-len(places) // _LABELS)]
    for axes in (left, right):
        axes.set_xticks(marked, [f"{thresholds[place]:.3g}" for place in marked], rotation=60, ha="right", rotation_mode="anchor")
        axes.set_xlabel("threshold δ")
        axes.legend(loc="best", framealpha=0.7, edgecolor="none", fontsize=_SMALL)
    left.set_ylabel("% (band: 95 % interval)")
    left.set_ylim(0, 102)
    right.set_ylabel("seconds per question")
    right.set_ylim(bottom=0)


def band(axes: Axes, places: Sequence[float], points: Sequence[Measured], colour: str, label: str) -> None:
    """Draws accuracies with their 95 % intervals."""
    lows, highs = zip(*(point.interval for point in points), strict=True)
    axes.plot(places, [100 * point.accuracy for point in points], color=colour, marker="o", markersize=4, label=label)
    axes.fill_between(places, [100 * low for low in lows], [100 * high for high in highs], color=colour, alpha=0.15, linewidth=0)


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
        colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
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
            axes.axvline(weighting["threshold"], color=_INK, linewidth=1, linestyle=":", label=f"δ = {weighting['threshold']:g}")
        axes.set_title(wrapped(label), fontsize=_LETTERS, color=_INK)
        axes.set_xlim(0, 1)
        axes.legend(framealpha=0.7, edgecolor="none", fontsize=_SMALL, loc="best")
    top = max(axes.get_ylim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_ylim(0, top)
    figure.supxlabel("reward of a draft step", fontsize=_LETTERS, color=_INK)
    figure.supylabel("steps, %" if len(panels) == 1 else "steps of right and of wrong questions, %", fontsize=_LETTERS, color=_INK)
    return figure


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Axes]:
    """A figure of its own: pyplot's would stay in memory and choose a backend of the desktop."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    for place in range(rows * columns):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        axes.tick_params(colors=_INK, labelsize=_SMALL)
        axes.grid(True, color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(_INK)
            label.set_fontsize(_LETTERS)
    return figure, figure.axes[0]


def legend_below(axes: Axes, title: str = "") -> None:
    """A legend beneath the plot, where it hides nothing; the figure grows by its height.

    Args:
        axes: the last ones of their figure.
        title: said above the entries.
    """
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure is not None
    texts = [wrapped(label) for label in labels]
    lines = sum(text.count("\n") + 1 for text in texts) + bool(title)
    figure.set_figheight(figure.get_figheight() + 0.21 * lines + 0.15)
    legend = figure.legend(handles, texts, loc="outside lower left", frameon=False, fontsize=_SMALL, title=title or None)
    legend.set_alignment("left")
    legend.get_title().set_fontsize(_SMALL)


def wrapped(label: str) -> str:
    """A strategy's label in lines that fit, broken behind its commas and colon where it can be."""
    lines = [""]
    for piece in re.findall(r"[^,:\s]+[,:]?\s*|\s+", label):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > _LEGEND:
            lines.append("  ")
        lines[-1] += piece
    return "\n".join(cut for line in lines for cut in textwrap.wrap(line, _LEGEND, drop_whitespace=False, break_on_hyphens=False))


def _plain_log_ticks(axes: Axes, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 of each power: a bench spans about one power of ten, and one label there is too few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xlim(low / 1.4, high * 1.4)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    if value < 1e4:
        return f"{value:g}"
    power = math.floor(math.log10(value))
    return rf"${value / 10**power:g}\times10^{{{power}}}$"
