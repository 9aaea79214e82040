"""``rsd report``: what a bench found or a server wrote down, as tables, plots and a page."""

from __future__ import annotations

from pathlib import Path

import click

from rsd_local.cli.options import StrictCommand
from rsd_local.cli.text import json_line, printable


@click.command(cls=StrictCommand)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one object.")
def report(folder: Path, as_json: bool) -> None:
    """Write the report of a bench or a run log: tables, plots, a page.

    Puts report.md, its plots and report.html into DIR, a folder of rsd bench, or of rsd serve --run-log. The tables go to
    standard output, and before them what was run: models, machine, threads, date and versions, as they were at the time of
    the run. The page needs no other file and no network.
    """
    from rsd_local.run_log.folder import is_run_log

    if is_run_log(folder):
        _run_log(folder, as_json)
    else:
        _bench(folder, as_json)


def _run_log(folder: Path, as_json: bool) -> None:
    from rsd_local.run_log.report import as_object, text, write_report

    figures, files = write_report(folder)
    click.echo(json_line(as_object(figures)) if as_json else printable(text(figures)))
    click.echo(printable("wrote " + ", ".join(map(str, files))), err=True)


def _bench(folder: Path, as_json: bool) -> None:
    from rsd_local.bench.report import write_report
    from rsd_local.bench.tables import pair_table, setting
    from rsd_local.cli.bench import show_summary

    summary, files = write_report(folder)
    if not as_json:
        width = max(len(name) for name, _ in setting(summary))
        click.echo(printable("\n".join(f"{name:<{width}}  {value}" for name, value in setting(summary)) + "\n"))
    show_summary(summary, as_json)
    if summary.pairs and not as_json:
        click.echo(printable(f"\n{pair_table(summary)}"))
    click.echo("wrote " + ", ".join(map(str, files)), err=True)
