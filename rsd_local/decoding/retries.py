"""The target's own step under the same check as the draft's: where it fails, the target tries again."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from rsd_local.config import Params
from rsd_local.decoding.candidates import rank, start_score
from rsd_local.decoding.fallback import Fallbacks
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.writing import shown
from rsd_local.events import Event
from rsd_local.roles import Reward, Writer
from rsd_local.steps import Score, Step, Trace


@dataclass(frozen=True, slots=True)
class Checked:
    """A step of the target.

    Attributes:
        step: the step.
        score: its own, None where it was not checked.
        tries: how many further ones were written.
        held: whether the reward holds the step already.
    """

    step: Step
    score: Score | None = None
    tries: int = 0
    held: bool = False


def checked_step(
    step: Step, fallbacks: Fallbacks, target: Writer, reward: Reward, solution: Solution, trio: OpenTrio, params: Params
) -> Generator[Event, None, Checked]:
    """The target's step, where it passes or there is nothing to check; otherwise the best of it and of up to
    ``params.search.retries`` further ones, of which the first that passes ends the search.

    Args:
        step: that the target has written.
        fallbacks: writes further ones.
        target: holds the step; afterwards the one that is returned.
        reward: at the place before the step.
        solution: up to there.
        trio: of all of these.
        params: of the answer.
    """  # fmt: skip
    tried: list[tuple[Step, Score]] = []
    for attempt in range(params.search.retries + 1):
        if attempt:
            target.forget()
            step = yield from shown(fallbacks.again(attempt, solution), trio, solution, "target")
        score = start_score(reward, replace(step, trace=step.trace or Trace.empty())).result()
        tried.append((step, score))
        unchecked = score.value is None and not score.failed
        threshold = params.weighting.threshold if score.threshold is None else score.threshold
        if unchecked or rank(score) >= threshold:
            return Checked(step, score, attempt, held=not step.blank)
        reward.forget()
        if score.failed:
            break  # a check that does not work says nothing of the next try either
    best, score = max(tried, key=lambda one: rank(one[1]))  # of equals the first
    if best is not step:
        target.correct(best)
    return Checked(best, score, len(tried) - 1)
