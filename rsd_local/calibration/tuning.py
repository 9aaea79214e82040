"""What each threshold gives on some questions: few runs serve many thresholds (``rsd_local.calibration.paths``).

Where it cannot be told whose number decided (two rewards of the last one's name), or where the target's own steps are checked too
(``retries``), a run serves its own threshold alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace

from rsd_local.calibration.paths import UNANSWERED, Path, compared_steps, path_of, serving, thresholds
from rsd_local.calibration.points import Point, RewardsSeen, Sweep
from rsd_local.config import Params, Strategy
from rsd_local.errors import Cancelled, Closed, ConfigError, RSDError
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.questions import question_pool, question_seed
from rsd_local.events import CancelToken, Result
from rsd_local.reasoner import Reasoner

Watch = Callable[[str, int, int], None]
"""Told a part's name, how many questions of it are done, and of how many."""


class _Unanswered(Exception):
    """A question that ended in an error."""


def sweep(
    reasoner: Reasoner, items: list[Item], params: Params, grader: Grader, *, seed: int, points: int, labelled: bool, cancel: CancelToken,
    watch: Watch,
) -> Sweep:  # fmt: skip
    """Runs questions through the draft, the target, and RSD at thresholds spread over the rewards that occur.

    Args:
        reasoner: an open trio.
        items: the questions.
        params: of every run. The threshold is set here, but where no reward is compared with it: then it stays the only point.
        grader: says which answers are right.
        seed: of all draws.
        points: thresholds to try beside 0 and 1, at least 2.
        labelled: whether the items' answers count; otherwise the target's own answers do.
        cancel: stops it.
        watch: called after each question.

    Raises:
        Cancelled: ``cancel`` was called.
        RSDError: the target, or RSD, could answer none of the questions; why the first one failed.
    """
    runs = _Runs(reasoner, items, params, grader, seed, labelled, cancel, watch)
    targets = runs.each("target alone", lambda place: [runs.path(place, "target")])
    runs.require_answers(targets, "the target alone")
    drafts = runs.each("draft alone", lambda place: [runs.path(place, "draft")])
    first = runs.each("rewards", lambda place: [runs.path(place, "rsd")])
    runs.require_answers(first, "RSD")
    grid = thresholds(runs.rewards, points) if runs.rewards else [params.weighting.threshold]

    def rest(place: int) -> list[Path]:
        known = list(first[place])
        for threshold in grid:
            if not any(path.serves(threshold) for path in known):
                known.append(runs.path(place, "rsd", threshold))
        return known

    paths = runs.each("thresholds", rest)
    curve = tuple(Point(threshold, "rsd", tuple(serving(known, threshold) for known in paths)) for threshold in grid)
    alone = [Point(None, name, tuple(known[0] for known in made)) for name, made in (("draft", drafts), ("target", targets))]
    unchecked, failed = (sum(counts) for counts in zip(*runs.without, strict=True))
    seen = RewardsSeen(tuple(runs.rewards), unchecked, failed)
    cause = str(next(iter(runs.errors.values()), ""))
    return Sweep(alone[0], alone[1], curve, sum(map(len, paths)), labelled, seen, len(runs.errors), cause)


@dataclass(slots=True)
class _Runs:
    """Runs of the questions of one sweep.

    Attributes:
        rewards: all that the threshold is compared with at δ = 0, where none of them rejects anything.
        without: of each of the same runs, its steps with nothing to check, and those whose reward was no number.
        answers: the target's own, by the question's place.
        errors: the first of each question that had one, by its place.
    """

    reasoner: Reasoner
    items: list[Item]
    params: Params
    grader: Grader
    seed: int
    labelled: bool
    cancel: CancelToken
    watch: Watch
    rewards: list[float] = field(default_factory=list)
    without: list[tuple[int, int]] = field(default_factory=list)
    answers: dict[int, str | None] = field(default_factory=dict)
    errors: dict[int, RSDError] = field(default_factory=dict)

    def each(self, name: str, work: Callable[[int], list[Path]]) -> list[list[Path]]:
        """The paths of every question, side by side."""
        made: list[list[Path]] = [[] for _ in self.items]
        with question_pool(self.reasoner.config.parallel, self.cancel) as pool:
            jobs = {pool.submit(_tried, work, place): place for place in range(len(self.items))}
            for number, future in enumerate(as_completed(jobs), 1):
                made[jobs[future]] = future.result()
                self.watch(name, number, len(self.items))
        return made

    def require_answers(self, paths: list[list[Path]], who: str) -> None:
        """Raises RSDError, with the first cause, where every question ended in an error."""
        if not any(path.answered for known in paths for path in known):
            cause = self.errors[min(self.errors)]
            raise RSDError(f"{who} could answer none of the {len(self.items)} questions: {cause}", hint=cause.hint)

    def path(self, place: int, strategy: Strategy, threshold: float = 0.0) -> Path:
        """One run of one question."""
        sampling = replace(self.params.sampling, seed=question_seed(self.seed, place))
        params = replace(self.params, weighting=replace(self.params.weighting, threshold=threshold), sampling=sampling)
        try:
            result = self.reasoner.solve(self.items[place].question, params, strategy=strategy, cancel=self.cancel)
        except (Cancelled, Closed, ConfigError):
            raise
        except RSDError as error:
            self.errors.setdefault(place, error)
            raise _Unanswered from None
        if result.finish_reason == "cancelled":
            raise Cancelled("cancelled")
        if strategy == "target":
            self.answers[place] = result.answer
        *others, last = self._names
        path = path_of(result, self._right(place, result), last if others else "")
        if strategy == "rsd":
            if threshold == 0.0:
                self.rewards.extend(step.reward for step in compared_steps(result, last if others else "") if step.reward is not None)
                self.without.append((result.unchecked_steps, result.non_finite_rewards))
            if last in others or params.search.retries:
                path = replace(path, above=math.nextafter(threshold, -math.inf), up_to=threshold)
        return path

    @property
    def _names(self) -> list[str]:
        return [stage.name for stage in self.reasoner.config.stages]

    def _right(self, place: int, result: Result) -> bool:
        if self.labelled:
            return self.grader.grade_solution(self.items[place], result.text, result.answer, self.cancel).right
        own = self.answers.get(place)  # none where the target ended in an error
        return own is not None and self.grader.grade(replace(self.items[place], answer=own), result.answer)


def _tried(work: Callable[[int], list[Path]], place: int) -> list[Path]:
    try:
        return work(place)
    except _Unanswered:
        return [UNANSWERED]
