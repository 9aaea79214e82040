"""A sweep as a plot: accuracy and target share against the threshold, and accuracy against compute."""

from __future__ import annotations

from pathlib import Path

from rsd_local.bench.plots import COLOURS, legend_beside, new_figure
from rsd_local.calibration.tuning import Point, Sweep
from rsd_local.errors import ConfigError

_LABELS = 16  # as many fit beneath an axis


def draw(sweep: Sweep, chosen: Point, file: Path) -> None:
    """Writes a PNG file.

    Args:
        sweep: the points.
        chosen: the one to mark.
        file: where.

    Raises:
        ConfigError: it cannot be written.
    """
    figure, _ = new_figure(11.0, 4.2, 1, 2)
    left, right = figure.axes
    what = "accuracy" if sweep.labelled else "agreement with the target"
    places = range(len(sweep.points))  # by rank: a reward model's rewards often crowd at one end
    _band(left, list(places), sweep.points, COLOURS[0], what)
    left.plot(
        places, [100 * point.target_share for point in sweep.points], color=COLOURS[1], marker="s", markersize=4, label="target share"
    )
    for point, colour, style in ((sweep.target, COLOURS[7], "--"), (sweep.draft, COLOURS[7], ":")):
        left.axhline(100 * point.accuracy, color=colour, linestyle=style, linewidth=1.2, label=f"{point.label} alone")
    left.axvline(sweep.points.index(chosen), color=COLOURS[2], linewidth=1.2, label=f"chosen, δ = {chosen.threshold:g}")
    marked = list(places)[:: -(-len(places) // _LABELS)]
    labels = [f"{sweep.points[place].threshold:g}" for place in marked]
    left.set_xticks(marked, labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    left.set_xlabel("threshold δ")
    left.set_ylabel("% (band: 95 % interval)")
    left.set_ylim(0, 102)
    left.legend(loc="best", frameon=False, fontsize=8)
    costs = [point.full / sweep.target.full for point in sweep.points]
    _band(right, costs, sweep.points, COLOURS[0], "rsd by δ")
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
    legend_beside(right)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150, format="png", metadata={"Software": None})
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from None


def _band(axes: object, places: list[float] | list[int], points: tuple[Point, ...], colour: str, label: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    lows, highs = zip(*(point.interval for point in points), strict=True)
    axes.plot(places, [100 * point.accuracy for point in points], color=colour, marker="o", markersize=4, label=label)
    axes.fill_between(places, [100 * low for low in lows], [100 * high for high in highs], color=colour, alpha=0.15, linewidth=0)
