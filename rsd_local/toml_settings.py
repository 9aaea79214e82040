"""Settings from TOML files: trios and catalogues."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from rsd_local.config import ROLES, AnyRole, RemoteRole, RewardConfig, RoleConfig, Trio, TunedFigures, from_home, is_ollama, require
from rsd_local.errors import ConfigError
from rsd_local.text_files import read_text

T = TypeVar("T")
Tables = dict[str, dict[str, Any]]
_NOT_OF_A_FILE = ("run_code", "trusted")
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "Path": "a text", "tuple": "a list"}
"""Kinds of values as people call them."""


def read_trio(file: Path | str) -> Trio:
    """Reads a trio from a TOML file; relative paths start at the file's folder.

    Raises:
        ConfigError: no such file, no TOML, an unknown key (the nearest known one is named) or a bad value.
    """
    file = Path(file)
    return build_trio(_absolute(read_toml(file), file.parent), str(file))


def read_catalogue(file: Path, base: Path) -> tuple[Tables, Tables]:
    """The tables ``[model.NAME]`` and ``[trio.NAME]`` of a catalogue, paths made absolute; what is in them is checked later.

    Args:
        file: the catalogue.
        base: where relative paths start.

    Raises:
        ConfigError: no such file, no TOML, or something else in it.
    """
    table = read_toml(file)
    for key, names in table.items():
        require(key in ("model", "trio"), f"{file}: unknown key {key!r}", "known: model, trio")
        fine = isinstance(names, dict) and all(isinstance(entry, dict) for entry in names.values())
        require(fine, f"{file}: [{key}] holds something other than tables")
    return table.get("model", {}), {name: _absolute(trio, base) for name, trio in table.get("trio", {}).items()}


def build_trio(table: dict[str, Any], where: str) -> Trio:
    """A trio from a table whose paths are absolute.

    Raises:
        ConfigError: as ``read_trio``; ``where`` begins the message.
    """
    roles = {role: table[role] for role in ROLES if isinstance(table.get(role), dict)}
    for role, section in roles.items():
        require("trusted" not in section, f"{where}: [{role}] 'trusted' is no setting of a file", "give --trust-file where you start rsd")
        require(
            "engines" not in section, f"{where}: [{role}] 'engines' is gone since 0.2", "take the line out: one engine serves all prompts"
        )
    require("run_code" not in table, f"{where}: 'run_code' is no setting of a file", "give --run-code where you start rsd")
    table = dict(table)
    if "reward" in roles:
        roles["reward"] = _without_kind(roles["reward"], table, f"{where}: [reward]")
    made: dict[str, Any] = {role: _role(section, f"{where}: [{role}]") for role, section in roles.items()}
    if isinstance(table.get("reward"), list):
        require("rewards" not in table, f"{where}: rewards are given twice")
        sections = table.pop("reward")
        made["rewards"] = [_reward(section, f"{where}: [[reward]] {number}") for number, section in enumerate(sections, 1)]
    if isinstance(table.get("tuned"), dict):
        made["tuned"] = build(TunedFigures, table["tuned"], f"{where}: tuned")
    return build(Trio, table | made, where)


def _role(section: dict[str, Any], where: str) -> AnyRole:
    """A model here, or on a server where its table has a ``url``.

    Raises:
        ConfigError: it has both; as ``build``.
    """
    if "url" not in section:
        return build(RoleConfig, section, where)
    here = [key for key in section if key in {entry.name for entry in dataclasses.fields(RoleConfig)}]
    require(not here, f"{where}: {', '.join(here)} beside a url", "those are settings of a model that runs here: take one of them out")
    return build(RemoteRole, section, where)


def _without_kind(section: dict[str, Any], table: dict[str, Any], where: str) -> dict[str, Any]:
    """A reward's model without what says how it is read, which goes to the trio's own keys.

    Raises:
        ConfigError: the trio has that already.
    """
    made = dict(section)
    for key, name in (("kind", "reward_kind"), ("layout", "layout"), ("head", "head")):
        if key in made:
            require(name not in table, f"{where}: {key} beside {name}", "take one of them out")
            table[name] = made.pop(key)
    return made


def _reward(section: Any, where: str) -> RewardConfig:
    """One reward of a cascade; the keys of its model stand beside its own."""
    require(isinstance(section, dict), f"{where} is no table")
    require("trusted" not in section, f"{where}: 'trusted' is no setting of a file", "give --trust-file where you start rsd")
    of_model = {entry.name for kind in (RoleConfig, *([RemoteRole] if "url" in section else [])) for entry in dataclasses.fields(kind)}
    model = {key: value for key, value in section.items() if key in of_model}
    rest: dict[str, Any] = {key: value for key, value in section.items() if key not in of_model}
    if model:
        rest["model"] = _role(model, where)
    return build(RewardConfig, rest, where)


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file's table.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(read_text(file, hint="give a trio's TOML file"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is no TOML: {error}", hint="fix the line it names") from None


def _absolute(table: dict[str, Any], base: Path) -> dict[str, Any]:
    """A trio's table with paths that no longer depend on a folder."""
    made = dict(table)
    for role in ROLES:
        section = table.get(role)
        if isinstance(section, dict):
            made[role] = _place(dict(section), base)
    _place(made, base)
    if isinstance(table.get("reward"), list):
        made["reward"] = [_place(dict(section), base) if isinstance(section, dict) else section for section in table["reward"]]
    return made


