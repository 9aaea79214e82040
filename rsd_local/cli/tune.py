"""``rsd tune``: a threshold chosen by a stated wish, and the bands of a cascade."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import StrictCommand, question_options, trio_options
from rsd_local.cli.text import printable
from rsd_local.config import Params, require

if TYPE_CHECKING:
    from rsd_local.calibration.bands import ChosenBands
    from rsd_local.calibration.tuning import Point, Sweep
    from rsd_local.config import Trio
    from rsd_local.evaluation.items import Item
    from rsd_local.events import CancelToken
    from rsd_local.sandbox import Sandbox


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
@click.option(
    "--agreement",
    type=float,
    metavar="SHARE",
    help="Share of steps on which a reward that is sure must decide as the last one does (several rewards). Default: 0.95.",
)
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
    agreement: float | None,
    plot: Path | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Choose a threshold by a stated wish, and keep it.

    Measures what each threshold gives, and writes the one that fits into the trio's file: a trio by name is changed in
    the user's own models.toml, a TOML file in place. Exactly one wish is needed. Without answers in the data, agreement
    with the target's own answers counts. Where there are several rewards, a third of the questions first chooses the
    bands of all but the last, and the others choose the threshold.
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
    name, several = flags["trio"] or "abacus", len(trio.stages) > 1
    require(several or agreement is None, "--agreement is for several rewards", "this trio has but one: leave it away")

    from rsd_local.bench.datasets import has_answers, load_dataset
    from rsd_local.calibration import bands
    from rsd_local.catalogue.own import require_reward_tables, save_threshold
    from rsd_local.evaluation.grading import require_math_verify, require_sandbox
    from rsd_local.sandbox import Sandbox

    if several and not dry_run:
        require_reward_tables(name, len(trio.stages))
    labelled = has_answers(data)
    params = trio.params()
    params = dataclasses.replace(params, limits=dataclasses.replace(params.limits, tokens=max_tokens))
    items = load_dataset(data, limit, seed, labelled=labelled)
    require_math_verify(items)
    sandbox = Sandbox.find(trio.sandbox) if trio.run_code else None
    require_sandbox(items, sandbox)
    origin = f"rsd tune --data {Path(data).name} --limit {len(items)} --seed {seed} -n {max_tokens} --points {points}"
    banded = None
    if several:
        agreement = bands.AGREEMENT if agreement is None else agreement
        banded, items = _banded(trio, items, params, seed, agreement)
        trio, origin = bands.with_bands(trio, banded.bands), f"{origin} --agreement {agreement:g}"
    found = _swept(trio, items, params, seed, points, labelled, sandbox)
    chosen, wish = _wished(found, at_most_target_share, wants_best)
    show(found, chosen, wish, as_json, banded, trio)
    if not dry_run and chosen.threshold is not None:
        file = save_threshold(name, chosen.threshold, f"{origin} {wish}", banded.bands if banded else ())
        click.echo(f"threshold {chosen.threshold:g}{' and bands' if banded else ''} written to {file}", err=True)
    if plot is not None:
        from rsd_local.calibration.plot import draw

        draw(found, chosen, plot)
        click.echo(f"drew {plot}", err=True)


@contextmanager
def _interruptible() -> Iterator[CancelToken]:
    """A token that Ctrl-C cancels."""
    from rsd_local.events import CancelToken

    cancel = CancelToken()
    previous = signal.signal(signal.SIGINT, lambda *_: cancel.cancel())
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, previous)


def _banded(trio: Trio, items: list[Item], params: Params, seed: int, agreement: float) -> tuple[ChosenBands, list[Item]]:
    """Opens the trio and chooses its bands; also the questions that are left."""
    from rsd_local.calibration.bands import choose_bands
    from rsd_local.cli import render
    from rsd_local.cli.progress import parts
    from rsd_local.reasoner import Reasoner

    with Reasoner.open(trio, render.loading()) as reasoner, parts() as watch, _interruptible() as cancel:
        return choose_bands(reasoner, items, params, seed=seed, agreement=agreement, cancel=cancel, watch=watch)


def _swept(trio: Trio, items: list[Item], params: Params, seed: int, points: int, labelled: bool, sandbox: Sandbox | None) -> Sweep:
    """Opens the trio and sweeps."""
    from rsd_local.calibration.tuning import sweep
    from rsd_local.cli import render
    from rsd_local.cli.progress import parts
    from rsd_local.evaluation.grading import Grader
    from rsd_local.reasoner import Reasoner

    opened = Reasoner.open(trio, render.loading())
    with opened as reasoner, Grader(sandbox=sandbox) as grader, parts() as watch, _interruptible() as cancel:
        return sweep(reasoner, items, params, grader, seed=seed, points=points, labelled=labelled, cancel=cancel, watch=watch)


def _wished(found: Sweep, share: float | None, wants_best: bool) -> tuple[Point, str]:
    """The point that the wish chooses, and the wish as a flag."""
    from rsd_local.calibration import tuning

    if share is not None:
        return tuning.at_most_target_share(found, share), f"--at-most-target-share {share:g}"
    if wants_best:
        return tuning.best(found), "--best"
    return tuning.no_worse_than_target(found), "--no-worse-than-target"


def show(sweep: Sweep, chosen: Point, wish: str, as_json: bool, banded: ChosenBands | None, trio: Trio) -> None:
    """Prints the tables and the choice on standard output."""
    from rsd_local.calibration.table import table

    threshold = chosen.threshold or 0.0
    if as_json:
        made = dataclasses.asdict(sweep) | {"chosen": dataclasses.asdict(chosen), "wish": wish}
        click.echo(json.dumps(made if banded is None else made | {"bands": _as_object(banded, trio, threshold)}))
        return
    click.echo(printable(table(sweep, chosen)))
    low, high = chosen.interval
    verb = "right" if sweep.labelled else "as the target"
    click.echo(
        f"\nδ = {chosen.threshold:g} for {wish}: {chosen.accuracy:.1%} {verb} ({low:.1%} to {high:.1%}), "
        f"target share {chosen.target_share:.1%}, paper FLOPs {sweep.target.paper / chosen.paper:.2f} times fewer than the target"
    )
    if banded is not None:
        _show_bands(banded, trio, threshold, sweep.target.questions)
    if len(sweep.points) == 1:
        click.echo(f"no step's reward is compared with the threshold on these questions, so it stays {chosen.threshold:g}", err=True)
    if wish == "--no-worse-than-target" and chosen.right < sweep.target.right:
        click.echo("no threshold reaches the target on these questions; this one comes closest", err=True)


def _show_bands(banded: ChosenBands, trio: Trio, threshold: float, questions: int) -> None:
    """Prints what each reward of the cascade does, and where these figures come from."""
    from rsd_local.calibration.bands import measure
    from rsd_local.calibration.table import band_table

    share = banded.accepted_by_last(threshold)
    click.echo(
        f"\nbands chosen on {banded.questions} questions ({banded.steps} steps) for {banded.agreement:.1%} agreement with the last reward "
        f"at δ = {banded.threshold:g};\nmeasured on the draft's steps of the {questions} others, which also chose δ = {threshold:g} "
        "and are those of the table above"
        + (f";\nthe last reward accepts {share:.1%} of these steps, so whoever accepts all of them agrees as often" if share else "")
    )
    click.echo("\n" + printable(band_table(measure(banded.measured, trio.stages, banded.bands, threshold), threshold)))
    if banded.lost:
        click.echo(f"{banded.lost} questions ended in an error, and their steps are missing here", err=True)
    if threshold != banded.threshold:
        then = measure(banded.measured, trio.stages, banded.bands, banded.threshold)
        shares = ", ".join(f"{one.name} {one.agreement:.1%}" for one in then if one.chosen and one.agreement is not None)
        click.echo(
            f"the bands are for δ = {banded.threshold:g}{f' (agreement there: {shares})' if shares else ''}: "
            f"a second run chooses them for δ = {threshold:g}",
            err=True,
        )


def _as_object(banded: ChosenBands, trio: Trio, threshold: float) -> dict[str, Any]:
    """The bands for ``--json``, with their figures at the chosen threshold and at the one that they were chosen for."""
    from rsd_local.calibration.bands import measure

    made = {
        name: [
            dataclasses.asdict(one) | {"agreement": one.agreement, "interval": one.interval if one.compared else None, "saved": one.saved}
            for one in measure(banded.measured, trio.stages, banded.bands, at)
        ]
        for name, at in (("rewards", threshold), ("rewards_at_their_threshold", banded.threshold))
    }
    chosen = {name: getattr(banded, name) for name in ("threshold", "agreement", "questions", "steps", "lost")}
    return {"chosen_on": chosen, "accepted_by_last": banded.accepted_by_last(threshold)} | made
