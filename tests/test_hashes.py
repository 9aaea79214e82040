"""Digests that are remembered are those of the file as it is."""

from __future__ import annotations

import time
from pathlib import Path

import platformdirs
import pytest

from rsd_local import hashes
from rsd_local.hashes import file_sha256, known_sha256


def test_a_remembered_digest_is_read_once_and_never_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, read = tmp_path / "model", list[Path]()
    monkeypatch.setattr(hashes, "file_sha256", lambda path: (read.append(path), file_sha256(path))[1])
    model.write_bytes(b"one")
    assert known_sha256(model) == known_sha256(model) == file_sha256(model) and len(read) == 1
    time.sleep(0.05)  # some file systems count time in steps
    model.write_bytes(b"two")  # as long as before
    assert known_sha256(model) == file_sha256(model) and len(read) == 2
    (tmp_path / "other").write_bytes(b"six")
    (tmp_path / "other").replace(model)
    assert known_sha256(model) == file_sha256(model) and len(read) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "null"])
def test_a_damaged_or_unwritable_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, cache = tmp_path / "model", platformdirs.user_cache_path("rsd")
    model.write_bytes(b"one")
    cache.mkdir(parents=True)
    (cache / "sha256.json").write_text(content)
    assert known_sha256(model) == file_sha256(model)
    (cache / "sha256.json").unlink()
    (cache / "sha256.json").mkdir()
    assert known_sha256(model) == file_sha256(model)
