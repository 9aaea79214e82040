"""Numbers between bounds as grammar rules: digits of the same place in a row of choices."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from rsd_local.json_grammar.rules import Node, Repeat, Sequence, Text, chars, choice, optional, sequence

_DIGITS = 15  # in front of the point where no bound is given; what a float holds exactly
_PLACES = 6  # behind the point, where a bound is given


class Bounds(NamedTuple):
    """The bounds of a number, None where there is none.

    Attributes:
        least, most: of it.
        above, below: whether the bound itself is left out.
    """

    least: Decimal | None = None
    most: Decimal | None = None
    above: bool = False
    below: bool = False


def _digits(first: int = 0, last: int = 9) -> Node:
    return chars([(48 + first, 48 + last)])


DIGIT = _digits()


def whole(bounds: Bounds) -> Node:
    """A whole number between bounds."""
    if bounds.least is None and bounds.most is None:
        return sequence(optional(Text("-")), choice([Text("0"), Sequence((_digits(1), Repeat(DIGIT, 0, _DIGITS - 1)))]))
    return _scaled(bounds, 0)


def number(bounds: Bounds) -> Node:
    """A number between bounds; with one it is written without an exponent, and with some places behind the point or none."""
    if bounds.least is None and bounds.most is None:
        fraction = Sequence((Text("."), Repeat(DIGIT, 1, _DIGITS)))
        sign = optional(chars([(43, 43), (45, 45)]))
        power = Sequence((chars([(69, 69), (101, 101)]), sign, Repeat(DIGIT, 1, 2)))
        return sequence(whole(bounds), optional(fraction), optional(power))
    given = [bound for bound in (bounds.least, bounds.most) if bound is not None]
    places = max(2, *(-int(bound.normalize().as_tuple().exponent) for bound in given))
    return choice([_scaled(bounds, 0), *(_scaled(bounds, count) for count in {1, 2, min(places, _PLACES)})])


def _scaled(bounds: Bounds, places: int) -> Node:
    """Numbers with so many places behind the point."""
    far, unit = 10**_DIGITS - 1, Decimal(10) ** places
    least = -far if bounds.least is None else int((bounds.least * unit).to_integral_value(ROUND_CEILING))
    most = far if bounds.most is None else int((bounds.most * unit).to_integral_value(ROUND_FLOOR))
    least += bounds.above and bounds.least is not None and least == bounds.least * unit
    most -= bounds.below and bounds.most is not None and most == bounds.most * unit
    ways: list[Node] = []
    if least < 0:
        negative = choice(_spelled(max(1, -most), -least, places))
        ways.append(sequence(Text("-"), negative))
    ways += _spelled(max(0, least), most, places)
    return choice(ways)


def _spelled(first: int, last: int, places: int) -> list[Node]:
    """The numbers from first to last, not negative, with a point before the last ``places`` digits."""
    ways: list[Node] = []
    while first <= last:  # those with as many digits as the first one
        length = max(len(str(first)), places + 1)
        end = min(last, 10**length - 1)
        ways += [_pointed(row, places) for row in _rows(str(first).zfill(length), str(end).zfill(length))]
        first = end + 1
    return ways


def _rows(first: str, last: str) -> list[list[Node]]:
    """The numbers from first to last, which have the same length, as rows of digits."""
    if not first:
        return [[]]
    if first[0] == last[0]:
        return [[Text(first[0]), *row] for row in _rows(first[1:], last[1:])]
    rest = len(first) - 1
    low, high = int(first[0]), int(last[0])
    rows: list[list[Node]] = []
    if first[1:] != "0" * rest:
        rows += [[Text(first[0]), *row] for row in _rows(first[1:], "9" * rest)]
        low += 1
    above: list[list[Node]] = []
    if last[1:] != "9" * rest:
        above = [[Text(last[0]), *row] for row in _rows("0" * rest, last[1:])]
        high -= 1
    if low <= high:
        rows.append([_digits(low, high), *[DIGIT] * rest])
    return rows + above


def _pointed(row: list[Node], places: int) -> Node:
    return Sequence((*row[: len(row) - places], Text("."), *row[len(row) - places :])) if places else Sequence(tuple(row))
