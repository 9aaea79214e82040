"""Delimiters that are searched in the text so far: literal texts, regular expressions, and the ends of sentences."""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from rsd_local.config import require
from rsd_local.errors import ConfigError
from rsd_local.segments.bounds import steps_of_search

WHITE = " \t\n\r\v\f"
"""What counts as white space before a delimiter: ASCII's, as ``bytes.strip`` has it."""
MAX_LENGTH = 200
"""Characters of a pattern or a text that is a delimiter."""
REACH = 128
"""Characters before a token in which the match of a pattern may begin."""

_CHUNK = 32  # characters taken at once
_SPAN = REACH + _CHUNK
_MAX_STEPS = 100_000
_PARSER: Any = re._parser  # type: ignore[attr-defined]

Refusal = Callable[[str, "re.Match[str]"], bool]
"""Whether a match in a text is none after all."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a delimiter looks like.

    Attributes:
        pattern: what is searched.
        reach: characters before a token in which a match may begin.
        refuses: takes back a match.
        text: that every match is; empty where it may be several.
    """

    pattern: re.Pattern[str]
    reach: int = REACH
    refuses: Refusal | None = None
    text: str = ""


def literal(text: str) -> Wanted:
    r"""A text as ``unescaped`` reads it.

    Raises:
        ConfigError: it is empty or too long, or has another escape.
    """
    plain = unescaped(text)
    require(0 < len(plain) <= MAX_LENGTH, f"the text of a delimiter has {len(plain)} characters", f"give 1 to {MAX_LENGTH}")
    return Wanted(re.compile(re.escape(plain)), reach=max(len(plain), 32), text=plain)


def unescaped(text: str) -> str:
    r"""A text in which ``\n``, ``\t``, ``\r`` and ``\\`` stand for what they stand for in a shell's ``$'…'``.

    Raises:
        ConfigError: it has another escape.
    """
    known = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}

    def one(match: re.Match[str]) -> str:
        hint = r"\n, \t, \r and \\ are known; a backslash itself is \\"
        require(match[1] in known, f"delimiter 'text:{text}' has an unknown escape {match[0]}", hint)
        return known[match[1]]

    return re.sub(r"\\(.?)", one, text, flags=re.DOTALL)


def pattern(source: str) -> Wanted:
    r"""A regular expression in Python's syntax; ``^`` and ``$`` are the ends of lines.

    A pattern that some text could make take long (``steps_of_search``) is refused, so no text, however made, holds up the thread
    that searches.

    Raises:
        ConfigError: it is none, too long, could take too long, or is found in an empty text.
    """
    require(0 < len(source) <= MAX_LENGTH, f"the pattern of a delimiter has {len(source)} characters", f"give 1 to {MAX_LENGTH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = re.compile(source, re.MULTILINE)
            tree = _PARSER.parse(source, re.MULTILINE)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ConfigError(f"delimiter 're:{source}' is no regular expression: {error}", hint="Python's syntax, as in 're:\\n#+ '") from None
    hint = "no repeat within a repeat, {0,8} in place of *, and fewer repeats that could share a text, as in .*.*"
    require(steps_of_search(tree, _SPAN) <= _MAX_STEPS, f"delimiter 're:{source}' could take too long to search", hint)
    require(found.search("") is None, f"delimiter 're:{source}' is found everywhere", "a pattern that needs at least one character")
    require(tree.getwidth()[0] <= REACH, f"delimiter 're:{source}' is never found", f"at most {REACH} characters may be needed for a match")
    return Wanted(found)


_OPENERS = "\"'([{*_#>“‘„«-"
_ABBREVIATIONS = set(
    "al approx ca cf cor dept dr eq eqs etc fig figs inc jr lem ltd mr mrs ms nr pp prof resp sec sr st thm viz vol vs".split()
)
_DOTTED = re.compile(r"(?:[A-Za-z]{1,2}\.)+[A-Za-z]{1,2}")  # e.g  i.e  U.S  Ph.D
_MARKER = re.compile(r"[ \t*_#>(\[-]{0,16}(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})")  # 1  a  iv  **1


def _is_no_end(text: str, match: re.Match[str]) -> bool:
    """Whether a mark with white space behind it ends no sentence."""
    mark = match["mark"]
    if mark not in (".", "!"):
        return False
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    words = line.split()
    word = words[-1].lstrip(_OPENERS) if words and not line[-1].isspace() else ""
    if mark == "!":  # a factorial
        return word.isdigit() or (len(word) == 1 and word.isalpha())
    initial = len(word) == 1 and word.isupper()
    return initial or word.lower() in _ABBREVIATIONS or bool(_DOTTED.fullmatch(word)) or bool(_MARKER.fullmatch(line))


SENTENCE = Wanted(
    re.compile(r"\n|[。！？]|(?P<mark>[.!?…]{1,8})[\"')\]}*_”’»]{0,8}\s"),
    reach=32,
    refuses=_is_no_end,
)
"""A newline, a mark with white space behind it, or one of the wide marks of Chinese and Japanese, which have none."""


class Matcher:
    """Searches for a delimiter in the text of a step as it grows: at the end, no further back than its reach."""

    __slots__ = ("_floor", "_from", "_rest", "_text", "_wanted", "_written")

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._rest = b""  # the beginning of a character whose end is to come
        self.begin()

    def begin(self) -> None:
        """Starts a step."""
        self._text = ""  # the end of the step
        self._written = False  # whether something other than white space stands before it
        self._from = 0  # no match may begin before
        self._floor = 0  # nor end here or before

    def copy(self) -> Matcher:
        """One that goes on from here on its own."""
        return copy(self)

    def take(self, piece: bytes, free: bool) -> bool:
        """Takes a piece of text; says whether a delimiter is complete in it, which none is where the piece is not ``free``."""
        data = self._rest + piece
        text, used = codecs.utf_8_decode(data, "replace", False)
        self._rest = data[used:]
        found = False
        for start in range(0, len(text), _CHUNK):
            found = self._search(text[start : start + _CHUNK], free) or found
        return found

    def _search(self, chunk: str, free: bool) -> bool:
        wanted = self._wanted
        if (spare := len(self._text) - 4 * wanted.reach) > 0:
            spare += 2 * wanted.reach  # what remains is seen by lookbehinds
            self._written = self._written or bool(self._text[:spare].strip(WHITE))
            self._text = self._text[spare:]
            self._from, self._floor = max(0, self._from - spare), max(0, self._floor - spare)
        first = max(self._from, len(self._text) - wanted.reach)
        self._text = text = self._text + chunk
        if not free:
            self._floor = len(text)
            return False
        for match in wanted.pattern.finditer(text, first):
            if match.end() <= self._floor:
                continue
            self._from = max(self._from, match.end())
            written = self._written or text[: match.start()].strip(WHITE)
            if written and not (wanted.refuses and wanted.refuses(text, match)):
                return True
        return False
