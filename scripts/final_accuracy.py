"""How many answers are right with read-outs fitted on different labels, each at the threshold that gives the target one share of the steps.

Part of ``compare_rewards.py --labels``. The thresholds are found by halving on the rewards that occur and on the target's share: no
answer has a part in it, so the same questions may choose and report.
"""

from __future__ import annotations

import math
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from rsd_local import Limits, Params, Reasoner, RSDError, Sampling, Search, Trio, Weighting
from rsd_local.calibration.gold import read_gold
from rsd_local.calibration.labels import Label, Labelling
from rsd_local.calibration.paths import UNANSWERED, path_of
from rsd_local.calibration.paths import Path as Run
from rsd_local.cli.progress import counting
from rsd_local.cli.trained import Training
from rsd_local.config import require
from rsd_local.errors import Cancelled, Closed, ConfigError
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.journal import Journal
from rsd_local.evaluation.paired import fewest, paired_interval
from rsd_local.evaluation.questions import question_pool
from rsd_local.evaluation.stats import discordant, wilson
from rsd_local.events import Author, CancelToken
from rsd_local.hashes import file_sha256
from rsd_local.rewards import read_head
from rsd_local.rewards.heads import ReadOut
from rsd_local.sandbox import Sandbox

ROUNDS = 7
"""Thresholds that are tried for one label."""
NEAR = 0.01
"""A target share that is as near as this to the wanted one is taken."""


class RunRow(TypedDict):
    """One run of one question; None for no bound. ``rewards`` are those of a run that accepts everything."""

    id: str
    above: float | None
    up_to: float | None
    correct: bool
    steps: int
    target_steps: int
    rewards: list[float]


class Runs(Journal[RunRow]):
    """The runs with one head."""

    file_name, keys = "runs.jsonl", RunRow.__annotations__


@dataclass(frozen=True, slots=True)
class Setting:
    """What all labels have in common.

    Attributes:
        trio: draft and target; ``verifier`` says how ``verifier`` labels come about.
        role: whose states are read.
        train, test: questions to fit on, and to count right answers of.
        gold: a file in ProcessBench's format, for ``gold``.
        continuations: behind a step, for ``mc`` and ``advantage``.
        share: of the steps that the target is to write.
        work: where everything is kept, and gone on with.
    """

    trio: Trio
    verifier: str
    role: Author
    train: list[Item]
    test: list[Item]
    gold: Path | None
    continuations: int
    limits: Limits
    share: float
    work: Path
    sandbox: Sandbox | None

    def head(self, label: Label) -> Path:
        """The read-out fitted on a label, made where it is not there."""
        file = self.work / f"{label}-{self.role}.safetensors"
        if file.exists():
            return file
        labelling = Labelling(label, self.continuations)
        trio = replace(self.trio, reward_kind="confidence", width=max(2, labelling.sequences))
        if label == "verifier":
            trio = replace(trio, reward_kind="verifier", verifier=self.verifier)
        params = Params(Sampling(0.7 if labelling.continues else 0.0), limits=self.limits, search=Search(samples=1))
        gold = read_gold(self.gold) if label == "gold" and self.gold is not None else []
        items = [solution.item for solution in gold] or self.train
        self.work.mkdir(parents=True, exist_ok=True)
        made, _ = Training(trio, items, gold, params, labelling, self.role, self.work / label, self.sandbox).fit(0.2, 0)
        made.save(file)
        return file

    def measured(self, label: Label) -> tuple[float, list[Run]]:
        """The threshold of a label's read-out whose target share is the nearest to the wanted one, and the run of each question."""
        head = self.head(label)
        print(f"{label}: {how_fitted(head)}", flush=True)
        config = {"head": file_sha256(head), "tokens": self.limits.tokens}
        trio, cancel = replace(self.trio, reward_kind="read-out", head=head, width=1), CancelToken()
        with (
            Runs.open(self.work / f"{label}-{self.role}-runs", config, resume=True) as kept,
            Reasoner.open(trio) as reasoner,
            Grader(sandbox=self.sandbox) as grader,
        ):
            asking = _Asking(reasoner, grader, self.limits, kept, cancel)
            rewards = np.array([reward for row in asking.rows(self.test, 0.0) for reward in row["rewards"]])
            require(len(rewards) > 0, "no step of the draft had a reward", "is the context long enough for these questions?")
            found, low, high, place = [], 0.0, 1.0, self.share
            for _ in range(ROUNDS):
                threshold = float(np.quantile(rewards, place))
                runs = [run_of(row) for row in asking.rows(self.test, threshold)]
                found.append((abs(share_of(runs) - self.share), threshold, runs))
                if found[-1][0] <= NEAR:
                    break
                low, high = (place, high) if share_of(runs) < self.share else (low, place)
                place = (low + high) / 2
        _, threshold, runs = min(found, key=lambda one: one[0])
        return threshold, runs


