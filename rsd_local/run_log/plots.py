"""The plots of a run log as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsd_local.bench.drawing import COLOURS, INK, LABELS, WIDTH, legend_below, new_figure, save
from rsd_local.run_log.figures import BINS, RunLogFigures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(figures: RunLogFigures, folder: Path) -> dict[str, Path]:
    """Draws what there are figures for, and returns titles and files in the order of a report.

    Args:
        figures: of the folder.
        folder: where the PNG files go.
    """
    made = {
        "Accepted steps and the target's share over time": ("acceptance.png", _over_time(figures)),
        "Rewards of the draft's steps, accepted and replaced": ("rewards.png", _rewards(figures)),
    }
    return save(made, folder)


def _over_time(figures: RunLogFigures) -> Figure | None:
    shown = [part for part in figures.parts if part.acceptance is not None]
    if len(shown) < 2:
        return None
    drawn, axes = new_figure(WIDTH, 3.2)
    places = list(range(len(shown)))
    for colour, marker, name, shares in (
        (COLOURS[0], "o", "steps of the draft that were accepted", [part.acceptance for part in shown]),
        (COLOURS[1], "s", "steps that the target wrote", [part.target_share for part in shown]),
    ):
        found = [(place, share) for place, share in zip(places, shares, strict=True) if share is not None]
        at = [place for place, _ in found]
        axes.plot(at, [100 * share[0] for _, share in found], color=colour, marker=marker, markersize=5, label=name)
        axes.fill_between(at, [100 * share[1] for _, share in found], [100 * share[2] for _, share in found], color=colour, alpha=0.15)
    if figures.manifest.tuned is not None:
        axes.axhline(100 * figures.manifest.tuned.acceptance, color=INK, linewidth=1, linestyle=":", label="accepted when rsd tune chose")
    marked = places[:: -(-len(places) // LABELS)]
    labels = [shown[place].label.removeprefix("from ")[5:16] for place in marked]
    axes.set_xticks(marked, labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylim(-3, 103)
    axes.set_ylabel("% (band: 95 % interval)")
    legend_below(axes, "by day, UTC" if figures.by_day else "equal numbers of answers")
    return drawn


def _rewards(figures: RunLogFigures) -> Figure | None:
    if not any(map(sum, figures.rewards)):
        return None
    drawn, axes = new_figure(WIDTH, 3.0)
    places = [(place + 0.5) / BINS for place in range(BINS)]
    accepted, replaced = ([pair[place] for pair in figures.rewards] for place in (0, 1))
    axes.bar(places, accepted, width=0.9 / BINS, color=COLOURS[0], label="accepted")
    axes.bar(places, replaced, width=0.9 / BINS, bottom=accepted, color=COLOURS[1], label="replaced by the target")
    axes.axvline(figures.manifest.config["trio"]["threshold"], color=INK, linewidth=1, linestyle=":", label="δ of the trio")
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("reward of a step of the draft")
    axes.set_ylabel("steps")
    legend_below(axes)
    return drawn
