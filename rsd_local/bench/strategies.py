"""Strategies as they are written on the command line: ``NAME[:key=value,…]``."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from rsd_local.config import Limits, Params, Sampling, Search, Strategy, Weighting, default_temperature, require, require_choice
from rsd_local.errors import ConfigError

_GROUPS: dict[str, Any] = {"sampling": Sampling, "weighting": Weighting, "limits": Limits, "search": Search}


@dataclass(frozen=True, slots=True)
class Plan:
    """One strategy of a bench.

    Attributes:
        label: the spec as it was written; it names the rows.
        strategy: the algorithm.
        params: what it runs with; the seed is each question's own.
    """

    label: str
    strategy: Strategy
    params: Params


def read_strategy(spec: str, base: Params) -> Plan:
    """The strategy that a spec names, for example ``best-of-n:samples=8,aggregate=min``.

    Args:
        spec: a strategy's name and, after a colon, fields of sampling, weighting, limits and search.
        base: what holds where the spec says nothing, the temperature left out: that is 0.7 where a strategy samples
            several times, otherwise 0.

    Raises:
        ConfigError: an unknown strategy or key (the nearest known one is named), or a bad value.
    """
    name, _, settings = spec.partition(":")
    require_choice(name, Strategy, "strategy")
    changes: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for setting in filter(None, settings.split(",")):
        key, equals, text = setting.partition("=")
        group, field, read = _known(key.strip(), spec)
        require(bool(equals), f"strategy {spec!r}: {key!r} has no value", f"write {key}=…")
        try:
            changes[group][field] = read(text.strip())
        except ValueError:
            raise ConfigError(f"strategy {spec!r}: {key} = {text!r} is not of the right kind") from None
    strategy = cast(Strategy, name)
    require(
        strategy != "auto",
        "auto decides by the seconds that it sees, so its answers are those of a moment",
        "bench rsd, target and speculative, which it chooses from",
    )
    try:
        search = dataclasses.replace(base.search, **changes["search"])
        usual = default_temperature(strategy, search)
        temperature = changes["sampling"].setdefault("temperature", usual)
        require(temperature > 0 or not usual, "it samples: at temperature 0 every try is the same")
        made = {group: dataclasses.replace(getattr(base, group), **fields) for group, fields in changes.items()}
    except ConfigError as error:
        raise ConfigError(f"strategy {spec!r}: {error}", hint=error.hint) from None
    return Plan(spec, strategy, dataclasses.replace(base, **made))


def read_strategies(specs: list[str], base: Params) -> list[Plan]:
    """The strategies of a bench, each once.

    Raises:
        ConfigError: there is none, one stands there twice, or one cannot be used.
    """
    require(bool(specs), "no strategy", "name one or more with --strategy")
    for spec in specs:
        require(specs.count(spec) == 1, f"strategy {spec!r} stands there twice")
    return [read_strategy(spec, base) for spec in specs]


def _known(key: str, spec: str) -> tuple[str, str, Callable[[str], Any]]:
    """Where a key belongs: its group, its field, and how its text is read."""
    known = _keys()
    if key not in known:
        near = [name for name in known if key and name.startswith(key)] or difflib.get_close_matches(key, known, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"strategy {spec!r}: unknown key {key!r}", hint=f"{meant}known: {', '.join(known)}")
    return known[key]


def _keys() -> dict[str, tuple[str, str, Callable[[str], Any]]]:
    keys = {}
    for group, kind in _GROUPS.items():
        for field in dataclasses.fields(kind):
            if field.name in ("seed", "ways"):
                continue  # each question has its own
            name = "weighting" if (group, field.name) == ("weighting", "kind") else field.name
            keys[name] = group, field.name, _READERS.get(str(field.type), str)
    return keys


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(text)
    return text == "on"


_READERS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _switch, "tuple[str, ...]": lambda text: (text,)}
