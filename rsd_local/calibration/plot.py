"""A sweep as a plot: accuracy, target share and seconds against the threshold, and accuracy against compute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsd_local.bench.drawing import COLOURS, DPI, WIDTH, band, curve, legend_below, new_figure
from rsd_local.calibration.choice import Choice
from rsd_local.calibration.points import Point, Sweep
from rsd_local.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(sweep: Sweep, choice: Choice | None, file: Path) -> None:
    """Writes a PNG file.

    Args:
        sweep: the points.
        choice: the threshold to mark, with its figures from questions that did not choose it; None for none.
        file: where.

    Raises:
        ConfigError: it cannot be written.
    """
    figure, _ = new_figure(WIDTH, 10.6, 3)
    left, middle, right = figure.axes  # one above the other: read on a phone too
    what = "accuracy" if sweep.labelled else "agreement with the target"
    thresholds = [point.threshold for point in sweep.points if point.threshold is not None]
    if choice is not None:
        for axes in (left, middle):
            axes.axvline(thresholds.index(choice.threshold), color=COLOURS[2], linewidth=1.2, label=f"chosen, δ = {choice.threshold:g}")
    curve(left, middle, thresholds, sweep.points, {"target alone": sweep.target, "draft alone": sweep.draft}, what=what)
    placed = [(point, point.ratio(sweep.target, "full")) for point in sweep.points]
    shown = [(point, cost) for point, cost in placed if cost is not None]
    if shown:
        band(right, [cost for _, cost in shown], [point for point, _ in shown], COLOURS[0], "rsd by δ")
    marked = [(sweep.target, "D", COLOURS[7], "target alone"), (sweep.draft, "^", COLOURS[7], "draft alone")]
    if choice is not None:
        marked.append((choice.held_out, "o", COLOURS[2], f"chosen, δ = {choice.threshold:g} (held out)"))
    for point, marker, colour, label in marked:
        _mark(right, point, sweep.target, marker, colour, label)
    right.set_xlabel("full FLOPs, the target alone = 1")
    right.set_ylabel(f"{what}, %")
    right.set_xlim(left=0)
    legend_below(right)
    try:
        figure.savefig(file, dpi=DPI, format="png", metadata={"Software": None})
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from None


def _mark(axes: Axes, point: Point, target: Point, marker: str, colour: str, label: str) -> None:
    """One point with the 95 % interval of its accuracy, where it has a cost."""
    cost = point.ratio(target, "full")
    if cost is None:
        return
    low, high = point.interval
    spread = [[100 * (point.accuracy - low)], [100 * (high - point.accuracy)]]
    axes.errorbar(cost, 100 * point.accuracy, yerr=spread, color=colour, marker=marker, linestyle="none", capsize=3, label=label, zorder=3)
