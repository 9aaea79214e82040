"""The page of a report: HTML that needs no other file and no network."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path


def page(title: str, body: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: as text.
        body: pieces of HTML.
    """
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


def figure(title: str, file: Path) -> str:
    """A heading, and a PNG file as a part of the page."""
    data, text = base64.b64encode(file.read_bytes()).decode(), html.escape(title)
    return f'<h2>{text}</h2><figure><img alt="{text}" src="data:image/png;base64,{data}"></figure>'


def write_text(file: Path, text: str) -> None:
    """Writes a text; names of files in it may be no Unicode."""
    file.write_text(text, encoding="utf-8", errors="replace")


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    lines = "".join(
        f"<tr><td>{_label(row[0])}</td>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _label(text: str) -> str:
    """A strategy's label, which may only be broken between its settings: never within ``best-of-n``."""
    pieces = re.findall(r"[^,:\s]+[,:]?|\s+", text)
    return "".join(" " if piece.isspace() else f"<span>{html.escape(piece)}</span>" for piece in pieces)


def emphasized(text: str) -> str:
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
