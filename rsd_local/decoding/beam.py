"""Beam search over steps: of all continuations of the solutions so far, those with the best rewards stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass

from rsd_local.config import Params
from rsd_local.decoding.candidates import Candidate, Place, candidates
from rsd_local.decoding.sampled import chosen
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Event
from rsd_local.prompt import Prompt
from rsd_local.roles import DRAFT, Reward, Stream, Writer
from rsd_local.steps import Score, Step


@dataclass(slots=True)
class Beam:
    """A solution so far, with the writer and the reward that hold it."""

    writer: Writer
    reward: Reward
    solution: Solution
    steps: list[Step]
    scores: list[Score]
    rank: float = 0.0
    made: Candidate | None = None

    def close(self) -> None:
        """Give the caches back."""
        self.writer.close()
        self.reward.close()


def beam(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt with ``beams`` solutions that stay and ``branches`` steps tried after each of them.

    A solution is ranked by its last step's reward. The search ends when all that stay have ended; the best one is given.

    Raises:
        ContextFull: the prompt does not fit.
    """
    with ExitStack() as opened:
        draft = opened.enter_context(closing(trio.writer("draft", prompt, traced=True)))
        reward = opened.enter_context(closing(trio.reward(prompt)))
        beams = [Beam(draft, reward, Solution(params.limits, trio.segmenter), [], [])]
        opened.callback(lambda: close_all(beams))
        search, depth = Solution(params.limits, trio.segmenter), 0  # as a whole: whether it was cancelled or outgrew a context
        while search.reason is None and any(one.solution.reason is None for one in beams):
            with search.growing():
                beams = _grown(beams, params, depth, prompt.turn)
                depth = search.steps = depth + 1
        best = max(beams, key=lambda one: one.rank)
        solution = Solution(params.limits, trio.segmenter)
        for score in best.scores:
            solution.count(score)
        yield from chosen(best.steps, best.scores, solution)
        solution.reason = best.solution.reason or search.reason
        yield solution.finished({"draft": draft.counters()}, reward.counters())


def close_all(beams: list[Beam]) -> None:
    """Give all caches back."""
    for one in beams:
        one.close()


def _grown(beams: list[Beam], params: Params, depth: int, turn: int) -> list[Beam]:
    """The best ``params.search.beams`` of all continuations by one step, and of those that have ended.

    The continuations of all beams are written at once, each from a random stream of its own.
    """
    search, seed = params.search, params.sampling.seed
    grown = [one for one in beams if one.solution.reason is not None]
    growing = [(number, one) for number, one in enumerate(beams) if one.solution.reason is None]
    places = []
    for number, one in growing:
        streams = [Stream(seed, DRAFT, turn, depth, number * search.branches + branch) for branch in range(search.branches)]
        places.append(Place(one.writer, one.reward, streams, one.solution))
    with candidates(places, params.sampling) as tried:
        for (_, one), branches in zip(growing, tried, strict=True):
            for made in branches:
                solution = deepcopy(one.solution)
                solution.accept(made.step, "draft")
                rank = one.rank if made.step.blank else made.rank  # a blank end adds nothing to judge
                steps, scores = [*one.steps, made.step], [*one.scores, made.score]
                grown.append(Beam(made.writer, made.reward, solution, steps, scores, rank, made))
        kept = sorted(grown, key=lambda one: -one.rank)[: search.beams]
        for one in kept:
            if one.made is not None:
                one.made.kept = True
        for one in beams:
            if not any(one is other for other in kept):
                one.close()
        return kept
