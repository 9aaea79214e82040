"""Whole solutions sampled side by side from one shared prompt: what majority voting and best-of-n choose from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rsd_local.config import Params, Sampling
from rsd_local.decoding.solution import Solution
from rsd_local.events import FinishReason, StepDone
from rsd_local.roles import DRAFT, Stream, Writer
from rsd_local.segments import Scan, Segmenter
from rsd_local.steps import Score, Step

_ENDS: dict[str, FinishReason] = {"end": "stop", "stop": "stop", "block": "stop", "context": "context"}


@contextmanager
def sampled(draft: Writer, params: Params, segmenter: Segmenter, turn: int) -> Iterator[list[list[Step]]]:
    """The steps of ``params.search.samples`` whole solutions, each from a random stream of its own; their caches go at the end."""
    streams = [Stream(params.sampling.seed, DRAFT, turn, 0, number) for number in range(params.search.samples)]
    with continued(draft, streams, params.limits.tokens, params.sampling, segmenter.start(steps=False)) as wholes:
        yield [split(whole, segmenter, draft.pieces(whole.tokens)) for whole in wholes]


@contextmanager
def continued(writer: Writer, streams: Iterable[Stream], limit: int, sampling: Sampling, scan: Scan) -> Iterator[list[Step]]:
    """What a writer writes from here to the end, once for each stream, all side by side; their caches go at the end.

    Args:
        writer: stands where they begin, and begins a step there.
        streams: of the draws, one for each.
        limit: most tokens of each.
        sampling: how tokens are drawn.
        scan: stands there too, and ends at no step.
    """
    writer.begin()
    writer.settle()
    forks: list[Writer] = []
    try:
        pending = []
        for stream in streams:
            forks.append(writer.fork())
            pending.append(forks[-1].start_writing(limit, scan.copy(), sampling, stream))
        yield [one.result() for one in pending]
    finally:
        for fork in forks:
            fork.close()


def split(whole: Step, segmenter: Segmenter, pieces: list[bytes]) -> list[Step]:
    """A solution's steps, cut where it would have been written in steps; a blank rest goes with the step before.

    Args:
        whole: the solution.
        segmenter: says where steps end.
        pieces: the bytes of the solution's tokens; an end-of-text token has none.
    """
    steps: list[Step] = []
    first = place = 0  # in tokens and in the solution's bytes
    for cut in segmenter.cuts(pieces):
        raw = whole.raw[place : place + sum(map(len, pieces[first : cut.at]))]  # what a stop string cut off is in no step
        ended = whole.ended if cut.at == len(pieces) else "delimiter"
        trace = whole.trace and whole.trace.rows(first, cut.ended)  # it ends where the step did, before a blank rest
        steps.append(Step(whole.tokens[first : cut.at], raw, ended, trace, cut.part))
        first, place = cut.at, place + len(raw)
    return steps


def chosen(steps: list[Step], scores: list[Score], solution: Solution) -> Iterator[StepDone]:
    """The events of a solution that was chosen; its steps are accepted by ``solution``, whose end is the sample's."""
    for index, (step, score) in enumerate(zip(steps, scores, strict=True)):
        last = index == len(steps) - 1
        event = solution.accept(step, "draft", score, last=last)
        solution.reason = _ENDS.get(step.ended, "length") if last else None
        yield event
