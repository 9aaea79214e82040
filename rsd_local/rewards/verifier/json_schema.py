"""The verifier ``json-schema``: the JSON in a step against a schema (https://json-schema.org), by the library ``jsonschema``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsd_local.config import from_home, require
from rsd_local.errors import ConfigError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.values import short
from rsd_local.text_files import read_text

MAX_DEPTH = 100
"""Arrays and objects within each other, of a step's JSON."""
MAX_LENGTH = 1_000_000
"""Characters of a step with JSON."""
_SHALLOW = 20  # levels that any schema is followed through, unless it refers to itself without an end

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_BEGIN = re.compile(r"""\{\s*["'}]|\[\s*(?:["'{\[\]]|-?\d[\d.eE+-]*\s*,|(?:true|false|null)\b)""")


class _NoJson(ValueError):
    """Text that is nearly JSON, or JSON that is refused."""


class JsonSchema:
    """A step passes (1.0) where its JSON fits a schema, does not (0.0) where it does not or is damaged; None where it has none.

    A step's JSON is that of its fenced blocks that are marked ``json`` (or not marked and begin with a bracket), each of which must fit;
    otherwise the whole step; otherwise what begins with its first ``{`` or ``[`` that looks like JSON. A key twice in an object, NaN,
    Infinity, numbers beyond a float, more than 100 levels and more than 1,000,000 characters are refused: 0.0. Patterns in the schema
    are the user's own, and searched without a limit. ``format`` is not checked. Nothing is fetched for a ``$ref``.

    Args:
        schema: a file, or the schema itself.

    Raises:
        ConfigError: jsonschema is not installed; the schema cannot be read, is none, or refers to one elsewhere.
    """

    immediate = True

    def __init__(self, schema: Path | Mapping[str, Any]) -> None:
        try:
            import jsonschema
            from jsonschema_specifications import REGISTRY
        except ImportError:
            raise ConfigError("jsonschema is not installed", hint="pip install 'rsd-local[verify]'") from None
        name = "the JSON schema" if isinstance(schema, Mapping) else f"the JSON schema {schema}"
        content = dict(schema) if isinstance(schema, Mapping) else _load(schema, name)
        kind = jsonschema.validators.validator_for(content, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(content)
        except jsonschema.SchemaError as error:
            place = "/".join(map(str, error.absolute_path))
            raise ConfigError(f"{name} is none: {short(error.message, 200)}{f', at {place}' if place else ''}") from None
        except RecursionError:
            raise ConfigError(f"{name} is nested too deeply") from None
        own = {text.rstrip("#") for text in _texts_of(content, ("$id", "id"))}
        for reference in _texts_of(content, ("$ref", "$dynamicRef")):
            place = reference.partition("#")[0]
            there = not place or place in own or place in REGISTRY or any(text.endswith(f"/{place}") for text in own)
            require(there, f"{name} refers to {short(place)!r}", "nothing is fetched: put what it refers to under its $defs")
        self._validator = kind(content, registry=REGISTRY)

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None = None) -> float | None:
        """The reward of a step.

        Raises:
            VerifierFailed: the schema refers to a part that it does not have, or to itself without an end.
        """
        try:
            values = list(_values(step))
        except (ValueError, RecursionError):
            return 0.0
        try:
            fits = all(self._validator.is_valid(value) for value in values)
        except RecursionError as error:
            if any(_depth(value) > _SHALLOW for value in values):
                return 0.0
            raise VerifierFailed("the JSON schema cannot be used: it refers to itself without an end") from error
        except Exception as error:  # of the library: references that lead nowhere, patterns that are none
            raise VerifierFailed(f"the JSON schema cannot be used: {short(str(error) or type(error).__name__, 200)}") from error
        return (1.0 if fits else 0.0) if values else None

    def checks(self, prompt: Prompt) -> bool:
        """Always true: any step may hold JSON."""
        return True

    def close(self) -> None:
        """There is nothing to end."""


def _load(path: Path, name: str) -> Any:
    text = read_text(from_home(path))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no JSON: {short(str(error))}") from None
    require(isinstance(content, dict | bool), f"{name} is none: a schema is an object")
    return content


def _texts_of(content: Any, keys: tuple[str, ...]) -> Iterator[str]:
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (value[key] for key in keys if isinstance(value.get(key), str))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _values(step: str) -> Iterator[Any]:
    """The values of a step's JSON; raises ValueError where one is damaged or refused."""
    blocks = [
        text
        for mark, text in _FENCE.findall(step)
        if mark.lower() in ("json", "jsonc", "json5") or (not mark and _BEGIN.match(text.lstrip()))
    ]
    whole = step.strip()
    if len(step) > MAX_LENGTH:
        if blocks or _BEGIN.search(step):
            raise _NoJson("too long")
        return
    if blocks:
        yield from map(_decode, blocks)
    elif whole and (whole[0] in '{["' or whole[-1] in "}]") and _BEGIN.match(whole):
        yield _decode(whole, rest=True)
    elif begin := _BEGIN.search(step):
        yield _decode(step[begin.start() :], rest=True)
    else:
        try:
            yield _decode(whole)
        except json.JSONDecodeError:
            return


def _decode(text: str, rest: bool = False) -> Any:
    """The value of a JSON text; where ``rest`` is allowed, text may follow it."""
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    if rest:
        value, _ = decoder.raw_decode(text.lstrip())
    else:
        value = decoder.decode(text)
    if _depth(value) > MAX_DEPTH:
        raise _NoJson("too deep")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _NoJson("a key twice")
    return made


def _refuse(text: str) -> Any:
    raise _NoJson(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NoJson(text)
    return value


def _whole(text: str) -> int:
    _finite(text)
    return int(text)


def _depth(value: Any) -> int:
    """How many arrays and objects are within each other, a value that is none counted as one."""
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth
