"""A folder that a long run fills: its configuration, and a file of JSON lines, each on the disk before the next is made.

Killed at any moment, a run loses the lines in flight at most, and goes on in the same folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Generic, Self, TypeVar, cast

from rsd_local.config import ROLES, require
from rsd_local.errors import ConfigError, RSDError
from rsd_local.gguf_header import part_names

log = logging.getLogger("rsd_local.journal")

CONFIG = "config.json"
_DRAFT = f"{CONFIG}.part"
Config = dict[str, Any]
R = TypeVar("R")


class Journal(Generic[R]):
    """The lines of a folder, those of earlier runs included; each new one is on the disk before ``append`` returns."""

    file_name: ClassVar[str]
    keys: ClassVar[Collection[str]]
    """What every line has."""
    grows: ClassVar[str] = ""
    """The table of the configuration that a later run may add to."""
    beside: ClassVar[Collection[str]] = ()
    """Further files of the folder, which say nothing without its lines."""

    def __init__(self, file: BinaryIO, config: Config, rows: list[R]) -> None:
        self._file = file
        self.config, self.hash, self.rows = config, config_hash(config), rows

    @classmethod
    def open(cls, folder: Path, config: Config, resume: bool) -> Self:
        """Opens a folder for a configuration.

        Args:
            folder: made where it is not there.
            config: all that the lines depend on, as JSON gives it back.
            resume: whether to go on where a folder of the same configuration was left.

        Raises:
            ConfigError: the folder is not empty and not to be resumed, is of another configuration, or is damaged.
        """
        require(folder.is_dir() or not folder.exists(), f"{folder} is a file, and no folder", "give a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if cls._untouched(folder):
                if not _is_of(folder, config):
                    for name in cls.beside:
                        (folder / name).unlink(missing_ok=True)
                    _write_config(folder, config)
            else:
                require(resume, f"{folder} is not empty", "--resume goes on with it; or give another folder")
                there = read_config(folder)
                config = cls._joined(folder, upgraded(there, config), config)
                if _is_of_0_1(there):
                    log.warning("%s was begun by rsd-local 0.1; its rows stay, and new ones are written by this version", folder)
            rows = cls._mend(folder / cls.file_name)
            file = (folder / cls.file_name).open("ab")
        except OSError as error:
            raise ConfigError(f"{folder} cannot be used: {error.strerror or error}", hint="give another folder") from None
        return cls(file, config, rows)

    @classmethod
    def _joined(cls, folder: Path, there: Config, here: Config) -> Config:
        """The configuration of a folder that is gone on with, and what this run adds to it."""
        grown = there
        if cls.grows in here:
            known, given = there.get(cls.grows) or {}, here[cls.grows]  # of a folder of another kind there are none
            here = here | {cls.grows: known | given}
            grown = there | {cls.grows: known | {name: value for name, value in given.items() if name not in known}}
        refuse_other(folder, grown, here)
        if grown != there:
            _write_config(folder, grown)
        return here

    def append(self, row: R) -> None:
        """Writes a line, and waits until it is on the disk.

        Raises:
            RSDError: it cannot be written.
        """
        try:
            self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            message = f"{self._file.name} cannot be written: {error.strerror or error}"
            raise RSDError(message, hint="the lines before are kept, and --resume goes on from there") from None
        self.rows.append(row)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @classmethod
    def read(cls, folder: Path) -> list[R]:
        """The lines of a folder; a torn last one is left out, and nothing is written.

        Raises:
            ConfigError: there are none, or one that is not the last is damaged.
        """
        path = folder / cls.file_name
        try:
            rows, _ = cls._parse(path, path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="is it a folder that such a run wrote?") from None
        require(bool(rows), f"{path} has no line yet")
        return rows

    @classmethod
    def _parse(cls, path: Path, data: bytes) -> tuple[list[R], int]:
        """The rows of a file, and where its last whole line ends."""
        rows: list[R] = []
        end = 0
        lines = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            # What follows the last newline was cut off by a kill even where it reads well, and so may the line before it.
            if number == len(lines) or (row is None and number == len(lines) - 1):
                break
            if not isinstance(row, dict) or not row.keys() >= set(cls.keys):
                raise ConfigError(
                    f"{path}, line {number} is not as this version writes it", hint="take it out, and --resume makes it again"
                )
            rows.append(cast(R, row))
            end += len(line) + 1
        return rows, end

    @classmethod
    def _mend(cls, path: Path) -> list[R]:
        """The rows of a file, which is made where it is not there, and cut where its last line is torn."""
        with path.open("a+b") as file:
            file.seek(0)
            rows, end = cls._parse(path, file.read())
            file.truncate(end)
        return rows

    @classmethod
    def _untouched(cls, folder: Path) -> bool:
        """Whether a folder holds nothing that could be lost: no file, or those of a run that ended before its first line."""
        own = {CONFIG, _DRAFT, cls.file_name, *cls.beside}
        return all(file.name in own and (file.name != cls.file_name or not file.stat().st_size) for file in folder.iterdir())


def upgraded(config: Config, here: Config) -> Config:
    """A configuration that an earlier version wrote, as this one writes it.

    Settings that came later have the value that keeps what was done without them. Draws of 0.1 at a temperature above 0 are others
    since then, so a folder that goes on has rows of both: each names its own configuration's hash.

    Args:
        config: of the folder.
        here: of this run, which says what settings there are now.
    """
    made: Config = json.loads(json.dumps(config))
    if _is_of_0_1(config):
        made["versions"]["rsd-local"] = importlib.metadata.version("rsd-local")
    trio = made.get("trio", {})
    trio.update({key: value for key, value in _SINCE["trio"].items() if key not in trio and key in here.get("trio", {})})
    for params in [made.get("params", {}), *(made.get("strategies") or {}).values()]:
        for group in set(params) & set(_SINCE):
            params[group].update({key: value for key, value in _SINCE[group].items() if key not in params[group]})
    for role in trio.values():
        if isinstance(role, dict):
            role.pop("engines", None)
    _take_digests(trio, here.get("trio", {}))
    return made


def _take_digests(there: Config, here: Config) -> None:
    """Gives the models of a trio whose content an earlier version did not note the digests of this run's files."""
    stages = zip(there.get("rewards") or [], here.get("rewards") or [], strict=False)
    pairs = [*((there.get(role), here.get(role)) for role in ROLES), *((one.get("model"), other.get("model")) for one, other in stages)]
    for old, new in pairs:
        if isinstance(old, dict) and isinstance(new, dict) and "sha256" not in old and "sha256" in new:
            split = len(part_names(str(old.get("file")))) > 1
            old |= {"sha256": new["sha256"]} | ({"bytes": new["bytes"]} if split else {})  # it had the size of the first part alone


