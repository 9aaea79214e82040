"""Computes both sides of an equation exactly, and compares them as people write numbers: rounded to the digits shown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from rsd_local.rewards.verifier.arithmetic_scan import Item, Side
from rsd_local.rewards.verifier.arithmetic_words import CLOCK, CONVERSIONS, FAMILY, MONEY, singular

_MAX_BITS = 4096  # of a numerator or a denominator
_MAX_EXPONENT = 512
_NO_ROUNDED_PARTS = (3, 6, 7, 9, 11, 12)  # denominators whose fractions people round


class Unreadable(Exception):
    """A side that cannot be computed: a division by zero, a root that is no fraction, a number beyond the limits."""


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to read what people write in several.

    Attributes:
        hundredth: 20% is 0.2; otherwise it is 20 of a unit.
        tight: in 6/2(3) the multiplication that is not written comes first.
        mixed: 2½ is 2.5; otherwise 1.
        scaled: 3 thousand is 3,000; otherwise 3 of a unit.
        minus_first: −2² is 4.
        unrounded: 3.33 is 10/3.
    """

    hundredth: bool = True
    tight: bool = True
    mixed: bool = True
    scaled: bool = True
    minus_first: bool = False
    unrounded: bool = False


def conventions(left: Side, right: Side) -> Iterator[Convention]:
    """The ways in which two sides can be read, the usual one first."""

    def ways(*codes: str) -> tuple[bool, ...]:
        return (True, False) if left.has(*codes) or right.has(*codes) else (True,)

    signs = (False, True) if (left.has("neg") and left.has("^")) or (right.has("neg") and right.has("^")) else (False,)
    for hundredth, tight, mixed, scaled, first in itertools.product(ways("%"), ways("j"), ways("m"), ways("s"), signs):
        yield Convention(hundredth, tight, mixed, scaled, first)


def judge(left: Side, right: Side, about: bool) -> tuple[Fraction, Fraction, bool | None]:
    """Both values, and whether they are the same: None where it is not sure that they are not.

    Raises:
        Unreadable: a side cannot be computed.
    """
    verdict: bool | None = False
    usual: tuple[Fraction, Fraction] | None = None
    for convention in conventions(left, right):
        one, other = compute(left.items, convention), compute(right.items, convention)
        usual = usual or (one, other)
        found = _compare(left, right, one, other, convention, about)
        if found:
            both = left.bare and right.bare and left.has("%") != right.has("%")
            return one, other, None if both and not convention.hundredth else True
        verdict = None if found is None else verdict
    assert usual is not None
    if verdict is False and _doubtful(left, right, usual, about):
        verdict = None
    return *usual, verdict


def compute(items: list[Item], convention: Convention) -> Fraction:
    """The value of an expression.

    Raises:
        Unreadable: it has none, or one beyond the limits.
    """
    sums = _Sums(items, convention)
    value = sums.sum()
    if sums.at != len(items):
        raise Unreadable
    return value


class _Sums:
    """Recursive descent over the items of one expression."""

    def __init__(self, items: list[Item], convention: Convention) -> None:
        self.at = 0
        self._items, self._convention = items, convention

    def _next(self) -> str:
        return self._items[self.at].code if self.at < len(self._items) else ""

    def sum(self) -> Fraction:
        """Terms that are added and subtracted."""
        value = self._product()
        while self._next() in ("+", "-"):
            sign = 1 if self._next() == "+" else -1
            self.at += 1
            value = _bounded(value + sign * self._product())
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while self._next() in ("*", "/", "j"):
            code = self._next()
            self.at += 1
            value = _divide(value, self._factor()) if code == "/" else _bounded(value * self._factor())
        return value

    def _factor(self) -> Fraction:
        if self._next() == "neg":
            self.at += 1
            if self._convention.minus_first:
                return self._power(-1)
            return -self._factor()
        value = self._power(1)
        while self._next() == "m" or (self._next() == "j" and self._convention.tight):
            adds = self._next() == "m" and self._convention.mixed
            self.at += 1
            value = _bounded(value + self._power(1) if adds else value * self._power(1))
        return value

    def _power(self, sign: int) -> Fraction:
        value = sign * self._primary()
        if self._next() == "^":
            self.at += 1
            return _raise(value, self._exponent())
        return value

    def _exponent(self) -> Fraction:
        if self._next() == "neg":
            self.at += 1
            return -self._exponent()
        return self._power(1)

    def _primary(self) -> Fraction:
        if self.at >= len(self._items):
            raise Unreadable
        item = self._items[self.at]
        self.at += 1
        if item.code == "n":
            value = _unrounded(item) if self._convention.unrounded else item.value
        elif item.code == "(":
            value = self.sum()
            if self._next() != ")":
                raise Unreadable
            self.at += 1
        elif item.code == "root":
            value = _root(self._primary())
        else:
            raise Unreadable
        while self._next() in ("%", "s"):
            if self._next() == "%" and self._convention.hundredth:
                value /= 100
            elif self._next() == "s" and self._convention.scaled:
                value *= self._items[self.at].value
            self.at += 1
        return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise Unreadable
    return value


def _divide(value: Fraction, by: Fraction) -> Fraction:
    if by == 0:
        raise Unreadable
    return _bounded(value / by)


