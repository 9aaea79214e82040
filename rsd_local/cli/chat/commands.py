"""The lines of a conversation that begin with a slash."""

from __future__ import annotations

import difflib
from pathlib import Path

from rsd_local.errors import ConfigError

HELP = """\
/stats             what each model did for the last answer
/trio [NAME|FILE]  the trio, or another one; the conversation starts anew
/threshold [δ]     the reward from which a draft step is accepted, 0 to 1
/think [MODE]      whether models think before they answer: on, off or auto
/save FILE         write the conversation as Markdown
/clear             forget what was said
/quit              leave, as does Ctrl-D; Ctrl-C stops an answer

A pasted text is one question. To type one of several lines, end a line with \\
or put the text between \""" and \""". With a blank before it, a question may
begin with a slash and a word."""

_ARGUMENTS = {
    "/help": (0, 0),
    "/stats": (0, 0),
    "/trio": (0, 1),
    "/threshold": (0, 1),
    "/think": (0, 1),
    "/save": (1, 1),
    "/clear": (0, 0),
    "/quit": (0, 0),
}
"""The least and the largest number of arguments; the one that there may be is all the rest of the line."""


def parse(line: str) -> tuple[str, str]:
    """The name of a command, and what is behind it: one argument with its blanks and backslashes, without quotes around it.

    Raises:
        ConfigError: there is no such command, or not with such an argument.
    """
    name, _, rest = line.partition(" ")
    name = {"/exit": "/quit"}.get(name, name)
    argument = unquoted(rest.strip())
    if name not in _ARGUMENTS:
        near = difflib.get_close_matches(name, _ARGUMENTS, 1)
        about = "a question may begin so behind a blank"
        raise ConfigError(f"no such command: {name}", hint=f"did you mean {near[0]}?" if near else f"/help names them; {about}")
    least, most = _ARGUMENTS[name]
    if bool(argument) < least:
        raise ConfigError(f"{name} needs a file", hint="such as /save talk.md")
    if bool(argument) > most:
        raise ConfigError(f"{name} takes nothing behind it", hint="a question may begin so behind a blank")
    return name, argument


def unquoted(text: str) -> str:
    """The text without one pair of equal quotes around it."""
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text


def as_path(text: str) -> Path:
    """A file as it was named, ``~`` for the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # there is no such user
        raise ConfigError(f"{text}: {error}") from None
