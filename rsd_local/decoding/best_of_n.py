"""Best-of-n: the draft writes n solutions, and the reward picks one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing

from rsd_local.config import Aggregate, Params
from rsd_local.decoding.candidates import start_score, start_scores
from rsd_local.decoding.sampled import chosen, sampled
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Event
from rsd_local.prompt import Prompt
from rsd_local.roles import Reward
from rsd_local.steps import Score, Step


def best_of_n(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt by the draft's sample with the best reward, of its steps taken together.

    Raises:
        ContextFull: the prompt does not fit.
    """
    with ExitStack() as opened:
        draft = opened.enter_context(closing(trio.writer("draft", prompt, traced=True)))
        reward = opened.enter_context(closing(trio.reward(prompt)))
        solution = Solution(params.limits, trio.segmenter)
        with solution.growing():
            with sampled(draft, params, trio.segmenter, prompt.turn) as solutions:
                scores = scored(reward, solutions)
            for score in (score for row in scores for score in row):
                solution.count(score)
            best = max(range(len(solutions)), key=lambda index: aggregate(scores[index], params.search.aggregate))
            yield from chosen(solutions[best], scores[best], solution)
        yield solution.finished({"draft": draft.counters()}, reward.counters())


def scored(reward: Reward, solutions: list[list[Step]]) -> list[list[Score]]:
    """The score of every step of every solution, all solutions side by side: in one pass, or step by step where the reward reads so."""
    reward.settle()
    scorers: list[Reward] = []
    scores: list[list[Score]] = [[] for _ in solutions]
    try:
        for _ in solutions:
            scorers.append(reward.fork())
        if reward.abilities.whole:
            started = [start_scores(*one) for one in zip(scorers, solutions, strict=True)]
            return [one.result() for one in started]
        for index in range(max(map(len, solutions))):
            live = [number for number, steps in enumerate(solutions) if index < len(steps)]
            scorings = [start_score(scorers[number], solutions[number][index]) for number in live]
            for number, scoring in zip(live, scorings, strict=True):
                scores[number].append(scoring.result())
    finally:
        for scorer in scorers:
            scorer.close()
    return scores


def aggregate(scores: list[Score], how: Aggregate) -> float:
    """One number for a solution: its last step's reward, the least, or the product; −∞ where there is none or one failed."""
    values = [score.value for score in scores if score.value is not None]
    if not values or any(score.failed for score in scores):
        return -math.inf
    return values[-1] if how == "last" else min(values) if how == "min" else math.prod(values)
