"""A bench's report: Markdown with PNG plots, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from rsd_local.bench import tables
from rsd_local.bench.machine import read_runs
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
    config, rows = read_config(folder), Results.read(folder)
    summary = summarize(config, rows, read_runs(folder))
    try:
        plots = draw(summary, by_strategy(config, rows), folder)
        # Names of files may be no Unicode.
        (folder / MARKDOWN).write_text(_markdown(summary, plots), encoding="utf-8", errors="replace")
        (folder / PAGE).write_text(_page(summary, plots), encoding="utf-8", errors="replace")
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
        _table(tables.STRATEGY_HEADS, tables.strategy_cells(summary)),
        f"<p>{_emphasized(tables.READING)}</p>" + (f"<ul>{remarks}</ul>" if remarks else ""),
    ]
    if summary.pairs:
        body.append(f"<h2>Pairs</h2>{_table(tables.PAIR_HEADS, tables.pair_cells(summary))}<p>{text(tables.PAIR_READING)}</p>")
    if fallback := tables.fallback_cells(summary):
        body.append(f"<h2>Fallback</h2>{_table(tables.FALLBACK_HEADS, fallback)}<p>{text(tables.FALLBACK_READING)}</p>")
    for title, file in plots.items():
        data = base64.b64encode(file.read_bytes()).decode()
        body.append(f'<h2>{text(title)}</h2><figure><img alt="{text(title)}" src="data:image/png;base64,{data}"></figure>')
    return _PAGE.format(title=text(_title(summary)), body="\n".join(body))


def _title(summary: Summary) -> str:
    return f"rsd bench: {summary.config['dataset']}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    lines = "".join(
        f"<tr><td>{_label(row[0])}</td>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _label(text: str) -> str:
    """A strategy's label, which may only be broken between its settings: never within ``best-of-n``."""
    pieces = re.findall(r"[^,:\s]+[,:]?|\s+", text)
    return "".join(" " if piece.isspace() else f"<span>{html.escape(piece)}</span>" for piece in pieces)


def _emphasized(text: str) -> str:
    """The text with ``*words*`` as emphasis."""
    pieces = html.escape(text).split("*")
    return "".join(f"<em>{piece}</em>" if place % 2 else piece for place, piece in enumerate(pieces))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #222; --soft: #666; --line: #ddd; --back: #fff; --band: #f6f6f4; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e6e3; --soft: #a3a3a0; --line: #3a3a38; --back: #191917; --band: #22221f; }}
}}
body {{ max-width: 76rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }}
body {{ color: var(--ink); background: var(--back); }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 1.5rem; }}
dt, p, li {{ color: var(--soft); }} dd {{ margin: 0; }} dd, li {{ overflow-wrap: anywhere; }} p {{ max-width: 60rem; font-size: .92rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th, td {{ padding: .3rem .5rem; vertical-align: bottom; text-align: right; border-bottom: 1px solid var(--line); }}
th:first-child, td:first-child {{ text-align: left; white-space: normal; min-width: 8rem; }}
td span {{ display: inline-block; white-space: nowrap; }}
th {{ color: var(--soft); font-weight: 600; white-space: normal; }}
tbody tr:nth-child(even) {{ background: var(--band); }}
figure {{ margin: .5rem 0; padding: .25rem; max-width: min(100%, 34rem); box-sizing: border-box; }}
figure {{ background: #fff; border: 1px solid var(--line); border-radius: 8px; }}
img {{ display: block; max-width: 100%; height: auto; }}
@media (max-width: 40rem) {{
  body {{ margin: 1rem auto; padding: 0 .5rem; }}
  dl {{ display: block; }} dd {{ margin-bottom: .4rem; }}
}}
</style></head><body>
{body}
</body></html>
"""
