"""The GGUF files of a user: in folders that are named, or where other programs keep theirs."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rsd_local.catalogue.cache import hub_cache
from rsd_local.config import from_home
from rsd_local.config.ollama import PREFIX, find_model, is_store, model_names, read_model, stores
from rsd_local.errors import ConfigError, RSDError
from rsd_local.gguf_header import part_names

_SUFFIX = ".gguf"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model's file; of a model in several parts, the first.

    Attributes:
        path: the file, as it was found first.
        name: for people: the file's without its suffix, or Ollama's.
        setting: what a trio's file has for it.
        also: other names of the same file.
    """

    path: Path
    name: str
    setting: str
    also: tuple[str, ...] = ()


@dataclass(slots=True)
class ModelFolders:
    """What was found in folders.

    Attributes:
        folders: that were looked through.
        files: each once, however many names and links it has.
        problems: what could not be looked at, each in one line.
    """

    folders: list[Path] = field(default_factory=list)
    files: list[ModelFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def usual_folders() -> list[Path]:
    """Where LM Studio, Ollama, huggingface_hub and llama.cpp keep models, whether they are there or not."""
    home = Path.home()
    lm_studio = [home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"]
    return [*lm_studio, *stores(), hub_cache(), _llama_cpp_cache()]


def find_models(folders: Iterable[Path]) -> ModelFolders:
    """Looks through folders and all folders in them; links are followed, and no folder is looked through twice.

    Args:
        folders: or GGUF files. Ollama's store is known by what is in it, and its models are found by their names.

    Raises:
        ConfigError: there is no such folder.
    """
    found, seen, places = ModelFolders(), set[tuple[int, int]](), dict[object, int]()
    for folder in map(from_home, folders):
        if not is_there(folder):
            raise ConfigError(f"no folder {folder}", hint="check the path")
        found.folders.append(folder)
        for one in _within(folder, seen, found.problems):
            key = _identity(one.path)
            if key in places:
                first = found.files[places[key]]
                found.files[places[key]] = ModelFile(first.path, first.name, first.setting, (*first.also, one.setting))
            else:
                places[key] = len(found.files)
                found.files.append(one)
    return found


def is_there(path: Path) -> bool:
    """Whether a path is there; what one may not look at is taken to be there."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _within(folder: Path, seen: set[tuple[int, int]], problems: list[str]) -> Iterator[ModelFile]:
    """The models in a folder, which may be a file."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            said = place.stat()
            if not stat.S_ISDIR(said.st_mode):
                yield _plain(place)
                continue
            if (said.st_dev, said.st_ino) in seen and said.st_ino:
                continue
            seen.add((said.st_dev, said.st_ino))
            if is_store(place):
                yield from _of_ollama(place, problems)
                continue
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{place} cannot be looked through: {error.strerror}")
            continue
        inside = []
        for entry in entries:
            path = Path(entry.path)
            if _is_folder(entry):
                inside.append(path)
            elif entry.name.lower().endswith(_SUFFIX) and not _is_later_part(path):
                yield _plain(path)
        waiting += reversed(inside)


def _of_ollama(store: Path, problems: list[str]) -> Iterator[ModelFile]:
    """The models of a store of Ollama, by their names there."""
    for name in model_names(store):
        try:
            weights = read_model(store, name).weights
        except RSDError as error:
            problems.append(str(error))
            continue
        setting = f"{PREFIX}{name}"
        try:
            by_name = find_model(name).weights == weights
        except RSDError:  # the store is none that Ollama looks into by itself
            by_name = False
        yield ModelFile(weights, setting, setting if by_name else str(weights.absolute()))


def _plain(path: Path) -> ModelFile:
    name = path.name[: -len(_SUFFIX)] if path.name.lower().endswith(_SUFFIX) else path.name
    return ModelFile(path, name, os.path.abspath(path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _is_later_part(path: Path) -> bool:
    """Whether a file is a part of a model of which an earlier part, which stands for all, lies beside it."""
    names = part_names(path.name)
    return any(os.path.lexists(path.with_name(name)) for name in names[: names.index(path.name)])


def _identity(path: Path) -> object:
    """Equal for names of one file."""
    try:
        said = path.stat()
    except OSError:
        return str(path)
    return (said.st_dev, said.st_ino) if said.st_ino and stat.S_ISREG(said.st_mode) else str(path)


def _llama_cpp_cache() -> Path:
    """Where llama.cpp keeps what it downloads (``fs_get_cache_directory`` in its ``common/common.cpp``)."""
    if named := os.environ.get("LLAMA_CACHE"):
        return from_home(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llama.cpp"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "llama.cpp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama.cpp"
