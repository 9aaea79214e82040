"""Regular expressions of ``pattern`` as grammar rules, as far as a grammar can do what they say.

Where languages differ in what they mean, the narrower meaning is taken: ``\\d`` and ``\\w`` are ASCII, and what they leave out is too.
"""

from __future__ import annotations

from rsd_local.errors import ConfigError
from rsd_local.json_grammar.rules import MOST_REPEATS, Node, Ranges, Repeat, Sequence, choice, everything, sequence, size, without
from rsd_local.json_grammar.strings import QUOTE, characters

_MOST_NESTED, _MOST_PLACES = 32, 4000
_ASCII: Ranges = [(0, 127)]
_DIGITS: Ranges = [(48, 57)]
_WORD: Ranges = [(48, 57), (65, 90), (95, 95), (97, 122)]
_WHITE: Ranges = [(9, 13), (32, 32)]
_CLASSES: dict[str, Ranges] = {
    "d": _DIGITS,
    "w": _WORD,
    "s": _WHITE,
    "D": without(_ASCII, _DIGITS),
    "W": without(_ASCII, _WORD),
    "S": without(_ASCII, _WHITE),
}
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
_LINE_ENDS: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]


def pattern_string(pattern: str, character: Node) -> Node:
    """A string of JSON in which a pattern is found; between ^ and $ it is all of it.

    Args:
        pattern: it.
        character: any one in a string.

    Raises:
        ConfigError: it uses what no grammar can do, or is too large.
    """
    reader = _Reader(pattern, character)
    body = reader.ways(0)
    reader.end()
    if size(body) > _MOST_PLACES:
        raise ConfigError(f"the pattern {pattern[:100]!r} is too large: its repetitions come to {size(body):,} places")
    return sequence(QUOTE, body, QUOTE)


class _Reader:
    """Reads a pattern from its beginning to its end."""

    def __init__(self, pattern: str, character: Node) -> None:
        self._pattern, self._at, self._character = pattern, 0, character
        if len(pattern) > _MOST_PLACES:
            raise self._refused(f"is longer than {_MOST_PLACES} characters")

    def ways(self, depth: int) -> Node:
        """Several patterns with | between them; those at the top may stand anywhere in the string, unless they are anchored."""
        if depth > _MOST_NESTED:
            raise self._refused("is nested too deep")
        found = [self._row(depth)]
        while self._takes("|"):
            found.append(self._row(depth))
        return choice(found)

    def end(self) -> None:
        """Whether all of it was read."""
        if self._at < len(self._pattern):
            raise self._refused("has a ) without a (")

    def _row(self, depth: int) -> Node:
        parts: list[Node] = []
        begins = depth == 0 and self._takes("^")
        ends = False
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            if depth == 0 and self._takes("$"):
                ends = True
                if self._at < len(self._pattern) and self._pattern[self._at] != "|":
                    raise self._refused("has $ within")
                break
            parts.append(self._repeated(self._one(depth)))
        if depth == 0 and not begins:
            parts.insert(0, Repeat(self._character))
        if depth == 0 and not ends:
            parts.append(Repeat(self._character))
        return sequence(*parts) if parts else Sequence()

    def _one(self, depth: int) -> Node:
        character = self._next()
        if character == "(":
            if self._takes("?") and not self._takes(":"):
                raise self._refused("looks ahead, looks back or sets flags")
            inner = self.ways(depth + 1)
            if not self._takes(")"):
                raise self._refused("has a ( without a )")
            return inner
        if character == "[":
            return characters(self._class())
        if character == ".":
            return characters(without(everything(), _LINE_ENDS))
        if character == "\\":
            return characters(self._escape())
        if character in "*+?{^$":
            raise self._refused(f"has {character} where nothing can be meant by it")
        return characters([(ord(character), ord(character))])

    def _repeated(self, inner: Node) -> Node:
        least, most = 1, 1
        bounds: tuple[int, int | None]
        if self._takes("*"):
            bounds = 0, None
        elif self._takes("+"):
            bounds = 1, None
        elif self._takes("?"):
            bounds = 0, 1
        elif self._takes("{"):
            bounds = self._counts()
        else:
            return inner
        self._takes("?")  # a lazy one takes the same texts
        least, most_or_none = bounds
        most = MOST_REPEATS if most_or_none is None else most_or_none
        if least > MOST_REPEATS or most > MOST_REPEATS or least > most:
            raise self._refused(f"repeats something more than {MOST_REPEATS} times, or less than it must")
        if bounds != (0, 1) and _may_be_empty(inner):
            raise self._refused("repeats what may be empty")
        if self._at < len(self._pattern) and self._pattern[self._at] in "*+{":
            raise self._refused("repeats a repetition")
        return Repeat(inner, least, most_or_none)

    def _counts(self) -> tuple[int, int | None]:
        inside, closed, _ = self._pattern[self._at :].partition("}")
        least, comma, most = inside.partition(",")
        if not closed or not least.isdecimal() or not (most == "" or most.isdecimal()) or len(inside) > 12:
            raise self._refused("has braces without counts")
        self._at += len(inside) + 1
        return int(least), (int(most) if most else None) if comma else int(least)

    def _class(self) -> Ranges:
        inverted, found, narrow = self._takes("^"), Ranges(), False
        while not self._takes("]"):
            first = self._member()
            narrow = narrow or len(first) > 1 or first[0][0] != first[0][1]
            dashed = self._pattern[self._at : self._at + 1] == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", "")
            if dashed:
                self._at += 1
                last = self._member()
                if narrow or len(last) > 1 or last[0][0] != last[0][1] or last[0][0] < first[0][0]:
                    raise self._refused("has a range that is none")
                first = [(first[0][0], last[0][0])]
            found = [*found, *first]
        if inverted:
            return without(_ASCII if narrow else everything(), found)
        return found

    def _member(self) -> Ranges:
        character = self._next()
        return self._escape() if character == "\\" else [(ord(character), ord(character))]

    def _escape(self) -> Ranges:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in ("x", "u"):
            digits = self._pattern[self._at : self._at + (2 if character == "x" else 4)]
            try:
                point = int(digits, 16)
            except ValueError:
                raise self._refused(f"has \\{character} without a number") from None
            self._at += len(digits)
            return [(point, point)]
        if character in _CONTROLS:
            return [(_CONTROLS[character],) * 2]
        if character.isalnum():
            raise self._refused(f"has \\{character}")
        return [(ord(character), ord(character))]

    def _takes(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            raise self._refused("ends in the middle")
        self._at += 1
        return self._pattern[self._at - 1]

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(f"the pattern {self._pattern[:100]!r} {why}")


def _may_be_empty(node: Node) -> bool:
    if isinstance(node, Sequence):
        return all(_may_be_empty(part) for part in node.parts)
    if isinstance(node, Repeat):
        return node.least == 0 or _may_be_empty(node.inner)
    ways = getattr(node, "ways", None)
    return ways is not None and any(_may_be_empty(way) for way in ways)
