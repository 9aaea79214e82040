"""Process best-of-n: at each step the draft writes n candidates, and the best one stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

from rsd_local.config import Params
from rsd_local.decoding.candidates import draft_step
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Event
from rsd_local.prompt import Prompt


def step_best_of_n(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt with ``params.search.samples`` candidates at each step; events and errors as ``rsd``."""
    params = replace(params, search=replace(params.search, candidates=params.search.samples))
    with ExitStack() as opened:
        draft = opened.enter_context(closing(trio.writer("draft", prompt, traced=True)))
        reward = opened.enter_context(closing(trio.reward(prompt)))
        solution = Solution(params.limits, trio.segmenter)
        while solution.reason is None:
            with solution.growing(draft):
                step, scoring = yield from draft_step(draft, reward, solution, trio, params, prompt.turn)
                score = scoring.result()
                solution.count(score)
                yield solution.accept(step, "draft", score)
                draft.begin()
        yield solution.finished({"draft": draft.counters()}, reward.counters())
