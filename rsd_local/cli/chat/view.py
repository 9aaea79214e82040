"""What is seen of an answer while it is written: on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from rsd_local.cli import render
from rsd_local.cli.text import printable
from rsd_local.config import Trio
from rsd_local.events import Drafted, Event, Finished, StepDone, TextWritten

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_REDRAWN_EVERY = 0.08  # seconds; a terminal that is drawn for each token takes time from the models


@contextmanager
def watching(trio: Trio, note: str, *, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Shows the events of an answer: accepted steps, and in a terminal the one that is being written.

    Args:
        trio: whose.
        note: what is said before the first of them.
        quiet: whether nothing is shown.
    """
    if quiet:
        yield lambda event: None
        return
    view = _view(trio)
    said = not note

    def take(event: Event) -> None:
        nonlocal said
        if not said:
            view.clear()
            click.secho(note, fg="yellow", err=True)
            said = True
        view.take(event)

    try:
        yield take
    finally:
        view.clear()


def _view(trio: Trio) -> TerminalView | StepView:
    """What suits standard error."""
    if sys.stderr is None or not sys.stderr.isatty():
        return StepView(trio)
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return StepView(trio) if console.is_dumb_terminal else TerminalView(console, trio)


class StepView:
    """Shows steps once they are accepted: where nothing that was written can be taken back."""

    def __init__(self, trio: Trio) -> None:
        self._trio = trio

    def take(self, event: Event) -> None:
        """Shows an event."""
        if isinstance(event, StepDone):
            render.step(event, self._trio, folded=True)

    def clear(self) -> None:
        """There is nothing to take away."""


class TerminalView:
    """Shows the step that is being written below those that were accepted: dim where it is a draft.

    A try that was given up leaves one line, crossed out. What a stopped answer had not finished stays, dim.

    Args:
        console: of the terminal.
        trio: whose answer it is.
    """

    def __init__(self, console: Console, trio: Trio) -> None:
        self._console, self._trio = console, trio
        self._live: Live | None = None
        self._drawn = 0.0
        self._try: tuple[int, str, int] = (0, "", 0)  # index, author and attempt of what is being written
        self._text, self._scored = "", False
        self._draw()

    def take(self, event: Event) -> None:
        """Shows an event."""
        if isinstance(event, TextWritten):
            current = event.index, event.author, event.attempt
            begins = current != self._try or self._scored
            if begins:
                self._give_up()
                self._try = current
            self._text += event.text
            self._draw(now=begins)
        elif isinstance(event, Drafted):
            self._scored = True
            self._draw()
        elif isinstance(event, StepDone):
            if event.author != self._try[1]:
                self._give_up()
            self._text, self._scored = "", False
            self.clear()
            render.step(event, self._trio, folded=True)
            self._draw()
        elif isinstance(event, Finished):
            self._end(event)

    def clear(self) -> None:
        """Takes away what is not accepted."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _give_up(self) -> None:
        """Leaves one line of a try that was not accepted."""
        from rich.text import Text

        text, (index, author, _) = " ".join(printable(self._text).split()), self._try
        self._text, self._scored = "", False
        if not text:
            return
        self.clear()
        line = Text.assemble((f"[{index + 1}] {author}, rejected: ", "dim red"), (text, "dim strike"))
        line.truncate(self._console.width - 1, overflow="ellipsis")
        self._console.print(line, no_wrap=True)

    def _end(self, event: Finished) -> None:
        self.clear()
        if event.reason == "cancelled" and self._text.strip():
            click.secho(printable(self._text.strip("\n")) + "\n", dim=True, err=True)
        self._text = ""

    def _draw(self, *, now: bool = True) -> None:
        """Draws what is being written, as much of its end as the terminal has lines for."""
        if not now and time.monotonic() < self._drawn + _REDRAWN_EVERY:
            return
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        index, author, _ = self._try
        if self._text.strip():
            draft = author == "draft"
            state = ", waiting for its reward" if self._scored else " …"
            head = Text(f"[{index + 1}] {author}{state}", style="dim green" if draft else "yellow")
            lines = self._lines()[-max(1, self._console.height - 3) :]
            shown = Group(head, Text("\n".join(lines), style="dim" if draft else "", no_wrap=True))
        else:
            shown = Group(Text("…", style="dim"))
        if self._live is None:
            self._live = Live(
                console=self._console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
        self._live.update(shown, refresh=True)
        self._drawn = time.monotonic()

    def _lines(self) -> list[str]:
        """What is being written, broken where the terminal will break it once it is accepted."""
        from rich.cells import chop_cells

        text = printable(self._text.strip("\n")).expandtabs()
        return [part for line in text.split("\n") for part in chop_cells(line, self._console.width) or [""]]
