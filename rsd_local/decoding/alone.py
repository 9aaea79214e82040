"""One model alone: the target, which RSD is to match, or the draft, which it is to beat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from rsd_local.config import Params
from rsd_local.decoding.own_guesses import NOTHING, OwnGuesses
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.writing import shown, written
from rsd_local.events import Author, Event
from rsd_local.prompt import Prompt
from rsd_local.roles import DRAFT, TARGET, Stream

STREAMS: dict[Author, int] = {"draft": DRAFT, "target": TARGET}


def alone(role: Author, prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt with one model; events and errors as ``rsd``, without rewards."""
    with closing(trio.writer(role, prompt)) as writer:
        solution = Solution(params.limits, trio.segmenter)
        own = OwnGuesses.of(writer, params.search.fallback)
        while solution.reason is None:
            with solution.growing():
                writer.begin()
                stream = Stream(params.sampling.seed, STREAMS[role], prompt.turn, solution.steps)
                scan, limit, live = solution.scan(), solution.room, trio.shows_text
                if own is None:
                    writing = written(writer.start_writing(limit, scan, params.sampling, stream), live=live)
                else:
                    writing = own.write(NOTHING, scan, limit, params.sampling, stream, live=live)
                step = yield from shown(writing, trio, solution, role)
                yield solution.accept(step, role)
        yield solution.finished({role: writer.counters()})


target_alone = partial(alone, "target")
draft_alone = partial(alone, "draft")
