"""Runs questions through strategies: one strategy after the other, the questions of each in parallel."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Protocol

from rsd_local.bench.results import Results, Row, StepRow, digest
from rsd_local.bench.running import GIVEN_UP, SUSPECT
from rsd_local.bench.strategies import Plan
from rsd_local.config import Params, Strategy
from rsd_local.errors import Cancelled, Closed, ConfigError, RSDError
from rsd_local.evaluation.grading import Grade, Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.questions import question_pool, question_seed
from rsd_local.events import CancelToken, Result, StepDone

log = logging.getLogger("rsd_local.bench")


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
        errors: those of them that ended in an error.
        steps: of all solutions together.
        target_steps: those of them that the target wrote.
    """

    plan: Plan
    total: int
    before: int = 0
    done: int = 0
    right: int = 0
    errors: int = 0
    steps: int = 0
    target_steps: int = 0

    def add(self, row: Row) -> None:
        """Counts a line."""
        self.done += 1
        self.right += row["correct"]
        self.errors += row["error"] is not None
        self.steps += len(row["steps"])
        self.target_steps += sum(step["author"] == "target" for step in row["steps"])


Watch = Callable[[Tally], None]
_Outcome = tuple[Row, RSDError | None] | None
"""A line, and what kept the question from an answer or a grade; None where it was cancelled."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What every question of a run has in common."""

    solver: Solver
    grader: Grader
    results: Results
    cancel: CancelToken
    texts: bool


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
    texts: bool = True,
) -> None:
    """Answers every question that has no line yet, and writes its line.

    Strategies run one after another, so that the seconds of one are not those of another beside it. A question that cannot be
    answered or graded has a line with its error, and the others go on.

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
        texts: whether lines have the texts of questions and solutions, or their digests.

    Raises:
        Cancelled: ``cancel`` was called.
        Closed: the solver was closed.
        ConfigError: a setting that keeps a strategy from every question.
        RSDError: a line cannot be written.
    """
    job = _Job(solver, grader, results, cancel, texts)
    finished = False
    try:
        with question_pool(parallel, cancel) as pool:
            for plan in plans:
                tally = Tally(plan, len(items))
                for row in results.rows:
                    if row["strategy"] == plan.label:
                        tally.add(row)
                tally.before = tally.done
                watch(tally)
                waiting = [(item, question_seed(seed, place)) for place, item in enumerate(items) if not results.has(item.id, plan.label)]
                _write_down(_outcomes(job, plan, waiting, pool), tally, results, watch)
                if cancel.cancelled:
                    raise Cancelled("stopped", hint="--resume goes on from here")
        finished = True
    finally:
        results.running.end(finished=finished)


def _outcomes(job: _Job, plan: Plan, waiting: Sequence[tuple[Item, int]], pool: ThreadPoolExecutor) -> Iterator[_Outcome]:
    """The outcomes of questions with their seeds, as they come; those that the process may have died of come first, alone."""
    others = []
    for item, seed in waiting:
        died = job.results.running.deaths(item.id, plan.label)
        if died >= GIVEN_UP:
            row = _empty_row(job, item, plan, seed)
            row["error"] = "process-died"
            row["message"] = f"the process ended {died} times while this question was being answered"
            yield row, None
        elif died >= SUSPECT:
            yield pool.submit(_answer, job, item, plan, seed).result()
        else:
            others.append((item, seed))
    for future in as_completed([pool.submit(_answer, job, item, plan, seed) for item, seed in others]):
        yield future.result()


def _write_down(made: Iterable[_Outcome], tally: Tally, results: Results, watch: Watch) -> None:
    """Writes lines as they come; those that a setting may be the cause of, once it is known that it is not that of all."""
    doubtful: list[tuple[Row, ConfigError]] = []
    for one in made:
        if one is None:
            continue
        row, failure = one
        if isinstance(failure, ConfigError) and tally.done == tally.errors:
            doubtful.append((row, failure))
            continue
        for line in (*(held for held, _ in doubtful), row) if row["error"] is None else (row,):
            results.append(line)
            tally.add(line)
            watch(tally)
        if row["error"] is None:
            doubtful.clear()
    if doubtful and not tally.done:  # it is that of every question
        raise doubtful[0][1]
    for row, _ in doubtful:
        results.append(row)
        tally.add(row)
        watch(tally)


