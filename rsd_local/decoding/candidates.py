"""The draft's next step: one, or the best of several that are sampled and scored side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest

from rsd_local.config import Params, Sampling
from rsd_local.decoding.steps import Solution, Step, Writer
from rsd_local.events import CancelToken
from rsd_local.rewards import Reward
from rsd_local.runtime import Sampler


@dataclass(slots=True)
class Candidate:
    """A draft step, the writer and the judge that hold it, and its reward: None where there was nothing to judge.

    Set ``kept`` to keep the writer and the judge open.
    """

    step: Step
    reward: float | None
    writer: Writer
    judge: Reward
    kept: bool = False

    @property
    def rank(self) -> float:
        """For comparing: the reward; a step without one, or whose reward is no number, comes last."""
        return -math.inf if self.reward is None or math.isnan(self.reward) else self.reward


def best_step(
    writer: Writer, judge: Reward, solution: Solution, params: Params, cancel: CancelToken | None
) -> tuple[Step, Callable[[], float | None]]:
    """The draft's next step, and how to get its reward, None for a blank one; writer and judge then hold it provisionally."""
    if params.search.candidates == 1:
        step = writer.write_step(solution.room, cancel)
        return step, lambda: None if step.blank else judge.start_score(step.text, step.trace, cancel)()
    with candidates(writer, judge, params.search.candidates, (solution.steps,), params.sampling, solution.room, cancel) as made:
        best = max(made, key=lambda candidate: candidate.rank)
        writer.adopt(best.writer)
        judge.adopt(best.judge)
    return best.step, lambda: best.reward


@contextmanager
def candidates(
    writer: Writer, judge: Reward, count: int, place: tuple[int, ...], sampling: Sampling, limit: int, cancel: CancelToken | None
) -> Iterator[list[Candidate]]:
    """Samples and scores ``count`` next steps at once; writer and judge stay where they are.

    The prefix is evaluated once and its cells are shared. What is neither adopted nor kept is discarded at the context's end.

    Args:
        writer: the draft at the end of the solution so far.
        judge: the reward there.
        count: how many.
        place: sets the random streams of this place in the solution apart from others'.
        sampling: of the question.
        limit: most tokens of a step.
        cancel: ends all of them.
    """
    writer.settle(cancel)
    judge.settle(cancel)
    writers: list[Writer] = []
    judges: list[Reward] = []
    made: list[Candidate] = []
    try:
        for number in range(count):
            writers.append(writer.fork(Sampler(sampling, (0, *place, number))))
            judges.append(judge.fork())
        steps = [finish() for finish in [fork.start_writing(limit, cancel) for fork in writers]]
        scorings = [None if s.blank else j.start_score(s.text, s.trace, cancel) for s, j in zip(steps, judges, strict=True)]
        rewards = [None if scoring is None else scoring() for scoring in scorings]
        made = [Candidate(*parts) for parts in zip(steps, rewards, writers, judges, strict=True)]
        yield made
    finally:
        kept = {id(one.writer) for one in made if one.kept}
        for fork, scorer in zip_longest(writers, judges):
            if id(fork) not in kept:
                fork.discard()
                if scorer is not None:
                    scorer.close()
