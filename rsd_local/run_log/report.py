"""The report of a run log: text for a terminal, Markdown, and a page that needs nothing else."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsd_local.bench.machine import summary_lines
from rsd_local.bench.page import figure, html_table, page, write_text
from rsd_local.bench.tables import markdown, percent
from rsd_local.config import ROLES
from rsd_local.errors import ConfigError
from rsd_local.run_log.figures import BINS, Part, RunLogFigures, Share, read_figures

MARKDOWN, PAGE = "report.md", "report.html"
HEADS = ("answers", "number", "errors", "accepted", "95 %", "target share", "95 %", "tokens/s", "95 %", "FLOPs saved", "95 %")
READING = (
    "Accepted: steps of the draft that were accepted, of all that it wrote where the target takes part. Target share: steps that the "
    "target wrote, of all of every strategy. Tokens/s: of one answer while it is written. FLOPs saved: against 2·N of the target for "
    "each token of the question that was not in its cache, and of the answer; below 0 where all models together needed "
    "more. Intervals count steps of one answer as alike."
)
_NONE = "–"
Cells = list[str]


def write_report(folder: Path) -> tuple[RunLogFigures, list[Path]]:
    """Writes ``report.md`` and ``report.html`` into a run log's folder, with plots where matplotlib is installed.

    Returns:
        The figures and the files.

    Raises:
        ConfigError: it is no run log, has no line yet, or cannot be written to.
    """
    figures = read_figures(folder)
    try:
        plots: dict[str, Path] = {}
        if importlib.util.find_spec("matplotlib") is not None:
            from rsd_local.run_log.plots import draw

            plots = draw(figures, folder)
        write_text(folder / MARKDOWN, _markdown(figures, plots))
        write_text(folder / PAGE, _page(figures, plots))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to: {error.strerror}") from None
    return figures, [folder / MARKDOWN, folder / PAGE, *plots.values()]


def text(figures: RunLogFigures) -> str:
    """For a terminal."""
    lines = setting(figures)
    width = max(len(name) for name, _ in lines)
    parts = ["\n".join(f"{name:<{width}}  {value}" for name, value in lines)]
    for title, heads, cells in tables(figures):
        parts.append((f"{title}\n\n" if title else "") + markdown(heads, cells))
    return "\n\n".join([*parts, *remarks(figures)])


def as_object(figures: RunLogFigures) -> dict[str, Any]:
    """For ``--json``: shares with their intervals as ``[value, low, high]``."""
    manifest = figures.manifest
    return {
        "name": manifest.name,
        "config": manifest.config,
        "tuned": manifest.tuned and dataclasses.asdict(manifest.tuned),
        "drifted": figures.drifted,
        "first": figures.first.isoformat(),
        "last": figures.last.isoformat(),
        "all": _part_object(figures.whole),
        "strategies": [_part_object(part) for part in figures.strategies],
        "parts": [_part_object(part) for part in figures.parts],
        "by_day": figures.by_day,
        "finish_reasons": figures.reasons,
        "errors": figures.errors,
        "rewards": [{"accepted": accepted, "replaced": replaced} for accepted, replaced in figures.rewards],
        "waiting_seconds": figures.waited,
        "damaged_lines": figures.damaged,
    }


def setting(figures: RunLogFigures) -> list[tuple[str, str]]:
    """What was served, where and when: names and values."""
    trio = figures.manifest.config["trio"]
    named = {role: trio[role] for role in ROLES if trio.get(role)}
    models = [(role, f"{model['file']} ({model['bytes'] / 1e6:,.1f} MB)") for role, model in named.items()]
    kinds = ", ".join(stage["kind"] for stage in trio["rewards"]) or trio["reward_kind"]
    return [
        ("trio", figures.manifest.name),
        *models,
        ("reward", f"{kinds}, δ = {trio['threshold']:g}"),
        ("answers", f"{figures.whole.answers:,}, {figures.first:%Y-%m-%d %H:%M} to {figures.last:%Y-%m-%d %H:%M} UTC"),
        *summary_lines(figures.manifest.runs),
    ]


def tables(figures: RunLogFigures) -> list[tuple[str, Sequence[str], list[Cells]]]:
    """The tables: titles, heads and cells."""
    rows = [figures.whole, *(figures.strategies if len(figures.strategies) > 1 else ())]
    made: list[tuple[str, Sequence[str], list[Cells]]] = [("", HEADS, [_cells(part) for part in rows])]
    if len(figures.parts) > 1:
        made.append(("By day (UTC)" if figures.by_day else "In equal parts", HEADS, [_cells(part) for part in figures.parts]))
    ends = [[name, f"{count:,}"] for name, count in figures.reasons.items()]
    ends += [[f"error: {name}", f"{count:,}"] for name, count in figures.errors.items()]
    made.append(("How answers ended", ("reason", "answers"), ends))
    if any(map(sum, figures.rewards)):
        cells = [
            [f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}", f"{accepted:,}", f"{replaced:,}"]
            for place, (accepted, replaced) in enumerate(figures.rewards)
        ]
        made.append(("Rewards of the draft's steps", ("reward", "accepted", "replaced"), cells))
    return made


def remarks(figures: RunLogFigures) -> list[str]:
    """What the tables do not say."""
    made = [READING]
    tuned, rsd = figures.manifest.tuned, figures.of("rsd")
    if tuned is not None and rsd is not None and rsd.acceptance is not None:
        said = "differs by more than chance (99 %): rsd tune chooses the threshold anew" if figures.drifted else "is no difference seen"
        made.append(
            f"When the threshold was chosen, {percent(tuned.acceptance)} of {tuned.steps:,} steps were accepted; "
            f"here {percent(rsd.acceptance[0])} of {rsd.accepted.below:,.0f}: that {said}."
        )
    if figures.waited >= 0.05:
        made.append(f"Answers waited {figures.waited:.1f} s in the queue on average.")
    if figures.damaged:
        made.append(f"{figures.damaged} damaged lines are left out.")
    return made


def _markdown(figures: RunLogFigures, plots: dict[str, Path]) -> str:
    parts = [f"# {_title(figures)}", "\n".join(f"- {name}: {value}" for name, value in setting(figures))]
    for title, heads, cells in tables(figures):
        parts += ([f"## {title}"] if title else []) + [markdown(heads, cells)]
        parts += [] if title else remarks(figures)
    for title, file in plots.items():
        parts += [f"## {title}", f"![{title}]({file.name})"]
    return "\n\n".join(parts) + "\n"


def _page(figures: RunLogFigures, plots: dict[str, Path]) -> str:
    escape = html.escape
    settings = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in setting(figures))
    body = [f"<h1>{escape(_title(figures))}</h1><dl>{settings}</dl>"]
    for title, heads, cells in tables(figures):
        body.append((f"<h2>{escape(title)}</h2>" if title else "") + html_table(heads, cells))
        body += [] if title else [f"<p>{escape(remark)}</p>" for remark in remarks(figures)]
    return page(_title(figures), [*body, *(figure(title, file) for title, file in plots.items())])


def _title(figures: RunLogFigures) -> str:
    return f"rsd serve: {figures.manifest.name}"


def _cells(part: Part) -> Cells:
    made = [part.label, f"{part.answers:,}", f"{part.errors:,}"]
    for share in (part.acceptance, part.target_share):
        made += [_NONE, _NONE] if share is None else [percent(share[0]), _range(share)]
    speed, saved = part.tokens_per_second, part.flops_saved
    if speed is None:
        made += [_NONE, _NONE]
    else:
        made += [f"{speed[0]:.1f}", _NONE if speed[1] is None or speed[2] is None else f"{speed[1]:.1f} … {speed[2]:.1f}"]
    if saved is None:
        return [*made, _NONE, _NONE]
    low, high = saved[1], saved[2]
    return [*made, _signed(percent(saved[0])), _NONE if low is None or high is None else _range((saved[0], low, high))]


def _range(share: Share) -> str:
    return _signed(f"{100 * share[1]:.1f} … {100 * share[2]:.1f}")


def _signed(number: str) -> str:
    return number.replace("-", "−")


def _part_object(part: Part) -> dict[str, Any]:
    names = ("label", "answers", "errors", "tokens", "acceptance", "target_share", "tokens_per_second", "flops_saved")
    return {name: getattr(part, name) for name in names}