def _place(section: dict[str, Any], base: Path) -> dict[str, Any]:
    """Makes the paths of a role's or a reward's settings absolute."""
    for key in ("path", "lora", "head", "tests", "schema", "api_key_file"):
        if isinstance(section.get(key), str):
            section[key] = _rooted(section[key], base)
    verifier = section.get("verifier")
    if isinstance(verifier, str) and verifier.startswith("pytest:"):
        section["verifier"] = f"pytest:{base / from_home(verifier.removeprefix('pytest:'))}"
    return section


def _rooted(path: str, base: Path) -> str:
    """A path that no longer depends on a folder; a name of Ollama's stays, and is looked up once the model is asked for."""
    return path if is_ollama(path) else str(base / from_home(path))


def build(kind: type[T], table: dict[str, Any], where: str) -> T:
    """A dataclass of settings from a TOML table.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a missing or a bad one; ``where`` begins the message.
    """
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            known = ", ".join(name for name in fields if name not in _NOT_OF_A_FILE)
            raise ConfigError(f"{where}: unknown key {key!r}", hint=f"did you mean {near[0]!r}?" if near else f"known: {known}")
    for name, entry in fields.items():
        needed = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if needed and name not in table:
            raise ConfigError(f"{where}: {name!r} is missing")
        value, annotated = table.get(name), str(entry.type).removesuffix(" | None")
        wrong = (
            (annotated == "int" and (not isinstance(value, int) or isinstance(value, bool)))
            or (annotated == "float" and (not isinstance(value, int | float) or isinstance(value, bool)))
            or (annotated == "bool" and not isinstance(value, bool))
            or (annotated in ("str", "Path") and not isinstance(value, str | Path))
            or (annotated == "AnyRole" and not isinstance(value, AnyRole))
            or (annotated.startswith("tuple") and not isinstance(value, list))
        )
        if name in table and wrong:
            raise ConfigError(f"{where}: {name} = {value!r} is not of the right kind", hint=_of_kind(name, value, annotated))
    try:
        return kind(**table)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", hint=error.hint) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _of_kind(name: str, value: Any, annotated: str) -> str:
    """What to write in place of a value of the wrong kind."""
    if annotated == "AnyRole":
        return f"it is a table: write {name}.path = {json.dumps(value if isinstance(value, str) else 'FILE', ensure_ascii=False)}"
    return f"give {_WORDS[annotated.partition('[')[0]]}"
