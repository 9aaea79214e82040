"""``response_format``: answers in JSON through HTTP, whole and in chunks, and schemas that cannot be done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from server_support import Server, served, text_of
from tiny import write_model

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["ok", "kind"],
}


def of(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two random models, which of themselves write no JSON."""
    folder = tmp_path_factory.mktemp("json")
    files = write_model(folder / "a.gguf", seed=1), write_model(folder / "b.gguf", seed=2)
    flags = ("-md", files[0], "-m", files[1], "--reward-kind", "confidence", "--threshold", "0.02", "-c", "512", "-t", "1", "-n", "300")
    with served(*flags, "--trust-file", "--no-fit-check", "--repeats", "0", "--temp", "1", "--seed", "3", "--alias", "random") as found:
        yield found


def test_an_answer_fits_its_schema_whole_and_in_chunks(server: Server) -> None:
    for model in ("random", "random:target", "random:speculative"):
        made = server.ask("x", model=model, response_format=of(SCHEMA))["choices"][0]
        assert made["finish_reason"] == "stop"
        jsonschema.validate(json.loads(made["message"]["content"]), SCHEMA)
        assert text_of(server.chunks("x", model=model, response_format=of(SCHEMA))) == made["message"]["content"]


def test_json_object_is_any_object_or_one_of_a_schema(server: Server) -> None:
    plain = server.ask("x", response_format={"type": "json_object"}, max_tokens=20)["choices"][0]
    assert plain["message"]["content"].startswith("{")
    made = server.ask("x", response_format={"type": "json_object", "schema": SCHEMA})["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(made), SCHEMA)
    free = server.ask("x", response_format={"type": "text"}, max_tokens=20)["choices"][0]["message"]["content"]
    assert not free.startswith("{")


WRONG: list[tuple[Any, str, str]] = [
    ("json", "response_format", "an object"),
    ({}, "response_format.type", "a string"),
    ({"type": "xml"}, "response_format.type", "none of"),
    ({"type": "json_schema"}, "response_format.json_schema", "an object"),
    ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema", "an object"),
    (of({"properties": {"a": {"not": {}}}}), "response_format.json_schema.schema", "at /properties/a: 'not'"),
    (of({"type": "string", "pattern": "(?=a)"}), "response_format.json_schema.schema", "looks ahead"),
    (of(False), "response_format.json_schema.schema", "no JSON fits"),
    (of({"anyOf": [{"minimum": number} for number in range(5000)]}), "response_format.json_schema.schema", "alternatives"),
    ({"type": "json_object", "schema": {"$ref": "#"}}, "response_format.schema", "leads to itself"),
]


@pytest.mark.parametrize(("given", "param", "words"), WRONG, ids=[str(given)[:50] for given, _, _ in WRONG])
def test_a_format_that_cannot_be_done_is_a_400_that_names_the_cause(server: Server, given: Any, param: str, words: str) -> None:
    for stream in (False, True):
        response = server.post("x", response_format=given, stream=stream)
        error = response.json()["error"]
        assert response.status_code == 400 and error["param"] == param and words in error["message"], error
    assert server.client.get("/health").status_code == 200
