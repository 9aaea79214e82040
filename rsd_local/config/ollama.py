"""Models of Ollama by name, ``ollama:qwen3:8b``: its store of models is read, never written.

Layout: https://github.com/ollama/ollama (``types/model/name.go``, ``manifest``). ``manifests/HOST/NAMESPACE/MODEL/TAG`` is a JSON
object that lists layers, and ``blobs/sha256-…`` holds what is in each.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsd_local.config.checks import from_home, require
from rsd_local.errors import ConfigError, ModelNotFound, NotAModel

log = logging.getLogger("rsd_local")

PREFIX = "ollama:"
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""A part of a name: no separator of folders, and no dot in front, so that nothing outside the store can be named."""
_HOSTS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,249}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_MODEL, _ADAPTER = ("application/vnd.ollama.image." + kind for kind in ("model", "adapter"))
_LONGEST = 1 << 20  # bytes of a manifest; they have about 1,000
_SHOWN = 8
_FORM = "give ollama:MODEL, ollama:MODEL:TAG, ollama:NAMESPACE/MODEL:TAG or ollama:HOST/NAMESPACE/MODEL:TAG"


@dataclass(frozen=True, slots=True)
class OllamaName:
    """A model's name in all its parts, each of which is safe as the name of a folder.

    Attributes:
        host: of the registry that it was pulled from.
        namespace: the owner there.
        model: its name.
        tag: which of its variants.
    """

    host: str
    namespace: str
    model: str
    tag: str

    def __post_init__(self) -> None:
        fine = _HOSTS.fullmatch(self.host) and all(_PART.fullmatch(part) for part in (self.namespace, self.model, self.tag))
        require(bool(fine), f"{str(self)!r} is no name of a model of Ollama", _FORM)

    @classmethod
    def parse(cls, text: str) -> OllamaName:
        """A name as it is given to Ollama, such as ``qwen3:8b``, ``me/mine`` or ``hf.co/owner/repo:Q4_K_M``.

        Raises:
            ConfigError: it is none.
        """
        *before, last = text.split("/")
        model, colon, tag = last.partition(":")
        require(len(before) <= 2, f"{text!r} is no name of a model of Ollama", _FORM)
        host, namespace = (_HOST, _NAMESPACE, *before)[-2:] if len(before) != 1 else (_HOST, before[0])
        return cls(host, namespace, model, tag if colon else _TAG)

    def __str__(self) -> str:
        """As ``ollama list`` shows it."""
        before = [self.host, self.namespace]
        if self.host == _HOST:
            before = before[1:] if self.namespace != _NAMESPACE else []
        return "/".join([*before, f"{self.model}:{self.tag}"])


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """What a manifest says of a model.

    Attributes:
        weights: the GGUF file.
        adapters: how many LoRA adapters belong to it.
    """

    weights: Path
    adapters: int


def is_ollama(path: str | Path) -> bool:
    """Whether a setting names a model of Ollama."""
    return str(path).startswith(PREFIX)


def model_path(path: str | Path) -> Path:
    """The file that a role's setting names: a path, in which ``~`` is the user's own folder, or ``ollama:NAME``.

    Raises:
        ConfigError: what stands behind ``ollama:`` is no name.
        ModelNotFound: Ollama has no such model here, or its file is gone.
        NotAModel: what Ollama notes of it is damaged, or it has no GGUF file.
    """
    if not is_ollama(path):
        return from_home(path)
    name = OllamaName.parse(os.fspath(path).removeprefix(PREFIX).replace(os.sep, "/"))
    found = find_model(name)
    if found.adapters:
        log.warning("%s%s has a LoRA adapter, which is left out: the weights are those of its base", PREFIX, name)
    return found.weights


