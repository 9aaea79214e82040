"""Runs questions through strategies: one strategy after the other, the questions of each in parallel."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import Protocol

from rsd_local.bench.results import Results, Row, StepRow
from rsd_local.bench.strategies import Plan
from rsd_local.config import Params, Strategy
from rsd_local.errors import Cancelled, Closed, ConfigError, RSDError
from rsd_local.evaluation.grading import Grade, Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.questions import question_pool, question_seed
from rsd_local.events import CancelToken, Result


class Solver(Protocol):
    """What the runner needs of a ``Reasoner``."""

    def solve(
        self, prompt: str, params: Params | None = None, *, strategy: Strategy | None = None, cancel: CancelToken | None = None
    ) -> Result:
        """Answers a question."""
        ...


@dataclass(slots=True)
class Tally:
    """How a strategy stands so far.

    Attributes:
        plan: the strategy.
        total: its questions.
        before: those that an earlier run answered.
        done: those that have a line.
        right: those of them that are right.
        steps: of all solutions together.
        target_steps: those of them that the target wrote.
    """

    plan: Plan
    total: int
    before: int = 0
    done: int = 0
    right: int = 0
    steps: int = 0
    target_steps: int = 0

    def add(self, row: Row) -> None:
        """Counts a line."""
        self.done += 1
        self.right += row["correct"]
        self.steps += len(row["steps"])
        self.target_steps += sum(step["author"] == "target" for step in row["steps"])


Watch = Callable[[Tally], None]


def run(
    solver: Solver,
    items: Sequence[Item],
    plans: Sequence[Plan],
    results: Results,
    grader: Grader,
    *,
    seed: int,
    parallel: int,
    cancel: CancelToken,
    watch: Watch,
) -> None:
    """Answers every question that has no line yet, and writes its line.

    Strategies run one after another, so that the seconds of one are not those of another beside it.

    Args:
        solver: an open reasoner for as many questions at once.
        items: the questions.
        plans: the strategies.
        results: where lines go, and which are there already.
        grader: says what is right.
        seed: of the bench; each question's own comes from it and from its place.
        parallel: questions at once.
        cancel: stops the run; what is in flight leaves no line.
        watch: called after each line, and once before a strategy's first.

    Raises:
        Cancelled: ``cancel`` was called.
        ConfigError, Closed: no question could be answered; any other error of a question is its line's ``error``.
    """
    with question_pool(parallel, cancel) as pool:
        for plan in plans:
            tally = Tally(plan, len(items))
            for row in results.rows:
                if row["strategy"] == plan.label:
                    tally.add(row)
            tally.before = tally.done
            watch(tally)
            waiting = [
                pool.submit(_answer, solver, item, plan, question_seed(seed, place), grader, results.hash, cancel)
                for place, item in enumerate(items)
                if not results.has(item.id, plan.label)
            ]
            for future in as_completed(waiting):
                made = future.result()
                if made is not None:
                    results.append(made)
                    tally.add(made)
                    watch(tally)
            if cancel.cancelled:
                raise Cancelled("stopped", hint="--resume goes on from here")


def _answer(solver: Solver, item: Item, plan: Plan, seed: int, grader: Grader, config: str, cancel: CancelToken) -> Row | None:
    """One question's line, None where it was cancelled."""
    if cancel.cancelled:
        return None
    params = dataclasses.replace(plan.params, sampling=dataclasses.replace(plan.params.sampling, seed=seed))
    begun = time.perf_counter()
    result, error = None, None
    try:
        result = solver.solve(item.question, params, strategy=plan.strategy, cancel=cancel)
    except Cancelled:
        return None
    except (Closed, ConfigError):
        raise  # every other question would end like this one
    except RSDError as failure:
        error = failure.code
    seconds = time.perf_counter() - begun
    row = Row(
        id=item.id,
        strategy=plan.label,
        level=item.level,
        subject=item.subject,
        question=_digest(item.question),
        seed=seed,
        answer=None,
        text=None,
        expected=item.answer,
        correct=False,
        finish_reason=None,
        error=error,
        n_steps=0,
        steps=[],
        counters={},
        flops={},
        seconds=round(seconds, 4),
        config=config,
    )
    if result is None:
        return row
    try:
        return _with_result(row, result, grader.grade_solution(item, result.text, result.answer, cancel))
    except Cancelled:
        return None


def _with_result(row: Row, result: Result, grade: Grade) -> Row | None:
    if result.finish_reason == "cancelled":
        return None
    row["answer"], row["correct"], row["finish_reason"] = grade.answer, grade.right, result.finish_reason
    if grade.checks:
        row["checks"] = grade.checks
    row["unchecked"], row["decided_by"] = result.unchecked_steps, result.decided_by
    row["text"] = _digest(result.text)
    row["n_steps"] = len(result.steps)
    row["steps"] = [StepRow(author=step.author, reward=step.reward, tokens=step.tokens) for step in result.steps]
    row["counters"] = {role: dataclasses.asdict(counters) for role, counters in result.counters.items()}
    row["flops"] = {"paper": result.paper_flops, "full": result.full_flops}
    return row


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
