"""Writing a threshold and bands into a trio's file: the user's own ``models.toml``, or a TOML file of one trio."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Comment, Table, Whitespace

from rsd_local.catalogue import trio_file, user_models_file
from rsd_local.config import TunedFigures, require
from rsd_local.errors import ConfigError
from rsd_local.text_files import read_text


def save_threshold(
    trio: str, threshold: float, origin: str, bands: Sequence[tuple[float, float] | None] = (), figures: TunedFigures | None = None
) -> Path:
    """Writes a trio's threshold, where it comes from, what was seen at it, and the bands of its rewards.

    All else in the file stays, comments included.

    Args:
        trio: a name of the catalogue, changed in the user's own file, or the path of a TOML file.
        threshold: δ, of the last reward.
        origin: where it comes from, for people.
        bands: ``lower`` and ``upper`` of each reward but the last, where there are several; None leaves a reward's table as it is.
        figures: what was seen; None takes away what an earlier choice left.

    Returns:
        The file that was written.

    Raises:
        ConfigError: it cannot be read or written, or there are bands and it has no ``[[reward]]`` tables for them.
    """
    file = _file(trio)
    try:
        document = _read(file)
        table = _table(document, trio)
        if bands:
            rewards = _reward_tables(table, len(bands) + 1, file, trio)
            for reward, band in zip(rewards, bands, strict=False):  # the last one has none
                if band is not None:
                    _set_band(reward, band)
            if "upper" in rewards[-1]:  # that is a threshold too, and the trio's goes before it
                rewards[-1]["upper"] = threshold
                rewards[-1].pop("lower", None)
        table["threshold"], table["threshold_from"] = threshold, origin
        table.pop("tuned", None)
        if figures is not None:
            table["tuned"] = tomlkit.inline_table()
            table["tuned"].update(dataclasses.asdict(figures))
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + ".part")
        unfinished.write_text(tomlkit.dumps(document), encoding="utf-8", errors="replace")
        unfinished.replace(file)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"{file} cannot be changed: {error}", hint=f"write threshold = {threshold:g} into it by hand") from None
    return file


def require_reward_tables(trio: str, rewards: int) -> None:
    """Raises ConfigError where the file that a trio's bands would be written into has no ``[[reward]]`` tables for them.

    Args:
        trio: as for ``save_threshold``.
        rewards: how many there must be.
    """
    file = _file(trio)
    try:
        _reward_tables(_table(_read(file), trio), rewards, file, trio)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None


def _file(trio: str) -> Path:
    return trio_file(trio) or user_models_file()


def _read(file: Path) -> tomlkit.TOMLDocument:
    return tomlkit.parse(read_text(file)) if file.exists() else tomlkit.document()


def _table(document: tomlkit.TOMLDocument, trio: str) -> Any:
    """A trio's table, made where it is not there."""
    table: Any = document
    if trio_file(trio) is None:
        for name in ("trio", trio):
            table = table.setdefault(name, tomlkit.table(is_super_table=name == "trio"))
    return table


def _set_band(reward: Any, band: tuple[float, float]) -> None:
    """Sets a reward's band; keys that are new go before the comments at its table's end, which belong to what follows."""
    behind = []
    if isinstance(reward, Table):
        body = reward.value.body
        while body and isinstance(body[-1][1], Comment | Whitespace):
            behind.append(body.pop())
    reward["lower"], reward["upper"] = band
    if behind:
        body.extend(reversed(behind))


def _reward_tables(table: Any, count: int, file: Path, trio: str) -> Any:
    found = table.get("reward")
    name = "[[reward]]" if trio_file(trio) else f"[[trio.{trio}.reward]]"
    require(
        isinstance(found, list) and len(found) == count,
        f"{file} has no {name} tables, which bands are written into",
        f"write one for each of the {count} rewards, in place of reward_kind = …; or give --dry-run",
    )
    return found
