"""Trios by name: ``models.toml`` of the package."""

from __future__ import annotations

from pathlib import Path

from rsd_local.config import Trio, read_trio
from rsd_local.errors import ConfigError


def find_trio(name: str) -> Trio:
    """A trio by its name in ``models.toml``, or from a TOML file of one's own.

    Raises:
        ConfigError: there is neither, or the file is not right.
    """
    if name.endswith(".toml"):
        return read_trio(Path(name))
    raise ConfigError(f"no trio {name!r}", hint="give --draft, --target and --reward, or a TOML file")
