"""How well each kind of reward that needs no third model tells right solutions from wrong ones, on one pair of models.

    python scripts/compare_rewards.py --data FILE --draft DRAFT.gguf --target TARGET.gguf --work DIR [--train 500] [--test 200]

The draft answers the first --train and the last --test questions; read-outs are fitted on the former, and all rewards are
measured on the steps of the latter, each labelled by its solution's answer. Everything is kept in --work: a second run goes
on where the first was stopped. --kinds and --target-train choose parts, for machines that have not the time for all. Questions that
are graded by tests, such as HumanEval's, need --run-code.

    python scripts/compare_rewards.py --data FILE --draft … --target … --work DIR --labels outcome advantage --share 0.3

In place of that table, a read-out is fitted on each kind of labels of the first --train questions, and RSD answers the last --test
ones with it, at the threshold at which the target writes --share of the steps: the final accuracy, and the paired difference from the
first kind. It goes on in the same --work, too.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, get_args

import numpy as np
from final_accuracy import Setting, compare

from rsd_local import Limits, Params, Reasoner, RoleConfig, Sampling, Search, Trio
from rsd_local.bench.datasets import load_dataset
from rsd_local.calibration.fit import Fit, fit
from rsd_local.calibration.labels import Label, Labelling
from rsd_local.calibration.rollouts import RolloutRow, Rollouts, StateRow, TargetStates, read_states, roll_out
from rsd_local.calibration.training import CHOICES, Quality, Steps, as_head, gather, measure
from rsd_local.cli.progress import counting
from rsd_local.config import RewardKind
from rsd_local.evaluation.grading import Grader, require_sandbox
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.journal import Journal
from rsd_local.evaluation.questions import question_pool
from rsd_local.events import CancelToken
from rsd_local.rewards.features import FEATURES
from rsd_local.runtime import Model
from rsd_local.sandbox import Sandbox
from rsd_local.steps import Step

AHEAD: tuple[RewardKind, ...] = ("likelihood", "likelihood-least", "likelihood-running")
KINDS = ("confidence", "draft", "target", "judge", "digit", *AHEAD)
LIMITS = Limits(tokens=768)


class Scores(TypedDict):
    """The rewards of one solution's steps, by a kind that reads them, and what that took."""

    id: str
    rewards: list[float]
    tokens: int
    seconds: float


class ScoreRows(Journal[Scores]):
    """The lines of one kind's scores."""

    file_name, keys = "scores.jsonl", Scores.__annotations__


def score(trio: Trio, kind: RewardKind, rows: list[RolloutRow], questions: dict[str, str], folder: Path) -> list[Scores]:
    """Lets a reward read solutions, as it does while they are written."""
    with ScoreRows.open(folder, {"kind": kind}, resume=True) as kept:
        there = {row["id"] for row in kept.rows}
        waiting = [row for row in rows if row["id"] not in there]
        if not waiting:
            return kept.rows
        cancel = CancelToken()
        with Reasoner.open(replace(trio, reward_kind=kind)) as reasoner, counting(kind) as watch:

            def one(row: RolloutRow) -> Scores:
                began, reward = time.perf_counter(), reasoner.trio.reward(reasoner.read_prompt(questions[row["id"]]))
                scores = [reward.start_score(Step([], step.encode(), "delimiter")).result() for step in row["steps"]]
                rewards = [math.nan if score.value is None else score.value for score in scores]
                tokens = sum(counters.evaluated_tokens for counters in reward.counters().values())
                reward.close()
                return Scores(id=row["id"], rewards=rewards, tokens=tokens, seconds=time.perf_counter() - began)

            with question_pool(trio.parallel, cancel) as pool:
                for number, future in enumerate(as_completed([pool.submit(one, row) for row in waiting]), 1):
                    kept.append(future.result())
                    watch(number, len(waiting))
        return kept.rows


