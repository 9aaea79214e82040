"""Process best-of-n: at each step the draft writes n candidates, and the best one stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

from rsd_local.config import Params
from rsd_local.decoding.candidates import best_step
from rsd_local.decoding.steps import Solution, finite
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import CancelToken, Event, StepDone


def step_best_of_n(question: str, trio: OpenTrio, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Answers one question with ``params.search.samples`` candidates at each step; events and errors as ``rsd``."""
    params = replace(params, search=replace(params.search, candidates=params.search.samples))
    with ExitStack() as opened:
        writer = opened.enter_context(closing(trio.writer("draft", question, params.sampling, tracing=trio.rewards.tracing)))
        judge = opened.enter_context(closing(trio.judge(question)))
        solution, bad = Solution(params.limits), 0
        while solution.reason is None:
            with solution.growing():
                step, score = best_step(writer, judge, solution, params, cancel)
                reward = score()
                bad += reward is not None and finite(reward) is None
                text = solution.add(step)
                yield StepDone(solution.steps - 1, "draft", text, finite(reward), len(step.tokens), 0.0)
        yield solution.finished({"draft": writer.counters(), "reward": judge.counters()}, bad)