def _raise(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent == Fraction(1, 2):
        return _root(base)
    if exponent.denominator != 1 or abs(exponent) > _MAX_EXPONENT or (base == 0 and exponent <= 0):
        raise Unreadable
    if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > _MAX_BITS:
        raise Unreadable
    return Fraction(base ** int(exponent))


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise Unreadable
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if above * above != value.numerator or below * below != value.denominator:
        raise Unreadable
    return Fraction(above, below)


def _unrounded(item: Item) -> Fraction:
    """The third, sixth, seventh, … that a decimal may be rounded from; the decimal itself where there is none."""
    if item.decimals >= 2:
        for below in _NO_ROUNDED_PARTS:
            near = Fraction(round(item.value * below), below)
            if 0 < 2 * abs(near - item.value) <= Fraction(1, 10**item.decimals) and near.denominator not in (1, 2):
                return near
    return item.value


def _unit_of(side: Side, convention: Convention) -> tuple[Fraction, int] | None:
    """The place value of the last digit of a number alone, and its decimals as a number without percent sign and scale."""
    literal = side.literal
    if literal is None:
        return None
    unit, decimals = Fraction(1, 10**literal.decimals), literal.decimals
    for item in side.items:
        if item.code == "%" and convention.hundredth:
            unit, decimals = unit / 100, decimals + 2
        elif item.code == "s" and convention.scaled:
            unit, decimals = unit * item.value, 0
    return unit, decimals


def _compare(left: Side, right: Side, one: Fraction, other: Fraction, convention: Convention, about: bool) -> bool | None:
    """Whether two values are the same as far as the digits of a result show; None for nearly."""
    if one == other:
        return True
    apart = abs(one - other)
    shown, value, side = _unit_of(right, convention), one, right
    if shown is None:
        shown, value, side = _unit_of(left, convention), other, left
    if about:
        return _near(side, shown, apart, max(abs(one), abs(other)))
    if shown is None:
        close = apart * 50 <= max(abs(one), abs(other))
        return None if close and any(item.decimals for item in left.items + right.items) else False
    unit, decimals = shown
    endless = not _terminates(value)
    if side.dots and apart <= unit:
        return True
    if 2 * apart <= unit:
        if decimals >= 2 or (decimals == 1 and endless):
            return True
        return None if endless or decimals == 1 else False
    return None if apart < unit and endless and decimals else False


def _near(side: Side, shown: tuple[Fraction, int] | None, apart: Fraction, size: Fraction) -> bool | None:
    """As ``_compare``, for a result that is said to be rounded."""
    if shown is None:
        return True if apart * 100 <= size else None if apart * 10 <= size else False
    unit, literal = shown[0], side.literal
    if literal is not None and not literal.decimals:
        digits = literal.value.numerator
        while digits and digits % 10 == 0:
            digits, unit = digits // 10, unit * 10
    return True if 2 * apart <= unit else None if apart <= unit and apart * 4 <= size else False


def _terminates(value: Fraction) -> bool:
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def _doubtful(left: Side, right: Side, values: tuple[Fraction, Fraction], about: bool) -> bool:
    """Whether two sides that differ may still be meant to be the same."""
    if left.doubtful or right.doubtful or _units_differ(left, right) or _converted(left, right, *values):
        return True
    if left.ranges and values[1] >= 0:
        return True
    if _is_whole_quotient(left, right, *values) or _is_whole_quotient(right, left, values[1], values[0]):
        return True
    for side in (left, right):
        percents, numbers = (sum(item.code == code for item in side.items) for code in ("%", "n"))
        if percents and percents < numbers and side.has("+", "-"):
            return True  # 150 + 20% = 180
    if not right.bare and right.items[0].code == "n":  # 3 + 4 = 7 * 2 = 14: a result that is computed with at once
        first, result = Side(right.items[:1]), right.items[0].value
        quotient = right.has("*", "+", "-") and not right.has("/") and _is_whole_quotient(left, first, values[0], result)
        if quotient or _compare(left, first, values[0], result, Convention(), about) is not False:
            return True
    loose = Convention(unrounded=True)
    try:
        return _compare(left, right, compute(left.items, loose), compute(right.items, loose), loose, about) is not False and any(
            _unrounded(item) != item.value for item in left.items
        )
    except Unreadable:
        return True


def _is_whole_quotient(computed: Side, shown: Side, value: Fraction, result: Fraction) -> bool:
    """Whether a whole number is what people write for a division that does not come out even.

    The quotient without its rest, rounded, or with a unit rounded up: 17 / 4 is 4, and 5 buses.
    """
    literal, below = shown.literal, value - result
    if literal is None or literal.decimals or shown.has("%", "s") or result.denominator != 1 or not computed.has("/"):
        return False
    return 0 < below < 1 or 2 * abs(below) <= 1 or (abs(below) < 1 and any(shown.units))


def _converted(left: Side, right: Side, one: Fraction, other: Fraction) -> bool:
    """Whether a unit that only one side has may have been converted to: 60 + 30 = 1.5 hours."""
    if any(left.units) == any(right.units) or not one or not other:
        return False
    words = {singular(word) for unit in left.units + right.units for word in unit.replace("/", " ").split()}
    ratio = max(one / other, other / one)
    return ratio.denominator == 1 and int(ratio) in CONVERSIONS and not words.isdisjoint(FAMILY)


def _units_differ(left: Side, right: Side) -> bool:
    """Whether something may have been converted without a word, or names of things stand for what they cost."""
    names = [unit for unit in left.units + right.units if unit]
    parts = {singular(word) for name in names for word in name.replace("/", " ").split()}
    families = [FAMILY[word] for word in parts if word in FAMILY]
    if len(families) != len(set(families)) or not CLOCK.isdisjoint(parts):
        return True
    adds = left.has("+", "-") or right.has("+", "-")
    multiplies = left.has("*", "/", "j") or right.has("*", "/", "j")
    if not adds and multiplies:
        return False
    return len(set(names)) > 1 or bool(adds and set(filter(None, left.units)) - MONEY and not any(right.units))
