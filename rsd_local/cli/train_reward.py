"""``rsd train-reward``: a read-out fitted on the user's own models."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import StrictCommand, question_options, trio_options
from rsd_local.cli.text import printable
from rsd_local.config import Limits, Params, Sampling, Search, require
from rsd_local.errors import Cancelled, ConfigError

if TYPE_CHECKING:
    from rsd_local.calibration.rollouts import Labelling, Rollouts
    from rsd_local.calibration.training import Quality, Steps
    from rsd_local.config import Trio
    from rsd_local.evaluation.items import Item
    from rsd_local.events import Author
    from rsd_local.reasoner import Reasoner
    from rsd_local.rewards.heads import ReadOut
    from rsd_local.sandbox import Sandbox


@click.command("train-reward", cls=StrictCommand)
@click.option("--data", required=True, metavar="DATASET", help="Questions with answers: as for rsd bench.")
@click.option("--out", type=Path, required=True, metavar="FILE", help="The head, a safetensors file.")
@click.option("--role", type=click.Choice(["draft", "target"]), default="draft", show_default=True, help="Whose states are read.")
@click.option("--samples", type=int, default=1, show_default=True, metavar="K", help="Solutions that the draft writes to each question.")
@click.option("--temp", type=float, help="Their temperature. Default: 0 for one sample, 0.7 for several.")
@click.option(
    "--label", type=click.Choice(["outcome", "mc"]), default="outcome", show_default=True, help="Steps by the answer, or by continuations."
)
@click.option("--continuations", type=int, default=4, show_default=True, metavar="N", help="Of each step, for --label mc.")
@click.option("--held-out", type=float, default=0.2, show_default=True, metavar="SHARE", help="Questions that are only measured.")
@click.option("-P", "--parallel", type=int, default=4, show_default=True, metavar="N", help="Questions at once.")
@click.option("-n", "--max-tokens", type=int, default=768, show_default=True, help="Tokens of a solution.")
@click.option("--rollouts", type=Path, metavar="DIR", help="Where rollouts are kept and gone on with. Default: FILE.rollouts.")
@click.option("--resume", is_flag=True, hidden=True, expose_value=False)  # what is there is always gone on with: for scripts of 0.2
@question_options
@trio_options
def train_reward(
    data: str,
    out: Path,
    role: Literal["draft", "target"],
    samples: int,
    temp: float | None,
    label: Literal["outcome", "mc"],
    continuations: int,
    limit: int | None,
    held_out: float,
    seed: int,
    parallel: int,
    max_tokens: int,
    rollouts: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Fit a reward on states that your own models have anyway.

    The draft answers questions with known answers, each step is labelled, and a logistic head is fitted on the states of
    the draft (or the target) at its end. Use it with --reward-kind read-out --head FILE: with --role draft no third model
    is loaded and no token is evaluated for scoring.

    The rollouts stay in a folder. The same command goes on from them after Ctrl-C or an error, also with more questions or
    another --held-out.
    """
    one_each = samples == 1 and label == "outcome"
    temperature = (0.0 if one_each else 0.7) if temp is None else temp
    require(temperature > 0 or one_each, "at temperature 0 every sample is the same", "give --temp above 0, or --samples 1")
    require(0.0 < held_out < 1.0, f"--held-out {held_out} is outside 0 to 1")
    for name in ("reward", "reward_kind", "head"):
        require(flags[name] is None, f"--{name.replace('_', '-')} is of no use here", "a read-out takes the place of every other reward")
    require(not out.is_dir(), f"{out} is a directory", "name the file that --out is to be")
    require(out.parent.is_dir(), f"{out.parent} is no directory", "make it first")
    require(os.access(out if out.exists() else out.parent, os.W_OK), f"{out} cannot be written", "choose another --out")
    width = max(samples, continuations if label == "mc" else 1) + 1
    flags["reward_kind"] = "confidence"  # the draft's trace, and no third model
    trio = make_trio(flags, parallel=parallel, width=width, compares=True)
    limits = Limits(tokens=max_tokens, stop_after=trio.stop_after)
    params = Params(Sampling(temperature, seed=seed), limits=limits, search=Search(samples=samples))

    from rsd_local.bench.datasets import load_dataset
    from rsd_local.calibration.rollouts import Labelling
    from rsd_local.calibration.training import require_enough, train
    from rsd_local.cli import render
    from rsd_local.evaluation.grading import require_math_verify, require_sandbox
    from rsd_local.reasoner import Reasoner
    from rsd_local.sandbox import Sandbox

    items = load_dataset(data, limit, seed)
    require_math_verify(items)
    sandbox = Sandbox.find(trio.sandbox) if trio.run_code else None
    require_sandbox(items, sandbox)
    require_enough(len(items), held_out)
    folder = rollouts or out.with_name(f"{out.name}.rollouts")
    opened = trio if role == "target" else dataclasses.replace(trio, target=trio.draft)  # a target that nobody asks
    with _rollouts(folder, trio, items, params, Labelling(label, continuations)) as kept:
        with Reasoner.open(opened, render.loading()) as reasoner:
            steps = _steps(reasoner, items, params, Labelling(label, continuations), kept, role, folder, sandbox)
            head, quality = train(steps, role, reasoner.engines()[role].config, held_out, seed)
    head.about["data"], head.about["label"], head.about["samples"] = Path(data).name, label, samples
    head.save(out)
    show(head, quality, as_json)
    click.echo(f"wrote {out}; use it with --reward-kind read-out --head {out}", err=True)


