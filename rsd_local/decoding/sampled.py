"""Whole solutions sampled side by side from one shared prompt: what majority voting and best-of-n choose from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from rsd_local.config import Params, Sampling
from rsd_local.decoding.steps import DELIMITER, Solution, Step, Writer
from rsd_local.events import CancelToken, FinishReason, StepDone
from rsd_local.runtime import Model, Sampler

_ENDS: dict[str, FinishReason] = {"end": "stop", "context": "context"}


@contextmanager
def sampled(writer: Writer, params: Params, cancel: CancelToken | None) -> Iterator[list[Step]]:
    """``params.search.samples`` whole solutions, each from a random stream of its own; their caches go at the end."""
    streams = [(0, number) for number in range(params.search.samples)]
    with forks(writer, streams, params.sampling, cancel) as made:
        yield [finish() for finish in [fork.start_writing(params.limits.tokens, cancel, until=b"") for fork in made]]


@contextmanager
def forks(writer: Writer, streams: Iterable[tuple[int, ...]], sampling: Sampling, cancel: CancelToken | None) -> Iterator[list[Writer]]:
    """Writers that go on from here, each with a random stream of its own; their caches go at the end."""
    writer.settle(cancel)
    made: list[Writer] = []
    try:
        for stream in streams:
            made.append(writer.fork(Sampler(sampling, stream)))
        yield made
    finally:
        for fork in made:
            fork.close()


def split(whole: Step, model: Model) -> list[Step]:
    """A solution's steps, cut behind the tokens in which delimiters complete; blank ones go with the step before."""
    cuts, raw, judged = [0], b"", len(whole.tokens)
    for place, token in enumerate(whole.tokens, 1):
        raw += b"" if model.is_end(token) else model.piece(token)
        at = raw.rfind(DELIMITER)
        if at >= 0 and raw[:at].strip():
            cuts.append(place)
            raw = b""
    if not raw.strip() and len(cuts) > 1:
        judged = cuts.pop()  # a trace ends where the step did, before the blank rest
    cuts.append(len(whole.tokens))
    return [_part(whole, model, first, last, min(last, judged)) for first, last in pairwise(cuts)]


def _part(whole: Step, model: Model, first: int, last: int, traced: int) -> Step:
    """The step of a solution that goes from a token up to another one, with the trace of those before ``traced``."""
    tokens = whole.tokens[first:last]
    raw = b"".join(model.piece(token) for token in tokens if not model.is_end(token))
    ended = whole.ended if last == len(whole.tokens) else "delimiter"
    return Step(tokens, raw, ended, whole.trace and whole.trace.part(first, traced))


def told(steps: list[Step], rewards: list[float | None], solution: Solution) -> Iterator[StepDone]:
    """The events of a solution that was chosen; its steps are added to ``solution``, whose end is the sample's."""
    for index, (step, reward) in enumerate(zip(steps, rewards, strict=True)):
        text = solution.add(step)
        solution.reason = None if index < len(steps) - 1 else _ENDS.get(step.ended, "length")
        yield StepDone(index, "draft", text, reward, len(step.tokens), 0.0)