def _answer(job: _Job, item: Item, plan: Plan, seed: int) -> _Outcome:
    """One question's line and what kept it from an answer or a grade, None where it was cancelled."""
    if job.cancel.cancelled:
        return None
    params = dataclasses.replace(plan.params, sampling=dataclasses.replace(plan.params.sampling, seed=seed))
    row = _empty_row(job, item, plan, seed)
    job.results.running.begin(item.id, plan.label)
    begun = time.perf_counter()
    failure: RSDError | None = None
    try:
        result = job.solver.solve(item.question, params, strategy=plan.strategy, cancel=job.cancel)
        row["seconds"] = round(time.perf_counter() - begun, 4)
        if result.finish_reason == "cancelled":
            return None
        _add_result(row, result, texts=job.texts)
        _add_grade(row, job.grader.grade_solution(item, result.text, result.answer, job.cancel))
    except Cancelled:
        return None
    except Closed:
        raise  # every other question would end like this one
    except Exception as error:  # of whatever kind: the bench must not end at this question, now and at each --resume
        if not isinstance(error, RSDError):
            log.debug("question %r failed", item.id, exc_info=True)
        failure = error if isinstance(error, RSDError) else RSDError(f"{type(error).__name__}: {error}")
        row["seconds"] = row["seconds"] or round(time.perf_counter() - begun, 4)
        row["error"], row["message"] = failure.code, "; ".join(filter(None, (str(failure), failure.hint)))
    return row, failure


def _empty_row(job: _Job, item: Item, plan: Plan, seed: int) -> Row:
    """The line of a question that nothing is known of yet."""
    return Row(
        id=item.id,
        strategy=plan.label,
        level=item.level,
        subject=item.subject,
        question=item.question if job.texts else digest(item.question),
        seed=seed,
        answer=None,
        text=None,
        expected=item.answer,
        correct=False,
        finish_reason=None,
        error=None,
        n_steps=0,
        steps=[],
        counters={},
        flops={},
        seconds=0.0,
        config=job.results.hash,
    )


def _add_result(row: Row, result: Result, *, texts: bool) -> None:
    row["answer"], row["finish_reason"] = result.answer, result.finish_reason
    row["unchecked"], row["decided_by"] = result.unchecked_steps, result.decided_by
    row["text"] = result.text if texts else digest(result.text)
    row["n_steps"] = len(result.steps)
    row["steps"] = [_step(step, texts=texts) for step in result.steps]
    row["counters"] = {role: dataclasses.asdict(counters) for role, counters in result.counters.items()}
    row["flops"] = {"paper": result.paper_flops, "full": result.full_flops}


def _add_grade(row: Row, grade: Grade) -> None:
    row["answer"], row["correct"] = grade.answer, grade.right
    if grade.checks:
        row["checks"] = grade.checks


def _step(step: StepDone, *, texts: bool) -> StepRow:
    made = StepRow(author=step.author, reward=_finite(step.reward), tokens=step.tokens)
    if not texts:
        return made
    made["text"] = step.text
    if step.rejected is not None:
        made["rejected"] = {"text": step.rejected.text, "reward": _finite(step.rejected.reward), "tokens": step.rejected.tokens}
    if (own := _finite(step.own_reward)) is not None:
        made["own_reward"] = own
    if step.reward_by:
        made["reward_by"] = step.reward_by
    if step.retries:
        made["retries"] = step.retries
    if step.part != "answer":
        made["part"] = step.part
    return made


def _finite(value: float | None) -> float | None:
    """The value where it is a number that JSON has."""
    return value if value is not None and math.isfinite(value) else None
