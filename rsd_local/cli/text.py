"""Text for a terminal: what a model or a file says must not steer it."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import sys
import textwrap
from typing import Any

import click

from rsd_local.cli.streams import is_unicode
from rsd_local.errors import RSDError

# C0 but tab and newline, DEL, C1, the marks that turn the direction of writing, and bytes of a file's name that are no text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN_WORD = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


def printable(text: str) -> str:
    """The text with every control character but tab and newline as U+FFFD; carriage returns go."""
    return _CONTROL.sub("\ufffd", text.replace("\r", ""))


def say(text: str, head: str = "", *, err: bool = False) -> None:
    """Prints a text; in a terminal it goes on below itself, behind its head, and no word is broken.

    Args:
        text: of one line.
        head: what stands before it, as wide as the lines below are moved in.
        err: whether it goes to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream is not None and stream.isatty() else 0
    room = max(20, width - len(head))
    lines = textwrap.wrap(printable(text), room, break_on_hyphens=False, break_long_words=False) if width else [printable(text)]
    click.echo(printable(head) + f"\n{' ' * len(head)}".join(lines), err=err)


def complain(problem: RSDError | str) -> None:
    """Says what went wrong, and the fix where there is one, in one line on standard error."""
    message = f"{problem}; {problem.hint}" if isinstance(problem, RSDError) and problem.hint else str(problem)
    click.echo("rsd: " + printable(" ".join(message.split())), err=True)


def quoted(word: str) -> str:
    """A word as it can be typed: in double quotes, which every shell knows, where it needs any."""
    if _PLAIN_WORD.fullmatch(word):
        return word
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def cut(text: str, longest: int = 60) -> str:
    """The beginning of a text that is too long to be shown."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def call(*words: str) -> str:
    """A call of rsd as it can be typed; a last word that is long is left out."""
    *first, last = map(quoted, words)
    return " ".join(["rsd", *first, last if len(last) <= 60 else '"…"'])


def json_line(content: Any) -> str:
    """An object in one line of JSON, in letters of ASCII where standard output has no others; NaN and infinity are null."""
    text = json.dumps(_finite(content), ensure_ascii=not is_unicode(sys.stdout), allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()  # a file's name may hold bytes that are no text


def _finite(content: Any) -> Any:
    """The same with None in place of numbers that JSON has not."""
    match content:
        case float() if not math.isfinite(content):
            return None
        case dict():
            return {name: _finite(one) for name, one in content.items()}
        case list() | tuple():
            return [_finite(one) for one in content]
    return content
