"""From a JSON schema to a grammar, one rule for each of its parts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from rsd_local.errors import ConfigError
from rsd_local.json_grammar.numbers import Bounds, number, whole
from rsd_local.json_grammar.patterns import pattern_string
from rsd_local.json_grammar.rules import (
    MOST_REPEATS,
    NEVER,
    NOTHING,
    Node,
    Repeat,
    Rule,
    Rules,
    Text,
    chars,
    choice,
    optional,
    sequence,
)
from rsd_local.json_grammar.schema import OF_TYPE, Schema, Schemas, as_object, read_schema, refused, type_of
from rsd_local.json_grammar.strings import CHARACTER, FORMATS, QUOTE, other_names

MOST_PARTS = 2000
"""Of a schema: rules that it comes to, each name of a property counted."""
_SPACE = choice([NOTHING, Text(" "), sequence(Repeat(Text("\n"), 1, 2), Repeat(chars([(9, 9), (32, 32)]), 0, 20))])
"""Between parts of JSON, as llama.cpp has it: little, so that a model does not run away in it."""


def json_schema_to_grammar(schema: Mapping[str, Any] | bool | str) -> str:
    """The grammar (GBNF) of the JSON that fits a schema (https://json-schema.org), for ``Sampling.grammar``.

    What the grammar takes is valid JSON that fits the schema. Not all that fits is taken: properties stand in the schema's order, and
    others only where ``additionalProperties`` is given; all of ``prefixItems`` are there; numbers with bounds have no exponent.

    Args:
        schema: an object, ``True`` for any JSON, or the text of it.

    Raises:
        ConfigError: it is no schema, is too large, says what no grammar can do (the place is named), or nothing fits it.
    """
    try:
        return _Converter(read_schema(schema)).text()
    except RecursionError:
        raise refused("", "it is nested too deep, or has names that are too long") from None


class _Converter:
    """Makes the rules of one schema."""

    def __init__(self, root: Schema) -> None:
        self._schemas, self._rules, self._parts = Schemas(root), Rules(), 0
        self._root = self._rules.new("the whole")
        self._space = self._rules.add("space", _SPACE)
        self._character = self._rules.add("character", CHARACTER)
        self._string = self._rules.add("string", sequence(QUOTE, Repeat(self._character), QUOTE))
        self._rules.give(self._root, self._value(root, ""))

    def text(self) -> str:
        """The grammar."""
        return self._rules.text()

    def _value(self, schema: Schema, where: str) -> Rule:
        """The rule of what fits a schema; the same one wherever the same schema stands."""
        key = ("schema", json.dumps(schema, sort_keys=True))
        if known := self._rules.named(key):
            return known
        self._count(where)
        rule = self._rules.new(key)
        ways = self._schemas.ways(schema, where)
        return self._rules.give(rule, choice(self._way(way, where) for way in ways))

    def _count(self, where: str) -> None:
        self._parts += 1
        self._schemas.check_time(where)
        if self._parts > MOST_PARTS:
            raise refused(where, f"it comes to more than {MOST_PARTS} parts", "give a smaller schema")

    def _way(self, way: Schema, where: str) -> Node:
        """What fits keywords that are not combined with others."""
        kinds = set(way.get("type", ("null", "boolean", "number", "string", "array", "object")))
        if "enum" in way:
            return choice(Text(_text(value, where)) for value in way["enum"] if self._fits(value, kinds, way, where))
        if "number" in kinds:
            kinds.discard("integer")
        makers: dict[str, Callable[[], Node]] = {
            "null": lambda: Text("null"),
            "boolean": lambda: choice([Text("true"), Text("false")]),
            "integer": lambda: self._number(way, where, only_whole=True),
            "number": lambda: self._number(way, where, only_whole=False),
            "string": lambda: self._text_of(way, where),
            "array": lambda: self._array(way, where),
            "object": lambda: self._object(way, where),
        }
        return choice(make() for kind, make in makers.items() if kind in kinds)

    def _fits(self, value: Any, kinds: set[str], way: Schema, where: str) -> bool:
        """Whether a value of ``enum`` fits what else is said."""
        kind = type_of(value)
        if kind not in kinds and not (kind == "integer" and "number" in kinds):
            return False
        restricted = [name for name in OF_TYPE.get("number" if kind == "integer" else kind, ()) if name in way and name != "format"]
        if kind in ("integer", "number"):
            bounds = _bounds(way)
            exact = Decimal(str(value))
            low = bounds.least is None or exact > bounds.least or (exact == bounds.least and not bounds.above)
            high = bounds.most is None or exact < bounds.most or (exact == bounds.most and not bounds.below)
            return low and high and (way.get("multipleOf", 1) == 1 or _refuse_multiple(where))
        if kind == "string" and "pattern" not in restricted:
            return bool(way.get("minLength", 0) <= len(value) <= way.get("maxLength", math.inf))
        if restricted:
            raise refused(where, f"{', '.join(restricted)} beside enum or const", "leave it away")
        return True

    def _number(self, way: Schema, where: str, *, only_whole: bool) -> Node:
        if "multipleOf" in way:
            only_whole = way["multipleOf"] == 1 or _refuse_multiple(where)
        return (whole if only_whole else number)(_bounds(way))

    def _text_of(self, way: Schema, where: str) -> Node:
        least, most = way.get("minLength", 0), way.get("maxLength")
        bounded = "minLength" in way or "maxLength" in way
        if "pattern" in way:
            if bounded:
                raise refused(where, "pattern beside minLength or maxLength", "say the length in the pattern")
            try:
                return pattern_string(way["pattern"], self._character)
            except ConfigError as error:
                raise refused(where, str(error)) from None
        if way.get("format") in FORMATS:
            if bounded:
                raise refused(where, f"format {way['format']} beside minLength or maxLength", "leave the length away")
            return sequence(QUOTE, self._rules.add(("format", way["format"]), FORMATS[way["format"]]), QUOTE)
        return sequence(QUOTE, _repeated(self._character, least, most, where, "Length"), QUOTE) if bounded else self._string

    def _array(self, way: Schema, where: str) -> Node:
        first, rest = way.get("prefixItems", []), way.get("items", True)
        if isinstance(rest, list):  # as before draft 2020-12
            first, rest = rest, way.get("additionalItems", True)
        least, most = way.get("minItems", 0), way.get("maxItems")
        if way.get("uniqueItems") and (most is None or most > 1):
            raise refused(where, "uniqueItems is not supported", "leave it away, or check the answer for it")
        if most is not None:
            if most < least:
                return NEVER
            first = first[:most]
        comma = sequence(self._space, Text(","), self._space)
        items: list[Node] = []
        for place, item in enumerate(first):
            items += [comma] * bool(items) + [self._value(as_object(item, where), f"{where}/prefixItems/{place}")]
        left = (max(0, least - len(first)), None if most is None else most - len(first))
        more: Node = NOTHING
        if left[1] != 0:
            item = self._value(as_object(rest, f"{where}/items"), f"{where}/items")
            if items:
                more = _repeated(sequence(comma, item), *left, where, "Items")
            else:
                again = (max(0, left[0] - 1), None if left[1] is None else left[1] - 1)
                more = sequence(item, _repeated(sequence(comma, item), *again, where, "Items"))
                more = more if left[0] else optional(more)
        elif left[0]:
            return NEVER
        inside = sequence(*items, more)
        return sequence(Text("["), self._space, inside, self._space, Text("]"))

    def _object(self, way: Schema, where: str) -> Node:
        """An object: its names in order, each with its value, those that need not be there left out at will."""
        properties, rest = way.get("properties", {}), way.get("additionalProperties")
        required = dict.fromkeys(way.get("required", ()))
        if not properties and rest is None:
            rest = True
        names = {name: properties.get(name, True if rest is None else rest) for name in [*properties, *required]}
        pairs = [(self._pair(name, schema, where), name in required) for name, schema in names.items()]
        comma = sequence(self._space, Text(","), self._space)
        tail = self._other_pairs(way, names, rest, comma, where)
        begin, behind = tail if tail is not None else (NOTHING, NOTHING)
        for pair, needed in reversed(pairs):  # from behind: what follows where a pair was written before, and where none was
            self._count(where)
            with_pair = sequence(pair, behind)
            begin = with_pair if needed else choice([with_pair, begin])
            follows = sequence(comma, with_pair)
            behind = follows if needed else choice([follows, behind])
            begin, behind = (self._rules.add(object(), node) for node in (begin, behind))
        return sequence(Text("{"), self._space, begin, self._space, Text("}"))

    def _pair(self, name: str, schema: Any, where: str) -> Node:
        place = f"{where}/properties/{name}"
        value = self._value(as_object(schema, place), place)
        pair = sequence(Text(_text(name, place)), self._space, Text(":"), self._space, value)
        return self._rules.add(("pair", name, value), pair)

    def _other_pairs(self, way: Schema, names: dict[str, Any], rest: Any, comma: Node, where: str) -> tuple[Node, Node] | None:
        """Pairs of other names than those that are told, at the beginning and behind others; None where there are none."""
        fewest, most = way.get("minProperties", 0), way.get("maxProperties")
        required = len(set(way.get("required", ())))
        if rest is None or rest is False:
            if fewest > required or (most is not None and most < len(names)):
                raise refused(where, "minProperties and maxProperties are not supported beside properties", "use required")
            return None
        if (names and most is not None) or fewest > max(required, 1):
            raise refused(where, "minProperties and maxProperties are not supported", "use required")
        place = f"{where}/additionalProperties"
        value = self._value(as_object(rest, place), place)
        name = self._rules.add(("other", *names), other_names(names)) if names else self._string
        pair = self._rules.add(("pair", name, value), sequence(name, self._space, Text(":"), self._space, value))
        more = _repeated(sequence(comma, pair), 0, None if most is None else max(0, most - 1), where, "Properties")
        begin = NOTHING if most == 0 else sequence(pair, more)
        return (begin if fewest > required else optional(begin)), more


def _repeated(inner: Node, least: int, most: int | None, where: str, name: str) -> Node:
    """Something so many times; llama.cpp writes each out, so that there is a bound."""
    for bound, says in ((least, f"min{name}"), (most or 0, f"max{name}")):
        if bound > MOST_REPEATS:
            raise refused(where, f"{says} above {MOST_REPEATS} is not supported", "leave it away, or give less")
    if most is not None and most < least:
        return NEVER
    return NOTHING if most == 0 else Repeat(inner, least, most)


def _bounds(way: Schema) -> Bounds:
    """The bounds of a number; of two on one side the narrower."""
    lower = [(Decimal(str(way[name])), name == "exclusiveMinimum") for name in ("minimum", "exclusiveMinimum") if name in way]
    upper = [(Decimal(str(way[name])), name == "maximum") for name in ("maximum", "exclusiveMaximum") if name in way]
    least, most = max(lower, default=None), min(upper, default=None)
    return Bounds(least and least[0], most and most[0], bool(least and least[1]), bool(most and not most[1]))


def _refuse_multiple(where: str) -> bool:
    raise refused(where, "multipleOf is supported for 1 alone", "leave it away, or check the answer for it")


def _text(value: Any, where: str) -> str:
    """A value as JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:
        raise refused(where, "a value is no JSON: a number that is none, or half a character") from None
    return text
