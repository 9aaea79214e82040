"""Model files by name: where they are on the hub, and whether what is on the disk is what was promised."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rsd_local.catalogue import cache
from rsd_local.catalogue.shape import ModelShape
from rsd_local.config import require, require_choice
from rsd_local.errors import ModelError, NotAModel, RSDError
from rsd_local.gguf_header import part_names, read_header
from rsd_local.toml_settings import build

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILE = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*\.(?:gguf|safetensors)", re.ASCII)
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
AT_ONCE = 3  # files downloaded side by side
_NO_SUCH = "see rsd list; an entry of your own models.toml may name another repository or revision"

Thinks = Literal["none", "switchable", "always", "unknown"]
Watch = Callable[[str, int, int], None]
"""Told a model's name, the bytes that are there, and those of the whole file."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What reading a model's files and comparing them with what was published says.

    Attributes:
        state: ``same``, ``differs``, ``unknown`` (there is nothing to compare with), ``missing`` or ``incomplete``.
        why: what is wrong or not known, in one line; empty where all is the same.
        fix: what to do about it.
    """

    state: str
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the hub: one file, or the parts that the name of the first speaks of.

    What no public source says is left out, and shown as unknown.

    Attributes:
        repo: OWNER/NAME.
        file: its path in the repository, of the first part where there are several; a name that could lead anywhere else is refused.
        gigabytes: its size as published, of all parts, in 10^9 bytes, for people.
        licence: of the weights, as the repository says; empty where it is not known.
        context: tokens that it was trained for; None where that is not known.
        sha256: as listed publicly, of ``file``, or of each part in order; empty where it waits for the first download: then the hub's
            own is what counts. A download, ``rsd pull`` and ``rsd verify`` compare it.
        shape: the sizes of its layers, a table in the file; None where they are not known.
        revision: the commit of the repository to take it from; empty for what the main branch is.
        thinking: whether it thinks before it answers: never, where the chat template is told to, or always.
        hybrid: whether it has recurrent or convolution layers, which can go back to a saved state only; None where not known.
        active: parameters that a token uses, in 10^9, of a mixture of experts; None for a dense model.
        mtp: heads in the file that predict further tokens (multi-token prediction, ``nextn``); None where not known.
    """

    repo: str
    file: str
    gigabytes: float
    licence: str = ""
    context: int | None = None
    sha256: str | tuple[str, ...] = ""
    shape: ModelShape | None = None
    revision: str = ""
    thinking: Thinks = "unknown"
    hybrid: bool | None = None
    active: float | None = None
    mtp: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.shape, dict):
            object.__setattr__(self, "shape", build(ModelShape, self.shape, "shape"))
        if isinstance(self.sha256, list):
            object.__setattr__(self, "sha256", tuple(self.sha256))
        shape: object = self.shape
        require(shape is None or isinstance(shape, ModelShape), f"shape {shape!r} is no table")
        require(_REPO.fullmatch(self.repo) is not None, f"repo {self.repo!r} is no OWNER/NAME of the hub")
        require(_FILE.fullmatch(self.file) is not None, f"file {self.file!r} is no plain path of a GGUF or safetensors file")
        require(self.file == self.files[0], f"file {self.file!r} is a later part of a model", f"give the first, {self.files[0]}")
        require(self.gigabytes > 0, f"gigabytes {self.gigabytes} is not above 0")
        require(self.context is None or self.context > 0, f"context {self.context} is not above 0")
        require_choice(self.thinking, Thinks, "thinking")
        require(self.active is None or self.active > 0, f"active {self.active} is not above 0")
        require(self.mtp is None or 0 <= self.mtp <= 16, f"mtp {self.mtp} is outside 0 to 16")
        fine = not self.revision or _COMMIT.fullmatch(self.revision) is not None
        require(fine, f"revision {self.revision!r} is no commit of 40 hexadecimal digits")
        self._check_sha256()

    def _check_sha256(self) -> None:
        given: object = self.sha256
        each = given if isinstance(given, tuple) else (given,)
        fine = all(isinstance(one, str) and (not one or _SHA256.fullmatch(one) is not None) for one in each)
        require(fine, f"sha256 {given!r} is no SHA-256, and no list of one for each part")
        count, parts = len(each), len(self.files)
        require(not isinstance(given, tuple) or count == parts, f"sha256 has {count} values, and the model has {parts} files")

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all its parts in the repository."""
        return part_names(self.file)

    @property
    def hashes(self) -> tuple[str, ...]:
        """The SHA-256 of each part as listed publicly; empty for a part of which none is."""
        return self.sha256 if isinstance(self.sha256, tuple) else (self.sha256, *("" for _ in self.files[1:]))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where its parts are in the hub's cache, or would be."""
        folder = cache.snapshot(self.repo, self.files)
        if self.revision:
            folder = cache.pinned(self.repo, dict(zip(self.files, self.hashes, strict=True)), self.revision)
        return tuple(folder / file for file in self.files)

    @property
    def path(self) -> Path:
        """Where the file, or its first part, is in the hub's cache, or would be."""
        return self.paths[0]

    @property
    def state(self) -> str:
        """``here``, ``not here``, or ``incomplete`` and what is missing."""
        return "here" if (missing := self._missing()) is None else missing.state if missing.state != "missing" else "not here"

    @property
    def compared(self) -> bool:
        """Whether each part has a listed SHA-256, and the cache's name of what was downloaded is the same; nothing is read."""
        return all(listed and cache.known_etag(path) == listed for listed, path in zip(self.hashes, self.paths, strict=True))

    def missing(self) -> str:
        """What is not here: the file's name, or which parts, such as "incomplete: part 2 of 3 missing"; empty where all is."""
        verdict = self._missing()
        return "" if verdict is None else f"{verdict.state}: {verdict.why}" if verdict.state == "incomplete" else Path(self.file).name

    def _missing(self) -> Verdict | None:
        there = [path.is_file() for path in self.paths]
        if all(there):
            return None
        if not any(there):
            return Verdict("missing", f"{Path(self.file).name} missing")
        lost = [str(number) for number, here in enumerate(there, 1) if not here]
        return Verdict("incomplete", f"part{'s' if len(lost) > 1 else ''} {', '.join(lost)} of {len(there)} missing")

    def check(self) -> Verdict:
        """Read all parts and compare them with what was published.

        What that was stands in models.toml or in the names of the cache; where both are silent, the hub is asked for it, unless
        that is not allowed.
        """
        if (lost := self._missing()) is not None:
            return replace(lost, fix="rsd pull fetches it")
        unknown = None
        for number, path in enumerate(self.paths):
            etag = self.hashes[number] or cache.known_etag(path)
            try:
                etag = etag or self._published(self.files[number], path)
                same = cache.is_as_said(path, etag)
            except (RSDError, OSError) as error:
                unknown = unknown or Verdict("unknown", f"{path.name}: nothing here says what was published, and {error}", "go online")
                continue
            if same is False:
                why = f"{path} is not the file that was published: its SHA-256 differs"
                return Verdict("differs", why, "rsd rm and rsd pull fetch it anew")
            if same is None:
                unknown = unknown or Verdict("unknown", f"{path.name}: the hub does not say the SHA-256 of what it published")
        try:
            self._check_header()
        except ModelError as error:
            return Verdict("differs", str(error), error.hint)
        return unknown or Verdict("same")

    def _published(self, file: str, path: Path) -> str:
        """The hub's ETag of a file at the commit that the cache took it from."""
        from rsd_local.catalogue.remote import HubFile, ask

        if cache.is_offline():
            raise RSDError("the hub may not be asked (--offline)")
        commit = path.parents[file.count("/")].name
        return ask(HubFile(path.name, self.repo, file, commit)).etag

    def _check_header(self) -> None:
        if self.path.suffix == ".gguf":
            read_header(self.path)

    def remove(self) -> int:
        """Takes all parts and what an interrupted download left out of the cache, and returns the bytes that this frees."""
        return sum(cache.remove(self.repo, file) for file in self.files)

    def pull(self, name: str, watch: Watch, stop: threading.Event) -> None:
        """Download what is not here yet, and what is no longer as it was published; a bad file is taken out again.

        Raises:
            ConfigError, RSDError: a part cannot be fetched.
            NotAModel: it is not what was promised.
            Cancelled: ``stop`` was set.
        """
        from rsd_local.catalogue import hub
        from rsd_local.catalogue.remote import HubFile

        commit, before = self.revision or None, {path.resolve() for path in self.paths if path.is_file()}
        if commit and self.state == "here":
            commit = self.path.parents[self.file.count("/")].name  # another commit may have had the same
        for number, (file, sha256) in enumerate(zip(self.files, self.hashes, strict=True), 1):
            label = f"{name} part {number} of {len(self.files)}" if len(self.files) > 1 else name
            wanted = HubFile(label, self.repo, file, commit, fix=_NO_SUCH)
            path = hub.fetch_here(wanted, sha256, partial(watch, label), stop)
            if path.resolve() in before and cache.is_as_said(path, sha256 or cache.known_etag(path)) is False:
                cache.remove(self.repo, file)
                path = hub.fetch_here(wanted, sha256, partial(watch, label), stop)
            commit = path.parents[file.count("/")].name  # all parts are of one commit
        try:
            self._check_header()
        except NotAModel:
            self.remove()
            raise


def pull(entries: dict[str, ModelEntry], watch: Watch) -> None:
    """Downloads files that are not there yet, some at a time, and checks each; a bad one is taken out again.

    An unfinished download has another name, so that nothing can load it; the next call continues it. Ctrl-C ends it at once.

    Raises:
        ConfigError, RSDError: the first that failed; the others are finished.
        NotAModel: a file is not what was promised.
    """
    from rsd_local.catalogue import hub

    once = {(entry.repo, entry.file): (name, entry) for name, entry in entries.items()}  # names of one file share its download
    hub.all_of([partial(entry.pull, name, watch) for name, entry in once.values()], AT_ONCE)
