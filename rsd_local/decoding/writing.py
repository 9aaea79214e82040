"""Waiting for a step, with the text as it comes."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Author, Event, TextWritten
from rsd_local.roles import PendingStep
from rsd_local.steps import Step

Writing = Generator[bytes, None, Step]
"""Gives the bytes of a step as they are written, and returns the step."""


def written(pending: PendingStep, *, live: bool) -> Writing:
    """Wait for a step; its bytes come meanwhile where ``live`` is set."""
    if live:
        yield from pending.texts()
    return pending.result()


def shown(writing: Writing, trio: OpenTrio, solution: Solution, author: Author, attempt: int = 0) -> Generator[Event, None, Step]:
    """The events of a step that is being written, and the step.

    Bytes that may turn out to belong to a stop string are held back: those of the last token, and as many before it as a stop
    string can begin with.
    """
    decode, index, held_back = solution.decoder(), solution.steps, solution.held_back
    raw, given = b"", 0
    while True:
        try:
            piece = next(writing)
        except StopIteration as end:
            step: Step = end.value
            break
        certain = len(raw) - held_back if held_back else len(raw) + len(piece)
        raw += piece
        if certain > given and (text := decode(raw[given:certain])):
            yield TextWritten(index, author, text, attempt)
        given = max(given, certain)
    if trio.shows_text and (text := decode(step.raw[given:], solution.reason_after(step) is not None)):
        yield TextWritten(index, author, text, attempt)
    return step


def show(step: Step, trio: OpenTrio, solution: Solution, author: Author, attempt: int = 0) -> Iterator[Event]:
    """The event of a step that came at once."""
    if trio.shows_text and (text := solution.decoder()(step.raw, solution.reason_after(step) is not None)):
        yield TextWritten(solution.steps, author, text, attempt)
