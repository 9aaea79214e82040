"""How well each kind of reward that needs no third model tells right solutions from wrong ones, on one pair of models.

    python scripts/compare_rewards.py --data FILE --draft DRAFT.gguf --target TARGET.gguf --work DIR [--train 500] [--test 200]

The draft answers the first --train and the last --test questions; read-outs are fitted on the former, and all rewards are
measured on the steps of the latter, each labelled by its solution's answer. Everything is kept in --work: a second run goes
on where the first was stopped. --kinds and --target-train choose parts, for machines that have not the time for all.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, get_args

import numpy as np

from rsd_local import Limits, Params, Reasoner, RoleConfig, Sampling, Search, Trio
from rsd_local.bench.datasets import load_dataset
from rsd_local.bench.grading import Grader
from rsd_local.bench.journal import Journal
from rsd_local.bench.runner import question_pool
from rsd_local.calibration.fit import fit
from rsd_local.calibration.rollouts import Labelling, RolloutRow, Rollouts, StateRow, TargetStates, read_states, roll_out
from rsd_local.calibration.training import CHOICES, Steps, as_head, gather, measure
from rsd_local.cli.progress import counting
from rsd_local.config import RewardKind
from rsd_local.events import CancelToken
from rsd_local.runtime import Model

KINDS = ("confidence", "draft", "target", "judge", "digit")
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
                began, reward = time.perf_counter(), reasoner.trio.judge(questions[row["id"]])
                rewards = [reward.start_score(step)() for step in row["steps"]]
                counters = reward.counters()
                reward.close()
                return Scores(id=row["id"], rewards=rewards, tokens=counters.evaluated_tokens, seconds=time.perf_counter() - began)

            with question_pool(trio.parallel, cancel) as pool:
                for number, future in enumerate(as_completed([pool.submit(one, row) for row in waiting]), 1):
                    kept.append(future.result())
                    watch(number, len(waiting))
        return kept.rows


def read_out(steps: Steps, role: str, test: set[int], limit: int) -> tuple[Any, str]:
    """A read-out fitted on the first questions that are not for the test: its quality there, and its features."""
    groups = [group for group in np.unique(steps.groups) if group not in test][:limit]
    learnt, left_out = steps.part(np.isin(steps.groups, groups)), steps.part(np.isin(steps.groups, list(test)))
    tried = {parts: fit(learnt.columns(parts), learnt.labels, learnt.groups, 0) for parts in CHOICES[role]}
    parts = min(tried, key=lambda key: tried[key].loss)
    return (measure(tried[parts].probabilities(left_out.columns(parts)), left_out), tried[parts]), "+".join(parts)


def main() -> None:
    """Rolls out, scores, and prints the table."""
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
    chosen = arguments.parse_args()

    whole = load_dataset(chosen.data, None, 0)
    items = whole[: chosen.train] + whole[-chosen.test :]
    questions = {item.id: item.question for item in items}
    draft, target = (RoleConfig(path, 1152, threads=chosen.threads) for path in (chosen.draft, chosen.target))
    trio = Trio(draft, target, reward_kind="confidence", parallel=chosen.parallel, width=2)
    cancel = CancelToken()
    rollouts = Rollouts.open(
        chosen.work, {"draft": chosen.draft.name, "data": Path(chosen.data).name, "tokens": LIMITS.tokens}, resume=True
    )
    if len({row["id"] for row in rollouts.rows} & set(questions)) < len(items):
        with Reasoner.open(replace(trio, target=trio.draft)) as reasoner, Grader() as grader, counting("rollouts") as watch:
            roll_out(
                reasoner,
                items,
                Params(Sampling(0.0), limits=LIMITS, search=Search(samples=1)),
                Labelling(),
                rollouts,
                grader,
                seed=0,
                cancel=cancel,
                watch=watch,
            )
    rows = [row for row in rollouts.rows if row["id"] in questions]
    place = {item.id: number for number, item in enumerate(items)}
    ordered: list[RolloutRow] = [
        {**row, "id": f"{place[row['id']]:06d}"} for row in rows
    ]  # in the order of the data, which ``gather`` sorts by
    tested = [row for row in rows if place[row["id"]] >= chosen.train and row["steps"]]
    right = sum(row["correct"] for row in tested)
    print(f"{len(rows)} solutions of {chosen.draft.stem}; measured on {len(tested)}, {right} of them right ({right / len(tested):.1%})\n")
    print("| reward | area under the curve | 95 % | tokens evaluated for it, a step |\n|---|---|---|---|")

    def line(name: str, quality: Any, tokens: float) -> None:
        low, high = quality.auc_interval
        print(f"| {name} | {quality.auc:.3f} | {low:.3f} to {high:.3f} | {tokens:.0f} |", flush=True)

    def of_test(steps: Steps, ids: list[str]) -> set[int]:
        return {number for number, name in enumerate(ids) if int(name) >= chosen.train}

    width = Model(RoleConfig(chosen.draft)).n_embd
    steps = gather(ordered, width)
    names = list(dict.fromkeys(row["id"] for row in sorted(ordered, key=lambda row: row["id"]) if row["steps"]))
    test = of_test(steps, names)
    left_out = steps.part(np.isin(steps.groups, list(test)))
    if "confidence" in chosen.kinds:
        line("confidence", measure(left_out.confidences, left_out), 0)
    if "draft" in chosen.kinds:
        (quality, made), parts = read_out(steps, "draft", test, chosen.train)
        line(f"read-out of the draft ({parts}, {chosen.train} questions)", quality, 0)
        if chosen.head:
            as_head(made, "draft", tuple(parts.split("+")), Model(RoleConfig(chosen.draft)), {"questions": chosen.train}).save(chosen.head)
    if "target" in chosen.kinds:
        limit = chosen.target_train or chosen.train
        few = [item for item in items if place[item.id] < limit or place[item.id] >= chosen.train]
        with (
            TargetStates.open(chosen.work, rollouts.config, resume=True) as read,
            Reasoner.open(replace(trio, draft=trio.target)) as reasoner,
            counting("states") as watch,
        ):
            read_states(reasoner, few, rollouts, read, cancel, watch)
            states = [StateRow(id=f"{place[row['id']]:06d}", sample=0, features=row["features"]) for row in read.rows if row["id"] in place]
            model = reasoner.engines()["target"].model
            read_tokens = sum(len(model.tokenize(step.strip() + "\n\n", continues=True)) for row in tested for step in row["steps"])
            target_steps = gather(ordered, model.n_embd, states)
        kept = {row["id"] for row in states if row["features"]}
        (quality, _), _ = read_out(target_steps, "target", of_test(target_steps, [name for name in names if name in kept]), limit)
        line(f"read-out of the target (last, {limit} questions)", quality, read_tokens / len(left_out.labels))
    for kind in [kind for kind in get_args(RewardKind) if kind in chosen.kinds and kind in ("judge", "digit")]:
        scores = {row["id"]: row for row in score(trio, kind, tested, questions, chosen.work / kind)}
        by_name = {f"{place[name]:06d}": row for name, row in scores.items()}
        rewards = np.array([reward for name in names if int(name) >= chosen.train for reward in by_name[name]["rewards"]])
        line(kind, measure(rewards, left_out), sum(row["tokens"] for row in scores.values()) / len(rewards))


if __name__ == "__main__":
    main()
