"""A sweep as a table."""

from __future__ import annotations

from rsd_local.bench.tables import markdown
from rsd_local.calibration.tuning import Point, Sweep

_HEADS = ("δ", "accuracy", "95 %", "target share", "paper FLOPs", "full FLOPs", "s/question")


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
