"""One model alone: the target, which RSD is to match, or the draft, which it is to beat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from rsd_local.config import Params
from rsd_local.decoding.steps import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Author, CancelToken, Event, StepDone


def alone(role: Author, question: str, trio: OpenTrio, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Answers one question with one model; events and errors as ``rsd``, without rewards."""
    with closing(trio.writer(role, question, params.sampling)) as writer:
        solution = Solution(params.limits)
        while solution.reason is None:
            with solution.growing():
                step = writer.write_step(solution.room, cancel)
                text = solution.add(step)
                yield StepDone(solution.steps - 1, role, text, None, len(step.tokens), 0.0)
        yield solution.finished({role: writer.counters()})


target_alone = partial(alone, "target")
draft_alone = partial(alone, "draft")
