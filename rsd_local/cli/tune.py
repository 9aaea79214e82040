"""``rsd tune``: a threshold chosen by a stated wish, and the bands of a cascade."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.interrupts import on_interrupt
from rsd_local.cli.options import StrictCommand, question_options, trio_options
from rsd_local.config import Params, require, require_writable

if TYPE_CHECKING:
    from rsd_local.calibration.bands import ChosenBands
    from rsd_local.calibration.choice import Wish, WishKind
    from rsd_local.calibration.points import Sweep
    from rsd_local.cli.tuned import Tuned
    from rsd_local.config import Trio
    from rsd_local.evaluation.items import Item
    from rsd_local.sandbox import Sandbox


_COMBINATION = (
    "draft",
    "target",
    "reward",
    "lora",
    "lora_scaled",
    "reward_kind",
    "layout",
    "head",
    "system",
    "verifier",
    "tests",
    "schema",
    "code_file",
)
"""Flags that make another combination of models and reward, which a threshold belongs to."""


@click.command(cls=StrictCommand)
@click.option("--data", required=True, metavar="DATASET", help="Questions, as for rsd bench; a JSONL file may leave answers away.")
@click.option("--no-worse-than-target", is_flag=True, help="The least threshold with as many right answers as the target.")
@click.option(
    "--at-most-target-share", type=float, metavar="S", help="The most accurate one whose target writes at most this share of steps."
)
@click.option("--best", "wants_best", is_flag=True, help="The most accurate one.")
@click.option(
    "--margin",
    type=float,
    metavar="M",
    help="Points of accuracy below the target that still count as no worse, in what is said of the choice. Default: 2.",
)
@click.option("-P", "--parallel", type=int, default=4, show_default=True, metavar="N", help="Questions at once.")
@click.option("-n", "--max-tokens", type=int, default=2048, show_default=True, help="Tokens of a solution.")
@click.option("--points", type=int, default=48, show_default=True, metavar="N", help="Thresholds to try beside 0 and 1.")
@click.option(
    "--agreement",
    type=float,
    metavar="SHARE",
    help="Share of steps on which a reward that is sure must decide as the last one does (several rewards). Default: 0.95.",
)
@click.option("--all", "whole", is_flag=True, help="Show every threshold, and not only those around the chosen one.")
@click.option("--plot", type=Path, metavar="FILE", help="Draw accuracy and target share against the threshold (PNG).")
@click.option("--dry-run", is_flag=True, help="Show the table and the choice, and leave the trio's file as it is.")
@question_options
@trio_options
def tune(
    no_worse_than_target: bool,
    at_most_target_share: float | None,
    wants_best: bool,
    margin: float | None,
    parallel: int,
    whole: bool,
    plot: Path | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Choose a threshold by a stated wish, and keep it.

    Measures what each threshold gives, and writes the one that fits into the trio's file: a trio by name is changed in
    the user's own models.toml, a TOML file in place. Exactly one wish is needed. All questions choose the threshold, but
    no question reports on a threshold that it chose: each counts at the one that the others choose. Without answers in
    the data, agreement with the target's own answers counts. Where there are several rewards, a third of the questions
    first chooses the bands of all but the last, and the others choose the threshold.
    """
    if [no_worse_than_target, at_most_target_share is not None, wants_best].count(True) != 1:
        raise click.UsageError("state one wish: --no-worse-than-target, --at-most-target-share S or --best")
    changed = [name for name in _COMBINATION if flags[name] not in (None, ())]
    if changed and not dry_run:
        message = f"the threshold would be that of another combination than the trio's (--{changed[0].replace('_', '-')})"
        raise click.UsageError(f"{message}: put it into a trio's TOML file, or give --dry-run")
    require(2 <= flags["points"] <= 1000, f"--points {flags['points']} is outside 2 to 1000")
    require(margin is None or 0 < margin <= 100, f"--margin {margin} is outside 0 to 100, 0 left out", "it is in points: 2 is 2 %")
    if plot is not None:
        require(importlib.util.find_spec("matplotlib") is not None, "matplotlib is not installed", "pip install 'rsd-local[bench]'")
        require_writable(plot, "--plot")

    from rsd_local.calibration.choice import MARGIN, Wish
    from rsd_local.cli import tuned

    kind: WishKind = "best" if wants_best else "no-worse-than-target" if no_worse_than_target else "at-most-target-share"
    wish = Wish(kind, 1.0 if at_most_target_share is None else at_most_target_share)
    trio = make_trio(flags, parallel=parallel, compares=True)
    found = _tuned(trio, wish, MARGIN if margin is None else margin / 100, flags, keeps=not dry_run)
    kept = tuned.keep(found, plot, dry_run=dry_run)  # before anything is printed: a standard output that is full loses nothing
    tuned.show(found, kept, as_json=as_json, whole=whole, states_margin=margin is not None)
    if kept.problem is not None:
        raise kept.problem


