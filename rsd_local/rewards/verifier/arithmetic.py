r"""The verifier ``arithmetic``: every equation in a step that is only numbers and operators, checked exactly.

Read are ``+ - * / ^``, their typographic and LaTeX signs, parentheses, ``\frac``, roots of squares, percent, thousands' separators,
currencies and units, mixed numbers, chains ``a = b = c`` (each neighbour), and GSM8K's marks ``<<48/2=24>>``. Not read, and so never wrong:
variables, words as operators, remainders, inequalities, times of day, ratios, ranges, code, and all that could be meant otherwise.
Where another base is spoken of, nothing is decided; where a modulus or a time of day is, nothing that would be right there is wrong.

A result may be rounded to the digits it shows:

- ``=`` with two decimals or more: right if correctly rounded, half up or half to even (``10/3 = 3.33``, ``12.49 * 0.075 = 0.94``).
- ``=`` with one decimal: right if the exact value has no end (``10/3 = 3.3``), otherwise not decided (``1.25 * 1.5 = 1.9``).
- ``=`` with none: not decided if the exact value has no end (``100/3 = 33``), or if it is a quotient without its rest or rounded
  (``17/4 = 4``), otherwise wrong (``2.5 * 3 = 7``).
- digits that are cut off (``2/3 = 0.66``): not decided. ``3.33…`` is right.
- a number at the very end of the text that is the beginning of the right one (``5 * 8 = 4``): not decided, it may be cut off.
- ``≈`` and "about": right within half of the last digit's place (trailing zeros do not count), not decided within one, otherwise wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.arithmetic_scan import MAX_TOKENS, Side
from rsd_local.rewards.verifier.arithmetic_sides import left_side, right_side
from rsd_local.rewards.verifier.arithmetic_tokens import MAX_DIGITS, SHOWN, Token, clean, tokens
from rsd_local.rewards.verifier.arithmetic_values import Unreadable, judge

_SIGNS = ("equals", "about", "relation")
_BASES = re.compile(
    r"\b(?:binary|octal|hex|hexadecimal)\b|\b0[xX][0-9a-fA-F]|\bbase[-\s]?(?!10\b|ten\b)(?:\d{1,2}|two|three|four|five|six|seven|eight|nine|eleven|twelve|sixteen)\b"
    r"(?!\.\d|\s*(?:mm|cm|m|km|in|inch|inches|ft|feet|yards?|units?|met(?:er|re)s?)\b)",
    re.IGNORECASE,
)
_MODULO = re.compile(r"\b[bp]?mod(?:ulo|ular|ulus)?\b|≡|\\equiv\b", re.IGNORECASE)
_CLOCK = re.compile(r"\d\s*[ap]\.?\s?m\b|o['’]clock|\b(?:clock|noon|midnight)\b|\b\d{1,2}:\d\d\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Equation:
    """One equation that was read.

    Attributes:
        text: as written, LaTeX and Markdown taken off.
        left: the exact value of its left side.
        right: of its right side.
        holds: whether they are the same, None where that could not be decided.
    """

    text: str
    left: Fraction
    right: Fraction
    holds: bool | None


def equations(text: str, before: str = "") -> tuple[Equation, ...]:
    """The equations of a text that are only numbers and operators, in order; each neighbour of a chain is one.

    Args:
        text: a step, in plain text, Markdown or LaTeX.
        before: the question and the steps before it, which may speak of other numbers than plain ones.
    """
    found = [equation for one in clean(text) for equation in _equations(one, tokens(one))]
    said = f"{before}\n{text}"
    if not found or _BASES.search(said):
        return tuple(replace(one, holds=None) for one in found)
    modulo, clock = _MODULO.search(said) is not None, _CLOCK.search(said) is not None
    return tuple(
        replace(one, holds=None) if one.holds is False and (modulo or (clock and _is_round_the_clock(one))) else one for one in found
    )


class Arithmetic:
    """A step's equations: 1.0 where all are right, 0.0 where one is wrong, None where none could be read."""

    immediate = True

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None = None) -> float | None:
        """The reward of a step."""
        verdicts = [equation.holds for equation in equations(step, "".join((prompt.question, "\n", *steps)))]
        if False in verdicts:
            return 0.0
        return 1.0 if True in verdicts else None

    def checks(self, prompt: Prompt) -> bool:
        """Whether a step could be checked: any may hold an equation."""
        return True

    def close(self) -> None:
        """There is nothing to end."""


def _is_round_the_clock(equation: Equation) -> bool:
    """Whether two sides are the same hour or minute of a clock."""
    return (equation.left - equation.right) % 12 == 0 and 0 <= equation.right < 60


def _equations(text: str, found: Sequence[Token]) -> Iterator[Equation]:
    places = [place for place, token in enumerate(found) if token.kind in _SIGNS]
    bounds = [-1, *places, len(found)]
    for number, place in enumerate(places, 1):
        sign = found[place]
        if sign.kind == "relation":
            continue
        before, opens = _last_clause(found[bounds[number - 1] + 1 : place], number == 1)
        behind = _first_clause(found[place + 1 : bounds[number + 1]])
        dashed = opens and len(before) > 2 and before[0].text == "-" and before[1].spaced  # a minus, or an item of a list
        ways = [_equation(text, one, behind, opens, sign) for one in ([before[1:], before] if dashed else [before])]
        read = [one for one in ways if one is not None]
        if len(read) == len(ways):
            yield next((one for one in read if one.holds), read[0])


def _equation(text: str, before: Sequence[Token], behind: Sequence[Token], opens: bool, sign: Token) -> Equation | None:
    left, right = left_side(before, opens), right_side(behind)
    if left is None or right is None or not _ends(behind, right):
        return None
    try:
        one, other, holds = judge(left, right, sign.kind == "about" or left.dots)
    except Unreadable:
        return None
    end = behind[right.last - 1].end
    if holds is False and end == len(text) and one * other >= 0 and _is_cut(behind[right.last - 1], one):
        holds = None
    return Equation(text[before[left.first].start : end].translate(SHOWN), one, other, holds)


def _is_cut(last: Token, value: Fraction) -> bool:
    """Whether a number at the very end of a text is the beginning of the right one: a limit of tokens may have cut it off."""
    places = 10**MAX_DIGITS
    whole, rest = divmod(abs(value), 1)
    digits = f"{int(whole):,}" if "," in last.text else f"{int(whole)}"
    return last.kind == "number" and f"{digits}.{int(rest * places):0{MAX_DIGITS}}".startswith(last.text)


def _first_clause(behind: Sequence[Token]) -> Sequence[Token]:
    for place, token in enumerate(behind[: MAX_TOKENS + 1]):
        if token.kind == "break" and token.mark == "line":
            return behind[:place]
    return behind[: MAX_TOKENS + 1]


def _last_clause(before: Sequence[Token], first: bool) -> tuple[Sequence[Token], bool]:
    """The tokens behind the last break, and whether a clause opens with them."""
    before = before[-MAX_TOKENS - 1 :]
    for place in range(len(before) - 1, -1, -1):
        if before[place].kind == "break":
            return before[place + 1 :], True
    return before, first or len(before) > MAX_TOKENS


def _ends(behind: Sequence[Token], right: Side) -> bool:
    """Whether what follows a right side is no part of it."""
    if right.last >= len(behind):
        return True
    return behind[right.last].kind in ("break", "word", "close", "open", "number") or behind[right.last].mark in ("bang", "money")
