"""Which thresholds a run under step weighting serves.

A run takes the same path for every δ above all rewards that it rejected and up to the least that it accepted. So one run serves all
thresholds of that range. Of a cascade only the last reward's numbers count: the others have bands of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rsd_local.events import Result, StepDone, acceptance


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
        accepted, drafted: places with a step of the draft, and those at which it had written one.
    """

    above: float
    up_to: float
    correct: bool
    steps: int
    target_steps: int
    seconds: float
    paper: float
    full: float
    accepted: int = 0
    drafted: int = 0

    @property
    def answered(self) -> bool:
        """Whether the run did not end in an error."""
        return self.full > 0

    def serves(self, threshold: float) -> bool:
        """Whether a run with this δ is this one."""
        return self.above < threshold <= self.up_to


UNANSWERED = Path(-math.inf, math.inf, False, 0, 0, 0.0, 0.0, 0.0)
"""Of a question that ended in an error: wrong at every threshold, and nobody's cost."""


def path_of(result: Result, correct: bool, last: str = "") -> Path:
    """A run's path.

    Args:
        result: of the run.
        correct: whether its answer is right.
        last: the name of the last reward of a cascade; empty where there is but one.
    """
    compared = compared_steps(result, last)
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
        *acceptance(result.steps),
    )


def compared_steps(result: Result, last: str) -> list[StepDone]:
    """The steps whose reward was compared with the run's threshold; ``last`` as for ``path_of``."""
    return [step for step in result.steps if not last or step.reward_by == last]


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
