"""Text for a terminal: what a model or a file says must not steer it."""

from __future__ import annotations

import re

import click

from rsd_local.errors import RSDError

# C0 but tab and newline, DEL, C1, and the marks that turn the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with every control character but tab and newline as U+FFFD; carriage returns go."""
    return _CONTROL.sub("\ufffd", text.replace("\r", ""))


def complain(problem: RSDError | str) -> None:
    """Says what went wrong, and the fix where there is one, in one line on standard error."""
    message = f"{problem}; {problem.hint}" if isinstance(problem, RSDError) and problem.hint else str(problem)
    click.echo("rsd: " + printable(" ".join(message.split())), err=True)
