"""The folder of a bench: ``config.json``, and ``results.jsonl`` with one line for each question and strategy."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypedDict

from rsd_local.bench.items import Item
from rsd_local.bench.strategies import Plan
from rsd_local.config import RoleConfig, Trio, require
from rsd_local.errors import ConfigError, ModelNotFound
from rsd_local.events import Author

CONFIG, RESULTS = "config.json", "results.jsonl"
_DRAFT = f"{CONFIG}.part"
_PACKAGES = ("rsd-local", "llama-cpp-python", "math-verify")
Config = dict[str, Any]


class StepRow(TypedDict):
    """One step of a row; tokens in its author's vocabulary."""

    author: Author
    reward: float | None
    tokens: int


class Row(TypedDict):
    """One question answered by one strategy.

    ``counters`` and ``flops`` are empty and ``error`` is an error's code where the question could not be answered.
    ``seconds`` are of the wall, with the other questions in flight beside it; ``config`` is the configuration's hash.
    """

    id: str
    strategy: str
    level: str | None
    subject: str | None
    question: str
    seed: int
    answer: str | None
    expected: str
    correct: bool
    finish_reason: str | None
    error: str | None
    n_steps: int
    steps: list[StepRow]
    counters: dict[str, dict[str, float]]
    flops: dict[str, float]
    seconds: float
    config: str


def configuration(
    trio: Trio, dataset: str, limit: int | None, level: int | None, seed: int, items: Sequence[Item], plans: Sequence[Plan]
) -> Config:
    """All that a bench's figures depend on; models by their file's name and size, so that a folder may move.

    Raises:
        ModelNotFound: a model's file is not there.
    """
    settings = dataclasses.asdict(trio) | {role: _role(getattr(trio, role)) for role in ("draft", "target", "reward")}
    questions = json.dumps([dataclasses.astuple(item) for item in items])
    config = {
        "dataset": Path(dataset).name,
        "limit": limit,
        "level": level,
        "seed": seed,
        "questions": {"number": len(items), "sha256": hashlib.sha256(questions.encode()).hexdigest()},
        "strategies": {plan.label: dataclasses.asdict(plan.params) for plan in plans},
        "trio": settings,
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    return dict(json.loads(json.dumps(config)))  # as it will be read again: tuples are lists


def config_hash(config: Config) -> str:
    """16 hexadecimal digits of the SHA-256 of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


class Results:
    """The lines of a folder, those of earlier runs included; each new one is on the disk before ``append`` returns."""

    def __init__(self, file: BinaryIO, config: Config, rows: list[Row]) -> None:
        self._file = file
        self.config, self.hash, self.rows = config, config_hash(config), rows
        self._done = {(row["id"], row["strategy"]) for row in rows}

    @classmethod
    def open(cls, folder: Path, config: Config, resume: bool) -> Results:
        """Opens a folder for a configuration.

        Args:
            folder: made where it is not there.
            config: what ``configuration`` gave.
            resume: whether to go on where a folder of the same configuration was left.

        Raises:
            ConfigError: the folder is not empty and not to be resumed, is of another configuration, or is damaged.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if _untouched(folder):
                _write_config(folder, config)
            else:
                require(resume, f"{folder} is not empty", "--resume goes on with it; or give another --out")
                _refuse_other(folder, read_config(folder), config)
            rows = _mend(folder / RESULTS)
            file = (folder / RESULTS).open("ab")
        except OSError as error:
            raise ConfigError(f"{folder} cannot be used: {error}", hint="give another --out") from None
        return cls(file, config, rows)

    def has(self, item: str, strategy: str) -> bool:
        """Whether there is a line for an item's id and a strategy's label."""
        return (item, strategy) in self._done

    def append(self, row: Row) -> None:
        """Writes a line, and waits until it is on the disk."""
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.append(row)
        self._done.add((row["id"], row["strategy"]))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_config(folder: Path) -> Config:
    """The configuration of a folder.

    Raises:
        ConfigError: it has none that can be read.
    """
    try:
        return dict(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder} has no {CONFIG} that can be read", hint="is it a folder that rsd bench wrote?") from None


def read_rows(folder: Path) -> list[Row]:
    """The lines of a folder; a torn last one is left out, and nothing is written.

    Raises:
        ConfigError: there are none, or one that is not the last is damaged.
    """
    try:
        rows, _ = _parse(folder / RESULTS, (folder / RESULTS).read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder / RESULTS} cannot be read: {error.strerror}", hint="is it a folder that rsd bench wrote?") from None
    require(bool(rows), f"{folder / RESULTS} has no line yet")
    return rows


def _parse(path: Path, data: bytes) -> tuple[list[Row], int]:
    """The rows of a file, and where its last whole line ends."""
    rows: list[Row] = []
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
        if not isinstance(row, dict) or not row.keys() >= Row.__annotations__.keys():
            raise ConfigError(f"{path}, line {number} is no line of rsd bench", hint="take it out, and --resume answers it again")
        rows.append(row)  # type: ignore[arg-type]
        end += len(line) + 1
    return rows, end


def _mend(path: Path) -> list[Row]:
    """The rows of a file, which is made where it is not there, and cut where its last line is torn."""
    with path.open("a+b") as file:
        file.seek(0)
        rows, end = _parse(path, file.read())
        file.truncate(end)
    return rows


def _untouched(folder: Path) -> bool:
    """Whether a folder holds nothing that could be lost: no file, or those of a run that ended before its first line."""
    own = {CONFIG, _DRAFT, RESULTS}
    return all(file.name in own and (file.name != RESULTS or not file.stat().st_size) for file in folder.iterdir())


def _write_config(folder: Path, config: Config) -> None:
    """Writes the configuration whole or not at all."""
    draft = folder / _DRAFT
    with draft.open("w", encoding="utf-8") as file:
        json.dump({"hash": config_hash(config), "config": config}, file, indent=2, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / CONFIG)


def _refuse_other(folder: Path, there: Config, here: Config) -> None:
    one, other = _flat(there), _flat(here)
    for key in one | other:
        if one.get(key) != other.get(key):
            message = f"{folder} is of another configuration: {key} is {one.get(key)!r} there and {other.get(key)!r} here"
            raise ConfigError(message, hint="give another --out, or the same settings")


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return flat


def _role(role: RoleConfig) -> dict[str, Any]:
    try:
        size = role.path.stat().st_size
    except OSError:
        raise ModelNotFound(f"{role.path}: no such file") from None
    settings = dataclasses.asdict(role)
    del settings["path"]
    return {"file": role.path.name, "bytes": size} | settings


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
