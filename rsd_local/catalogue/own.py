"""Writing a threshold into a trio's file: the user's own ``models.toml``, or a TOML file of one trio."""

from __future__ import annotations

from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rsd_local.catalogue import user_models_file
from rsd_local.errors import ConfigError


def save_threshold(trio: str, threshold: float, origin: str) -> Path:
    """Writes a trio's threshold and where it comes from; all else in the file stays as it is, comments included.

    Args:
        trio: a name of the catalogue, changed in the user's own file, or the path of a TOML file.
        threshold: δ.
        origin: where it comes from, for people.

    Returns:
        The file that was written.

    Raises:
        ConfigError: it cannot be read or written.
    """
    file = Path(trio) if trio.endswith(".toml") else user_models_file()
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
        table = document
        if not trio.endswith(".toml"):
            for name in ("trio", trio):
                table = table.setdefault(name, tomlkit.table(is_super_table=name == "trio"))
        table["threshold"], table["threshold_from"] = threshold, origin
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + ".part")
        unfinished.write_text(tomlkit.dumps(document), encoding="utf-8")
        unfinished.replace(file)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"{file} cannot be changed: {error}", hint=f"write threshold = {threshold:g} into it by hand") from None
    return file
