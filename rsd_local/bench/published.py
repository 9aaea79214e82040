"""Data sets by name that are published on GitHub as JSONL and on the hub as parquet alone: HumanEval and MBPP, at pinned commits.

HumanEval's file has been read at its commit, whose SHA-256 stands here. That MBPP's commit has its file is known from a public index;
no download has confirmed its content.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from rsd_local.bench import coding
from rsd_local.errors import ConfigError, RSDError
from rsd_local.evaluation.items import Item

SITE = "https://raw.githubusercontent.com"
_SECONDS = 30.0  # for each answer of the site
_BYTES = 16 << 20  # more than any of these files has


@dataclass(frozen=True, slots=True)
class Publication:
    """A file of a repository.

    Attributes:
        repo: OWNER/NAME.
        commit: 40 hexadecimal digits.
        file: its path, JSONL or gzipped JSONL.
        sha256: of the file as it is published, where it is known.
        takes: which rows are test questions.
    """

    repo: str
    commit: str
    file: str
    sha256: str = ""
    takes: Callable[[dict[str, Any]], bool] = lambda row: True


SOURCES = {
    "humaneval": Publication(
        "openai/human-eval",
        "6d43fb980f9fee3c892a914eda09951f772ad10d",
        "data/HumanEval.jsonl.gz",
        "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    ),
    "mbpp": Publication(
        "google-research/google-research",
        "2251e8c67a7fe7d6348714967ee101080b28e956",
        "mbpp/mbpp.jsonl",
        # The test part, as its README has it; the others are for few-shot prompts, validation and training.
        takes=lambda row: 11 <= int(row["task_id"]) <= 510,
    ),
}
"""Name → where it is."""


def fetch(name: str) -> list[Item]:
    """All test questions of a data set, from this user's cache where they are there already.

    Args:
        name: a key of ``SOURCES``.

    Raises:
        ConfigError: a row lacks what such a row has.
        RSDError: the file cannot be fetched, or is another one.
    """
    source = SOURCES[name]
    kept = platformdirs.user_cache_path("rsd") / "datasets" / f"{name}-{source.commit[:12]}{''.join(Path(source.file).suffixes)}"
    data = kept.read_bytes() if kept.is_file() else b""
    if not data or not _is_right(source, data):
        data = _download(name, source)
        _keep(kept, data)
    try:
        text = (gzip.decompress(data) if source.file.endswith(".gz") else data).decode("utf-8")
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        return [coding.item(row, f"{name}-{number}", f"{name}, row {number}") for number, row in enumerate(rows, 1) if source.takes(row)]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name}: {source.file} cannot be read: {error!r}", hint=_hint(name)) from None


def _download(name: str, source: Publication) -> bytes:
    address = f"{SITE}/{source.repo}/{source.commit}/{source.file}"
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
            data: bytes = answer.read(_BYTES)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise RSDError(f"{name} cannot be fetched from {address}: {error}", hint=_hint(name)) from None
    if not _is_right(source, data):
        raise RSDError(f"{name}: what {address} has is not the file of that commit", hint=_hint(name))
    return data


def _is_right(source: Publication, data: bytes) -> bool:
    return not source.sha256 or hashlib.sha256(data).hexdigest() == source.sha256


def _keep(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; without it the next bench downloads it again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(data)
        os.replace(part.name, path)


def _hint(name: str) -> str:
    return f"give a JSONL file with the rows of {name} instead"
