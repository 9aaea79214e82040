"""What all plots are drawn with: colours, letters that can be read on a phone, legends beneath, curves and bands."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for colour-blind readers; the markers stay apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")  # one more than colours: no two of 72 strategies look alike
INK, GRID = "#333333", "#DDDDDD"
WIDTH = 4.6  # inches, nearly the 360 pixels of a phone at 80 pixels an inch, so that letters of 10 points stay legible there
DPI = 200
LETTERS, SMALL = 11, 10  # points
_LEGEND = 44  # characters of a line
LABELS = 12  # as many fit beneath an axis


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
    marked = places[:: -(-len(places) // LABELS)]
    for axes in (left, right):
        axes.set_xticks(marked, _told_apart([thresholds[place] for place in marked]), rotation=60, ha="right", rotation_mode="anchor")
        axes.set_xlabel("threshold δ")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=SMALL)  # above: it hides nothing
    left.set_ylabel("% (band: 95 % interval)")
    left.set_ylim(0, 102)
    right.set_ylabel("seconds per question")
    right.set_ylim(bottom=0)


def _told_apart(numbers: Sequence[float]) -> list[str]:
    """Numbers with as few digits as tell them apart, three at least."""
    for digits in range(3, 17):
        texts = [f"{number:.{digits}g}" for number in numbers]
        if len(set(texts)) == len(set(numbers)):
            break
    return texts


def band(axes: Axes, places: Sequence[float], points: Sequence[Measured], colour: str, label: str) -> None:
    """Draws accuracies with their 95 % intervals."""
    lows, highs = zip(*(point.interval for point in points), strict=True)
    axes.plot(places, [100 * point.accuracy for point in points], color=colour, marker="o", markersize=4, label=label)
    axes.fill_between(places, [100 * low for low in lows], [100 * high for high in highs], color=colour, alpha=0.15, linewidth=0)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Axes]:
    """A figure of its own: pyplot's would stay in memory and choose a backend of the desktop."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    for place in range(rows * columns):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK, labelsize=SMALL)
        axes.grid(True, color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(INK)
            label.set_fontsize(LETTERS)
    return figure, figure.axes[0]


def save(made: Mapping[str, tuple[str, Figure | None]], folder: Path) -> dict[str, Path]:
    """Writes figures as PNG files, and takes files of an earlier report away that there are no figures for now.

    Args:
        made: the files' names and the figures, by their titles.
        folder: where the files go.

    Returns:
        The files that were written, by their titles.
    """
    files = {}
    for title, (name, figure) in made.items():
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            figure.savefig(folder / name, dpi=DPI, metadata={"Software": None})
            files[title] = folder / name
    return files


def legend_below(axes: Axes, title: str = "") -> None:
    """A legend beneath the plot, where it hides nothing; the figure grows by its height.

    Args:
        axes: the last ones of their figure.
        title: said above the entries.
    """
    from matplotlib.figure import Figure

    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    texts = [wrapped(label) for label in labels]
    lines = sum(text.count("\n") + 1 for text in texts) + bool(title)
    figure.set_figheight(figure.get_figheight() + 0.21 * lines + 0.15)
    legend = figure.legend(handles, texts, loc="outside lower left", frameon=False, fontsize=SMALL, title=title or None)
    legend.set_alignment("left")
    legend.get_title().set_fontsize(SMALL)


def wrapped(label: str) -> str:
    """A strategy's label in lines that fit, broken behind its commas and colon where it can be."""
    lines = [""]
    for piece in re.findall(r"[^,:\s]+[,:]?\s*|\s+", label):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > _LEGEND:
            lines.append("  ")
        lines[-1] += piece
    return "\n".join(cut for line in lines for cut in textwrap.wrap(line, _LEGEND, drop_whitespace=False, break_on_hyphens=False))


def plain_log_ticks(axes: Axes, low: float, high: float) -> None:
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