@dataclass(frozen=True, slots=True)
class Comparison:
    """The questions, their rollouts, and which of them are for the test.

    Attributes:
        trio: as the rollouts were written.
        work: where everything is kept.
        items: the first ``train`` for learning, the others for the test.
        train: how many.
        rollouts: of all items.
    """

    trio: Trio
    work: Path
    items: list[Item]
    train: int
    rollouts: Rollouts

    @property
    def rows(self) -> list[RolloutRow]:
        """The solutions that have steps, in the order in which ``gather`` takes them."""
        names = {item.id for item in self.items}
        return sorted((row for row in self.rollouts.rows if row["id"] in names and row["steps"]), key=lambda row: row["id"])

    @property
    def tested(self) -> list[RolloutRow]:
        """Those of the test."""
        names = {item.id for item in self.items[self.train :]}
        return [row for row in self.rows if row["id"] in names]

    def steps(self, width: int, states: list[StateRow] | None = None) -> tuple[Steps, Steps]:
        """The steps to learn from and those of the test; the draft's features, or states that are given, of ``width`` numbers."""
        learnt = {item.id for item in self.items[: self.train]}
        parts = [[row for row in self.rows if (row["id"] in learnt) == learning] for learning in (True, False)]
        first, second = (gather(part, width, states) for part in parts)
        return first, second


def roll_out_all(comparison: Comparison, sandbox: Sandbox | None) -> None:
    """Lets the draft answer what it has not answered yet; code is graded in the sandbox."""
    if len({row["id"] for row in comparison.rollouts.rows} & {item.id for item in comparison.items}) == len(comparison.items):
        return
    trio, params = replace(comparison.trio, target=comparison.trio.draft), Params(Sampling(0.0), limits=LIMITS, search=Search(samples=1))
    with Reasoner.open(trio) as reasoner, Grader(sandbox=sandbox) as grader, counting("rollouts") as watch:
        roll_out(
            reasoner, comparison.items, params, Labelling(), comparison.rollouts, grader, seed=0, cancel=CancelToken(), watch=watch
        )  # fmt: skip


def line(name: str, quality: Quality, tokens: float) -> None:
    """Prints a row of the table."""
    low, high = quality.auc_interval
    print(f"| {name} | {quality.auc:.3f} | {low:.3f} to {high:.3f} | {tokens:.0f} |", flush=True)


def draft_read_out(comparison: Comparison, learnt: Steps, left_out: Steps, file: Path | None) -> None:
    """The read-out of the draft: its quality, and where asked for its file."""
    made, parts, quality = read_out(learnt, left_out, "draft")
    line(f"read-out of the draft ({'+'.join(parts)}, {comparison.train} questions)", quality, 0)
    line(f"the same, cross-validated over the {comparison.train}", measure(made.left_out, learnt), 0)
    draft = comparison.trio.draft
    if file and isinstance(draft, RoleConfig):
        as_head(made, "draft", parts, draft, {"questions": comparison.train}).save(file)


def target_read_out(comparison: Comparison, train: int) -> None:
    """The read-out of the target, which reads the rollouts of the test and of the first questions."""
    items = comparison.items[:train] + comparison.items[comparison.train :]
    with (
        TargetStates.open(comparison.work, comparison.rollouts.config, resume=True) as read,
        Reasoner.open(replace(comparison.trio, draft=comparison.trio.target)) as reasoner,
        counting("states") as watch,
    ):
        read_states(reasoner, items, comparison.rollouts, read, CancelToken(), watch)
        model = reasoner.engines()["target"].model
        names = {item.id for item in items}
        learnt, left_out = comparison.steps(model.n_embd, [row for row in read.rows if row["id"] in names])
        tokens = [len(model.tokenize(step, continues=True)) for row in comparison.tested for step in row["steps"]]
    made, _, quality = read_out(learnt, left_out, "target")
    line(f"read-out of the target (last, {train} questions)", quality, float(np.mean(tokens)))
    line(f"the same, cross-validated over the {train}", measure(made.left_out, learnt), float(np.mean(tokens)))


def read_out(learnt: Steps, left_out: Steps, role: str) -> tuple[Fit, tuple[str, ...], Quality]:
    """A head with the features of the least cross-validated loss, those features, and its quality on the test."""
    tried = {parts: fit(learnt.columns(parts), learnt.labels, learnt.groups) for parts in CHOICES[role]}
    parts = min(tried, key=lambda key: tried[key].loss)
    return tried[parts], parts, measure(tried[parts].probabilities(left_out.columns(parts)), left_out)


