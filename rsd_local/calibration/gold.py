"""Solutions whose first wrong step people marked, in the format of ProcessBench (arXiv 2412.06559), read by the draft."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rsd_local.bench.datasets import choose
from rsd_local.bench.results import digest
from rsd_local.calibration.labels import StepLabel
from rsd_local.calibration.rollouts import RolloutRow, Rollouts, Watch, or_failed, read_traces
from rsd_local.config import require
from rsd_local.errors import ConfigError
from rsd_local.evaluation.items import Item, jsonl_lines
from rsd_local.evaluation.questions import question_pool
from rsd_local.events import CancelToken
from rsd_local.reasoner import Reasoner
from rsd_local.segments import joint
from rsd_local.steps import Step
from rsd_local.text_files import read_text


@dataclass(frozen=True, slots=True)
class GoldSolution:
    """A solution that is given, and where it goes wrong.

    Attributes:
        item: the question, with the solution's own id and no answer.
        steps: their texts in order, as the file has them.
        first_error: the index of the first wrong step, from 0; -1 for none.
    """

    item: Item
    steps: tuple[str, ...]
    first_error: int

    def __post_init__(self) -> None:
        require(-1 <= self.first_error < len(self.steps), f"{self.item.id}: label {self.first_error} names none of the steps")

    @property
    def labels(self) -> tuple[StepLabel, ...]:
        """Of each step: 1.0 before the first error, 0.0 at it, and None behind it.

        People said nothing of what follows the first error, and whether a step that builds on a wrong one is right has no one answer.
        So these steps are left out, as in the training of Lightman et al. (arXiv 2305.20050), who supervise up to the first
        incorrect step and no further.
        """
        last = len(self.steps) if self.first_error < 0 else self.first_error
        return tuple(1.0 if place < last else 0.0 if place == last else None for place in range(len(self.steps)))

    @property
    def problem(self) -> str:
        """A digest of the question: solutions of one question are held out together."""
        return digest(self.item.question)

    @property
    def whole(self) -> str:
        """A digest of all of it."""
        return digest(json.dumps([self.item.question, self.steps, self.first_error]))


def read_gold(file: Path, limit: int | None = None, seed: int = 0) -> list[GoldSolution]:
    """The solutions of a file: JSON lines, or one JSON array as ProcessBench is published.

    Each has ``problem``, ``steps`` (texts) and ``label`` (the index of the first wrong step, -1 for none), and if there is one ``id``.
    Steps of white space alone are left out.

    Args:
        file: the file.
        limit: how many: a seeded choice; None for all.
        seed: of that choice.

    Raises:
        ConfigError: the file cannot be read, or a line of it cannot be used; the message has its number.
    """
    require(limit is None or limit >= 1, f"limit {limit} is below 1")
    solutions: dict[str, GoldSolution] = {}
    for number, row in _rows(file):
        where = f"{file}, solution {number}"
        made = _solution(row, f"{file.stem}-{number}", where)
        require(made.item.id not in solutions, f"{where}: the id {made.item.id!r} stands there a second time")
        solutions[made.item.id] = made
    require(bool(solutions), f"{file} has no solution")
    return choose(list(solutions.values()), limit, seed)


def _rows(file: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    """The objects of an array, or of lines, with their numbers from 1."""
    text = read_text(file)
    if not text.lstrip().startswith("["):
        return jsonl_lines(file)
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{file} is no JSON: {error}") from None
    require(all(isinstance(row, dict) for row in rows), f"{file} is no array of JSON objects")
    return enumerate(rows, 1)


def _solution(row: dict[str, Any], default_id: str, where: str) -> GoldSolution:
    problem, steps, label = (row.get(name) for name in ("problem", "steps", "label"))
    hint = "problem, steps and label as in ProcessBench; label is the index of the first wrong step, or -1"
    require(isinstance(problem, str) and bool(problem.strip()), f"{where} has no 'problem' that is a text", hint)
    fine = isinstance(steps, list) and all(isinstance(step, str) for step in steps)
    require(fine and bool(steps), f"{where} has no 'steps' that are texts", hint)
    require(isinstance(label, int) and not isinstance(label, bool), f"{where} has no 'label' that is a whole number", hint)
    assert isinstance(steps, list) and isinstance(label, int)
    require(-1 <= label < len(steps), f"{where}: label {label} names none of its {len(steps)} steps", hint)
    require(label < 0 or bool(steps[label].strip()), f"{where}: label {label} names an empty step", hint)
    written = [place for place, step in enumerate(steps) if step.strip()]
    require(bool(written), f"{where} has no step with a text", hint)
    name = default_id if row.get("id") is None else str(row["id"])
    first_error = written.index(label) if label >= 0 else -1
    return GoldSolution(Item(name, str(problem), ""), tuple(steps[place] for place in written), first_error)


def read_solutions(reasoner: Reasoner, solutions: list[GoldSolution], rollouts: Rollouts, cancel: CancelToken, watch: Watch) -> None:
    """Lets the draft read every solution that has no line yet, as if it had written it. Nothing is written by any model.

    Args:
        reasoner: open for ``config.parallel`` questions.
        solutions: to read.
        rollouts: where lines go.
        cancel: stops it; a solution in flight leaves no line.
        watch: called after each solution.
    """
    there = {row["id"] for row in rollouts.rows}
    waiting = [solution for solution in solutions if solution.item.id not in there]
    trio = reasoner.trio.bound(cancel, reasoner.config.params(), shows_text=False)
    states, end = trio.here("draft").probe_states(), joint(reasoner.config.delimiter)

    def one(solution: GoldSolution) -> list[RolloutRow]:
        texts = [step if step.endswith(end) else step + end for step in solution.steps[:-1]] + [solution.steps[-1]]
        traces = []
        with closing(trio.writer("draft", reasoner.read_prompt(solution.item.question))) as writer:
            for text in texts:
                writer.begin()
                traces.append(writer.read_ahead(Step([], text.encode(), "delimiter"), tokens=True, state=states).result().trace)
        confidences, features = read_traces(traces)
        return [RolloutRow(
            id=solution.item.id, problem=solution.problem, sample=0, steps=texts, answer=None, correct=solution.first_error < 0,
            labels=[*solution.labels], confidences=confidences, features=features,
        )]  # fmt: skip

    watch(len(solutions) - len(waiting), len(solutions))
    with question_pool(reasoner.config.parallel, cancel) as pool:
        jobs = [pool.submit(or_failed, partial(one, solution), solution.item.id, [0]) for solution in waiting]
        for number, future in enumerate(as_completed(jobs), len(solutions) - len(waiting) + 1):
            for row in future.result():
                rollouts.append(row)
            watch(number, len(solutions))
