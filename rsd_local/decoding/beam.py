"""Beam search over steps: of all continuations of the solutions so far, those with the best rewards stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass

from rsd_local.config import Params
from rsd_local.decoding.candidates import Candidate, candidates
from rsd_local.decoding.sampled import told
from rsd_local.decoding.steps import Solution, Step, Writer, finite
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import CancelToken, Event
from rsd_local.rewards import Reward


@dataclass(slots=True)
class Beam:
    """A solution so far, with the writer and judge that hold it."""

    writer: Writer
    judge: Reward
    solution: Solution
    steps: list[Step]
    rewards: list[float | None]
    rank: float = 0.0
    made: Candidate | None = None

    def close(self) -> None:
        """Gives the caches back."""
        self.writer.close()
        self.judge.close()


def beam(question: str, trio: OpenTrio, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Answers one question with ``beams`` solutions that stay and ``branches`` steps tried after each of them.

    A solution is ranked by its last step's reward. The search ends when all that stay have ended; the best one is told.

    Raises:
        ContextFull: the question does not fit.
    """
    with ExitStack() as opened:
        writer = opened.enter_context(closing(trio.writer("draft", question, params.sampling, tracing=trio.rewards.tracing)))
        judge = opened.enter_context(closing(trio.judge(question)))
        beams = [Beam(writer, judge, Solution(params.limits), [], [])]
        opened.callback(lambda: close_all(beams))
        run, depth = Solution(params.limits), 0  # of the search as a whole: whether it was cancelled or outgrew a context
        while run.reason is None and any(one.solution.reason is None for one in beams):
            with run.growing():
                beams = _grown(beams, params, depth, cancel)
                depth = run.steps = depth + 1
        best = max(beams, key=lambda one: one.rank)
        solution = Solution(params.limits)
        yield from told(best.steps, [finite(reward) for reward in best.rewards], solution)
        solution.reason = best.solution.reason or run.reason
        bad = sum(reward is not None and finite(reward) is None for reward in best.rewards)
        yield solution.finished({"draft": writer.counters(), "reward": judge.counters()}, bad)


def close_all(beams: list[Beam]) -> None:
    """Gives all caches back."""
    for one in beams:
        one.close()


def _grown(beams: list[Beam], params: Params, depth: int, cancel: CancelToken | None) -> list[Beam]:
    """The best ``params.search.beams`` of all continuations by one step, and of those that have ended."""
    search = params.search
    with ExitStack() as tried:
        grown = [one for one in beams if one.solution.reason is not None]
        for number, one in enumerate(beams):
            if one.solution.reason is not None:
                continue
            limit, place = one.solution.room, (depth, number)
            for made in tried.enter_context(candidates(one.writer, one.judge, search.branches, place, params.sampling, limit, cancel)):
                solution = deepcopy(one.solution)
                solution.add(made.step)
                rank = one.rank if made.reward is None else made.rank  # a blank end adds nothing to judge
                steps, rewards = [*one.steps, made.step], [*one.rewards, made.reward]
                grown.append(Beam(made.writer, made.judge, solution, steps, rewards, rank, made))
        kept = sorted(grown, key=lambda one: -one.rank)[: search.beams]
        for one in kept:
            if one.made is not None:
                one.made.kept = True
        for one in beams:
            if not any(one is other for other in kept):
                one.close()
        return kept
