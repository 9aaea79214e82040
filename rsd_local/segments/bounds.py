r"""How long a search for a regular expression can take, from the pattern alone.

A backtracking search tries, from each place of the text, every way through the pattern until one leads to its end. The ways are
counted here: a repeat of one character can end at each place, one item behind another multiplies, alternatives add up. It has one
way only where nothing would be gained by ending elsewhere: what must follow cannot be what is repeated (``\s*Step``), nothing
follows at all, or the repeat gives nothing back (``a++``, lookarounds). A repeat of what itself has several ways multiplies them
each time, which is how ``(a+)+`` comes to take for ever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_CATEGORIES = {
    "CATEGORY_SPACE": re.compile(r"\s"),
    "CATEGORY_NOT_SPACE": re.compile(r"\S"),
    "CATEGORY_DIGIT": re.compile(r"\d"),
    "CATEGORY_NOT_DIGIT": re.compile(r"\D"),
    "CATEGORY_WORD": re.compile(r"\w"),
    "CATEGORY_NOT_WORD": re.compile(r"\W"),
}
_APART = [{"CATEGORY_SPACE", "CATEGORY_DIGIT"}, {"CATEGORY_SPACE", "CATEGORY_WORD"}]
_APART += [{f"CATEGORY_{name}", f"CATEGORY_NOT_{name}"} for name in ("SPACE", "DIGIT", "WORD")]
_SINGLE = {"LITERAL", "NOT_LITERAL", "ANY", "IN"}
_LOOKS = {"ASSERT", "ASSERT_NOT", "ATOMIC_GROUP"}
_MANY = 1 << 40  # more than any limit; counts stop there

Items = Sequence[tuple[Any, Any]]
"""A parsed pattern, or a part of one, as ``re`` has it: codes and what belongs to them."""


def steps_of_search(tree: Any, span: int) -> int:
    """The most repeats that a search tries from one place, by the order of magnitude.

    Args:
        tree: the parsed pattern.
        span: characters of the text.
    """
    flags, source = tree.state.flags, tree.state.str
    cased = not flags & re.IGNORECASE and not re.search(r"\(\?[a-zA-Z-]*i", source)
    compares = not flags & re.ASCII and not re.search(r"\(\?[a-zA-Z-]*a", source)
    ways, work = _Count(span, compares, cased).sequence(list(tree), None, True)
    return min(ways + work, _MANY)


class _Count:
    """Counts ways through a pattern, and the repeats that are tried on them.

    Args:
        span: the most often that anything can be repeated.
        compares: whether categories are Unicode's, so that sets of characters can be compared.
        cased: whether letters of either case are different.
    """

    def __init__(self, span: int, compares: bool, cased: bool) -> None:
        self._span, self._compares, self._cased = span, compares, cased

    def sequence(self, items: Items, after: Items | None, last: bool) -> tuple[int, int]:
        """The ways and the repeats of items one behind another.

        Args:
            items: the sequence.
            after: what one of must follow it, single characters; None where that is not known.
            last: whether it ends the pattern.
        """
        ways, work = 1, 0
        for place, (code, value) in enumerate(items):
            rest = items[place + 1 :]
            own, tried = self._item(str(code), value, _first(rest, after), last and not rest)
            work = min(work + ways * tried, _MANY)
            ways = min(ways * own, _MANY)
        return ways, work

    def _item(self, code: str, value: Any, after: Items | None, last: bool) -> tuple[int, int]:
        if code in _SINGLE or code in ("AT", "GROUPREF"):
            return 1, 0
        if code.endswith("REPEAT"):
            return self._repeat(code, value, after, last)
        if code == "SUBPATTERN":
            return self.sequence(list(value[-1]), after, last)
        if code in _LOOKS:
            ways, work = self.sequence(list(value if code == "ATOMIC_GROUP" else value[-1]), None, True)
            return 1, ways + work
        if code in ("BRANCH", "GROUPREF_EXISTS"):
            branches = value[1] if code == "BRANCH" else [branch for branch in value[1:] if branch is not None]
            counts = [self.sequence(list(branch), after, last) for branch in branches]
            return 1 + sum(ways for ways, _ in counts) - (code == "BRANCH"), sum(work for _, work in counts)
        return _MANY, _MANY

    def _repeat(self, code: str, value: Any, after: Items | None, last: bool) -> tuple[int, int]:
        items, least = list(value[2]), int(value[0])
        most = min(int(value[1]), max(least, self._span))
        each, tried = self.sequence(items, None, False)
        if code == "POSSESSIVE_REPEAT":
            return 1, most * (each + tried)
        if each == 1:
            single = len(items) == 1 and str(items[0][0]) in _SINGLE
            settled = self._compares and single and after is not None and all(_apart(items[0], one, self._cased) for one in after)
            return 1 if last or settled else most - least + 1, most * (1 + tried)
        ways = 0
        for times in range(least, most + 1):
            ways = min(ways + each ** min(times, 40), _MANY)
        return ways, min(ways * (1 + tried), _MANY)


def _first(items: Items, after: Items | None) -> Items | None:
    """The single characters that one of must come first; None where nothing must, or it is not known.

    Args:
        items: a sequence.
        after: the same of what follows it.
    """
    if not items:
        return after
    code, value = str(items[0][0]), items[0][1]
    if code in _SINGLE:
        return [items[0]]
    if code.endswith("REPEAT"):
        heads = [_first(list(value[2]), None), [] if value[0] >= 1 else _first(items[1:], after)]
    elif code == "SUBPATTERN":
        heads = [_first(list(value[3]), _first(items[1:], after))]
    elif code == "BRANCH":
        follows = _first(items[1:], after)
        heads = [_first(list(branch), follows) for branch in value[1]]
    else:
        return None
    known = [head for head in heads if head is not None]
    return [one for head in known for one in head] if len(known) == len(heads) else None


def _apart(one: tuple[Any, Any], other: tuple[Any, Any], cased: bool) -> bool:
    """Whether no character can be both."""
    return _excludes(one, other, cased) or _excludes(other, one, cased)


def _excludes(one: tuple[Any, Any], other: tuple[Any, Any], cased: bool) -> bool:
    """Whether what the second lists, character by character or by category, is none of the first."""
    parts = other[1] if str(other[0]) == "IN" else [other]
    for code, value in parts:
        if str(code) == "LITERAL":
            fine = not _has(one, chr(value), cased)
        elif str(code) == "RANGE" and value[1] - value[0] < 256:
            fine = not any(_has(one, chr(point), cased) for point in range(value[0], value[1] + 1))
        elif str(code) == "CATEGORY":
            fine = str(one[0]) == "IN" and _is_outside(one[1], str(value))
        else:
            fine = False
        if not fine:
            return False
    return True


def _is_outside(parts: Items, category: str) -> bool:
    """Whether nothing of a category is in a set."""
    if str(parts[0][0]) == "NEGATE":
        return any(str(code) == "CATEGORY" and str(value) == category for code, value in parts)
    return all(
        {str(value), category} in _APART
        if str(code) == "CATEGORY"
        else str(code) == "LITERAL" and not _CATEGORIES[category].match(chr(value))
        for code, value in parts
    )


def _has(one: tuple[Any, Any], character: str, cased: bool) -> bool:
    """Whether an item that stands for a single character stands for this one; in doubt it does."""
    code, value = str(one[0]), one[1]
    if not cased and (character.isalpha() or not character.isascii()):
        if code != "IN" or any(str(part) in ("LITERAL", "RANGE") for part, _ in value):
            return True
    if code in ("LITERAL", "NOT_LITERAL"):
        return (chr(value) == character) == (code == "LITERAL")
    if code != "IN":
        return True
    negated, found = False, False
    for part, what in value:
        part = str(part)
        negated = negated or part == "NEGATE"
        if part == "LITERAL":
            found = found or chr(what) == character
        elif part == "RANGE":
            found = found or what[0] <= ord(character) <= what[1]
        elif part == "CATEGORY":
            found = found or bool(_CATEGORIES[str(what)].match(character))
    return found != negated
