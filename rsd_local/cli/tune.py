"""``rsd tune``: a threshold chosen by a stated wish."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import StrictCommand, question_options, trio_options
from rsd_local.cli.text import printable
from rsd_local.config import Params, require

if TYPE_CHECKING:
    from rsd_local.calibration.tuning import Point, Sweep
    from rsd_local.config import Trio
    from rsd_local.evaluation.items import Item


_COMBINATION = ("draft", "target", "reward", "reward_kind", "layout", "head", "system", "verifier", "tests", "schema", "code_file")
"""Flags that make another combination of models and reward, which a threshold belongs to."""


@click.command(cls=StrictCommand)
@click.option("--data", required=True, metavar="DATASET", help="Questions, as for rsd bench; a JSONL file may leave answers away.")
@click.option("--no-worse-than-target", is_flag=True, help="The least threshold with as many right answers as the target.")
@click.option(
    "--at-most-target-share", type=float, metavar="S", help="The most accurate one whose target writes at most this share of steps."
)
@click.option("--best", "wants_best", is_flag=True, help="The most accurate one.")
@click.option("-P", "--parallel", type=int, default=4, show_default=True, metavar="N", help="Questions at once.")
@click.option("-n", "--max-tokens", type=int, default=2048, show_default=True, help="Tokens of a solution.")
@click.option("--points", type=int, default=48, show_default=True, metavar="N", help="Thresholds to try beside 0 and 1.")
@click.option("--plot", type=Path, metavar="FILE", help="Draw accuracy and target share against the threshold (PNG).")
@click.option("--dry-run", is_flag=True, help="Show the table and the choice, and write nothing.")
@question_options
@trio_options
def tune(
    data: str,
    no_worse_than_target: bool,
    at_most_target_share: float | None,
    wants_best: bool,
    limit: int | None,
    seed: int,
    parallel: int,
    max_tokens: int,
    points: int,
    plot: Path | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Choose a threshold by a stated wish, and keep it.

    Measures what each threshold gives, and writes the one that fits into the trio's file: a trio by name is changed in
    the user's own models.toml, a TOML file in place. Exactly one wish is needed. Without answers in the data, agreement
    with the target's own answers counts.
    """
    if [no_worse_than_target, at_most_target_share is not None, wants_best].count(True) != 1:
        raise click.UsageError("state one wish: --no-worse-than-target, --at-most-target-share S or --best")
    changed = [name for name in _COMBINATION if flags[name] is not None]
    if changed and not dry_run:
        message = f"the threshold would be that of another combination than the trio's (--{changed[0].replace('_', '-')})"
        raise click.UsageError(f"{message}: put it into a trio's TOML file, or give --dry-run")
    require(at_most_target_share is None or 0.0 <= at_most_target_share <= 1.0, f"target share {at_most_target_share} is outside 0 to 1")
    require(2 <= points <= 1000, f"--points {points} is outside 2 to 1000")
    drawable = plot is None or importlib.util.find_spec("matplotlib") is not None
    require(drawable, "matplotlib is not installed", "pip install 'rsd-local[bench]'")
    trio = make_trio(flags, parallel=parallel, compares=True)

    from rsd_local.bench.datasets import has_answers, load_dataset
    from rsd_local.calibration import tuning
    from rsd_local.catalogue.own import save_threshold
    from rsd_local.evaluation.grading import require_math_verify

    labelled = has_answers(data)
    params = trio.params()
    params = dataclasses.replace(params, limits=dataclasses.replace(params.limits, tokens=max_tokens))
    items = load_dataset(data, limit, seed, labelled=labelled)
    require_math_verify(items)
    found = _swept(trio, items, params, seed, points, labelled)
    if at_most_target_share is not None:
        chosen, wish = tuning.at_most_target_share(found, at_most_target_share), f"--at-most-target-share {at_most_target_share:g}"
    elif wants_best:
        chosen, wish = tuning.best(found), "--best"
    else:
        chosen, wish = tuning.no_worse_than_target(found), "--no-worse-than-target"
    show(found, chosen, wish, as_json)
    if not dry_run and chosen.threshold is not None:
        origin = f"rsd tune --data {Path(data).name} --limit {len(items)} --seed {seed} -n {max_tokens} --points {points} {wish}"
        file = save_threshold(flags["trio"] or "abacus", chosen.threshold, origin)
        click.echo(f"threshold {chosen.threshold:g} written to {file}", err=True)
    if plot is not None:
        from rsd_local.calibration.plot import draw

        draw(found, chosen, plot)
        click.echo(f"drew {plot}", err=True)


def _swept(trio: Trio, items: list[Item], params: Params, seed: int, points: int, labelled: bool) -> Sweep:
    """Opens the trio and sweeps; Ctrl-C ends it."""
    from rsd_local.calibration.tuning import sweep
    from rsd_local.cli import render
    from rsd_local.cli.progress import parts
    from rsd_local.evaluation.grading import Grader
    from rsd_local.events import CancelToken
    from rsd_local.reasoner import Reasoner

    cancel = CancelToken()
    with Reasoner.open(trio, render.loading()) as reasoner, Grader() as grader, parts() as watch:
        previous = signal.signal(signal.SIGINT, lambda *_: cancel.cancel())
        try:
            return sweep(reasoner, items, params, grader, seed=seed, points=points, labelled=labelled, cancel=cancel, watch=watch)
        finally:
            signal.signal(signal.SIGINT, previous)


def show(sweep: Sweep, chosen: Point, wish: str, as_json: bool) -> None:
    """Prints the table and the choice on standard output."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(sweep) | {"chosen": dataclasses.asdict(chosen), "wish": wish}))
        return
    from rsd_local.calibration.table import table

    click.echo(printable(table(sweep, chosen)))
    low, high = chosen.interval
    verb = "right" if sweep.labelled else "as the target"
    click.echo(
        f"\nδ = {chosen.threshold:g} for {wish}: {chosen.accuracy:.1%} {verb} ({low:.1%} to {high:.1%}), "
        f"target share {chosen.target_share:.1%}, paper FLOPs {sweep.target.paper / chosen.paper:.2f} times fewer than the target"
    )
    if wish == "--no-worse-than-target" and chosen.right < sweep.target.right:
        click.echo("no threshold reaches the target on these questions; this one comes closest", err=True)
