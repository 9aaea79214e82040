"""Digests of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import platformdirs


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """``file_sha256``, remembered in the user's cache for as long as the file's size, inode and time of change stay.

    A model of several gigabytes takes seconds to read: too long for every start.
    """
    state = path.stat()
    name, mark = str(path.resolve()), [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
    remembered = _remembered()
    if name not in remembered or remembered[name][:-1] != mark:
        digest = file_sha256(path)
        _remember({**_remembered(), name: [*mark, digest]})  # read again: another process may have added to it meanwhile
        return digest
    return str(remembered[name][-1])


def _file() -> Path:
    return platformdirs.user_cache_path("rsd") / "sha256.json"


def _remembered() -> dict[str, list[int | str]]:
    """What is known; nothing where the file is not there or damaged."""
    try:
        known = json.loads(_file().read_text(encoding="utf-8"))
        return {name: entry for name, entry in known.items() if isinstance(entry, list) and len(entry) == 5}
    except (OSError, ValueError, AttributeError):
        return {}


def _remember(known: dict[str, list[int | str]]) -> None:
    """Writes what is known, whole or not at all; a cache that cannot be written is no error."""
    file = _file()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(known), encoding="utf-8")
        unfinished.replace(file)