def how_fitted(file: Path) -> str:
    """What a read-out was fitted on, and how well it tells its own labels apart."""
    head = read_head(file)
    assert isinstance(head, ReadOut)
    about = head.about
    held_out = about["held_out"]
    areas = {"cross-validated": about["cross_validated_auc"], f"on {held_out['questions']} questions held out": held_out["auc"]}
    told = (f"{name} {'unknown, for these steps have one label' if math.isnan(area) else f'{area:.3f}'}" for name, area in areas.items())
    steps = f"fitted on {about['steps']} steps of {about['questions']} questions, {about['good']:.1%} of them labelled right"
    return f"{steps}; area under the curve on its own labels: {', '.join(told)}"


@dataclass(frozen=True, slots=True)
class _Asking:
    """Runs RSD where no run that is kept serves a threshold."""

    reasoner: Reasoner
    grader: Grader
    limits: Limits
    kept: Runs
    cancel: CancelToken

    def rows(self, items: list[Item], threshold: float) -> list[RunRow]:
        """The run of each question at a threshold: the first that serves it, so that a second call finds the same, and at 0 the rewards."""
        serving = {row["id"]: row for row in reversed(self.kept.rows) if run_of(row).serves(threshold)}
        waiting = [item for item in items if item.id not in serving]
        with question_pool(self.reasoner.config.parallel, self.cancel) as pool, counting(f"threshold {threshold:.4f}") as watch:
            for number, future in enumerate(as_completed([pool.submit(self._row, item, threshold) for item in waiting]), 1):
                self.kept.append(future.result())
                serving[future.result()["id"]] = future.result()
                watch(number, len(waiting))
        return [serving[item.id] for item in items]

    def _row(self, item: Item, threshold: float) -> RunRow:
        params = Params(Sampling(0.0), Weighting(threshold=threshold), self.limits)
        try:
            result = self.reasoner.solve(item.question, params, cancel=self.cancel)
        except (Cancelled, Closed, ConfigError):
            raise
        except RSDError:  # wrong at every threshold
            return _row_of(item, UNANSWERED, [])
        right = self.grader.grade_solution(item, result.text, result.answer, self.cancel).right
        rewards = [step.reward for step in result.steps if step.reward is not None] if threshold == 0.0 else []
        run = path_of(result, right)
        above = min(run.above, math.nextafter(threshold, -math.inf))  # rounding by batch shapes: it serves its own threshold in any case
        return _row_of(item, replace(run, above=above, up_to=max(run.up_to, threshold)), rewards)


def _row_of(item: Item, run: Run, rewards: list[float]) -> RunRow:
    above, up_to = (bound if math.isfinite(bound) else None for bound in (run.above, run.up_to))
    return RunRow(
        id=item.id, above=above, up_to=up_to, correct=run.correct, steps=run.steps, target_steps=run.target_steps, rewards=rewards
    )  # fmt: skip


def run_of(row: RunRow) -> Run:
    """A row's run."""
    above, up_to = (bound if row_bound is None else row_bound for row_bound, bound in ((row["above"], -math.inf), (row["up_to"], math.inf)))
    return Run(above, up_to, row["correct"], row["steps"], row["target_steps"], 0.0, 0.0, 0.0)


def share_of(runs: list[Run]) -> float:
    """The share of all steps that the target wrote."""
    return sum(run.target_steps for run in runs) / max(1, sum(run.steps for run in runs))


def questions_to_decide(won: int, lost: int, total: int) -> int | None:
    """How many questions would keep 0 out of the 95 % interval of the difference, were both shares to stay; None where none would."""

    def decided(count: int) -> bool:
        low, high = paired_interval(won * count / total, lost * count / total, count)
        return low > 0 or high < 0

    return None if won == lost else fewest(decided)


def compare(setting: Setting, labels: list[Label]) -> None:
    """Prints the table, and each further label against the first."""
    measured = {label: setting.measured(label) for label in labels}
    print(f"\n{len(setting.test)} questions, states of the {setting.role}, wanted target share {setting.share:.0%}\n")
    print("| labels | threshold | target share of steps | right | 95 % |\n|---|---|---|---|---|")
    for label, (threshold, runs) in measured.items():
        right = sum(run.correct for run in runs)
        low, high = wilson(right, len(runs))
        print(f"| {label} | {threshold:.4f} | {share_of(runs):.1%} | {right / len(runs):.1%} | {low:.1%} to {high:.1%} |", flush=True)
    first = [run.correct for run in measured[labels[0]][1]]
    for label in labels[1:]:
        won, lost = discordant([run.correct for run in measured[label][1]], first)
        low, high = paired_interval(won, lost, len(first))
        said = f"{label} against {labels[0]}: {100 * (won - lost) / len(first):+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        needed = questions_to_decide(won, lost, len(first))
        more = f"about {needed:,} questions would" if needed else "more questions like these would not"
        print(f"{said}; {'decided' if low > 0 or high < 0 else f'not decided, {more} decide'}")
