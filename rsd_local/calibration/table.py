"""A sweep and the bands of a cascade as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rsd_local.bench.tables import markdown
from rsd_local.calibration.bands import StageFigures
from rsd_local.calibration.tuning import Point, Sweep

_HEADS = ("δ", "accuracy", "95 %", "target share", "paper FLOPs", "full FLOPs", "s/question")
_BAND_HEADS = ("reward", "band", "asked", "decided", "as the last", "95 %", "saves")


def table(sweep: Sweep, chosen: Point | None = None) -> str:
    """Markdown: the draft alone, RSD by ascending δ, the target alone; FLOPs as times fewer than the target alone."""
    heads = ("δ", "accuracy" if sweep.labelled else "agreement", *_HEADS[2:])
    return markdown(heads, [_row(point, sweep.target, chosen) for point in (sweep.draft, *sweep.points, sweep.target)])


def _row(point: Point, target: Point, chosen: Point | None) -> tuple[str, ...]:
    low, high = point.interval
    name = f"{point.label} alone" if point.threshold is None else f"{point.threshold:g}" + (" ←" if point == chosen else "")
    return (
        name,
        f"{point.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{point.target_share:.1%}",
        f"{target.paper / point.paper:.2f}× fewer",
        f"{target.full / point.full:.2f}× fewer",
        f"{point.seconds:.2f}",
    )


def band_table(figures: Sequence[StageFigures], threshold: float) -> str:
    """Markdown: one line for each reward of a cascade, in the order in which they are asked.

    Args:
        figures: of each.
        threshold: of the last one.
    """
    return markdown(_BAND_HEADS, [_stage(one, threshold) for one in figures])


def _stage(one: StageFigures, threshold: float) -> tuple[str, ...]:
    steps = f"{one.asked}", f"{one.decided}"
    if one.band is None:
        return one.name, f"from {threshold:g}", *steps, "", "", ""
    band = f"{one.band[0]:.4g} to {one.band[1]:.4g}" + ("" if one.chosen else " (kept)")
    if one.agreement is None:
        return one.name, band, *steps, "", "", f"{one.saved:.1%}"
    low, high = one.interval
    return one.name, band, *steps, f"{one.agreement:.1%}", f"{low:.1%} to {high:.1%}", f"{one.saved:.1%}"
