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


def shown(writing: Writing, solution: Solution, author: Author) -> Generator[Event, None, Step]:
    """The events of a step that is being written, and the step."""
    decode, index = solution.decoder(), solution.steps
    while True:
        try:
            text = decode(next(writing))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if text:
            yield TextWritten(index, author, text)


def show(text: bytes, trio: OpenTrio, solution: Solution, author: Author) -> Iterator[Event]:
    """The event of a text that came at once."""
    if trio.shows_text and (whole := solution.decoder()(text)):
        yield TextWritten(solution.steps, author, whole)
