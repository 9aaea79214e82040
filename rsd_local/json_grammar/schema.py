"""JSON schemas as alternatives of plain keywords: references followed, ``allOf`` put together, ``anyOf`` and ``oneOf`` spread out."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rsd_local.errors import ConfigError

Schema = dict[str, Any]
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
MOST_BYTES, MOST_DEPTH, MOST_WAYS, MOST_SECONDS = 1 << 17, 48, 100, 3.0
"""Of a schema: bytes as JSON, levels of it, alternatives at one place, and seconds to convert it."""

_MOST_NUMBER = 10**15  # what a float holds exactly
_COMBINED = ("$ref", "allOf", "anyOf", "oneOf")
_NOT_DONE = frozenset(
    "not if patternProperties propertyNames contains dependentRequired dependentSchemas dependencies unevaluatedItems "
    "unevaluatedProperties $dynamicRef $recursiveRef extends disallow divisibleBy".split()
)
"""Keywords that restrict something, and that no grammar of ours does."""
OF_TYPE: dict[str, tuple[str, ...]] = {
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
}
"""Keywords that are understood, by the type that they restrict."""
_KNOWN = {name for names in OF_TYPE.values() for name in names} | {"type", "enum", "const"}


def refused(where: str, why: str, hint: str = "") -> ConfigError:
    """The error for a schema that cannot be used.

    Args:
        where: the place in it, such as ``/properties/a``; empty for its root.
        why: what is wrong.
        hint: what to do.
    """
    return ConfigError(f"the JSON schema{f' at {where[:200]}' if where else ''}: {why}", hint=hint)


def read_schema(schema: Mapping[str, Any] | bool | str) -> Schema:
    """A schema as an object whose size is bounded.

    Raises:
        ConfigError: it is no JSON or no schema, or too large or too deep.
    """
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
        if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
            raise refused("", f"it has more than {MOST_BYTES >> 10} KiB")
        found = json.loads(text)
    except RecursionError:
        raise refused("", f"it is nested deeper than {MOST_DEPTH} levels") from None
    except (TypeError, ValueError) as error:
        raise refused("", f"it is no JSON: {error}") from None
    level: list[Any] = [found]
    for _ in range(MOST_DEPTH * 2):  # an object of properties is a level too
        level = [inner for outer in level for inner in _inner(outer)]
    if level:
        raise refused("", f"it is nested deeper than {MOST_DEPTH} levels")
    return as_object(found, "")


def as_object(schema: Any, where: str) -> Schema:
    """A schema as an object; ``true`` takes everything and ``false`` nothing."""
    if isinstance(schema, bool):
        return {} if schema else {"enum": []}
    if not isinstance(schema, dict):
        raise refused(where, "it is neither an object nor true or false")
    return schema


class Schemas:
    """Follows the references of one schema.

    Args:
        root: that they lead into.
    """

    def __init__(self, root: Schema) -> None:
        self._root, self._late = root, time.monotonic() + MOST_SECONDS
        self._anchors: dict[str, Schema] = {}
        for part in _objects(root):
            if isinstance(part.get("$anchor"), str):
                self._anchors[f"#{part['$anchor']}"] = part

    def check_time(self, where: str) -> None:
        """Refuse a schema whose combinations have no end in sight."""
        if time.monotonic() > self._late:
            raise refused(where, f"it takes longer than {MOST_SECONDS:g} s to put together", "give a simpler schema")

    def target(self, reference: Any, where: str) -> Schema:
        """What a ``$ref`` refers to.

        Raises:
            ConfigError: it is somewhere else, or nothing is there.
        """
        if not isinstance(reference, str) or not (reference.startswith("#") or reference == self._root.get("$id")):
            raise refused(where, f"$ref {str(reference)[:100]!r} leads elsewhere", "nothing is fetched: put it under $defs")
        if reference in self._anchors:
            return self._anchors[reference]
        place: Any = self._root
        for part in reference.partition("#")[2].split("/")[1:]:
            name = part.replace("%25", "%").replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
                place = place[int(name)]
            elif isinstance(place, dict) and name in place:
                place = place[name]
            else:
                raise refused(where, f"$ref {reference[:100]!r} leads nowhere")
        return as_object(place, where)

    def ways(self, schema: Schema, where: str, seen: tuple[str, ...] = ()) -> list[Schema]:
        """The alternatives that a schema comes to, each without references and combinations at its top.

        Raises:
            ConfigError: a keyword is not understood, has a wrong value, or there are too many.
        """
        plain = self._plain(schema, where)
        found = [plain]
        for name in _COMBINED:
            if name not in schema:
                continue
            if name == "$ref":
                reference = schema[name]
                if reference in seen:
                    raise refused(where, f"$ref {str(reference)[:100]!r} leads to itself")
                parts = [self.ways(self.target(reference, where), str(reference), (*seen, reference))]
            else:
                given = schema[name]
                if not isinstance(given, list) or not given:
                    raise refused(where, f"{name} is no array of schemas")
                each = [self.ways(as_object(one, where), f"{where}/{name}/{place}", seen) for place, one in enumerate(given)]
                if name != "allOf" and sum(map(len, each)) > MOST_WAYS:
                    raise refused(where, f"more than {MOST_WAYS} alternatives")
                if name == "oneOf":
                    self._check_apart([_beside(plain, ways, where) for ways in each], where)
                parts = each if name == "allOf" else [list(itertools.chain(*each))]
            for alternatives in parts:
                if len(found) * len(alternatives) > MOST_WAYS:
                    raise refused(where, f"more than {MOST_WAYS} alternatives")
                self.check_time(where)
                found = [merged for one in found for other in alternatives if (merged := merge(one, other, where)) is not None]
        return found

    def _check_apart(self, each: list[list[Schema]], where: str) -> None:
        """Refuse ``oneOf`` where a value may fit two of its schemas: then no grammar says which fits alone."""
        for one, other in itertools.combinations(each, 2):
            self.check_time(where)
            if not all(_apart(this, that) for this in one for that in other):
                raise refused(
                    where, "oneOf has schemas that one value may fit both of", "use anyOf, or tell them apart by a required constant"
                )

    def _plain(self, schema: Schema, where: str) -> Schema:
        """The keywords that restrict something, but for those that combine schemas."""
        found: Schema = {}
        for name, value in schema.items():
            if name in _NOT_DONE:
                raise refused(where, f"{name!r} is not supported", "leave it away, or check the answer for it")
            if name in _KNOWN:  # what JSON Schema does not define says nothing
                found[name] = value
        for name, value in found.items():
            _check_value(name, value, where)
        if "const" in found:
            constant = found.pop("const")
            found = merge(found, {"enum": [constant]}, where) or {"enum": []}
        kinds = found.get("type")
        if kinds is not None:
            names = [kinds] if isinstance(kinds, str) else kinds
            if not isinstance(names, list) or not names or any(name not in TYPES for name in names):
                raise refused(where, f"type {json.dumps(kinds)[:100]} is none of: {', '.join(TYPES)}")
            found["type"] = sorted(set(names))
        return found


def _check_value(name: str, value: Any, where: str) -> None:
    """Refuse a keyword whose value is of a wrong kind."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_NUMBER
    count = number and isinstance(value, int) and value >= 0
    wanted = {
        "enum": ("an array", isinstance(value, list)),
        "required": ("an array of names", isinstance(value, list) and all(isinstance(one, str) for one in value)),
        "properties": ("an object", isinstance(value, dict)),
        "prefixItems": ("an array", isinstance(value, list)),
        "pattern": ("a text", isinstance(value, str)),
        "format": ("a text", isinstance(value, str)),
        "uniqueItems": ("true or false", isinstance(value, bool)),
    }
    wanted |= dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), ("a number", number))
    counts = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
    wanted |= dict.fromkeys(counts, ("a whole number from 0 on", count))
    kind, fine = wanted.get(name, ("", True))
    if not fine:
        raise refused(where, f"{name} is not {kind} that can be used")


