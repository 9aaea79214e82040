"""Grammar rules as data, and their text in GBNF, llama.cpp's form (grammars/README.md of llama.cpp)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsd_local.errors import ConfigError

MOST_REPEATS = 2000
"""What llama.cpp takes as the number behind a repetition; it writes each out."""
MOST_BYTES = 1 << 18
"""Of a grammar that a schema comes to."""
_LAST = 0x10FFFF
_HALVES = (0xD800, 0xDFFF)  # of characters in UTF-16, which are none by themselves

Ranges = list[tuple[int, int]]
"""Characters by their code points, both ends included, ascending."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One of some characters, given as ``Ranges``."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a rule says, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after another."""

    parts: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several; of none, what nothing fits."""

    ways: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """Several times the same; ``most`` None is without a bound."""

    inner: Node
    least: int = 0
    most: int | None = None


Node = Text | Chars | Rule | Sequence | Choice | Repeat
NOTHING, NEVER = Sequence(), Choice()


def sequence(*parts: Node) -> Node:
    """Parts one after another."""
    return NEVER if NEVER in parts else parts[0] if len(parts) == 1 else Sequence(parts)


def choice(ways: Iterable[Node]) -> Node:
    """One of several ways; a way that occurs twice counts once."""
    left = tuple(way for way in dict.fromkeys(ways) if way != NEVER)
    return left[0] if len(left) == 1 else Choice(left)


def optional(inner: Node) -> Node:
    """The same, or nothing."""
    return NOTHING if inner == NEVER else Repeat(inner, 0, 1)


def chars(ranges: Ranges) -> Node:
    """One of some characters; halves of such are left out."""
    low, high = _HALVES
    whole = [part for first, last in ranges for part in ((first, min(last, low - 1)), (max(first, high + 1), last)) if part[0] <= part[1]]
    return Chars(tuple(united(whole))) if whole else NEVER


def united(ranges: Ranges) -> Ranges:
    """The same characters in ascending ranges that do not touch."""
    made: Ranges = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1] + 1:
            made[-1] = made[-1][0], max(last, made[-1][1])
        else:
            made.append((first, last))
    return made


def without(ranges: Ranges, gone: Ranges) -> Ranges:
    """The characters of ``ranges`` that are not in ``gone``."""
    made: Ranges = []
    for first, last in united(ranges):
        for begin, end in united(gone):
            if end < first or begin > last:
                continue
            if begin > first:
                made.append((first, begin - 1))
            first = end + 1
        if first <= last:
            made.append((first, last))
    return made


class Rules:
    """The rules of a grammar. The first one that is named is its ``root``."""

    def __init__(self) -> None:
        self._bodies: dict[str, Node] = {}
        self._named: dict[object, str] = {}

    def named(self, key: object) -> Rule | None:
        """The rule that stands for something, where there is one already."""
        return Rule(self._named[key]) if key in self._named else None

    def new(self, key: object) -> Rule:
        """A rule for something, whose body is given later, so that it may refer to itself."""
        name = self._named[key] = f"r{len(self._named)}" if self._named else "root"
        return Rule(name)

    def give(self, rule: Rule, body: Node) -> Rule:
        """Give a rule its body."""
        self._bodies[rule.name] = body
        return rule

    def add(self, key: object, body: Node) -> Rule:
        """A rule for something, once."""
        return self.named(key) or self.give(self.new(key), body)

    def text(self) -> str:
        """The grammar in GBNF, without what no text can come to an end by.

        Raises:
            ConfigError: nothing fits the root, or it is too large.
        """
        ending = self._ending()
        if "root" not in ending:
            raise ConfigError("no JSON fits the schema", hint="it contradicts itself, or goes on without an end")
        lines, waiting, seen = [], ["root"], {"root"}
        size = 0
        while waiting:
            name = waiting.pop()
            body = self._spread(_pruned(self._bodies[name], ending), ending)
            for other in _names(body):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
            lines.append(f"{name} ::= {_written(body)}")
            size += len(lines[-1].encode()) + 1
            if size > MOST_BYTES:
                raise ConfigError("the grammar of the schema is too large", hint="give a smaller schema")
        return "\n".join(lines) + "\n"

    def _spread(self, node: Node, ending: set[str], *, whole: bool = True) -> Node:
        """The same with a rule of its own for each repetition that llama.cpp writes out: it takes only so many in one rule."""
        if isinstance(node, Sequence):
            return Sequence(tuple(self._spread(part, ending, whole=False) for part in node.parts))
        if isinstance(node, Choice):
            return Choice(tuple(self._spread(way, ending, whole=False) for way in node.ways))
        if not isinstance(node, Repeat):
            return node
        inner = self._spread(node.inner, ending, whole=False)
        counts = node.least > 1 or (node.most or 0) > 1
        if counts and not isinstance(inner, Text | Chars | Rule):
            inner = self._apart(inner, ending)
        made = Repeat(inner, node.least, node.most)
        return self._apart(made, ending) if counts and not whole else made

    def _apart(self, node: Node, ending: set[str]) -> Rule:
        rule = self.add(node, node)
        ending.add(rule.name)
        return rule

    def _ending(self) -> set[str]:
        """The rules that some finite text fits."""
        users: dict[str, list[str]] = {name: [] for name in self._bodies}
        for name, body in self._bodies.items():
            for other in set(_names(body)):
                users[other].append(name)
        ending: set[str] = set()
        waiting = list(self._bodies)
        while waiting:
            name = waiting.pop()
            if name not in ending and _ends(self._bodies[name], ending):
                ending.add(name)
                waiting += users[name]
        return ending


