"""``rsd estimate``: what a measured saving is worth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from rsd_local.cli.options import StrictCommand
from rsd_local.cli.text import json_line, printable
from rsd_local.config import require


@click.command(cls=StrictCommand)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--questions-per-day", type=float, required=True, metavar="N", help="Questions a day.")
@click.option("--price-per-hour", type=float, required=True, metavar="X", help="Price of the machine for an hour, in any currency.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def estimate(folder: Path, questions_per_day: float, price_per_hour: float, as_json: bool) -> None:
    """Say what a measured saving is worth.

    For each strategy of DIR, a folder of rsd bench: machine hours and money against the target. The seconds are
    those measured, on that machine and with as many questions at once; the arithmetic is shown.
    """
    from rsd_local.bench.estimate import estimate as worth_of
    from rsd_local.bench.results import Results
    from rsd_local.evaluation.journal import read_config
    from rsd_local.run_log.folder import is_run_log

    require(not is_run_log(folder), f"{folder} is a folder of rsd serve --run-log", "an estimate is made of one of rsd bench")
    found = worth_of(read_config(folder, "rsd bench"), Results.read(folder), questions_per_day, price_per_hour)
    if as_json:
        strategies = [dataclasses.asdict(worth) for worth in found]
        click.echo(json_line({"questions_per_day": questions_per_day, "price_per_hour": price_per_hour, "strategies": strategies}))
        return
    for worth in found:
        click.echo(printable("\n".join([worth.label, *(f"  {line}" for line in worth.arithmetic)])))
