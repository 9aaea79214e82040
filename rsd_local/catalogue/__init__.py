"""Models and trios by name, from the package's ``models.toml``, a user's own one beside it, or a file of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from rsd_local.catalogue.models import ModelEntry
from rsd_local.config import ROLES, Trio, from_home, require
from rsd_local.errors import ConfigError, ModelError, ModelNotFound
from rsd_local.gguf_header import part_names
from rsd_local.toml_settings import Tables, build, build_trio, read_catalogue, read_toml, read_trio

_PACKAGE = Path(__file__).parent.parent


def models_file() -> Path:
    """Where ``models.toml`` lies: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / "models.toml"
    return inside if inside.exists() else _PACKAGE.parent / "models.toml"


def user_models_file() -> Path:
    """The user's own ``models.toml``, which need not be there: it adds to the package's, and changes single settings."""
    return platformdirs.user_config_path("rsd") / "models.toml"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that is known by name.

    Attributes:
        models: entries by name.
        trios: tables by name, roles with ``model`` in place of ``path`` where they name an entry.
        origins: for each trio, the file that a setting (threshold, draft.path) comes from.
    """

    models: dict[str, ModelEntry]
    trios: Tables
    origins: dict[str, dict[str, Path]]

    @classmethod
    def read(cls) -> Catalogue:
        """The package's and the user's own, whose settings go before it.

        Raises:
            ConfigError: one of the files is not right.
        """
        own = user_models_file()
        return cls._of((models_file(), _PACKAGE), *([(own, own.parent)] if own.exists() else []))

    @classmethod
    def of_the_package(cls) -> Catalogue:
        """The package's alone, for its docs."""
        return cls._of((models_file(), _PACKAGE))

    @classmethod
    def _of(cls, *files: tuple[Path, Path]) -> Catalogue:
        """What files have, a later one's settings before an earlier one's; each with the folder where its relative paths start."""
        models: dict[str, ModelEntry] = {}
        trios: Tables = {}
        origins: dict[str, dict[str, Path]] = {}
        for file, base in files:
            entries, tables = read_catalogue(file, base)
            models |= {name: build(ModelEntry, entry, f"{file}: [model.{name}]") for name, entry in entries.items()}
            for name, table in tables.items():
                below = trios.get(name, {})
                own = {role: table[role] for role in ROLES if isinstance(table.get(role), dict)}
                roles = {role: section if "url" in section else below.get(role, {}) | section for role, section in own.items()}
                trios[name] = below | table | roles
                origins[name] = origins.get(name, {}) | dict.fromkeys(_flat(table), file)
        return cls(models, trios, origins)

    def trio(self, name: str) -> Trio:
        """A trio by its name, files that are not there yet included.

        Raises:
            ConfigError: there is none, or its table is not right.
        """
        if name not in self.trios:
            known = ", ".join(self.trios)
            raise ConfigError(f"no trio {name!r}", hint=f"known: {known}; or give --draft, --target and --reward, or a TOML file")
        table, where = dict(self.trios[name]), f"{self._file(name)}: [trio.{name}]"
        rewards = table.get("reward")
        if isinstance(rewards, list):
            table["reward"] = [self._placed(section, name) if isinstance(section, dict) else section for section in rewards]
        for role, entry in self.models_of(name).items():
            if role not in (*ROLES, "head"):
                continue
            rest = {key: value for key, value in table[role].items() if key != "model"} if role != "head" else {}
            table[role] = str(entry.path) if role == "head" else rest | {"path": str(entry.path)}
        return build_trio(table, where)

    def models_of(self, name: str) -> dict[str, ModelEntry]:
        """The entries that a trio uses, by role; ``head`` for a head.

        Raises:
            ConfigError: it names one that is not known.
        """
        found = {}
        for role in (*ROLES, "head"):
            section = self.trios[name].get(role)
            named = section.get("model") if isinstance(section, dict) and "url" not in section else None  # of a server's it is its own
            if named is not None:
                found[role] = self._model(named, name, role)
        rewards = self.trios[name].get("reward")
        for number, section in enumerate(rewards if isinstance(rewards, list) else [], 1):
            if isinstance(section, dict) and "model" in section and "url" not in section:
                found[f"reward {number}"] = self._model(section["model"], name, f"[[reward]] {number}")
        return found

    def _model(self, named: object, trio: str, where: str) -> ModelEntry:
        require(named in self.models, f"{self._file(trio)}: [trio.{trio}] {where}: no model {named!r}", "see rsd list")
        return self.models[str(named)]

    def _placed(self, section: dict[str, Any], trio: str) -> dict[str, Any]:
        """A reward's table with its model's path."""
        if "model" not in section or "url" in section:
            return section
        path = self._model(section["model"], trio, "[[reward]]").path
        return {key: value for key, value in section.items() if key != "model"} | {"path": str(path)}

    def state(self, name: str) -> str:
        """Whether a trio is complete, or what is missing or wrong, and what fetches it."""
        try:
            lost = self.missing(name)
        except (ConfigError, ModelError) as error:
            return str(error)
        apart = [one for one in lost if one.startswith("incomplete")]
        names = [one for one in lost if one not in apart]
        said = [", ".join(names) + " missing"] if names else []
        return "; ".join([*apart, *said]) + (f", rsd pull {name} fetches it" if apart else "") if lost else "complete"

    def missing(self, name: str) -> list[str]:
        """What of a trio's files is not here: names such as "draft.gguf", or "incomplete: part 2 of 3 missing"; empty where all are.

        Raises:
            ConfigError: there is no such trio, or its table is not right.
            ModelError: a model that it names by Ollama's name is not there.
        """
        entries = {entry.path: entry for entry in self.models_of(name).values()} if name in self.trios else {}
        lost: list[str] = []
        for file in self.trio(name).files:
            if file in entries:
                lost += filter(None, [entries[file].missing()])
            else:
                lost += [part for part in part_names(file.name) if not file.with_name(part).exists()]
        return list(dict.fromkeys(lost))

    def to_pull(self, name: str) -> int:
        """Bytes of a trio's published files that are not here, as published; 0 where its table is not right."""
        try:
            entries = {entry.path: entry for entry in self.models_of(name).values()}
        except ConfigError:
            return 0  # its state says what is wrong
        return round(sum(entry.gigabytes * 1e9 for entry in entries.values() if entry.state != "here"))

    def for_any_question(self) -> str | None:
        """The first trio that is complete, takes more than arithmetic, and runs no code; None where there is none."""
        for name, table in self.trios.items():
            if table.get("task") != "arithmetic" and self.state(name) == "complete":
                if all(stage.kind != "verifier" for stage in self.trio(name).stages):
                    return name
        return None

    def _file(self, name: str) -> Path:
        return user_models_file() if user_models_file() in self.origins[name].values() else models_file()


