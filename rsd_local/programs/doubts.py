"""What a prompt shows that need not be right: what a bug report says it got, and one order of several."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rsd_local.programs.blocks import code_blocks
from rsd_local.programs.syntax import statements

_GOT = re.compile(
    r"\b(?:reproduc\w*|actual(?:ly)?|currently|wrong(?:ly)?|incorrect(?:ly)?|bugs?|buggy|broken|unexpected(?:ly)?"
    r"|formerly|previously|observed|instead)\b",
    re.IGNORECASE,
)
_WANTED = re.compile(r"\b(?:should|must|expected|expects?|desired|correct(?:ly)?|fixed|right|ought)\b", re.IGNORECASE)
_FREE = re.compile(
    r"\bin any order\b|\border (?:does not|doesn't|doesn’t) matter\b|\bany order is\b|\bin[- ]place\b|\brandom(?:ly)?\b", re.IGNORECASE
)


def without_reports(prompt: str) -> str:
    """A prompt without the code behind a paragraph such as "Steps to reproduce:" or "It currently gives:".

    Code that defines something stays, and so do assertions.

    Args:
        prompt: the question.
    """
    kept: list[str] = []
    doubted = False
    for part, fenced in _parts(prompt):
        shown = fenced or part.lstrip().startswith(">>>") or _is_code(part)
        if not shown and part.strip():
            doubted = part.rstrip().endswith(":") and bool(_GOT.search(part)) and not _WANTED.search(part)
        if not (shown and doubted and not re.search(r"^[ \t]*(?:assert|def|class|async def|@\w+)\b", part, re.MULTILINE)):
            kept.append(part)
    return "".join(kept)


def leaves_results_open(prompt: str) -> bool:
    """Whether a list may come in another order than the one that is shown, or is changed in place, or is random.

    Args:
        prompt: the question.
    """
    return bool(_FREE.search(prompt))


def _parts(prompt: str) -> Iterator[tuple[str, bool]]:
    """The paragraphs and the fenced blocks of a text, and whether it is a block; together they are the text."""
    place = 0
    for block in code_blocks(prompt):
        yield from ((part, False) for part in _paragraphs(prompt[place : block.start]))
        yield prompt[block.start : block.end], True
        place = block.end
    yield from ((part, False) for part in _paragraphs(prompt[place:]))


def _paragraphs(text: str) -> list[str]:
    return re.findall(r"(?:[^\S\n]*\n)*(?:[^\n]*\S[^\n]*(?:\n|$))+|\s+$", text)


def _is_code(part: str) -> bool:
    """Whether a paragraph is one line of code with a call."""
    return "(" in part and statements(part.strip()) is not None
