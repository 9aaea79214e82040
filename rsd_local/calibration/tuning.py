"""The threshold as a choice: what each δ gives on some questions, and the one that fits a stated wish.

A run under step weighting takes the same path for every δ above all rewards that it rejected and up to the least that it
accepted. So one run serves all thresholds of that range, and a sweep of many needs few runs. Of a cascade only the last reward's
numbers count: the others have bands of their own. Where it cannot be told whose number decided (two rewards of the last one's name), or
where the target's own steps are checked too (``retries``), a run serves its own threshold alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace

from rsd_local.config import Params, Strategy, require
from rsd_local.errors import Cancelled, Closed, ConfigError, RSDError
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.questions import question_pool, question_seed
from rsd_local.evaluation.stats import wilson
from rsd_local.events import CancelToken, Result, StepDone
from rsd_local.reasoner import Reasoner


@dataclass(frozen=True, slots=True)
class Path:
    """One run, and the thresholds for which it is the run.

    Attributes:
        above: the largest reward that its threshold rejected, −∞ for none.
        up_to: the least reward that its threshold accepted, +∞ for none.
        correct: whether its answer is right.
        steps, target_steps: of the solution.
        seconds: of the wall, with other questions beside it.
        paper, full: FLOPs.
    """

    above: float
    up_to: float
    correct: bool
    steps: int
    target_steps: int
    seconds: float
    paper: float
    full: float

    def serves(self, threshold: float) -> bool:
        """Whether a run with this δ is this one."""
        return self.above < threshold <= self.up_to


@dataclass(frozen=True, slots=True)
class Point:
    """What one δ, or one model alone, gives.

    Attributes:
        threshold: δ; None for a model alone.
        label: of the model alone.
        questions, right: how many.
        target_share: of all steps.
        seconds: per question.
        paper, full: FLOPs per question.
    """

    threshold: float | None
    label: str
    questions: int
    right: int
    target_share: float
    seconds: float
    paper: float
    full: float

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval (Wilson)."""
        return wilson(self.right, self.questions)


@dataclass(frozen=True, slots=True)
class Sweep:
    """All points: the draft and the target alone, and RSD by ascending δ; and how many runs it took."""

    draft: Point
    target: Point
    points: tuple[Point, ...]
    runs: int
    labelled: bool


class _Unanswered(Exception):
    """A question that ended in an error."""


UNANSWERED = Path(-math.inf, math.inf, False, 0, 0, 0.0, 0.0, 0.0)
"""Of a question that ended in an error: wrong at every threshold, and nobody's cost."""

Watch = Callable[[str, int, int], None]
"""Told a part's name, how many questions of it are done, and of how many."""


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
        ConfigError: no question could be answered.
    """
    runs = _Runs(reasoner, items, params, grader, seed, labelled, cancel, watch)
    targets = runs.each("target alone", lambda place: [runs.path(place, "target")])
    require(any(path.steps for paths in targets for path in paths), "the target could not answer one of the questions", "try rsd solve")
    drafts = runs.each("draft alone", lambda place: [runs.path(place, "draft")])
    first = runs.each("rewards", lambda place: [runs.path(place, "rsd")])
    grid = thresholds(runs.rewards, points) if runs.rewards else [params.weighting.threshold]

    def rest(place: int) -> list[Path]:
        known = list(first[place])
        for threshold in grid:
            if not any(path.serves(threshold) for path in known):
                known.append(runs.path(place, "rsd", threshold))
        return known

    paths = runs.each("thresholds", rest)
    curve = tuple(_point(threshold, "rsd", [serving(known, threshold) for known in paths]) for threshold in grid)
    alone = [_point(None, name, [known[0] for known in made]) for name, made in (("draft", drafts), ("target", targets))]
    return Sweep(alone[0], alone[1], curve, sum(map(len, paths)), labelled)


@dataclass(slots=True)
class _Runs:
    """Runs of the questions of one sweep.

    Attributes:
        rewards: all that the threshold is compared with at δ = 0, where none of them rejects anything.
        answers: the target's own, by the question's place.
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
    answers: dict[int, str | None] = field(default_factory=dict)

    def each(self, name: str, work: Callable[[int], list[Path]]) -> list[list[Path]]:
        """The paths of every question, side by side."""
        made: list[list[Path]] = [[] for _ in self.items]
        with question_pool(self.reasoner.config.parallel, self.cancel) as pool:
            jobs = {pool.submit(_tried, work, place): place for place in range(len(self.items))}
            for number, future in enumerate(as_completed(jobs), 1):
                made[jobs[future]] = future.result()
                self.watch(name, number, len(self.items))
        return made

    def path(self, place: int, strategy: Strategy, threshold: float = 0.0) -> Path:
        """One run of one question."""
        sampling = replace(self.params.sampling, seed=question_seed(self.seed, place))
        params = replace(self.params, weighting=replace(self.params.weighting, threshold=threshold), sampling=sampling)
        try:
            result = self.reasoner.solve(self.items[place].question, params, strategy=strategy, cancel=self.cancel)
        except (Cancelled, Closed, ConfigError):
            raise
        except RSDError:
            raise _Unanswered from None
        if result.finish_reason == "cancelled":
            raise Cancelled("cancelled")
        if strategy == "target":
            self.answers[place] = result.answer
        *others, last = self._names
        path = path_of(result, self._right(place, result), last if others else "")
        if strategy == "rsd":
            if threshold == 0.0:
                self.rewards.extend(step.reward for step in _compared(result, last if others else "") if step.reward is not None)
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


