"""``rsd train-reward``: a read-out fitted on the user's own models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import StrictCommand, question_options, trio_options
from rsd_local.config import Limits, Params, Sampling, Search, require, require_writable

if TYPE_CHECKING:
    from rsd_local.calibration.gold import GoldSolution
    from rsd_local.calibration.labels import Labelling
    from rsd_local.config import Trio
    from rsd_local.evaluation.items import Item

_LABELS = ("outcome", "mc", "advantage", "verifier", "gold")


@click.command("train-reward", cls=StrictCommand)
@click.option("--data", required=True, metavar="DATASET", help="Questions, as for rsd bench; for --label gold, solutions with labels.")
@click.option("--out", type=Path, required=True, metavar="FILE", help="The head, a safetensors file.")
@click.option("--role", type=click.Choice(["draft", "target"]), default="draft", show_default=True, help="Whose states are read.")
@click.option("--samples", type=int, default=1, show_default=True, metavar="K", help="Solutions that the draft writes to each question.")
@click.option("--temp", type=float, help="Their temperature. Default: 0 for one sample that nothing is continued of, 0.7 otherwise.")
@click.option(
    "--label",
    type=click.Choice(_LABELS),
    default="outcome",
    show_default=True,
    help="Steps by the answer, by continuations, against the target's, by --verifier, or by people.",
)
@click.option("--continuations", type=int, default=4, show_default=True, metavar="N", help="Of each step, for --label mc and advantage.")
@click.option("--held-out", type=float, default=0.2, show_default=True, metavar="SHARE", help="Questions that are only measured.")
@click.option("-P", "--parallel", type=int, default=4, show_default=True, metavar="N", help="Questions at once.")
@click.option("-n", "--max-tokens", type=int, default=768, show_default=True, help="Tokens of a solution.")
@click.option("--rollouts", type=Path, metavar="DIR", help="Where rollouts are kept and gone on with. Default: FILE.rollouts.")
@click.option("--resume", is_flag=True, hidden=True, expose_value=False)  # what is there is always gone on with: for scripts of 0.2
@question_options
@trio_options
def train_reward(data: str, out: Path, role: Literal["draft", "target"], held_out: float, as_json: bool, **flags: Any) -> None:
    """Fit a reward on states that your own models have anyway.

    The draft answers questions with known answers, each step is labelled, and a logistic head is fitted on the states of
    the draft (or the target) at its end. Use it with --reward-kind read-out --head FILE: with --role draft no third model
    is loaded and no token is evaluated for scoring; with --role target the target reads each drafted step ahead.

    --label outcome takes the answer for every step, mc the share of right answers among continuations of the step,
    advantage whether the target's own step there would have been better by that share, verifier what --verifier (or the
    trio's) says of the step. With --label gold the draft writes nothing: --data is a file in ProcessBench's format, with
    problem, steps and label, the index of the first wrong step or -1.

    The rollouts stay in a folder. The same command goes on from them after Ctrl-C or an error, also with more questions or
    another --held-out.
    """
    _check_files(out, held_out)

    from rsd_local.calibration.labels import Labelling
    from rsd_local.calibration.training import require_enough
    from rsd_local.cli.trained import Training, show
    from rsd_local.evaluation.grading import require_sandbox
    from rsd_local.sandbox import Sandbox

    labelling = Labelling(flags["label"], flags["continuations"])
    trio = _trio(flags, labelling)
    params = _params(flags, labelling, trio)
    items, gold = _questions(data, flags, labelling)
    sandbox = Sandbox.find(trio.sandbox) if trio.run_code else None
    require_sandbox(items, sandbox)
    folder = flags["rollouts"] or out.with_name(f"{out.name}.rollouts")
    training = Training(trio, items, gold, params, labelling, role, folder, sandbox)
    require_enough(training.questions, held_out)
    head, quality = training.fit(held_out, flags["seed"])
    head.about["data"], head.about["label"], head.about["samples"] = Path(data).name, labelling.label, flags["samples"]
    head.save(out)
    show(head, quality, as_json)
    click.echo(f"wrote {out}; use it with --reward-kind read-out --head {out}", err=True)


def _check_files(out: Path, held_out: float) -> None:
    """Refuses what would only fail once the work is done."""
    require(0.0 < held_out < 1.0, f"--held-out {held_out} is outside 0 to 1")
    require_writable(out, "--out")


def _params(flags: dict[str, Any], labelling: Labelling, trio: Trio) -> Params:
    """How the draft writes its solutions."""
    samples, temp = flags["samples"], flags["temp"]
    given = labelling.label == "gold" and (samples, temp) != (1, None)
    require(not given, "--label gold reads solutions and samples none", "leave --samples and --temp away")
    one_each = samples == 1 and not labelling.continues
    temperature = (0.0 if one_each else 0.7) if temp is None else temp
    require(temperature > 0 or one_each, "at temperature 0 every sample is the same", "give --temp above 0, or --samples 1")
    limits = Limits(tokens=flags["max_tokens"], stop_after=trio.stop_after)
    return Params(Sampling(temperature, seed=flags["seed"]), limits=limits, search=Search(samples=samples))


def _trio(flags: dict[str, Any], labelling: Labelling) -> Trio:
    """The models, without a reward but for the verifier that labels steps."""
    for name in ("reward", "reward_kind", "head"):
        require(flags[name] is None, f"--{name.replace('_', '-')} is of no use here", "a read-out takes the place of every other reward")
    width = max(flags["samples"] + 1, labelling.sequences)
    if labelling.label != "verifier":
        for name in ("verifier", "tests", "schema"):
            require(flags[name] is None, f"--{name} is for --label verifier", "leave it away, or choose that label")
        flags = flags | {"reward_kind": "confidence"}  # the draft's trace, and no third model
        return make_trio(flags, parallel=flags["parallel"], width=width, compares=True)
    hint = "give --verifier NAME, or a --trio that has one"
    require(flags["verifier"] is not None or flags["trio"] is not None, "--label verifier needs a verifier", hint)
    trio = make_trio(flags, parallel=flags["parallel"], width=width, compares=True)
    found = [stage for stage in trio.stages if stage.kind == "verifier"]
    require(bool(found), f"--label verifier needs a verifier, and trio {flags['trio']} has none", hint)
    checking = {name: getattr(found[0], name) for name in ("verifier", "tests", "schema", "code_file")}
    trio = dataclasses.replace(trio, reward=None, head=None, reward_kind="verifier", rewards=(), **checking)

    from rsd_local.rewards.verifier.opening import open_verifier

    tried = open_verifier(trio.stages[0], trio)  # what keeps it from working is said before anything is written
    if tried is not None:
        tried.close()
    return trio


def _questions(data: str, flags: dict[str, Any], labelling: Labelling) -> tuple[list[Item], list[GoldSolution]]:
    """The questions, and for gold labels the solutions; a verifier needs no answers."""
    from rsd_local.bench.datasets import load_dataset
    from rsd_local.calibration.gold import read_gold
    from rsd_local.evaluation.grading import require_math_verify

    if labelling.label == "gold":
        gold = read_gold(Path(data), flags["limit"], flags["seed"])
        return [solution.item for solution in gold], gold
    items = load_dataset(data, flags["limit"], flags["seed"], labelled=labelling.label != "verifier")
    require_math_verify([item for item in items if item.answer])
    return items, []
