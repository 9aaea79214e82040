"""What ``rsd tune`` does with its choice: writes it, draws it, and then shows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.text import json_line, printable
from rsd_local.errors import RSDError

if TYPE_CHECKING:
    from rsd_local.calibration.bands import ChosenBands
    from rsd_local.calibration.choice import Choice
    from rsd_local.calibration.points import Point, Sweep
    from rsd_local.config import Trio


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured and chosen.

    Attributes:
        name: of the trio, or its TOML file.
        trio: with the chosen bands.
        sweep: what each threshold gives.
        choice: the threshold; None where there is nothing to choose.
        problem: why there is nothing to choose.
        banded: the bands of a cascade.
        margin: by how much RSD may be worse than the target; a share.
        questions: all of them, those that chose bands included.
        origin: the command, for people.
    """

    name: str
    trio: Trio
    sweep: Sweep
    choice: Choice | None
    problem: RSDError | None
    banded: ChosenBands | None
    margin: float
    questions: int
    origin: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a choice.

    Attributes:
        file: that the threshold was written into; None where it was not.
        problem: why something was not written or drawn, to be said once all is shown.
        drawn: the plot.
    """

    file: Path | None
    problem: RSDError | None
    drawn: Path | None


def keep(found: Tuned, plot: Path | None, *, dry_run: bool) -> Kept:
    """Writes the choice into the trio's file, and draws the plot; what cannot be written is said later, after the figures.

    Args:
        found: what was chosen.
        plot: the PNG file, None for none.
        dry_run: whether to leave the trio's file as it is.
    """
    from rsd_local.catalogue.own import save_threshold

    file, drawn, problem = None, None, found.problem
    try:
        if found.choice is not None and not dry_run:
            bands = found.banded.bands if found.banded else ()
            file = save_threshold(found.name, found.choice.threshold, found.origin, bands, found.choice.figures)
    except RSDError as error:
        problem = problem or error
    try:
        if plot is not None:
            from rsd_local.calibration.plot import draw

            draw(found.sweep, found.choice, plot)
            drawn = plot
    except RSDError as error:
        problem = problem or error
    return Kept(file, problem, drawn)


def show(found: Tuned, kept: Kept, *, as_json: bool, whole: bool, states_margin: bool) -> None:
    """Prints the table and the choice on standard output.

    Args:
        found: what was chosen.
        kept: what was written.
        as_json: as one object.
        whole: every threshold.
        states_margin: whether the margin counts for any wish, and not only for the one that names the target.
    """
    if as_json:
        click.echo(json_line(_as_object(found, kept)))
    else:
        _show_text(found, kept, whole, states_margin)
    if kept.drawn is not None:
        click.echo(printable(f"drew {kept.drawn}"), err=True)


def _show_text(found: Tuned, kept: Kept, whole: bool, states_margin: bool) -> None:
    from rsd_local.calibration import statements
    from rsd_local.calibration.table import table, table_note

    sweep, choice = found.sweep, found.choice
    lines = [table(sweep, choice, whole=whole), table_note(sweep, choice, whole=whole)]
    if found.banded is not None:
        lines += ["", *_band_lines(found.banded, found)]
    if choice is not None:
        comparison = choice.compare(found.margin)
        lines += ["", statements.difference_line(comparison)]
        if states_margin or choice.wish.kind == "no-worse-than-target":
            lines += statements.no_worse_lines(comparison, sweep.target.questions / found.questions)
        what = " and bands" if found.banded is not None else ""
        written = f"threshold{what} written to {kept.file}" if kept.file is not None else "nothing written"
        lines.append(f"{statements.chosen_line(sweep, choice)}; {written}")
    click.echo(printable("\n".join(lines)))
    for warning in statements.warnings(sweep, choice) if choice is not None else ():
        click.echo(printable(warning), err=True)


def _band_lines(banded: ChosenBands, found: Tuned) -> list[str]:
    """What each reward of the cascade does, and where these figures come from."""
    from rsd_local.calibration.bands import measure_each
    from rsd_local.calibration.table import band_table

    thresholds, threshold = _thresholds(banded, found.choice)
    share = banded.accepted_by_last(thresholds)
    questions = found.sweep.target.questions
    lines = [
        f"bands chosen on {banded.questions} questions ({banded.steps} steps) for {banded.agreement:.1%} agreement "
        f"with the last reward at δ = {banded.threshold:g};",
        f"measured on the draft's steps of the {questions} others, each at the δ that the others of these chose",
    ]
    if share:
        lines.append(f"the last reward accepts {share:.1%} of these steps: whoever accepts all of them agrees as often")
    figures = measure_each(banded.measured, found.trio.stages, banded.bands, thresholds)
    lines += ["", band_table(figures, threshold)]
    if banded.lost:
        lines.append(f"{banded.lost} questions ended in an error, and their steps are missing here")
    if threshold != banded.threshold:
        then = measure_each(banded.measured, found.trio.stages, banded.bands, [banded.threshold] * questions)
        shares = ", ".join(f"{one.name} {one.agreement:.1%}" for one in then if one.chosen and one.agreement is not None)
        lines.append(
            f"the bands are for δ = {banded.threshold:g}{f' (agreement there: {shares})' if shares else ''}: "
            f"a second run chooses them for δ = {threshold:g}"
        )
    return lines


def _thresholds(banded: ChosenBands, choice: Choice | None) -> tuple[list[float], float]:
    """The threshold of each measured question, and the one that is kept; without a choice that of the bands."""
    if choice is None:
        return [banded.threshold] * len(banded.measured), banded.threshold
    return list(choice.thresholds), choice.threshold


def _as_object(found: Tuned, kept: Kept) -> dict[str, Any]:
    """All figures for ``--json``."""
    sweep, choice = found.sweep, found.choice
    made: dict[str, Any] = {
        "draft": _point(sweep.draft, sweep.target),
        "target": _point(sweep.target, sweep.target),
        "points": [_point(point, sweep.target) for point in sweep.points],
        "runs": sweep.runs,
        "labelled": sweep.labelled,
        "errors": sweep.errors,
        "written": None if kept.file is None else str(kept.file),
        "wish": None if choice is None else str(choice.wish),
        "chosen": None,
    }
    if choice is not None:
        comparison = choice.compare(found.margin)
        made["chosen"] = _point(choice.held_out, sweep.target) | {
            "full_ratio_interval": choice.held_out.ratio_interval(sweep.target, "full"),
            "folds": choice.folds,
            "thresholds": choice.thresholds,
        }
        made["comparison"] = dataclasses.asdict(comparison) | {
            name: getattr(comparison, name) for name in ("difference", "interval", "bound", "no_worse", "needed")
        }
    return made if found.banded is None else made | {"bands": _bands_object(found.banded, found)}


def _point(point: Point, target: Point) -> dict[str, Any]:
    names = ("threshold", "label", "questions", "right", "accuracy", "interval", "target_share", "seconds", "paper", "full")
    return {name: getattr(point, name) for name in names} | {
        "paper_ratio": point.ratio(target, "paper"),
        "full_ratio": point.ratio(target, "full"),
    }


def _bands_object(banded: ChosenBands, found: Tuned) -> dict[str, Any]:
    """The bands, with their figures at the thresholds chosen without each question, and at the one that they were chosen for."""
    from rsd_local.calibration.bands import measure_each

    thresholds, _ = _thresholds(banded, found.choice)
    then = [banded.threshold] * len(thresholds)
    made = {
        name: [
            dataclasses.asdict(one) | {"agreement": one.agreement, "interval": one.interval if one.compared else None, "saved": one.saved}
            for one in measure_each(banded.measured, found.trio.stages, banded.bands, at)
        ]
        for name, at in (("rewards", thresholds), ("rewards_at_their_threshold", then))
    }
    chosen = {name: getattr(banded, name) for name in ("threshold", "agreement", "questions", "steps", "lost")}
    return {"chosen_on": chosen, "accepted_by_last": banded.accepted_by_last(thresholds)} | made
