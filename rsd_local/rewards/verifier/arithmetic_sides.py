"""Finds the expressions on both sides of a sign of equality, in tokens that stand among prose."""

from __future__ import annotations

from collections.abc import Sequence

from rsd_local.rewards.verifier.arithmetic_scan import MAX_TOKENS, Scan, Side
from rsd_local.rewards.verifier.arithmetic_tokens import Token
from rsd_local.rewards.verifier.arithmetic_words import AMOUNTS, FAMILY, JOINING, LABELS, NEXT, OPERATORS, PREFIXES, is_daytime, singular

_WORDS_BEHIND = 12


def right_side(tokens: Sequence[Token]) -> Side | None:
    """The expression that begins with the first token; None where it cannot be read."""
    side = Scan(tokens, 0).run()
    if side is None:
        return None
    behind = _clause(tokens[side.last :])[:_WORDS_BEHIND]
    words = [token.text for token in behind if token.kind == "word"]
    counted = any(token.kind == "number" for token in behind)
    if (
        _goes_on(side, behind)
        or OPERATORS & set(words)
        or NEXT & set(words[:3])
        or is_daytime(words)
        or (counted and ("left" in words or words[:1] == ["and"] and "/" in _texts(behind[:4])))
    ):
        side.doubtful = True
    return side


def _goes_on(side: Side, behind: Sequence[Token]) -> bool:
    """Whether a quantity is made of several: 2 hours (and) 30 minutes."""
    if not any(side.units) or not behind:
        return False
    joined = behind[0].text == "and" and len(behind) > 2 and singular(behind[2].text) in FAMILY
    return behind[0].kind == "number" or (joined and behind[1].kind == "number")


def _texts(tokens: Sequence[Token]) -> list[str]:
    return [token.text for token in tokens]


def left_side(tokens: Sequence[Token], opens: bool) -> Side | None:
    """The longest expression that ends with the last token; None where it cannot be read.

    Args:
        tokens: from the sign of equality before, or the beginning of the clause.
        opens: whether no sign of equality stands right before them.
    """
    for first in range(max(0, len(tokens) - MAX_TOKENS), len(tokens)):
        if tokens[first].kind in ("number", "open", "frac", "root", "op") or tokens[first].mark == "money":
            side = Scan(tokens, first).run()
            if side is not None and side.last == len(tokens):
                return side if _begins(side, tokens, opens) else None
    return None


def _begins(side: Side, tokens: Sequence[Token], opens: bool) -> bool:
    """Whether an expression really begins where it was found to; notes where that is doubtful."""
    if side.first == 0:
        if opens and tokens[0].kind == "op" and tokens[0].text != "-":
            return False
        if opens and side.bare and not side.has("%"):
            side.doubtful = True  # "1 = 5, 2 = 10" of a puzzle
        return True
    before = tokens[side.first - 1]
    if before.kind == "open":
        return True
    if before.kind != "word" or before.mark == "letter" or tokens[side.first].kind == "op":
        return False
    if before.text in PREFIXES or side.bare:
        return False
    earlier = tokens[max(0, side.first - 30) : side.first]
    if before.text in JOINING and any(_counts(token) for token in earlier):
        return False
    if "root" in [token.text for token in earlier] or before.text == "of" and any(token.text in PREFIXES for token in earlier):
        return False
    if before.text in LABELS or tokens[side.first].kind == "open":
        side.doubtful = True
    return True


def _counts(token: Token) -> bool:
    return token.kind in ("number", "percent", "other") or any(part in AMOUNTS for part in token.text.split("-"))


def _clause(tokens: Sequence[Token]) -> list[Token]:
    """The tokens up to the end of a sentence; a line's end is one."""
    found: list[Token] = []
    for token in tokens[:40]:
        if token.kind == "break" and (token.mark == "line" or token.text in ".;?"):
            break
        found.append(token)
    return found
