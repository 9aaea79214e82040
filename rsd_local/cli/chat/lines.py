"""Questions and commands from standard input: typed, pasted, or line by line from a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

import click

from rsd_local.errors import QuestionRefused, RSDError

_COMMAND = re.compile(r"/[A-Za-z]+(\s.*)?")
_QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Entry:
    """What was typed: a question, a command, or nothing.

    Attributes:
        text: without the blanks around it.
        command: whether it is a single line that begins with a slash and letters, as in /save notes.md. Thus "/etc/hosts has what
            in it?" is a question, and so is anything behind a blank.
    """

    text: str
    command: bool = False


class Lines:
    """Reads entries.

    A line is one entry. Lines that end in a backslash go on with the next line; two backslashes are text. Three double quotes
    begin a text of several lines, which three more end. In a terminal with GNU readline a pasted text is one entry.

    Args:
        source: standard input, None where it is closed.

    Attributes:
        terminal: whether somebody types.
    """

    def __init__(self, source: TextIO | None) -> None:
        self._source = source
        self._begun = False
        self.terminal = source is not None and source.isatty()
        self._edits = self.terminal and sys.stdout is not None and sys.stdout.isatty()
        if self._edits:
            _edit_lines()

    def read(self) -> Entry | None:
        """The next entry, None at the end of the input.

        Raises:
            QuestionRefused: the input ends in the middle of a text between quotes.
            KeyboardInterrupt: Ctrl-C; what was typed so far is gone.
        """
        line = self._line("> ")
        if line is None:
            return None
        if line.startswith(_QUOTES) and ("\n" not in line or line.rstrip().endswith(_QUOTES)):
            return Entry(self._quoted(line.removeprefix(_QUOTES)))
        parts = []
        while _goes_on(line):
            parts.append(line[:-1].rstrip())
            following = self._line("... ")
            if following is None:
                line = ""
                break
            line = following
        text = "\n".join([*parts, line])
        return Entry(text.strip(), command="\n" not in text and _COMMAND.fullmatch(text.rstrip()) is not None)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Keeps what is typed meanwhile out of sight, so that it does not move what is drawn; the next prompt shows it."""
        try:
            import termios
        except ImportError:  # Windows
            yield
            return
        if self._source is None or not self.terminal:
            yield
            return
        before: list[Any] = []
        with suppress(termios.error):  # the terminal has gone
            before = termios.tcgetattr(self._source)
            changed = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
            termios.tcsetattr(self._source, termios.TCSADRAIN, changed)
        try:
            yield
        finally:
            with suppress(termios.error):
                if before:
                    termios.tcsetattr(self._source, termios.TCSADRAIN, before)

    def _quoted(self, text: str) -> str:
        while not text.rstrip().endswith(_QUOTES):
            line = self._line("... ")
            if line is None:
                raise QuestionRefused(f"the text behind {_QUOTES} has no end", hint=f"end it with {_QUOTES}")
            text += "\n" + line
        return text.rstrip().removesuffix(_QUOTES).strip()

    def _line(self, prompt: str) -> str | None:
        """A line without its end, None at the end of the input."""
        if self._source is None:
            return None
        if self._edits:
            try:
                return input(prompt)
            except (EOFError, OSError):  # the second where the terminal has gone
                click.echo(err=True)
                return None
        if self.terminal:  # standard output, where ``input`` would write its prompt, is a file
            click.echo(prompt, err=True, nl=False)
        try:
            line = self._source.readline()
        except (OSError, RSDError) as error:
            self._source = None  # the next try would fail too
            said = error.strerror if isinstance(error, OSError) else None
            raise error if said is None else QuestionRefused(f"standard input cannot be read: {said}") from None
        if not line:
            return None
        if not self._begun:
            line, self._begun = line.removeprefix("\ufeff"), True
        return line.removesuffix("\n")


def _goes_on(line: str) -> bool:
    """Whether a line ends in a backslash of its own; two of them are LaTeX's line break."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1 and "\n" not in line


def _edit_lines() -> None:
    """Gives ``input`` line editing, a history and pasted texts in one piece, where the system has readline."""
    try:
        import readline
    except ImportError:
        return
    if "libedit" not in (readline.__doc__ or ""):
        readline.parse_and_bind("set enable-bracketed-paste on")  # Python switches it off
