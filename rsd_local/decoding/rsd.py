"""Reward-guided speculative decoding (arXiv 2501.19324)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

from rsd_local.config import Params
from rsd_local.decoding.candidates import best_step
from rsd_local.decoding.fallback import Fallbacks
from rsd_local.decoding.steps import Solution, Step, Writer, finite
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.weighting import Acceptance
from rsd_local.events import Author, CancelToken, Drafted, Event, Rejected, StepDone
from rsd_local.rewards import Reward

Standing = tuple[Author, Step]
"""A step that stands, and who wrote it."""


def rsd(question: str, trio: OpenTrio, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Answers one question (algorithm 1 of the paper).

    Yields a ``Drafted`` for each step of the draft, a ``StepDone`` for each that stands, and a final ``Finished``. A step
    that has nothing to judge (the draft ended the text) stands. Leaving early gives every cache back.

    Raises:
        ContextFull: the question does not fit one of the contexts. A solution that outgrows one just ends.
    """
    with ExitStack() as opened:
        writer = opened.enter_context(closing(trio.writer("draft", question, params.sampling, tracing=trio.rewards.tracing)))
        judge = opened.enter_context(closing(trio.judge(question)))
        expert = opened.enter_context(closing(trio.writer("target", question, params.sampling)))
        yield from answer(writer, judge, expert, params, cancel, [])


def answer(
    writer: Writer, judge: Reward, expert: Writer, params: Params, cancel: CancelToken | None, standing: list[Standing]
) -> Iterator[Event]:
    """The events of one answer, by models that stand at its question; the steps that stand are added to ``standing``."""
    fallbacks = Fallbacks(expert, writer, params.search.fallback)
    accept = Acceptance(params.weighting, params.sampling.seed)
    solution = Solution(params.limits)
    while solution.reason is None:
        with solution.growing():
            author: Author = "draft"
            step, score = best_step(writer, judge, solution, params, cancel)
            yield Drafted(solution.steps, step.text)
            reward = score()
            rejected = None
            if reward is not None and not accept(reward):
                rejected = Rejected(step.text, finite(reward), len(step.tokens))
                writer.forget()
                judge.forget()
                author, step = "target", fallbacks.write(step, solution.room, cancel)
            text = solution.add(step)
            standing.append((author, step))
            yield StepDone(solution.steps - 1, author, text, finite(reward), len(step.tokens), 0.0, rejected)
            if solution.reason is None and author == "draft":
                expert.read(step)
            elif solution.reason is None:
                writer.correct(step)
                judge.read(step.text)
    yield solution.finished({"draft": writer.counters(), "target": expert.counters(), "reward": judge.counters()}, accept.non_finite)