def merge(one: Schema, other: Schema, where: str) -> Schema | None:
    """What both schemas say, None where no type is left.

    Raises:
        ConfigError: they say what cannot be put together.
    """
    made: Schema = {**one}
    for name, value in other.items():
        if name not in made or name == "format":
            made[name] = value
        elif name == "type":
            kinds = {kind for kind in made[name] if kind in value or (kind == "integer" and "number" in value)}
            kinds |= {kind for kind in value if kind == "integer" and "number" in made[name]}
            if not kinds:
                return None
            made[name] = sorted(kinds)
        elif name == "enum":
            keys = {json.dumps(each, sort_keys=True) for each in value}
            made[name] = [each for each in made[name] if json.dumps(each, sort_keys=True) in keys]
        elif name in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            made[name] = max(made[name], value)
        elif name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            made[name] = min(made[name], value)
        elif name == "required":
            made[name] = list(dict.fromkeys([*made[name], *value]))
        elif made[name] != value and name not in ("properties", "additionalProperties"):
            raise refused(where, f"two values of {name} cannot be put together")
    if ("properties" in one or "additionalProperties" in one) and ("properties" in other or "additionalProperties" in other):
        made |= _merged_properties(one, other)
    return made


def _merged_properties(one: Schema, other: Schema) -> Schema:
    both = [(schema.get("properties", {}), schema.get("additionalProperties", True)) for schema in (one, other)]
    names = dict.fromkeys([*both[0][0], *both[1][0]])
    properties = {name: _both(*(own.get(name, rest) for own, rest in both)) for name in names}
    explicit = any("additionalProperties" in schema for schema in (one, other))
    return {"properties": properties} | ({"additionalProperties": _both(both[0][1], both[1][1])} if explicit else {})


