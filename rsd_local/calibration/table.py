"""A sweep and the bands of a cascade as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rsd_local.bench.tables import markdown
from rsd_local.calibration.bands import StageFigures
from rsd_local.calibration.choice import Choice
from rsd_local.calibration.points import Point, Sweep
from rsd_local.calibration.statements import fewer

_AROUND = 2  # rows on each side of the chosen one that the short table has
_BAND_HEADS = ("reward", "band", "asked", "decided", "as the last", "95 %", "saves")


def table(sweep: Sweep, choice: Choice | None = None, *, whole: bool = False) -> str:
    """Markdown: the draft alone, RSD by ascending δ, the target alone.

    Args:
        sweep: the points.
        choice: the row that is marked; it has the figures of the questions that did not choose it.
        whole: all rows and columns, and not only the ends and the rows around the chosen one, narrow enough for 80 columns.
    """
    points = [choice.held_out if choice and point.threshold == choice.threshold else point for point in sweep.points]
    if not whole:
        middle = next((place for place, point in enumerate(points) if choice and point is choice.held_out), len(points) // 2)
        shown = {0, len(points) - 1, *range(middle - _AROUND, middle + _AROUND + 1)}
        points = [point for place, point in enumerate(points) if place in shown]
    heads = ("δ", "accuracy" if sweep.labelled else "agreement", "95 %", "target share")
    costs = ("paper FLOPs", "full FLOPs", "s/question") if whole else ("FLOPs",)
    rows = [_row(point, sweep.target, choice, whole) for point in (sweep.draft, *points, sweep.target)]
    return markdown((*heads, *costs), rows)


def table_note(sweep: Sweep, choice: Choice | None, *, whole: bool = False) -> str:
    """What the marked row is, and how many rows there are."""
    left = len(sweep.points) - (2 * _AROUND + 3)
    parts = (
        choice and "← on questions that did not choose it: each at the δ that the others chose; other rows on all",
        left > 0 and not whole and f"--all shows {len(sweep.points)} thresholds",
    )
    return "; ".join(part for part in parts if part)


def _row(point: Point, target: Point, choice: Choice | None, whole: bool) -> tuple[str, ...]:
    low, high = point.interval
    marked = " ←" if choice is not None and point is choice.held_out else ""
    name = f"{point.label} alone" if point.threshold is None else f"{point.threshold:g}{marked}"
    cells = (name, f"{point.accuracy:.1%}", f"{low:.1%} to {high:.1%}", f"{point.target_share:.1%}")
    full = fewer(point.ratio(target, "full"))
    return (*cells, fewer(point.ratio(target, "paper")), full, f"{point.seconds:.2f}") if whole else (*cells, full)


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
