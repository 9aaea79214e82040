"""Trios by name, from the package's ``models.toml`` or a file of one's own."""

from __future__ import annotations

from pathlib import Path

from rsd_local.config import Trio, read_trio, read_trios
from rsd_local.errors import ConfigError

_PACKAGE = Path(__file__).parent.parent


def models_file() -> Path:
    """Where ``models.toml`` lies: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / "models.toml"
    return inside if inside.exists() else _PACKAGE.parent / "models.toml"


def known_trios() -> dict[str, Trio]:
    """The trios of ``models.toml``; their paths start at the package's folder."""
    return read_trios(models_file(), base=_PACKAGE)


def find_trio(name: str) -> Trio:
    """A trio by its name in ``models.toml``, or from a TOML file of one's own.

    Raises:
        ConfigError: there is neither, or the file is not right.
    """
    if name.endswith(".toml"):
        return read_trio(Path(name))
    known = known_trios()
    if name not in known:
        raise ConfigError(f"no trio {name!r}", hint=f"known: {', '.join(known)}; or give --draft, --target and --reward, or a TOML file")
    return known[name]