def size(node: Node) -> int:
    """How many places a text may be at inside a node, each repetition written out."""
    if isinstance(node, Repeat):
        return size(node.inner) * max(1, node.least, node.most or 0)
    parts = node.parts if isinstance(node, Sequence) else node.ways if isinstance(node, Choice) else ()
    return max(1, sum(map(size, parts)))


def _ends(node: Node, ending: set[str]) -> bool:
    if isinstance(node, Rule):
        return node.name in ending
    if isinstance(node, Sequence):
        return all(_ends(part, ending) for part in node.parts)
    if isinstance(node, Choice):
        return any(_ends(way, ending) for way in node.ways)
    return not isinstance(node, Repeat) or node.least == 0 or _ends(node.inner, ending)


def _pruned(node: Node, ending: set[str]) -> Node:
    """The same without ways that come to no end."""
    if isinstance(node, Sequence):
        return Sequence(tuple(_pruned(part, ending) for part in node.parts))
    if isinstance(node, Choice):
        return choice(_pruned(way, ending) for way in node.ways if _ends(way, ending))
    if isinstance(node, Repeat):
        return Repeat(_pruned(node.inner, ending), node.least, node.most) if _ends(node.inner, ending) else NOTHING
    return node


def _names(node: Node) -> Iterable[str]:
    if isinstance(node, Rule):
        yield node.name
    elif isinstance(node, Repeat):
        yield from _names(node.inner)
    elif isinstance(node, Sequence | Choice):
        for part in node.parts if isinstance(node, Sequence) else node.ways:
            yield from _names(part)


def _written(node: Node, *, within: bool = False) -> str:
    """A node in GBNF; ``within`` a sequence, choices stand in parentheses."""
    if isinstance(node, Text):
        return '"' + "".join(map(_escaped, node.text)) + '"'
    if isinstance(node, Chars):
        return "[" + "".join(_code(first) + (f"-{_code(last)}" if last > first else "") for first, last in node.ranges) + "]"
    if isinstance(node, Rule):
        return node.name
    if isinstance(node, Sequence):
        return " ".join(_written(part, within=True) for part in node.parts) or '""'
    if isinstance(node, Choice):
        made = " | ".join(_written(way, within=True) for way in node.ways)
        return f"({made})" if within else made
    inner = _written(node.inner, within=True)
    inner = f"({inner})" if isinstance(node.inner, Sequence | Repeat) else inner
    if node.most is None and node.least < 2:
        return inner + "*+"[node.least]
    return inner + ("?" if (node.least, node.most) == (0, 1) else f"{{{node.least},{'' if node.most is None else node.most}}}")


def _escaped(character: str) -> str:
    plain = " " <= character <= "~" and character not in '"\\'
    return character if plain else _code(ord(character))


def _code(point: int) -> str:
    """A character in a class or a text of GBNF."""
    if chr(point).isascii() and chr(point).isalnum():
        return chr(point)
    return f"\\x{point:02X}" if point < 0x100 else f"\\u{point:04X}" if point < 0x10000 else f"\\U{point:08X}"


def everything() -> Ranges:
    """All characters."""
    return [(0, _LAST)]
