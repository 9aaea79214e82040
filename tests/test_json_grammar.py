"""Grammars of JSON schemas: what they take, what is refused, and that no schema takes long or ends the process."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from rsd_local import json_schema_to_grammar
from rsd_local.errors import ConfigError

TAKES = """
import json, sys
from llama_cpp import llama_cpp as C
from rsd_local.runtime.grammar import Compiled, GrammarState
from rsd_local.runtime import Model
from rsd_local.config import RoleConfig
from rsd_local import json_schema_to_grammar
from rsd_local.errors import DecodeFailed
model = Model(RoleConfig(sys.argv[1], trusted=True))
end = model.eos
def takes(grammar, text):
    state = GrammarState(grammar)
    try:
        for byte in text.encode("utf-8", "surrogatepass"):
            state.accept(model.tokenize(bytes([byte]), continues=True)[0] if byte >= 128 else 3 + byte)
    except DecodeFailed:
        return False
    return state.allows(end)
for schema, fine, wrong in json.load(sys.stdin):
    grammar = Compiled(model, json_schema_to_grammar(schema))
    print(json.dumps([[takes(grammar, text) for text in texts] for texts in (fine, wrong)]), flush=True)
model.close()
"""
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}, "required": ["b"]}
LIST = {"$defs": {"list": {"type": "object", "properties": {"next": {"$ref": "#/$defs/list"}}}}, "$ref": "#/$defs/list"}
KINDS = {"oneOf": [{"properties": {"kind": {"const": kind}, kind: {}}, "required": ["kind", kind]} for kind in ("x", "y")]}
HAS_A = {"properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]}
CASES: list[tuple[Any, list[str], list[str]]] = [
    (
        True,
        ["{}", "[1, [], {}]", '"\u00fc\\n"', "-0.5e3", "null"],
        ["", "{", '"\n"', "01", "+1", "nul", "[1,]", '"\\ud800"', "1e999", '"\x7f"'],
    ),
    ({"type": "object"}, ["{}", '{"a":{"b":[]}}', '{ "a" :1}'], ["[]", "1", "{} ", " {}", "{a:1}"]),
    (
        OBJECT,
        ['{"b":null}', '{"a":-3,"b":null}'],
        ["{}", '{"a":1}', '{"b":null,"a":1}', '{"a":1.5,"b":null}', '{"b":null,"c":1}', '{"a":1,,"b":null}'],
    ),
    (
        {"properties": {"a": True}, "additionalProperties": {"type": "null"}},
        ['{"a":1,"b":null}', '{"aa":null}', '{"":null}'],
        ['{"b":1}', '{"\\u0061":null,"a":2}'],
    ),
    ({"required": ["x"]}, ['{"x":1}', "[]"], ["{}"]),
    ({"required": ["x"], "properties": {"y": {}}, "additionalProperties": False, "type": ["object", "null"]}, ["null"], ["{}", '{"x":1}']),
    (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        ["[true]", "[true, false]"],
        ["[]", "[true,true,true]", "[1]"],
    ),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ({"prefixItems": [{"type": "null"}, {"type": "integer"}], "items": False}, ["[null,3]", '"x"'], ["[null]", "[null,3,4]"]),
    (
        {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "integer"}, "minItems": 2},
        ["[null,1]", "[null,1,2]"],
        ["[null]"],
    ),
    ({"type": "string", "minLength": 1, "maxLength": 2}, ['"a"', '"\U0001f600\\n"', '"\\u00e9"'], ['""', '"abc"', '"\\ud83d\\ude00"']),
    ({"type": "string", "pattern": "^a[bc]{2,3}\\.(x|y)?$"}, ['"abc."', '"acbb.y"'], ['"ab."', '"abcx"', '"abbbb."']),
    ({"type": "string", "pattern": "\\d-[^a-y]"}, ['"see 4-z!"', '"0-\\\\"'], ['"4-a"', '"-"']),
    ({"type": "string", "pattern": '^"$'}, ['"\\""'], ['"""', '"a"']),
    ({"type": "string", "format": "date"}, ['"2024-02-28"'], ['"2024-02-30"', '"2024-13-01"', '"24-01-01"']),
    ({"type": "string", "format": "uuid"}, ['"12345678-1234-1234-1234-123456789abc"'], ['"12345678"']),
    ({"type": "string", "format": "ipv4"}, ['"127.0.0.1"'], ['"256.0.0.1"']),
    ({"type": "string", "format": "no such"}, ['"x"'], ["1"]),
    ({"type": "integer", "minimum": -12, "maximum": 105}, ["-12", "-9", "0", "99", "105"], ["-13", "106", "1.0", "-0"]),
    ({"type": "integer", "exclusiveMinimum": 7, "multipleOf": 1}, ["8", "123456"], ["7", "6", "-8"]),
    ({"type": "number", "minimum": 0, "maximum": 1}, ["0", "1", "0.5", "1.00", "0.99"], ["1.01", "-0.1", "2", "1e0"]),
    ({"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.5}, ["0.26", "0.4"], ["0.25", "0.5", "0", "1"]),
    ({"enum": ["a\\b", 'c"d\n', 1, None, {"k": [1]}]}, ['"a\\\\b"', '"c\\"d\\n"', "1", "null", '{"k": [1]}'], ['"a\\b"', "2"]),
    ({"enum": [1, "1", 2.5, True], "type": "number", "maximum": 2}, ["1"], ['"1"', "2.5", "true"]),
    ({"const": "\u00e9"}, ['"\u00e9"'], ['"e"']),
    ({"type": ["integer", "string"], "maximum": 3, "minLength": 2}, ["3", '"ab"'], ["4", '"a"']),
    ({"anyOf": [{"type": "null"}, {"minimum": 5}], "type": ["number", "null"]}, ["null", "5"], ["4", '"x"']),
    (
        {"allOf": [HAS_A, {"properties": {"b": {"type": "null"}, "a": {"maximum": 4}}}], "type": "object"},
        ['{"a":3}', '{"a":4,"b":null}'],
        ['{"a":5}', '{"b":null}'],
    ),
    (LIST, ["{}", '{"next":{"next":{}}}'], ['{"next":1}']),
    (KINDS | {"type": "object"}, ['{"kind":"x","x":1}'], ['{"kind":"x","y":1}', '{"kind":"z"}']),
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["1", '"1"'], ["1.5", "null"]),
    ({"anyOf": [{"$ref": "#/definitions/a~1b"}, False], "definitions": {"a/b": {"type": "null"}}}, ["null"], ["1"]),
]


