"""Majority voting (self-consistency, Wang et al., arXiv 2203.11171): the answer that most samples give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from rsd_local.answers import boxed, same_answer
from rsd_local.config import Params
from rsd_local.decoding.sampled import chosen, sampled
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Event
from rsd_local.prompt import Prompt
from rsd_local.steps import UNCHECKED, Step


def majority(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt by a vote of the draft's samples; of equal counts the answer that came first wins.

    The solution given is the first sample that has the winning answer; a sample without an answer has no vote.

    Raises:
        ContextFull: the prompt does not fit.
    """
    with closing(trio.writer("draft", prompt)) as draft:
        solution = Solution(params.limits, trio.segmenter)
        with solution.growing():
            with sampled(draft, params, trio.segmenter, prompt.turn) as solutions:
                winner = solutions[vote([boxed(text_of(steps)) for steps in solutions])]
            yield from chosen(winner, [UNCHECKED] * len(winner), solution)
        yield solution.finished({"draft": draft.counters()})


def text_of(steps: list[Step]) -> str:
    """The text of a whole solution, without its thought."""
    return b"".join(step.raw for step in steps if step.part == "answer").decode("utf-8", "replace")


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