def trio_file(name: str) -> Path | None:
    """The file that a trio's name stands for, None where it is a name of the catalogue.

    What holds a path separator or ends in ``.toml`` is a file. Any other name is the catalogue's where it has it, whatever
    lies in the current folder (``./NAME`` is the file), and else a file where there is one.
    """
    if "/" in name or "\\" in name or name.endswith(".toml"):
        return from_home(name)
    return None if name in Catalogue.read().trios or not Path(name).is_file() else Path(name)


def find_trio(name: str) -> Trio:
    """A trio by its name in ``models.toml``, or from a TOML file of one's own; ``trio_file`` tells them apart.

    Raises:
        ConfigError: there is neither, or the file is not right.
    """
    file = trio_file(name)
    return read_trio(file) if file else Catalogue.read().trio(name)


def require_files(trio: Trio, name: str) -> None:
    """Checks that the files of a trio of the catalogue are here.

    Raises:
        ModelNotFound: one is not; how to get it is said.
    """
    missing = [part for file in trio.files for part in part_names(file.name) if not file.with_name(part).exists()]
    if missing and trio_file(name) is None:
        raise ModelNotFound(f"trio {name}: {', '.join(dict.fromkeys(missing))} not here", hint=f"rsd pull {name} fetches what is missing")


def trio_origins(name: str) -> dict[str, Path]:
    """The file that each setting of a trio comes from; a setting of none (threshold, draft.path) is the program's own.

    Args:
        name: as for ``find_trio``.
    """
    if file := trio_file(name):
        return dict.fromkeys(_flat(read_toml(file)), file)
    return Catalogue.read().origins.get(name, {})


def _flat(table: dict[str, Any]) -> list[str]:
    """The names of settings, and those within a table behind its name."""
    within = [f"{key}.{inner}" for key, value in table.items() if isinstance(value, dict) for inner in value]
    return [*table, *within]
