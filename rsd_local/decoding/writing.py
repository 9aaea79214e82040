"""Waiting for a step, with the text as it comes."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Author, Chosen, Event, TextWritten
from rsd_local.roles import PendingStep
from rsd_local.steps import Step, inside_tags

Writing = Generator[bytes | Chosen, None, Step]
"""Gives the bytes of a step as they are written, and how its pieces come about, and returns the step."""


def written(pending: PendingStep, *, live: bool) -> Writing:
    """Wait for a step; its bytes come meanwhile where ``live`` is set."""
    if live:
        yield from pending.texts()
    return pending.result()


def shown(writing: Writing, trio: OpenTrio, solution: Solution, author: Author, attempt: int = 0) -> Generator[Event, None, Step]:
    """The events of a step that is being written, and the step.

    Bytes that may turn out to belong to a stop string are held back: those of the last token, and as many before it as a stop
    string can begin with. The tags of a thought are not shown, nor what may turn out to be one.
    """
    decode, index, held_back = solution.decoder(), solution.steps, solution.held_back
    raw, given, part = b"", 0, solution.part
    while True:
        try:
            piece = next(writing)
        except StopIteration as end:
            step: Step = end.value
            break
        if isinstance(piece, Chosen):
            yield piece
            continue
        certain = len(raw) - held_back if held_back else len(raw) + len(piece)
        raw += piece
        if trio.segmenter.thought:
            part, first, last = solution.part_of(raw)
            given, certain = max(given, first), min(certain, last)
        if certain > given and (text := decode(raw[given:certain])):
            yield TextWritten(index, author, text, attempt, part)
        given = max(given, certain)
    first, last = inside_tags(step.raw) if step.part == "thought" else (0, len(step.raw))
    if trio.shows_text and (text := decode(step.raw[max(given, first) : last], solution.reason_after(step) is not None)):
        yield TextWritten(index, author, text, attempt, step.part)
    return step


def show(step: Step, trio: OpenTrio, solution: Solution, author: Author, attempt: int = 0) -> Iterator[Event]:
    """The event of a step that came at once."""
    if trio.shows_text and (text := solution.decoder()(step.shown, solution.reason_after(step) is not None)):
        yield TextWritten(solution.steps, author, text, attempt, step.part)
