"""The draft's next step: one, or the best of several that are sampled and scored side by side."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice, zip_longest

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where next steps are tried.

    Attributes:
        writer: of the draft, at the end of the solution so far.
        reward: there too.
        streams: of the draws, one for each try.
        solution: so far.
    """

    writer: Writer
    reward: Reward
    streams: list[Stream]
    solution: Solution


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
    draft: Writer,
    reward: Reward,
    solution: Solution,
    trio: OpenTrio,
    params: Params,
    turn: int,
    attempt: int = 0,
    begun: PendingStep | None = None,
) -> Generator[Event, None, tuple[Step, Pending[Score]]]:
    """The draft's next step and its score, which was begun; writer and reward then hold the step provisionally.

    Args:
        draft, reward: at the end of the solution so far.
        solution: so far.
        trio: of both.
        params: of the answer.
        turn: of the conversation.
        attempt: how often the draft tried before at this place.
        begun: the step where it is being written already.
    """
    count, sampling = params.search.candidates, params.sampling.again if attempt else params.sampling
    if count == 1:
        if begun is None:
            draft.begin()
            stream = Stream(sampling.seed, DRAFT, turn, solution.steps, attempt)
            begun = draft.start_writing(solution.room, solution.scan(), sampling, stream)
        step = yield from shown(written(begun, live=trio.shows_text), trio, solution, "draft", attempt)
        return step, start_score(reward, step)
    streams = [Stream(sampling.seed, DRAFT, turn, solution.steps, attempt * count + number) for number in range(count)]
    with candidates([Place(draft, reward, streams, solution)], sampling) as (made,):
        best = max(made, key=lambda candidate: candidate.rank)
        draft.adopt(best.writer)
        reward.adopt(best.reward)
    yield from show(best.step, trio, solution, "draft", attempt)
    return best.step, Known(best.score)


@contextmanager
def candidates(places: list[Place], sampling: Sampling) -> Iterator[list[list[Candidate]]]:
    """Sample and score next steps at several places, all of them side by side; writers and rewards stay where they are.

    Each prefix is evaluated once and its cells are shared. What is neither adopted nor kept is discarded at the context's end.

    Args:
        places: where steps are tried.
        sampling: of the answer.
    """
    for place in places:
        place.writer.begin()
        place.writer.settle()
        place.reward.settle()
    writers: list[Writer] = []
    rewards: list[Reward] = []
    pending: list[PendingStep] = []
    made: list[Candidate] = []
    written = False
    try:
        for place in places:
            for _ in place.streams:
                writers.append(place.writer.fork())
                rewards.append(place.reward.fork())
        tries = [(place.solution, stream) for place in places for stream in place.streams]
        for writer, (solution, stream) in zip(writers, tries, strict=True):
            pending.append(writer.start_writing(solution.room, solution.scan(), sampling, stream))
        steps = [one.result() for one in pending]
        written = True
        scorings = [start_score(scorer, step) for scorer, step in zip(rewards, steps, strict=True)]
        scores = [scoring.result() for scoring in scorings]
        made = [Candidate(*parts) for parts in zip(steps, scores, writers, rewards, strict=True)]
        rest = iter(made)
        yield [list(islice(rest, len(place.streams))) for place in places]
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