def find_model(name: OllamaName) -> OllamaModel:
    """A model of the first of the stores that has it.

    Raises:
        ModelNotFound: there is none, with the names that are there; or its file is gone.
        NotAModel: its manifest is damaged, or it has no GGUF file.
    """
    here, refused = list[Path](), list[str]()
    for store in stores():
        try:
            if _is_there(_manifest(store, name), stat.S_ISREG):
                return read_model(store, name)
            if _is_there(store / "manifests", stat.S_ISDIR):
                here.append(store)
        except OSError as error:
            refused.append(f"{error.filename or store}: {error.strerror}")
    if refused:
        hint = "where that is Ollama's service, join its group: sudo usermod -aG ollama $USER, and log in again"
        raise ModelNotFound(f"no model {str(name)!r} found, for Ollama's models cannot be read: {'; '.join(refused)}", hint=hint)
    if not here:
        places = ", ".join(map(str, stores()))
        raise ModelNotFound(f"no model {str(name)!r}, for Ollama has no models in {places}", hint="set OLLAMA_MODELS to their folder")
    raise ModelNotFound(f"Ollama has no model {str(name)!r} in {', '.join(map(str, here))}", hint=_there(name, here))


def read_model(store: Path, name: OllamaName) -> OllamaModel:
    """What a store's manifest says of a model.

    Raises:
        ModelNotFound: the manifest cannot be read, or the file that it names is not there.
        NotAModel: it is damaged, or names no GGUF file.
    """
    manifest = _manifest(store, name)
    try:
        with manifest.open("rb") as file:
            table: Any = json.loads(file.read(_LONGEST))
        layers = [(layer["mediaType"], layer["digest"]) for layer in table["layers"]]
        digests = [_DIGEST.fullmatch(digest) for kind, digest in layers if kind == _MODEL]
        if None in digests:
            raise ValueError
    except OSError as error:
        raise ModelNotFound(f"what Ollama notes of {name} cannot be read: {manifest}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise NotAModel(f"what Ollama notes of {name} is damaged: {manifest}", hint=f"ollama pull {name} writes it anew") from None
    if len(digests) != 1:
        count = "no GGUF file" if not digests else f"{len(digests)} files of weights, which cannot be loaded as one"
        raise NotAModel(f"Ollama's {name} has {count}", hint="choose another tag, or give a GGUF file")
    weights = store / "blobs" / f"sha256-{digests[0][1]}"  # type: ignore[index]
    if not _is_there(weights, stat.S_ISREG):
        raise ModelNotFound(f"the file of Ollama's {name} is not there: {weights}", hint=f"ollama pull {name} fetches it")
    return OllamaModel(weights, sum(kind == _ADAPTER for kind, _ in layers))


def stores() -> list[Path]:
    """The folders in which Ollama keeps models, whether they are there or not: OLLAMA_MODELS, or else the user's and the service's."""
    named = os.environ.get("OLLAMA_MODELS")
    return [from_home(named)] if named else [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def is_store(folder: Path) -> bool:
    """Whether a folder is one in which Ollama keeps models."""
    return (folder / "manifests").is_dir() and (folder / "blobs").is_dir()


def model_names(store: Path) -> list[OllamaName]:
    """The names of a store's models, in order; what cannot be read there is left out."""
    found = []
    for host in _entries(store / "manifests"):
        for namespace in _entries(host):
            for model in _entries(namespace):
                for tag in _entries(model):
                    try:
                        if _is_there(tag, stat.S_ISREG):
                            found.append(OllamaName(host.name, namespace.name, model.name, tag.name))
                    except (ConfigError, OSError):  # a file of the system's, such as .DS_Store
                        continue
    return sorted(found, key=str)


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:
        return


def _is_there(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether a path is there and of a kind; what cannot be told, for want of permission say, is an OSError."""
    try:
        return kind(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _manifest(store: Path, name: OllamaName) -> Path:
    return store / "manifests" / name.host / name.namespace / name.model / name.tag


def _there(name: OllamaName, here: list[Path]) -> str:
    """The names that are there, those that are most like the wanted one first."""
    names = list(dict.fromkeys(str(one) for store in here for one in model_names(store)))
    names.sort(key=lambda one: -difflib.SequenceMatcher(None, one, str(name)).ratio())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"there: {', '.join(names[:_SHOWN])}{more}" if names else f"there is none yet; ollama pull {name} fetches it"
