"""The folder of a run log: ``manifest.json``, ``runs.jsonl``, and files of JSON lines, each written by one server alone.

Each start, and each file that has grown large, begins a file of its own under a name that nobody else has. So two servers may write
into one folder, a line that a kill tore stays the last one of its file, and nothing that was written is ever changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from rsd_local.bench.machine import Run, describe_run, read_runs
from rsd_local.bench.results import describe_trio, versions
from rsd_local.config import ROLES, Trio, TunedFigures, require
from rsd_local.errors import ConfigError
from rsd_local.evaluation.journal import CONFIG, Config, config_hash, refuse_other

log = logging.getLogger("rsd_local.run_log")

MANIFEST = "manifest.json"
KIND = "rsd run log"
NEEDED = ("time", "strategy", "finish_reason", "error", "seconds", "steps", "counters")
"""What a line has in any case."""
MOST_BYTES = 64 << 20
"""Of a file; a line that would make it larger begins the next one."""
_WAITING = 1024  # lines that may wait for a disk that is slow
_LAST = 5.0  # seconds that a disk gets at the end
_PER_START = ("parallel", "width", "reuse", "about", "expect", "machine", "threshold_from", "strategy")
"""Settings of a trio that may be others at each start: what an answer has does not depend on them, or its line says it."""
_OF_A_MODEL = ("file", "bytes", "sha256", "lora", "lora_scale")
_VERSIONS = ("rsd-local", "llama-cpp-python")
Row = dict[str, Any]


def identity(trio: Trio) -> Config:
    """What all lines of a folder have in common: the trio with its models' digests, and the versions.

    Raises:
        ModelNotFound, BadHead: a file is not there.
    """
    made = {name: value for name, value in describe_trio(trio).items() if name not in _PER_START}
    made |= {role: _model(made[role]) for role in ROLES if made.get(role)}
    made["rewards"] = [stage | {"model": stage["model"] and _model(stage["model"])} for stage in made["rewards"]]
    known = versions()
    config = {"trio": made, "versions": {name: known[name] for name in _VERSIONS}}
    return dict(json.loads(json.dumps(config)))  # as it will be read again: tuples are lists


def _model(role: dict[str, Any]) -> dict[str, Any]:
    return {name: role[name] for name in _OF_A_MODEL if name in role}


def is_run_log(folder: Path) -> bool:
    """Whether a folder is that of a run log, and not of a bench."""
    return (folder / MANIFEST).is_file()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder says of all its lines.

    Attributes:
        name: the trio's, for clients, when the folder was begun.
        config: the trio with its models' digests, and the versions.
        machine: on which it was begun.
        tuned: what ``rsd tune`` saw at the trio's threshold then; None where it did not.
        runs: the starts of servers.
    """

    name: str
    config: Config
    machine: dict[str, Any] = field(default_factory=dict)
    tuned: TunedFigures | None = None
    runs: tuple[Run, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder.

        Raises:
            ConfigError: it has none that can be read.
        """
        try:
            found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if found["kind"] != KIND:
                raise ValueError(found["kind"])
            tuned = TunedFigures(**found["tuned"]) if found.get("tuned") else None
            return cls(str(found["name"]), dict(found["config"]), dict(found["machine"]), tuned, read_runs(folder))
        except (OSError, ValueError, KeyError, TypeError, ConfigError):
            message = f"{folder} has no {MANIFEST} that can be read"
            raise ConfigError(message, hint="is it a folder that rsd serve --run-log wrote?") from None


def begin(folder: Path, name: str, config: Config, tuned: TunedFigures | None) -> None:
    """Make a folder that of a run log, or check that it is one of the same trio and versions.

    Args:
        folder: made where it is not there.
        name: of the trio, for clients.
        config: what ``identity`` gives.
        tuned: what ``rsd tune`` saw.

    Raises:
        ConfigError: it cannot be used, is of something else, or of another trio or version.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists():
            bench = f"{folder} is a folder of rsd bench, and no run log"
            require(not (folder / CONFIG).exists(), bench, "give another folder")
            others = [file.name for file in folder.iterdir() if not file.name.startswith(f"{MANIFEST}.")]
            require(not others, f"{folder} is not empty and has no {MANIFEST}", "give another folder")
            made = {"kind": KIND, "name": name, "hash": config_hash(config), "config": config, "machine": describe_run({})}
            _write_manifest(folder, made | {"tuned": tuned and dataclasses.asdict(tuned)})
    except OSError as error:
        raise ConfigError(f"{folder} cannot be used: {error.strerror or error}", hint="give another folder") from None
    refuse_other(folder, Manifest.read(folder).config, config)


def _write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes it whole; where another server was faster, its manifest stays."""
    draft = folder / f"{MANIFEST}.{os.getpid()}-{threading.get_ident()}"
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, folder / MANIFEST)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            draft.replace(folder / MANIFEST)
    finally:
        draft.unlink(missing_ok=True)


class RunLog:
    """Appends lines to a folder in a thread of its own, so that a slow disk keeps no answer waiting.

    A disk that is full or gone costs lines, and never an answer: it is warned of once, and again once lines are written again.

    Args:
        folder: that ``begin`` has checked.
        config: what ``identity`` gives; each line has its hash.
        most_bytes: of a file.

    Raises:
        ConfigError: no file can be made in it.
    """

    def __init__(self, folder: Path, config: Config, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self.lost = folder, 0
        self._hash, self._most = config_hash(config), most_bytes
        self._failing = False
        self._file: BinaryIO | None = None
        self._size = 0
        try:
            self._begin_file()
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written to: {error.strerror or error}", hint="give another folder") from None
        self._lines: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="rsd-run-log", daemon=True)
        self._thread.start()

    def append(self, row: Row) -> None:
        """Write a line behind those that wait; returns at once and never fails."""
        try:
            self._lines.put_nowait(json.dumps(row | {"config": self._hash}, allow_nan=False).encode() + b"\n")
        except queue.Full:
            self._failed("the disk does not keep up")
        except (TypeError, ValueError) as error:
            self._failed(f"a line is no JSON ({error})")

    def close(self) -> None:
        """Write what waits, and end; a disk that hangs is left after some seconds."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_LAST)
        self._thread.join(_LAST)

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)
        if self._file is not None:
            self._file.close()
            if not self._size:
                with contextlib.suppress(OSError):
                    Path(self._file.name).unlink()

    def _write(self, line: bytes) -> None:
        try:
            if self._file is None or (self._size and self._size + len(line) > self._most):
                self._begin_file()
            assert self._file is not None
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._take_back()
            self._failed(error.strerror or str(error))
            return
        self._size += len(line)
        if self._failing:
            self._failing = False
            log.warning("the run log in %s is written again; %d of its lines are missing", self.folder, self.lost)

    def _take_back(self) -> None:
        """Cuts off what a failed write left of its line; where that cannot be done either, the next line begins a file."""
        if self._file is None:
            return
        try:
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _begin_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        for number in range(1000):
            with contextlib.suppress(FileExistsError):
                path = self.folder / f"answers-{stamp}-{os.getpid()}{f'-{number}' if number else ''}.jsonl"
                self._file, self._size = path.open("xb", buffering=0), 0
                return
        raise FileExistsError(f"{self.folder} has too many files of this second")

    def _failed(self, why: str) -> None:
        self.lost += 1
        if not self._failing:
            self._failing = True
            log.warning("the run log in %s cannot be written: %s; answers go on without their lines", self.folder, why)


@dataclass(slots=True)
class Lines:
    """The lines of a folder, one after another.

    Attributes:
        folder: it.
        damaged: lines so far that could not be read, such as those that a kill tore.
    """

    folder: Path
    damaged: int = 0

    def __iter__(self) -> Iterator[Row]:
        """The lines, file by file, each file by the time of its beginning.

        Raises:
            ConfigError: a file cannot be read.
        """
        for path in sorted(self.folder.glob("answers-*.jsonl")):
            try:
                with path.open("rb") as file:
                    for line in file:
                        row = _read(line)
                        if row is None:
                            self.damaged += 1
                        else:
                            yield row
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _read(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fine = isinstance(row, dict) and all(name in row for name in NEEDED) and line.endswith(b"\n")
    return row if fine else None
