"""Answers in solutions."""

from __future__ import annotations

import math

_OPEN = "\\boxed"


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
    """Whether two answers are spelled alike but for spaces, signs of currency and share, and the form of a number."""
    return _plain(first) == _plain(second)


def _plain(answer: str) -> str:
    text = "".join(answer.split()).strip("$").removesuffix(".").replace("\\$", "").replace("\\%", "").replace("%", "")
    text = text.replace("\\left", "").replace("\\right", "").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    number = text.replace("{,}", "").replace(",", "")
    try:
        value = float(number)
    except ValueError:
        return text
    return repr(value) if math.isfinite(value) else text
