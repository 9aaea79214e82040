"""Answers in solutions."""

from __future__ import annotations

import re
from fractions import Fraction

Number = tuple[Fraction, bool]
"""A number, and whether it is a percentage."""

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
"""A decimal number without its sign, thousands' commas allowed."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BARE = re.compile(rf"[-+]?(?:{NUMBER})")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_NUMBER = re.compile(rf"[-+]?(?:{NUMBER})")
_TEXT = re.compile(r"\\(?:text|textrm|textbf|textit|textsf|mathrm|mathbf|mathit|mathsf|mbox)\s*\{((?:\\.|[^{}\\])*)\}")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_SIZE = re.compile(r"\\(?:left|right)(?=\s*[^A-Za-z\s])(?:\s*\.)?")
_THOUSANDS = re.compile(r"(?<![0-9])([0-9]{1,3})((?:(?:\\,|[ \u00a0\u2009\u202f])[0-9]{3})+)(?![0-9])")


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` or ``\fbox{…}``; None where there is none, or where the last one is not closed.

    Braces nest, and escaped ones (``\{``) are text. A number may stand without braces (``\boxed 12``). An open last box gives no
    answer, for an earlier box is what the text was about to take back.
    """
    for match in reversed(list(_BOX.finditer(text))):
        if text.startswith("{", match.end()):
            content = _braced(text, match.end())
            return None if content is None else content.strip()
        if bare := _BARE.match(text, match.end()):
            return bare[0]
        # The command alone, as in "put it into \boxed", is no box.
    return None


def _braced(text: str, at: int) -> str | None:
    """What the brace at a place encloses, None where it is never closed."""
    depth = 0
    for match in _BRACE.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return text[at + 1 : match.start()]
    return None


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are the same number, or are spelled alike but for white space and the form of their text."""
    one, other = number(first), number(second)
    if one is not None and other is not None:
        return same_number(one, other)
    return plain(first) == plain(second)


def number(text: str) -> Number | None:
    r"""A plain number and whether it is a percentage; thousands' commas or spaces, ``$`` and a final period are let pass.

    Returns None where the text is anything else, a fraction or an expression included.
    """
    text = unspaced(without_text_commands(text)).strip("$ ")
    percent = text.endswith("%")
    text = text.removesuffix("%").removesuffix("\\").strip().removesuffix(".")
    # A hostile text of a million digits is no number that anyone asked for.
    if len(text) > 100 or not _NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", "")), percent


def unspaced(text: str) -> str:
    r"""The text with ``1\,234``, ``1{,}234`` and ``1 234`` as ``1,234``, a plain minus, no ``\!`` and ``$`` for ``\$``."""
    text = text.strip().replace("{,}", ",").replace("\\!", "").replace("\\$", "$").replace("\u2212", "-")
    return _THOUSANDS.sub(lambda match: match[1] + re.sub(r"\D+", ",", match[2]), text)


def same_number(expected: Number, given: Number) -> bool:
    """Whether two numbers are the same; a percent sign on one side alone may be a sign left out, or 0.1 for 10 %."""
    (one, percent), (other, other_percent) = expected, given
    hundredth = (one / 100, other) if percent else (one, other / 100)
    return bool(one == other or (percent != other_percent and hundredth[0] == hundredth[1]))


def plain(text: str) -> str:
    r"""The text without white space, dollar signs around it, and commands that only set it as text or choose its size.

    A space between two digits stays: ``8 0`` is not ``80``.
    """
    text = _SIZE.sub("", _FRACTION.sub(r"\\frac", without_text_commands(text)))
    return re.sub("(?<![0-9]) | (?![0-9])", "", " ".join(text.strip().strip("$").split()))


def without_text_commands(text: str) -> str:
    r"""``\text{B}`` and its like become ``B``."""
    return _TEXT.sub(r"\1", text)
