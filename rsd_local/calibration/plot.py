"""A sweep as a plot: accuracy, target share and seconds against the threshold, and accuracy against compute."""

from __future__ import annotations

from pathlib import Path

from rsd_local.bench.plots import COLOURS, DPI, WIDTH, band, curve, legend_below, new_figure
from rsd_local.calibration.tuning import Point, Sweep
from rsd_local.errors import ConfigError


def draw(sweep: Sweep, chosen: Point, file: Path) -> None:
    """Writes a PNG file.

    Args:
        sweep: the points.
        chosen: the one to mark.
        file: where.

    Raises:
        ConfigError: it cannot be written.
    """
    figure, _ = new_figure(WIDTH, 10.6, 3)
    left, middle, right = figure.axes  # one above the other: read on a phone too
    what = "accuracy" if sweep.labelled else "agreement with the target"
    for axes in (left, middle):
        axes.axvline(sweep.points.index(chosen), color=COLOURS[2], linewidth=1.2, label=f"chosen, δ = {chosen.threshold:g}")
    thresholds = [point.threshold for point in sweep.points if point.threshold is not None]
    curve(left, middle, thresholds, sweep.points, {"target alone": sweep.target, "draft alone": sweep.draft}, what=what)
    costs = [point.full / sweep.target.full for point in sweep.points]
    band(right, costs, sweep.points, COLOURS[0], "rsd by δ")
    for point, marker in ((sweep.target, "D"), (sweep.draft, "^"), (chosen, "o")):
        label = f"chosen, δ = {point.threshold:g}" if point.threshold is not None else f"{point.label} alone"
        colour = COLOURS[2] if point is chosen else COLOURS[7]
        low, high = point.interval
        spread = [[100 * (point.accuracy - low)], [100 * (high - point.accuracy)]]
        right.errorbar(
            point.full / sweep.target.full, 100 * point.accuracy, yerr=spread, color=colour, marker=marker, linestyle="none", capsize=3,
            label=label, zorder=3,
        )  # fmt: skip
    right.set_xlabel("full FLOPs, the target alone = 1")
    right.set_ylabel(f"{what}, %")
    right.set_xlim(left=0)
    legend_below(right)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=DPI, format="png", metadata={"Software": None})
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from None
