"""How ``rsd train-reward`` comes to a read-out: labelled steps in a folder, which is gone on with, and a head fitted on them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.interrupts import on_interrupt
from rsd_local.cli.text import json_line, printable
from rsd_local.config import Params, Trio, require
from rsd_local.errors import Cancelled, ConfigError
from rsd_local.evaluation.items import Item

if TYPE_CHECKING:
    from rsd_local.calibration.gold import GoldSolution
    from rsd_local.calibration.labels import Labelling
    from rsd_local.calibration.rollouts import RolloutRow, Rollouts
    from rsd_local.calibration.training import Quality, Steps
    from rsd_local.events import Author, CancelToken
    from rsd_local.reasoner import Reasoner
    from rsd_local.rewards.heads import ReadOut
    from rsd_local.sandbox import Sandbox

_OF_NO_MATTER = ("parallel", "width", "threshold", "threshold_from", "tuned", "strategy")
"""Settings of a trio that rollouts do not depend on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """What a read-out is fitted on.

    Attributes:
        trio: open for all sequences that the labels take.
        items: the questions; those of ``gold`` where solutions are given.
        gold: solutions that people marked; none for other labels.
        params: sampling and limits of the draft's solutions.
        labelling: of the steps.
        role: whose states are read.
        folder: where the steps are kept and gone on with.
        sandbox: in which code is graded; None where none may run.
    """

    trio: Trio
    items: list[Item]
    gold: list[GoldSolution]
    params: Params
    labelling: Labelling
    role: Author
    folder: Path
    sandbox: Sandbox | None = None

    @property
    def questions(self) -> int:
        """How many different ones there are."""
        return len({solution.problem for solution in self.gold}) if self.gold else len(self.items)

    def fit(self, held_out: float, seed: int) -> tuple[ReadOut, Quality]:
        """The read-out, and how good it is on the share of questions that is held out.

        Raises:
            ConfigError: too few questions, or all steps are alike.
            Cancelled: by Ctrl-C; what is done stays in the folder.
        """
        from rsd_local.calibration.training import train
        from rsd_local.cli import render
        from rsd_local.reasoner import Reasoner

        with_target = self.role == "target" or self.labelling.label == "advantage"
        opened = self.trio if with_target else dataclasses.replace(self.trio, target=self.trio.draft)  # a target that nobody asks
        with self._rollouts() as kept, Reasoner.open(opened, render.loading()) as reasoner:
            return train(self._steps(reasoner, kept), self.role, reasoner.trio.here(self.role).config, held_out, seed)

    def _rollouts(self) -> Rollouts:
        """The folder of rollouts, new or to be gone on with."""
        from rsd_local.bench.results import describe_trio, versions
        from rsd_local.calibration.rollouts import Rollouts
        from rsd_local.rewards.features import FEATURES

        config = {
            "questions": self._questions(),
            "trio": {name: value for name, value in describe_trio(self.trio).items() if name not in _OF_NO_MATTER},
            "params": {} if self.gold else dataclasses.asdict(self.params),
            "labelling": dataclasses.asdict(self.labelling),
            "features": FEATURES,
            "versions": versions(),
        }
        try:
            kept = Rollouts.open(self.folder, json.loads(json.dumps(config)), resume=True)
        except ConfigError as error:
            raise ConfigError(str(error), hint="--rollouts with another folder starts anew; or give the same settings") from None
        if kept.rows:
            click.echo(printable(f"going on with {len(kept.rows)} rollouts in {self.folder}"), err=True)
        return kept

    def _questions(self) -> dict[str, Any]:
        """A digest of each question; in a folder that an earlier version began, one of all together."""
        from rsd_local.bench.results import describe_questions
        from rsd_local.evaluation.journal import CONFIG, read_config

        if self.gold:
            return {solution.item.id: solution.whole for solution in self.gold}
        if (self.folder / CONFIG).exists() and read_config(self.folder).get("questions", {}).keys() == {"number", "sha256"}:
            return describe_questions(self.items)
        return {item.id: describe_questions([item])["sha256"][:16] for item in self.items}

    def _steps(self, reasoner: Reasoner, kept: Rollouts) -> Steps:
        """Adds what is missing, and lets the target read it where its states are asked for; Ctrl-C keeps what is done."""
        from rsd_local.calibration.rollouts import TargetStates, read_states, try_target
        from rsd_local.calibration.training import gather
        from rsd_local.cli.progress import counting
        from rsd_local.events import CancelToken

        stateless = self.role == "draft" and not reasoner.trio.here("draft").probe_states()
        require(not stateless, "the draft is of a kind that gives no hidden states while it writes", "fit it on the target: --role target")
        cancel, width = CancelToken(), reasoner.trio.here(self.role).model.n_embd
        if self.role == "target":
            try_target(reasoner, self.items[0], cancel)
        try:
            with on_interrupt(cancel.cancel):
                rows = self._rows(reasoner, kept, cancel)
                if self.role == "draft":
                    return gather(rows, width)
                with TargetStates.open(self.folder, kept.config, resume=True) as read, counting("target's states") as watch:
                    read_states(reasoner, self.items, kept, read, cancel, watch)
                    return gather(rows, width, read.rows)
        except Cancelled:
            raise Cancelled("stopped", hint=f"the same command goes on with the rollouts in {self.folder}") from None

    def _rows(self, reasoner: Reasoner, kept: Rollouts, cancel: CancelToken) -> list[RolloutRow]:
        """The lines of these questions, once the draft has written, or read, what is missing."""
        from rsd_local.bench.summary import causes_of
        from rsd_local.calibration.gold import read_solutions
        from rsd_local.calibration.rollouts import roll_out
        from rsd_local.cli.progress import counting
        from rsd_local.evaluation.grading import Grader

        if self.gold:
            with counting("draft's states") as watch:
                read_solutions(reasoner, self.gold, kept, cancel, watch)
        else:
            with Grader(sandbox=self.sandbox) as grader, counting("rollouts") as watch:
                seed = self.params.sampling.seed
                roll_out(reasoner, self.items, self.params, self.labelling, kept, grader, seed=seed, cancel=cancel, watch=watch)
        asked = {item.id for item in self.items}
        rows = [row for row in kept.rows if row["id"] in asked and row["sample"] < self.params.search.samples]
        for cause in causes_of((row["error"], row["message"]) for row in rows if "error" in row):
            click.echo(printable(f"no rollout: {cause}"), err=True)
        return rows


