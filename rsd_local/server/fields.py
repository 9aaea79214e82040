"""The fields of a request: what type each has, which are honoured, and which are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rsd_local.config import Strategy, TemplateValue
from rsd_local.errors import ConfigError
from rsd_local.json_grammar import JSON_OBJECT, json_schema_to_grammar
from rsd_local.server.errors import BadField, Unsupported

_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a field.

    Attributes:
        schema: in the words of JSON Schema.
        read: gives a value of that type, or raises BadField with the field's name.
    """

    schema: dict[str, Any]
    read: Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """What an answer must be.

    Attributes:
        schema: of its JSON; None for any text.
        where: the field that has it.
    """

    schema: dict[str, Any] | bool | None = None
    where: str = "response_format"

    def grammar(self) -> str:
        """The grammar of such answers; empty for any text.

        Raises:
            BadField: the schema cannot be used.
        """
        if self.schema is None:
            return ""
        try:
            return json_schema_to_grammar(self.schema)
        except ConfigError as error:
            raise BadField(str(error), self.where, hint=error.hint) from None


def _wrong(name: str, wanted: str, value: object) -> BadField:
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}
    return BadField(f"{name} must be {wanted}, not {kinds.get(type(value), 'null')}", name)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, "an array", value)
    return value


def number(least: float, most: float) -> Kind:
    """A number from ``least`` to ``most``."""

    def read(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(name, "a number", value)
        if not least <= value <= most:
            raise BadField(f"{name} is outside {least:g} to {most:g}", name)
        return float(value)

    return Kind({"type": "number", "minimum": least, "maximum": most}, read)


def whole(least: int, most: int = _MOST) -> Kind:
    """A whole number from ``least`` to ``most``."""

    def read(value: Any, name: str) -> int:
        if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
            raise _wrong(name, "a whole number", value)
        if not least <= value <= most:
            raise BadField(f"{name} is outside {least} to {most}", name)
        return int(value)

    return Kind({"type": "integer", "minimum": least, "maximum": most}, read)


def one_of(*choices: str) -> Kind:
    """One of some texts."""

    def read(value: Any, name: str) -> str:
        if _text(value, name) not in choices:
            raise BadField(f"{name} is none of: {', '.join(choices)}", name)
        return str(value)

    return Kind({"type": "string", "enum": list(choices)}, read)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    """One text, or an array of them."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise _wrong(name, "a string or an array of strings", value)
    return tuple(_text(one, f"{name}[{place}]") for place, one in enumerate(value))


def _variables(value: Any, name: str) -> tuple[tuple[str, TemplateValue], ...]:
    for key, one in _table(value, name).items():
        if not (one is None or isinstance(one, str | bool | int | float)):
            raise _wrong(f"{name}.{key}", "a string, a number, true, false or null", one)
    return tuple(value.items())


def _response_format(value: Any, name: str) -> ResponseFormat:
    """A format as OpenAI has it; ``json_object`` may have a schema, as llama-server's."""
    kind = one_of(*_FORMATS).read(_table(value, name).get("type"), f"{name}.type")
    if kind == "text":
        return ResponseFormat()
    holder, where = value, name
    if kind == "json_schema" and "schema" not in value:
        where = f"{name}.json_schema"
        holder = _table(value.get("json_schema"), where)
    schema = holder.get("schema")
    if schema is None and kind == "json_object":
        return ResponseFormat(JSON_OBJECT, name)
    if not isinstance(schema, dict | bool):
        raise _wrong(f"{where}.schema", "an object", schema)
    return ResponseFormat(schema, f"{where}.schema")


FLAG = Kind({"type": "boolean"}, _flag)
TEXT = Kind({"type": "string"}, _text)
TABLE = Kind({"type": "object"}, _table)
LIST = Kind({"type": "array"}, _list)
TEXTS = Kind({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, _texts)
VARIABLES = Kind({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}, _variables)
COUNT = whole(1)
_FORMATS = ("text", "json_object", "json_schema")
RESPONSE_FORMAT = Kind(
    {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "enum": list(_FORMATS)},
            "json_schema": {"type": "object", "properties": {"name": {"type": "string"}, "schema": {"type": ["object", "boolean"]}}},
        },
    },
    _response_format,
)

SHARED: dict[str, Kind] = {
    "model": TEXT,
    "stream": FLAG,
    "stream_options": TABLE,
    "max_tokens": COUNT,
    "temperature": number(0, 5),
    "top_p": number(0, 1),
    "seed": whole(-(2**63), 2**64 - 1),
    "stop": TEXTS,
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "n": COUNT,
    "rsd": TABLE,
    "top_k": whole(0),  # from here on llama-server's own, which its apps send
    "min_p": number(0, 1),
    "repeat_penalty": number(0.01, 100),
    "repeat_last_n": whole(0),
}
"""Fields that both forms of a request have, and that change the answer."""
CHAT = SHARED | {
    "messages": LIST,
    "max_completion_tokens": COUNT,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh"),
    "chat_template_kwargs": VARIABLES,
    "response_format": RESPONSE_FORMAT,
}
COMPLETION = SHARED | {"prompt": TEXTS}
STREAM_OPTIONS: dict[str, Kind] = {"include_usage": FLAG, "include_obfuscation": FLAG}
EXTENSION: dict[str, Kind] = {
    "strategy": one_of(*Strategy.__args__),  # type: ignore[attr-defined]
    "threshold": number(0, 1),
    "candidates": whole(1, 64),
    "max_steps": COUNT,
    "target_budget": number(0, 1),
    "rejected": FLAG,
    "drafts": FLAG,
}
"""The fields of ``rsd``."""

HARMLESS: dict[str, Kind] = {
    "user": TEXT,
    "safety_identifier": TEXT,
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": TEXT,
    "metadata": TABLE,
    "parallel_tool_calls": FLAG,
    "prediction": TABLE,
}
"""Fields of OpenAI's that change no answer of this server; their types are checked all the same."""
REFUSED: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "function_call": ("none",),
    "logprobs": (False,),
    "top_logprobs": (),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "response_format": ({"type": "text"},),
    "web_search_options": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
"""Fields of OpenAI's that cannot be honoured, and the values that ask for nothing."""
REFUSED_IN_MESSAGES: dict[str, tuple[object, ...]] = {"tool_calls": ([],), "function_call": (), "tool_call_id": (), "audio": ()}


def read_fields(given: dict[str, Any], kinds: dict[str, Kind], prefix: str = "") -> dict[str, Any]:
    """The values of those of the fields that are given and not null.

    Args:
        given: by name.
        kinds: of the fields.
        prefix: of their names, for messages.
    """
    return {name: kind.read(given[name], prefix + name) for name, kind in kinds.items() if given.get(name) is not None}


def refuse(given: dict[str, Any], fields: dict[str, tuple[object, ...]], prefix: str = "") -> None:
    """Refuse the first field that cannot be honoured.

    Raises:
        Unsupported: it is given, not null, and asks for something.
    """
    for name, harmless in fields.items():
        value = given.get(name)
        if value is not None and not any(type(value) is type(one) and value == one for one in harmless):
            raise Unsupported(f"{prefix}{name} is not supported by this server", prefix + name, hint="leave it away")