def _compared(result: Result, last: str) -> list[StepDone]:
    """The steps whose reward was compared with the run's threshold."""
    return [step for step in result.steps if not last or step.reward_by == last]


def path_of(result: Result, correct: bool, last: str = "") -> Path:
    """A run's path.

    Args:
        result: of the run.
        correct: whether its answer is right.
        last: the name of the last reward of a cascade; empty where there is but one.
    """
    compared = _compared(result, last)
    rejected = [step.rejected.reward for step in compared if step.rejected is not None and step.rejected.reward is not None]
    accepted = [step.reward for step in compared if step.author == "draft" and step.reward is not None]
    return Path(
        max(rejected, default=-math.inf),
        min(accepted, default=math.inf),
        correct,
        len(result.steps),
        sum(step.author == "target" for step in result.steps),
        sum(step.seconds for step in result.steps),
        result.paper_flops,
        result.full_flops,
    )


def serving(paths: Iterable[Path], threshold: float) -> Path:
    """The run that a threshold takes. Rounding by batch shapes can leave none that fits to the digit: then the nearest."""
    return min(paths, key=lambda path: max(0.0, path.above - threshold, threshold - path.up_to))


def thresholds(rewards: Sequence[float], count: int) -> list[float]:
    """0, 1 and at most ``count`` thresholds between them that are taken from the rewards that occur, ascending.

    They lie closer where few steps are rejected: where a reward is worth something, the choice is made there.
    """
    ordered = sorted(rewards)
    if not ordered:
        return [0.0, 1.0]
    inner = (ordered[round((place / (count - 1)) ** 2 * (len(ordered) - 1))] for place in range(count))
    return sorted({0.0, 1.0, *(float(f"{reward:.6g}") for reward in inner)})


def no_worse_than_target(sweep: Sweep) -> Point:
    """The least δ that answers as many questions right as the target; without one, the most accurate."""
    fitting = [point for point in sweep.points if point.right >= sweep.target.right]
    return fitting[0] if fitting else best(sweep)


def at_most_target_share(sweep: Sweep, share: float) -> Point:
    """The most accurate δ whose target writes at most this share of the steps; of equals the one with the smaller share.

    Raises:
        ConfigError: the share is outside 0 to 1.
    """
    require(0.0 <= share <= 1.0, f"target share {share} is outside 0 to 1")
    fitting = [point for point in sweep.points if point.target_share <= share]  # δ = 0 accepts every finite reward
    return max(fitting or sweep.points[:1], key=lambda point: (point.right, -point.target_share))


def best(sweep: Sweep) -> Point:
    """The most accurate δ; of equals the one with the smaller target share."""
    return max(sweep.points, key=lambda point: (point.right, -point.target_share))


def _point(threshold: float | None, label: str, paths: Sequence[Path]) -> Point:
    count, steps = len(paths), sum(path.steps for path in paths)
    return Point(
        threshold,
        label,
        count,
        sum(path.correct for path in paths),
        sum(path.target_steps for path in paths) / max(steps, 1),
        sum(path.seconds for path in paths) / count,
        sum(path.paper for path in paths) / count,
        sum(path.full for path in paths) / count,
    )