def _tuned(trio: Trio, wish: Wish, margin: float, flags: dict[str, Any], *, keeps: bool) -> Tuned:
    """Measures and chooses."""
    name, several, data, seed = flags["trio"] or "abacus", len(trio.stages) > 1, flags["data"], flags["seed"]
    require(several or flags["agreement"] is None, "--agreement is for several rewards", "this trio has but one: leave it away")

    from rsd_local.bench.datasets import has_answers, load_dataset
    from rsd_local.calibration import bands
    from rsd_local.calibration.choice import cross_fit, require_enough
    from rsd_local.calibration.statements import undecided
    from rsd_local.catalogue.own import require_reward_tables
    from rsd_local.cli.tuned import Tuned
    from rsd_local.evaluation.grading import require_math_verify, require_sandbox
    from rsd_local.sandbox import Sandbox

    if several and keeps:
        require_reward_tables(name, len(trio.stages))
    labelled = has_answers(data)
    params = trio.params()
    params = dataclasses.replace(params, limits=dataclasses.replace(params.limits, tokens=flags["max_tokens"]))
    items = load_dataset(data, flags["limit"], seed, labelled=labelled)
    require_math_verify(items)
    sandbox = Sandbox.find(trio.sandbox) if trio.run_code else None
    require_sandbox(items, sandbox)
    require_enough(len(items), bands=several)
    origin = f"rsd tune --data {Path(data).name} --limit {len(items)} --seed {seed} -n {flags['max_tokens']} --points {flags['points']}"
    banded, reporting = None, items
    if several:
        agreement = bands.AGREEMENT if flags["agreement"] is None else flags["agreement"]
        banded, reporting = _banded(trio, items, params, seed, agreement)
        trio, origin = bands.with_bands(trio, banded.bands), f"{origin} --agreement {agreement:g}"
    found = _swept(trio, reporting, params, seed, flags["points"], labelled, sandbox)
    problem = undecided(found, wish, params.weighting.threshold, bands=several)
    choice = None if problem else cross_fit(found, wish, seed)
    return Tuned(name, trio, found, choice, problem, banded, margin, len(items), f"{origin} {wish}")


def _banded(trio: Trio, items: list[Item], params: Params, seed: int, agreement: float) -> tuple[ChosenBands, list[Item]]:
    """Opens the trio and chooses its bands; also the questions that are left."""
    from rsd_local.calibration.bands import choose_bands
    from rsd_local.cli import render
    from rsd_local.cli.progress import parts
    from rsd_local.events import CancelToken
    from rsd_local.reasoner import Reasoner

    cancel = CancelToken()
    with Reasoner.open(trio, render.loading()) as reasoner, parts() as watch, on_interrupt(cancel.cancel):
        return choose_bands(reasoner, items, params, seed=seed, agreement=agreement, cancel=cancel, watch=watch)


def _swept(trio: Trio, items: list[Item], params: Params, seed: int, points: int, labelled: bool, sandbox: Sandbox | None) -> Sweep:
    """Opens the trio and sweeps."""
    from rsd_local.calibration.tuning import sweep
    from rsd_local.cli import render
    from rsd_local.cli.progress import parts
    from rsd_local.evaluation.grading import Grader
    from rsd_local.events import CancelToken
    from rsd_local.reasoner import Reasoner

    opened, cancel = Reasoner.open(trio, render.loading()), CancelToken()
    with opened as reasoner, Grader(sandbox=sandbox) as grader, parts() as watch, on_interrupt(cancel.cancel):
        return sweep(reasoner, items, params, grader, seed=seed, points=points, labelled=labelled, cancel=cancel, watch=watch)