def _beside(schema: Schema, ways: list[Schema], where: str) -> list[Schema]:
    """What the ways come to beside what else is said."""
    return [merged for way in ways if (merged := merge(schema, way, where)) is not None]


def _both(one: Any, other: Any) -> Any:
    if one is True or one == other:
        return other
    return one if other is True else False if one is False or other is False else {"allOf": [one, other]}


def _apart(one: Schema, other: Schema) -> bool:
    kinds = [set(schema.get("type", TYPES)) for schema in (one, other)]
    kinds = [found | ({"integer"} if "number" in found else set()) for found in kinds]
    values = [{json.dumps(value, sort_keys=True) for value in schema["enum"]} if "enum" in schema else None for schema in (one, other)]
    if values[0] is not None and values[1] is not None:
        return values[0].isdisjoint(values[1])
    for own, foreign in ((0, 1), (1, 0)):
        if values[own] is not None:
            return all(type_of(json.loads(text)) not in kinds[foreign] for text in values[own] or ())
    if kinds[0].isdisjoint(kinds[1]):
        return True
    if kinds[0] & kinds[1] != {"object"}:
        return False
    shared = {*one.get("required", ())} & {*other.get("required", ())}
    return any(_apart_names(one, other, name) for name in shared)


def _apart_names(one: Schema, other: Schema, name: str) -> bool:
    parts = [schema.get("properties", {}).get(name) for schema in (one, other)]
    found = [_constants(part) for part in parts]
    if found[0] is None or found[1] is None:
        return False
    return not {json.dumps(value) for value in found[0]} & {json.dumps(value) for value in found[1]}


def _constants(schema: Any) -> list[Any] | None:
    """The values that a schema names, None where it names none."""
    if not isinstance(schema, dict):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) else None


def _inner(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def type_of(value: Any) -> str:
    """The type of a value of JSON; a number without a fraction is an integer."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value.is_integer()):
        return "integer"
    names: dict[type, str] = {float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _objects(value: Any) -> Iterable[Schema]:
    waiting = [value]
    while waiting:
        found = waiting.pop()
        waiting += _inner(found)
        if isinstance(found, dict):
            yield found
