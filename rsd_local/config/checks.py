"""What settings check themselves with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

from rsd_local.errors import ConfigError


def require(fine: bool, message: str, hint: str = "") -> None:
    """Raises ConfigError with the message where ``fine`` is false."""
    if not fine:
        raise ConfigError(message, hint=hint)


def require_choice(value: str, choices: Any, name: str) -> None:
    """Raises ConfigError where ``value`` is none of a Literal's ``choices``."""
    known = get_args(choices)
    require(value in known, f"{name} {value!r} is unknown", hint=f"one of: {', '.join(known)}")


def require_writable(file: Path, flag: str) -> None:
    """Raises ConfigError where the file that a flag names cannot be written, before the work whose result is to be in it."""
    require(not file.is_dir(), f"{file} is a directory", f"name the file that {flag} is to be")
    require(file.parent.is_dir(), f"{file.parent} is no directory", "make it first")
    require(os.access(file if file.exists() else file.parent, os.W_OK), f"{file} cannot be written", f"choose another {flag}")


def from_home(path: str | Path) -> Path:
    """The path with the user's own folder for ``~``; a ``~NAME`` that nobody has stays as it is, for a file may be called so."""
    return Path(os.path.expanduser(path))
