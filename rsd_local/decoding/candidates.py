"""The draft's next step: one, or the best of several that are sampled and scored side by side."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest

from rsd_local.config import Params, Sampling
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.writing import show, shown, written
from rsd_local.errors import Cancelled
from rsd_local.events import Event
from rsd_local.roles import DRAFT, Pending, PendingStep, Reward, Stream, Writer
from rsd_local.steps import UNCHECKED, Score, Step


@dataclass(frozen=True, slots=True)
class Known:
    """A score that is there already."""

    score: Score

    def result(self) -> Score:
        """The score."""
        return self.score

    def cancel(self) -> None:
        """There is nothing to end."""


@dataclass(frozen=True, slots=True)
class ScoresWithBlanks:
    """Scores of the steps of an answer that are not blank, which are being read."""

    pending: Pending[list[Score]]
    steps: list[Step]

    def result(self) -> list[Score]:
        """Wait for them; one for each step."""
        scores = iter(self.pending.result())
        return [UNCHECKED if step.blank else next(scores) for step in self.steps]

    def cancel(self) -> None:
        """End it."""
        self.pending.cancel()


@dataclass(slots=True)
class Candidate:
    """A draft step, the writer and the reward that hold it, and its score.

    Set ``kept`` to keep the writer and the reward open.
    """

    step: Step
    score: Score
    writer: Writer
    reward: Reward
    kept: bool = False

    @property
    def rank(self) -> float:
        """See ``rank``."""
        return rank(self.score)


def rank(score: Score) -> float:
    """For comparing: the score's value; a step that was not checked, or whose reward failed, comes last."""
    return -math.inf if score.value is None else score.value


def start_score(reward: Reward, step: Step) -> Pending[Score]:
    """Begin to score a step; of one of white space alone there is nothing to check."""
    return Known(UNCHECKED) if step.blank else reward.start_score(step)


def start_scores(reward: Reward, steps: list[Step]) -> ScoresWithBlanks:
    """Begin to score all further steps of an answer; of those of white space alone there is nothing to check."""
    told = [step for step in steps if not step.blank]
    return ScoresWithBlanks(reward.start_scores(told, frozenset(range(len(told)))), steps)


def draft_step(
    draft: Writer, reward: Reward, solution: Solution, trio: OpenTrio, params: Params, turn: int, attempt: int = 0
) -> Generator[Event, None, tuple[Step, Pending[Score]]]:
    """The draft's next step and its score, which was begun; writer and reward then hold the step provisionally.

    Args:
        draft, reward: at the end of the solution so far.
        solution: so far.
        trio: of both.
        params: of the answer.
        turn: of the conversation.
        attempt: how often the draft tried before at this place.
    """
    count, sampling = params.search.candidates, params.sampling.again if attempt else params.sampling
    if count == 1:
        draft.begin()
        stream = Stream(sampling.seed, DRAFT, turn, solution.steps, attempt)
        pending = draft.start_writing(solution.room, solution.scan(), sampling, stream)
        step = yield from shown(written(pending, live=trio.shows_text), trio, solution, "draft", attempt)
        return step, start_score(reward, step)
    streams = [Stream(sampling.seed, DRAFT, turn, solution.steps, attempt * count + number) for number in range(count)]
    with candidates(draft, reward, streams, sampling, solution) as made:
        best = max(made, key=lambda candidate: candidate.rank)
        draft.adopt(best.writer)
        reward.adopt(best.reward)
    yield from show(best.step, trio, solution, "draft", attempt)
    return best.step, Known(best.score)


@contextmanager
def candidates(draft: Writer, reward: Reward, streams: list[Stream], sampling: Sampling, solution: Solution) -> Iterator[list[Candidate]]:
    """Sample and score next steps side by side, one a stream; writer and reward stay where they are.

    The prefix is evaluated once and its cells are shared. What is neither adopted nor kept is discarded at the context's end.

    Args:
        draft: at the end of the solution so far.
        reward: there too.
        streams: of the draws.
        sampling: of the answer.
        solution: so far.
    """
    draft.settle()
    reward.settle()
    writers: list[Writer] = []
    rewards: list[Reward] = []
    pending: list[PendingStep] = []
    made: list[Candidate] = []
    written = False
    try:
        for _ in streams:
            writers.append(draft.fork())
            rewards.append(reward.fork())
        pending = [
            writer.start_writing(solution.room, solution.scan(), sampling, stream) for writer, stream in zip(writers, streams, strict=True)
        ]
        steps = [one.result() for one in pending]
        scorings = [start_score(scorer, step) for scorer, step in zip(rewards, steps, strict=True)]
        scores = [scoring.result() for scoring in scorings]
        made = [Candidate(*parts) for parts in zip(steps, scores, writers, rewards, strict=True)]
        written = True
        yield made
    except Cancelled:
        for one in pending:
            with suppress(Cancelled):
                one.result()
        written = True
        raise
    finally:
        kept = {id(one.writer) for one in made if one.kept}
        for fork, scorer in zip_longest(writers, rewards):
            if id(fork) not in kept:
                if written:
                    fork.forget()  # a step that was written and not chosen counts as discarded
                fork.close()
                if scorer is not None:
                    scorer.close()
