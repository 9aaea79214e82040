"""Strings of JSON as grammar rules: any, of some length, of a format, and names that are none of some others.

What is written is UTF-8, so characters stand as they are; only what JSON cannot hold is written with a backslash.
"""

from __future__ import annotations

from collections.abc import Iterable

from rsd_local.json_grammar.numbers import DIGIT
from rsd_local.json_grammar.rules import Node, Ranges, Repeat, Sequence, Text, chars, choice, everything, sequence, united, without

QUOTE = Text('"')
ESCAPED: dict[int, str] = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
"""Characters that stand behind a backslash in JSON."""
_NOT_PLAIN: Ranges = [(0, 31), (34, 34), (92, 92), (127, 127)]
PLAIN = chars(without(everything(), _NOT_PLAIN))
"""A character that stands for itself."""
_HEX = chars([(48, 57), (65, 70), (97, 102)])
_NO_HALF = Sequence((chars([(48, 57), (65, 67), (69, 70), (97, 99), (101, 102)]), _HEX, _HEX, _HEX))
_D_AND_DIGIT = Sequence((chars([(68, 68), (100, 100)]), chars([(48, 55)]), _HEX, _HEX))
CHARACTER = choice(
    [
        PLAIN,
        Sequence((Text("\\"), chars([(ord(one), ord(one)) for one in '"\\/bfnrt']))),
        Sequence((Text("\\u"), choice([_NO_HALF, _D_AND_DIGIT]))),  # a half of a character is none
    ]
)
"""One character in a string."""

_YEAR_MONTH_DAY = Sequence(
    (
        chars([(49, 57)]), DIGIT, DIGIT, DIGIT, Text("-"),
        choice(
            [
                sequence(choice([Text(month) for month in ("01", "03", "05", "07", "08", "10", "12")]), Text("-"),
                         choice([sequence(chars([(48, 50)]), chars([(49, 57)])), Text("10"), Text("20"), Text("30"), Text("31")])),
                sequence(choice([Text(month) for month in ("04", "06", "09", "11")]), Text("-"),
                         choice([sequence(chars([(48, 50)]), chars([(49, 57)])), Text("10"), Text("20"), Text("30")])),
                sequence(Text("02-"), choice([sequence(chars([(48, 49)]), chars([(49, 57)])), Text("10"), Text("20"),
                                              sequence(Text("2"), chars([(49, 56)]))])),
            ]
        ),
    )
)  # fmt: skip
_HOUR = choice([sequence(chars([(48, 49)]), DIGIT), sequence(Text("2"), chars([(48, 51)]))])
_SIXTY = sequence(chars([(48, 53)]), DIGIT)
_ZONE = choice([Text("Z"), sequence(chars([(43, 43), (45, 45)]), _HOUR, Text(":"), _SIXTY)])
_TIME = sequence(_HOUR, Text(":"), _SIXTY, Text(":"), _SIXTY, Repeat(sequence(Text("."), Repeat(DIGIT, 1, 3)), 0, 1), _ZONE)
_BYTE = choice(
    [
        DIGIT,
        sequence(chars([(49, 57)]), DIGIT),
        sequence(Text("1"), DIGIT, DIGIT),
        sequence(Text("2"), chars([(48, 52)]), DIGIT),
        sequence(Text("25"), chars([(48, 53)])),
    ]
)
_LOWER_HEX = chars([(48, 57), (97, 102)])


def _uuid() -> Node:
    parts: list[Node] = []
    for count in (8, 4, 4, 4, 12):
        parts += [Text("-")] * bool(parts) + [Repeat(_LOWER_HEX, count, count)]
    return Sequence(tuple(parts))


FORMATS: dict[str, Node] = {
    "date": _YEAR_MONTH_DAY,
    "time": _TIME,
    "date-time": sequence(_YEAR_MONTH_DAY, Text("T"), _TIME),
    "uuid": _uuid(),
    "ipv4": sequence(_BYTE, *[Text("."), _BYTE] * 3),
}
"""Formats that are kept to; any other says nothing of the text, as JSON Schema has it."""


def characters(ranges: Ranges) -> Node:
    """One of some characters, as it stands in a string."""
    found = united(ranges)
    escaped = [Text(text) for point, text in ESCAPED.items() if any(first <= point <= last for first, last in found)]
    return choice([chars(without(found, _NOT_PLAIN)), *escaped])


def other_names(names: Iterable[str]) -> Node:
    """A string that is none of some names, with no backslash in it, for what is behind one could spell a name."""
    tree: dict[str, object] = {}
    for name in names:
        place = tree
        for character in name:
            place = place.setdefault(character, {})  # type: ignore[assignment]
        place[""] = {}
    return sequence(QUOTE, _differs(tree), QUOTE)


def _differs(tree: dict[str, object]) -> Node:
    """What may stand behind the beginning that some names have in common; the empty text where that is no name itself."""
    ways: list[Node] = []
    following = [character for character in tree if character]
    taken: Ranges = [(ord(one), ord(one)) for one in following]
    ways.append(sequence(chars(without(without(everything(), _NOT_PLAIN), taken)), Repeat(PLAIN)))
    ways += [sequence(characters([(ord(one), ord(one))]), _differs(tree[one])) for one in following]  # type: ignore[arg-type]
    if "" not in tree:
        ways.append(Sequence())
    return choice(ways)