def read_by_target(comparison: Comparison, kind: RewardKind, left_out: Steps) -> None:
    """A reward that the target reads out of the text; what is read ahead is read anyway, so nothing is evaluated for it."""
    questions = {item.id: item.question for item in comparison.items}
    scores = {row["id"]: row for row in score(comparison.trio, kind, comparison.tested, questions, comparison.work / kind)}
    rewards = np.array([reward for row in comparison.tested for reward in scores[row["id"]]["rewards"]])
    line(kind, measure(rewards, left_out), 0 if kind in AHEAD else sum(row["tokens"] for row in scores.values()) / len(rewards))


def parser() -> argparse.ArgumentParser:
    """The options."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--draft", type=Path, required=True)
    arguments.add_argument("--target", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--train", type=int, default=500)
    arguments.add_argument("--test", type=int, default=200)
    arguments.add_argument("--target-train", type=int, help="of --train, those that the target's read-out learns from")
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments.add_argument("--parallel", type=int, default=24)
    arguments.add_argument("--threads", type=int, default=0, help="of each model; 0 is the number of physical cores")
    arguments.add_argument("--head", type=Path, help="where the draft's read-out goes")
    arguments.add_argument("--run-code", action="store_true", help="allow to run code that the draft wrote, in a sandbox")
    labels = arguments.add_argument_group("final accuracy by labels")
    labels.add_argument("--labels", nargs="+", choices=get_args(Label), help="kinds of labels; each is compared with the first")
    labels.add_argument("--share", type=float, default=0.3, help="of the steps that the target writes")
    labels.add_argument("--role", choices=("draft", "target"), default="draft", help="whose states are read")
    labels.add_argument("--continuations", type=int, default=4, help="behind each step, for mc and advantage")
    labels.add_argument("--gold", type=Path, help="file in ProcessBench's format, for gold")
    labels.add_argument("--verifier", default="arithmetic", help="for verifier")
    return arguments


def main() -> None:
    """Rolls out, scores, and prints the table."""
    arguments = parser()
    chosen = arguments.parse_args()

    whole = load_dataset(chosen.data, None, 0)
    sandbox = Sandbox.find() if chosen.run_code else None
    require_sandbox(whole, sandbox)
    if chosen.train + chosen.test > len(whole):
        arguments.error(f"{chosen.data} has {len(whole)} questions, fewer than --train and --test together")
    if "gold" in (chosen.labels or ()) and chosen.gold is None:
        arguments.error("--labels gold needs --gold FILE")
    draft, target = (RoleConfig(path, 1152, threads=chosen.threads) for path in (chosen.draft, chosen.target))
    trio = Trio(draft, target, reward_kind="confidence", parallel=chosen.parallel, width=2, reuse=False)
    if chosen.labels:
        trio = replace(trio, run_code=chosen.run_code, width=1)
        parts = whole[: chosen.train], whole[-chosen.test :]
        setting = Setting(
            trio, chosen.verifier, chosen.role, *parts, chosen.gold, chosen.continuations, LIMITS, chosen.share, chosen.work, sandbox
        )
        compare(setting, chosen.labels)
        return
    config = {"draft": chosen.draft.name, "data": Path(chosen.data).name, "tokens": LIMITS.tokens, "features": FEATURES}
    with Rollouts.open(chosen.work, config, resume=True) as rollouts:
        comparison = Comparison(trio, chosen.work, whole[: chosen.train] + whole[-chosen.test :], chosen.train, rollouts)
        roll_out_all(comparison, sandbox)
        solutions, tested = comparison.rows, comparison.tested
        right = sum(row["correct"] for row in tested)
        measured = f"measured on {len(tested)}, {right} of them right ({right / len(tested):.1%})"
        print(f"{len(solutions)} solutions of {draft.path.stem}; {measured}\n")
        print("| reward | area under the curve | 95 % | tokens evaluated for it, a step |\n|---|---|---|---|")
        learnt, left_out = comparison.steps(Model(draft).n_embd)
        if "confidence" in chosen.kinds:
            line("confidence", measure(left_out.confidences, left_out), 0)
        if "draft" in chosen.kinds:
            draft_read_out(comparison, learnt, left_out, chosen.head)
        if "target" in chosen.kinds:
            target_read_out(comparison, chosen.target_train or chosen.train)
        for kind in ("judge", "digit", *AHEAD):
            if kind in chosen.kinds:
                read_by_target(comparison, kind, left_out)


if __name__ == "__main__":
    main()
