"""Answers in solutions."""

from __future__ import annotations

import re
from fractions import Fraction

_OPEN = "\\boxed"
_NUMBER = re.compile(r"[-+]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]*)?|[-+]?\.[0-9]+")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}")


def boxed(text: str) -> str | None:
    """The content of the last complete ``\\boxed{…}``, nested braces included; None where there is none."""
    start = text.rfind(_OPEN)
    while start >= 0:
        content = _braced(text, start + len(_OPEN))
        if content is not None:
            return content.strip()
        start = text.rfind(_OPEN, 0, start)
    return None


def _braced(text: str, at: int) -> str | None:
    while at < len(text) and text[at] == " ":
        at += 1
    if at >= len(text) or text[at] != "{":
        return None
    depth = 0
    for end in range(at, len(text)):
        if text[end] == "{":
            depth += 1
        elif text[end] == "}":
            depth -= 1
            if depth == 0:
                return text[at + 1 : end]
    return None


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are the same number, or are spelled alike but for white space and the form of their text."""
    one, other = number(first), number(second)
    if one is not None and other is not None:
        return same_number(one, other)
    return plain(first) == plain(second)


def number(text: str) -> tuple[Fraction, bool] | None:
    """A plain number and whether it is a percentage; thousands' commas, ``$`` and a final period are let pass.

    Returns None where the text is anything else, a fraction or an expression included.
    """
    text = text.strip().replace("{,}", ",").replace("\\!", "").replace("\\$", "").strip("$ ")
    percent = text.endswith("%")
    text = text.removesuffix("%").removesuffix("\\").strip().removesuffix(".")
    # A hostile text of a million digits is no number that anyone asked for.
    if len(text) > 100 or not _NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", "")), percent


def same_number(expected: tuple[Fraction, bool], given: tuple[Fraction, bool]) -> bool:
    """Whether two numbers are the same; a percent sign on one side alone may be a sign left out, or 0.1 for 10 %."""
    (one, percent), (other, other_percent) = expected, given
    hundredth = (one / 100, other) if percent else (one, other / 100)
    return bool(one == other or (percent != other_percent and hundredth[0] == hundredth[1]))


def plain(text: str) -> str:
    """The text without white space, dollar signs around it, and commands that only set it as text."""
    return re.sub(r"\s", "", without_text_commands(text).strip().strip("$"))


def without_text_commands(text: str) -> str:
    """``\\text{B}`` and its like become ``B``."""
    return _TEXT.sub(r"\1", text)
