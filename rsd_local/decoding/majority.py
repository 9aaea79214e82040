"""Majority voting (self-consistency, Wang et al., arXiv 2203.11171): the answer that most samples give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from rsd_local.answers import boxed, same_answer
from rsd_local.config import Params
from rsd_local.decoding.sampled import sampled, split, told
from rsd_local.decoding.steps import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import CancelToken, Event


def majority(question: str, trio: OpenTrio, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Answers one question by a vote of the draft's samples; of equal counts the answer that came first wins.

    The solution told is the first sample that has the winning answer; a sample without an answer has no vote.

    Raises:
        ContextFull: the question does not fit.
    """
    with closing(trio.writer("draft", question, params.sampling)) as writer:
        solution = Solution(params.limits)
        with solution.growing():
            with sampled(writer, params, cancel) as wholes:
                chosen = wholes[vote([boxed(whole.text) for whole in wholes])]
            steps = split(chosen, trio.draft.model)
            yield from told(steps, [None] * len(steps), solution)
        yield solution.finished({"draft": writer.counters()})


def vote(answers: list[str | None]) -> int:
    """The index of the first answer of the largest group of equal ones; 0 where there is no answer at all."""
    leaders: list[int] = []
    votes: Counter[int] = Counter()
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        leader = next((leader for leader in leaders if same_answer(answers[leader] or "", answer)), index)
        if leader == index:
            leaders.append(index)
        votes[leader] += 1
    return max(leaders, key=lambda leader: votes[leader], default=0)
