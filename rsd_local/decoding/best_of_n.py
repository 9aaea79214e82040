"""Best-of-n: the draft writes n solutions, and the reward model picks one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing

from rsd_local.config import Aggregate, Params
from rsd_local.decoding.sampled import sampled, split, told
from rsd_local.decoding.steps import Solution, Step, finite
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import CancelToken, Event
from rsd_local.rewards import Reward


def best_of_n(question: str, trio: OpenTrio, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Answers one question by the draft's sample with the best reward, of its steps taken together.

    Raises:
        ContextFull: the question does not fit.
    """
    with ExitStack() as opened:
        writer = opened.enter_context(closing(trio.writer("draft", question, params.sampling, tracing=trio.rewards.tracing)))
        judge = opened.enter_context(closing(trio.judge(question)))
        solution = Solution(params.limits)
        bad = 0
        with solution.growing():
            with sampled(writer, params, cancel) as wholes:
                parts = [split(whole, trio.draft.model) for whole in wholes]
            rewards = scored(judge, parts, cancel)
            bad = sum(reward is not None and not math.isfinite(reward) for row in rewards for reward in row)
            best = max(range(len(wholes)), key=lambda index: aggregate(rewards[index], params.search.aggregate))
            yield from told(parts[best], [finite(reward) for reward in rewards[best]], solution)
        yield solution.finished({"draft": writer.counters(), "reward": judge.counters()}, bad)


def scored(judge: Reward, solutions: list[list[Step]], cancel: CancelToken | None) -> list[list[float | None]]:
    """The reward of every step of every solution, step by step with all solutions side by side; None for a blank step."""
    judge.settle(cancel)
    judges: list[Reward] = []
    rewards: list[list[float | None]] = [[] for _ in solutions]
    try:
        judges.extend(judge.fork() for _ in solutions)
        for index in range(max(map(len, solutions))):
            live = [number for number, steps in enumerate(solutions) if index < len(steps)]
            steps = [solutions[number][index] for number in live]
            scorings = [
                None if step.blank else judges[number].start_score(step.text, step.trace, cancel)
                for number, step in zip(live, steps, strict=True)
            ]
            for number, scoring in zip(live, scorings, strict=True):
                rewards[number].append(None if scoring is None else scoring())
    finally:
        for fork in judges:
            fork.close()
    return rewards


def aggregate(rewards: list[float | None], how: Aggregate) -> float:
    """One number for a solution: its last step's reward, the least, or the product; −∞ where there is none or a NaN."""
    known = [reward for reward in rewards if reward is not None]
    if not known or any(map(math.isnan, known)):
        return -math.inf
    return known[-1] if how == "last" else min(known) if how == "min" else math.prod(known)
