"""Model files by name: where they are on the hub, and whether what is on the disk is what was promised."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rsd_local.catalogue import hub
from rsd_local.catalogue.shape import ModelShape
from rsd_local.config import require
from rsd_local.errors import NotAModel, RSDError
from rsd_local.gguf_header import read_header
from rsd_local.hashes import file_sha256
from rsd_local.toml_settings import build

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILE = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*\.(?:gguf|safetensors)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
AT_ONCE = 3  # files downloaded side by side

Watch = Callable[[str, int, int], None]
"""Told a model's name, the bytes that are there, and those of the whole file."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One file of the hub.

    Attributes:
        repo: OWNER/NAME.
        file: its path in the repository; a name that could lead anywhere else is refused.
        gigabytes: its size as published, in 10^9 bytes, for people.
        licence: of the weights, as the repository says.
        context: tokens that it was trained for.
        sha256: of the file; empty where it waits for the first download: then the hub's own is what counts.
        shape: the sizes of its layers, a table in the file; None where they are not known.
    """

    repo: str
    file: str
    gigabytes: float
    licence: str
    context: int
    sha256: str = ""
    shape: ModelShape | None = None

    def __post_init__(self) -> None:
        if isinstance(self.shape, dict):
            object.__setattr__(self, "shape", build(ModelShape, self.shape, "shape"))
        shape: object = self.shape
        require(shape is None or isinstance(shape, ModelShape), f"shape {shape!r} is no table")
        require(_REPO.fullmatch(self.repo) is not None, f"repo {self.repo!r} is no OWNER/NAME of the hub")
        require(_FILE.fullmatch(self.file) is not None, f"file {self.file!r} is no plain path of a GGUF or safetensors file")
        require(self.gigabytes > 0, f"gigabytes {self.gigabytes} is not above 0")
        require(self.context > 0, f"context {self.context} is not above 0")
        require(not self.sha256 or _SHA256.fullmatch(self.sha256) is not None, f"sha256 {self.sha256!r} is no SHA-256")

    @property
    def path(self) -> Path:
        """Where the file is in the hub's cache, or would be."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.constants import HF_HUB_CACHE

        found = try_to_load_from_cache(self.repo, self.file)
        return Path(found) if isinstance(found, str) else Path(HF_HUB_CACHE) / self.repo.replace("/", "--") / self.file

    def verify(self) -> None:
        """Reads the whole file and compares it.

        Raises:
            NotAModel: it is damaged, or another file than promised.
            RSDError: it is not there.
        """
        path = self.path
        if not path.exists():
            raise RSDError(f"{self.file} is not there", hint="rsd pull fetches it")
        blob = path.resolve().name  # the cache names large files by the hub's own SHA-256
        wanted = self.sha256 or (blob if _SHA256.fullmatch(blob) else "")
        if wanted and file_sha256(path) != wanted:
            raise NotAModel(f"{path} is not the file that was published: its SHA-256 differs", hint="rsd rm and rsd pull fetch it anew")
        if path.suffix == ".gguf":
            read_header(path)

    def remove(self) -> int:
        """Takes the file out of the cache, and returns the bytes that this frees."""
        path = self.path
        if not path.exists():
            return 0
        blob, size = path.resolve(), path.stat().st_size
        path.unlink()
        blob.unlink(missing_ok=True)
        return size


def pull(entries: dict[str, ModelEntry], watch: Watch) -> None:
    """Downloads files that are not there yet, some at a time, and checks each; a bad one is taken out again.

    An unfinished download has another name, so that nothing can load it.

    Raises:
        ConfigError, RSDError: the first that failed; the others are finished.
        NotAModel: a file is not what was promised.
    """

    def one(name: str, entry: ModelEntry) -> None:
        hub.fetch(name, entry.repo, entry.file, fix="see rsd list", progress=lambda there, whole: watch(name, there, whole))
        try:
            entry.verify()
        except NotAModel:
            entry.remove()
            raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(one, *item) for item in entries.items()]:
            future.result()