def _rollouts(folder: Path, trio: Trio, items: list[Item], params: Params, labelling: Labelling) -> Rollouts:
    """The folder of rollouts, new or to be gone on with."""
    from rsd_local.bench.results import describe_trio, versions
    from rsd_local.calibration.rollouts import Rollouts
    from rsd_local.rewards.features import FEATURES

    config = {
        "questions": _questions(folder, items),
        "trio": {name: value for name, value in describe_trio(trio).items() if name not in _OF_NO_MATTER},
        "params": dataclasses.asdict(params),
        "labelling": dataclasses.asdict(labelling),
        "features": FEATURES,
        "versions": versions(),
    }
    try:
        kept = Rollouts.open(folder, json.loads(json.dumps(config)), resume=True)
    except ConfigError as error:
        raise ConfigError(str(error), hint="--rollouts with another folder starts anew; or give the same settings") from None
    if kept.rows:
        click.echo(printable(f"going on with {len(kept.rows)} rollouts in {folder}"), err=True)
    return kept


def _questions(folder: Path, items: list[Item]) -> dict[str, Any]:
    """A digest of each question; in a folder that an earlier version began, one of all together."""
    from rsd_local.bench.results import describe_questions
    from rsd_local.evaluation.journal import CONFIG, read_config

    if (folder / CONFIG).exists() and read_config(folder).get("questions", {}).keys() == {"number", "sha256"}:
        return describe_questions(items)
    return {item.id: describe_questions([item])["sha256"][:16] for item in items}


def _steps(
    reasoner: Reasoner, items: list[Item], params: Params, labelling: Labelling, kept: Rollouts, role: Author, folder: Path,
    sandbox: Sandbox | None,
) -> Steps:  # fmt: skip
    """Rolls out what is missing, and lets the target read it where its states are asked for; Ctrl-C keeps what is done."""
    from rsd_local.bench.summary import causes_of
    from rsd_local.calibration.rollouts import TargetStates, read_states, roll_out, try_target
    from rsd_local.calibration.training import gather
    from rsd_local.cli.progress import counting
    from rsd_local.evaluation.grading import Grader
    from rsd_local.events import CancelToken

    stateless = role == "draft" and not reasoner.trio.draft.probe_states()
    require(not stateless, "the draft is of a kind that gives no hidden states while it writes", "fit it on the target: --role target")
    cancel, width = CancelToken(), reasoner.engines()[role].model.n_embd
    if role == "target":
        try_target(reasoner, items[0], cancel)
    previous = signal.signal(signal.SIGINT, lambda *_: cancel.cancel())
    try:
        with Grader(sandbox=sandbox) as grader, counting("rollouts") as watch:
            roll_out(reasoner, items, params, labelling, kept, grader, seed=params.sampling.seed, cancel=cancel, watch=watch)
        asked = {item.id for item in items}
        rows = [row for row in kept.rows if row["id"] in asked and row["sample"] < params.search.samples]
        for cause in causes_of((row["error"], row["message"]) for row in rows if "error" in row):
            click.echo(printable(f"no rollout: {cause}"), err=True)
        if role == "draft":
            return gather(rows, width)
        with TargetStates.open(folder, kept.config, resume=True) as read, counting("target's states") as watch:
            read_states(reasoner, items, kept, read, cancel, watch)
            return gather(rows, width, read.rows)
    except Cancelled:
        raise Cancelled("stopped", hint=f"the same command goes on with the rollouts in {folder}") from None
    finally:
        signal.signal(signal.SIGINT, previous)


_OF_NO_MATTER = ("parallel", "width", "threshold", "threshold_from", "strategy")
"""Settings of a trio that rollouts do not depend on."""


def show(head: ReadOut, quality: Quality, as_json: bool) -> None:
    """Prints what the head is worth on standard output."""
    if as_json:
        click.echo(json.dumps({"role": head.role, "features": head.parts, **head.about}))
        return
    low, high = quality.auc_interval
    lines = [
        f"read-out of the {head.role} ({head.model}), features {' + '.join(head.parts)}, penalty {head.about['penalty']:g}",
        f"fitted on {head.about['steps']} steps of {head.about['questions']} questions, {head.about['good']:.0%} of them labelled right",
        f"  area under the curve, cross-validated over these questions, {head.about['cross_validated_auc']:.3f}",
        f"held out: {quality.steps} steps of {quality.questions} questions",
        f"  area under the curve {quality.auc:.3f} ({low:.3f} to {high:.3f}); the draft's confidence {quality.confidence_auc:.3f}",
        "  reward against label, in fifths of the steps:",
        *(f"    {mean:.2f} → {good:.2f}  ({count} steps)" for count, mean, good in quality.reliability),
    ]
    click.echo(printable("\n".join(lines)))