def test_a_grammar_takes_what_fits_the_schema_and_nothing_else(smollm2: object, tiny: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKES, str(tiny["dense"])], input=json.dumps(CASES), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (schema, fine, wrong), (taken, refused) in zip(CASES, found, strict=True):
        assert (taken, refused) == ([True] * len(fine), [False] * len(wrong)), (schema, fine, taken, wrong, refused)


def test_what_the_table_says_of_texts_is_what_json_schema_says() -> None:
    """So that the table above is no wish: what it takes fits; what it does not take need not be wrong (the order of names)."""
    jsonschema = pytest.importorskip("jsonschema")
    for schema, fine, _ in CASES:
        for text in fine:
            jsonschema.validate(json.loads(text), schema)


REFUSED: list[tuple[Any, str]] = [
    (3, "neither an object"),
    ("{", "no JSON"),
    ({"type": "text"}, "none of"),
    ({"properties": {"a": {"not": {"type": "null"}}}}, "at /properties/a: 'not' is not supported"),
    ({"patternProperties": {}}, "'patternProperties' is not supported"),
    ({"if": {}}, "'if'"),
    ({"items": {"uniqueItems": True}}, "uniqueItems"),
    ({"multipleOf": 0.1}, "multipleOf"),
    ({"minProperties": 2}, "minProperties"),
    ({"minimum": "3"}, "minimum is not a number"),
    ({"minimum": True}, "minimum is not a number"),
    ({"minItems": -1}, "minItems"),
    ({"required": "a"}, "required"),
    ({"maxLength": 2001}, "above 2000"),
    ({"pattern": "(?=a)"}, "looks ahead"),
    ({"pattern": "(a*)*"}, "may be empty"),
    ({"pattern": "(a"}, "("),
    ({"pattern": "a\\b"}, "\\b"),
    ({"pattern": "^([a-z]{1,100}[0-9]){1,100}$"}, "too large"),
    ({"pattern": "a", "minLength": 1}, "pattern beside"),
    ({"oneOf": [{"type": "integer"}, {"minimum": 1}]}, "oneOf"),
    ({"anyOf": []}, "anyOf"),
    ({"$ref": "https://example.com/schema"}, "leads elsewhere"),
    ({"$ref": "#/$defs/none"}, "leads nowhere"),
    ({"$ref": "#"}, "leads to itself"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"}, "no JSON fits"),
    (False, "no JSON fits"),
    ({"enum": []}, "no JSON fits"),
    ({"type": "array", "minItems": 2, "maxItems": 1}, "no JSON fits"),
    ({"type": "integer", "minimum": 2, "maximum": 1}, "no JSON fits"),
    ({"allOf": [{"type": "null"}, {"type": "string"}]}, "no JSON fits"),
    ({"enum": ["\ud800"]}, "half a character"),
    ({"minimum": 10**400}, "minimum"),
]


@pytest.mark.parametrize(("schema", "words"), REFUSED, ids=[str(schema)[:50] for schema, _ in REFUSED])
def test_a_schema_that_no_grammar_can_do_is_refused_and_the_cause_is_named(schema: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        json_schema_to_grammar(schema)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    return functools.reduce(lambda inner, _: {"type": "array", "items": inner}, range(levels), {"type": "null"})


GROWS = {
    "a": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}}},
    "b": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/a"}, {"properties": {"y": {"$ref": "#/$defs/a"}}}]}}},
}
HUGE: dict[str, Any] = {
    "deep": nested(400),
    "deep text": "[" * 100_000,
    "long": {"description": "x" * 200_000},
    "many alternatives": {"allOf": [{"anyOf": [{"minimum": number} for number in range(50)]} for _ in range(50)]},
    "a chain": {"$defs": {f"a{n}": {"items": {"$ref": f"#/$defs/a{n + 1}"}} for n in range(2000)} | {"a2000": {}}, "$ref": "#/$defs/a0"},
    "growing": {"$defs": GROWS, "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]},
    "a long name": {"properties": {"x" * 50_000: {}}, "additionalProperties": True},
    "a long pattern": {"pattern": "a|" * 20_000},
    "many properties": {"properties": {f"p{n}": {} for n in range(5000)}},
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_schema_is_refused_in_time(name: str) -> None:
    began = time.thread_time()
    with pytest.raises(ConfigError):
        json_schema_to_grammar(HUGE[name])
    assert time.thread_time() - began < 10


def test_a_schema_with_many_ways_apart_is_converted_or_refused_in_time() -> None:
    """How many comparisons fit into the time that there is depends on the machine."""
    began = time.thread_time()
    try:
        made = json_schema_to_grammar({"oneOf": [{"enum": list(range(100 * one, 100 * one + 99))} for one in range(100)]})
        assert made.startswith("root")
    except ConfigError as error:
        assert "it takes longer than" in str(error)
    assert time.thread_time() - began < 10


def test_a_large_schema_is_converted() -> None:
    properties = {f"p{number}": {"type": "string", "maxLength": 2000} for number in range(400)}
    grammar = json_schema_to_grammar({"type": "object", "properties": properties, "required": list(properties)[::2]})
    assert grammar.startswith("root ::=") and grammar.count("\n") > 400
