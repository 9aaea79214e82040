"""Folders of models as other programs lay them out, and tiny models of several sizes to put into them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny

ROOT = 0


def write_sized(path: Path, times: int = 1, **settings: Any) -> Path:
    """Writes a tiny model whose layers are so many times as wide, and returns its path.

    Args:
        path: of the file.
        times: 1 for some 28,000 weights, 2 for three and 3 for six times as many.
        settings: of ``tiny.write_model``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WIDTH", "HIDDEN", "EXPERT_HIDDEN"):
            patch.setattr(tiny, name, getattr(tiny, name) * times)
        return tiny.write_model(path, **settings)


def put_into_ollama(store: Path, name: str, file: Path, kind: str = "model", *, more: Sequence[dict[str, Any]] = ()) -> Path:
    """Puts a file into a store of Ollama's layout, as the model HOST/NAMESPACE/MODEL/TAG, and returns its blob."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(file.read_bytes())
    layer = {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": file.stat().st_size}
    write_manifest(store, name, json.dumps({"schemaVersion": 2, "layers": [layer, *more]}))
    return blob


def write_manifest(store: Path, name: str, text: str) -> Path:
    """Writes what Ollama notes of a model HOST/NAMESPACE/MODEL/TAG."""
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(text)
    return manifest


@contextmanager
def without_root() -> Iterator[None]:
    """As a user who may not read everything."""
    if not hasattr(os, "geteuid") or os.geteuid() != ROOT:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(ROOT)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All that is in a folder, with the times at which it was written."""
    inside = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in inside}