def _is_of_0_1(config: Config) -> bool:
    return str(config.get("versions", {}).get("rsd-local")).startswith("0.1.")


_SINCE: dict[str, dict[str, Any]] = {
    "trio": {
        "strategy": "rsd",
        "delimiter": "paragraph",
        "reuse": False,
        "verifier": "",
        "tests": None,
        "schema": None,
        "code_file": "solution.py",
        "rewards": [],
        "unchecked": "accept",
        "stop_after": "never",
        "redrafts": 0,
        "retries": 0,
        "on_verifier_error": "error",
    },
    "sampling": {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "penalty_last_n": 64},
    "weighting": {"redrafts": 0, "hand_over": 0, "unchecked": "accept", "route_entropy": 0.0, "target_budget": 1.0},
    "limits": {"stop": [], "stop_after": "never"},
    "search": {"retries": 0, "ways": []},
}
"""Settings that came after 0.1, with the value that they had before there was a choice."""


def config_hash(config: Config) -> str:
    """16 hexadecimal digits of the SHA-256 of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def read_config(folder: Path, writer: str = "such a run") -> Config:
    """The configuration of a folder.

    Args:
        folder: it.
        writer: what writes such folders, for the hint.

    Raises:
        ConfigError: it has none that can be read.
    """
    try:
        return dict(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder} has no {CONFIG} that can be read", hint=f"is it a folder that {writer} wrote?") from None


def _is_of(folder: Path, config: Config) -> bool:
    """Whether a folder was begun with just this configuration."""
    try:
        return read_config(folder) == config
    except ConfigError:
        return False


def _write_config(folder: Path, config: Config) -> None:
    """Writes the configuration whole or not at all."""
    draft = folder / _DRAFT
    with draft.open("w", encoding="utf-8") as file:
        json.dump({"hash": config_hash(config), "config": config}, file, indent=2)  # in ASCII: names of files may be no Unicode
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / CONFIG)


def refuse_other(folder: Path, there: Config, here: Config) -> None:
    """Raises ConfigError, which names the first difference, where a folder was begun with another configuration.

    Args:
        folder: it.
        there: its configuration.
        here: of this run.
    """
    one, other = _flat(there), _flat(here)
    for key in one | other:
        if one.get(key) != other.get(key):
            message = f"{folder} is of another configuration: {key} is {_short(key, one)} there and {_short(key, other)} here"
            name = one.get(f"{key.removesuffix('sha256')}file")
            if key.endswith(".sha256") and name:
                message += f", so {name} is another file of the same name and size"
            raise ConfigError(message, hint="give another folder, or the same settings")


def _short(key: str, table: dict[str, Any]) -> str:
    """A value for a message; of a digest its beginning."""
    value = table.get(key)
    return f"{value[:12]}…" if key.endswith("sha256") and isinstance(value, str) and value else repr(value)


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return flat
