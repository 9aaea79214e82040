"""A bench's report: Markdown with PNG plots, and one HTML page that needs nothing else."""

from __future__ import annotations

import html
import importlib.util
from pathlib import Path

from rsd_local.bench import tables
from rsd_local.bench.machine import read_runs
from rsd_local.bench.page import emphasized, figure, html_table, page, write_text
from rsd_local.bench.plots import draw
from rsd_local.bench.results import Results
from rsd_local.bench.summary import Summary, by_strategy, summarize
from rsd_local.config import require
from rsd_local.errors import ConfigError
from rsd_local.evaluation.journal import read_config

MARKDOWN, PAGE = "report.md", "report.html"


def read_summary(folder: Path) -> Summary:
    """The figures of a folder.

    Raises:
        ConfigError: it is no folder of a bench, or has no line yet.
    """
    return summarize(read_config(folder), Results.read(folder), read_runs(folder))


def write_report(folder: Path) -> tuple[Summary, list[Path]]:
    """Writes ``report.md``, its plots and ``report.html`` into a bench's folder, and returns the figures and the files.

    Raises:
        ConfigError: it is no folder of a bench, has no line yet, or cannot be written to; or matplotlib is missing.
    """
    installed = importlib.util.find_spec("matplotlib") is not None
    require(installed, "matplotlib is not installed", "pip install 'rsd-local[bench]'")
    config, rows = read_config(folder, "rsd bench or rsd serve --run-log"), Results.read(folder)
    summary = summarize(config, rows, read_runs(folder))
    try:
        plots = draw(summary, by_strategy(config, rows), folder)
        write_text(folder / MARKDOWN, _markdown(summary, plots))
        write_text(folder / PAGE, _page(summary, plots))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to: {error.strerror}") from None
    return summary, [folder / MARKDOWN, folder / PAGE, *plots.values()]


def _markdown(summary: Summary, plots: dict[str, Path]) -> str:
    parts = [f"# {_title(summary)}", "\n".join(f"- {name}: {value}" for name, value in tables.setting(summary))]
    parts += [tables.strategy_table(summary), tables.READING]
    if remarks := tables.remarks(summary):
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    if summary.pairs:
        parts += ["## Pairs", tables.pair_table(summary), tables.PAIR_READING]
    if fallback := tables.fallback_cells(summary):
        parts += ["## Fallback", tables.markdown(tables.FALLBACK_HEADS, fallback), tables.FALLBACK_READING]
    for title, file in plots.items():
        parts += [f"## {title}", f"![{title}]({file.name})"]
    return "\n\n".join(parts) + "\n"


def _page(summary: Summary, plots: dict[str, Path]) -> str:
    text = html.escape
    settings = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in tables.setting(summary))
    remarks = "".join(f"<li>{text(remark)}</li>" for remark in tables.remarks(summary))
    body = [
        f"<h1>{text(_title(summary))}</h1><dl>{settings}</dl>",
        html_table(tables.STRATEGY_HEADS, tables.strategy_cells(summary)),
        f"<p>{emphasized(tables.READING)}</p>" + (f"<ul>{remarks}</ul>" if remarks else ""),
    ]
    if summary.pairs:
        body.append(f"<h2>Pairs</h2>{html_table(tables.PAIR_HEADS, tables.pair_cells(summary))}<p>{text(tables.PAIR_READING)}</p>")
    if fallback := tables.fallback_cells(summary):
        body.append(f"<h2>Fallback</h2>{html_table(tables.FALLBACK_HEADS, fallback)}<p>{text(tables.FALLBACK_READING)}</p>")
    for title, file in plots.items():
        body.append(figure(title, file))
    return page(_title(summary), body)


def _title(summary: Summary) -> str:
    return f"rsd bench: {summary.config['dataset']}"