def show(head: ReadOut, quality: Quality, as_json: bool) -> None:
    """Prints what the head is worth on standard output."""
    if as_json:
        click.echo(json_line({"role": head.role, "features": head.parts, **head.about}))
        return
    low, high = quality.auc_interval
    more = f" ({low:.3f} to {high:.3f}); the draft's confidence {quality.confidence_auc:.3f}"
    lines = [
        f"read-out of the {head.role} ({head.model}), features {' + '.join(head.parts)}, penalty {head.about['penalty']:g}",
        f"fitted on {head.about['steps']} steps of {head.about['questions']} questions, {head.about['good']:.0%} of them labelled right",
        f"  area under the curve, cross-validated over these questions, {_area(head.about['cross_validated_auc'])}",
        f"held out: {quality.steps} steps of {quality.questions} questions",
        f"  area under the curve {_area(quality.auc, more)}",
        "  reward against label, in fifths of the steps:",
        *(f"    {mean:.2f} → {good:.2f}  ({count} steps)" for count, mean, good in quality.reliability),
    ]
    click.echo(printable("\n".join(lines)))


def _area(area: float, more: str = "") -> str:
    """An area under the curve and more about it, or why there is none."""
    return "not known, for all these steps have one label" if math.isnan(area) else f"{area:.3f}{more}"
