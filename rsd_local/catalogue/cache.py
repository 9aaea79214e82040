"""Where files of the hub lie on this machine: the folders that huggingface_hub and its tools use too.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. A repository's folder has ``blobs``, files named by what
is in them, and ``snapshots``, a folder for each commit with links to blobs. Where there are no symbolic links, a snapshot holds
the files themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rsd_local.hashes import file_sha256

_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_UNFINISHED = ".incomplete"


def hub_cache() -> Path:
    """The cache of huggingface_hub: its constant ``HF_HUB_CACHE``, found without loading the library."""
    home = _expanded("HF_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache")), "huggingface"))
    return Path(_expanded("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))))


def is_offline() -> bool:
    """Whether the user keeps programs from asking the hub: huggingface_hub's constant ``HF_HUB_OFFLINE``."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def _expanded(name: str, usual: str) -> str:
    return os.path.expandvars(os.path.expanduser(os.environ.get(name, usual)))


def repo_folder(repo: str, kind: str = "model") -> Path:
    """The folder of a repository, which need not be there.

    Args:
        repo: OWNER/NAME.
        kind: ``model`` or ``dataset``.
    """
    return hub_cache() / f"{kind}s--{repo.replace('/', '--')}"


def snapshot(repo: str, files: Sequence[str], revision: str | None = None, kind: str = "model") -> Path:
    """The folder of the commit to take files from: one that has all of them before one that has some, then the newest.

    Commits of a repository mostly leave other files as they are, so what was fetched before its main branch went on still counts.

    Args:
        repo: OWNER/NAME.
        files: their paths in the repository.
        revision: the commit; None for what the main branch was when it was last looked at, or else any.
        kind: ``model`` or ``dataset``.

    Returns:
        The folder, which is not there where no file is.
    """
    folder = repo_folder(repo, kind) / "snapshots"
    if revision is not None:
        return folder / revision
    main = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        main = (repo_folder(repo, kind) / "refs" / "main").read_text(encoding="utf-8").strip()

    def rank(commit: Path) -> tuple[int, bool, float]:
        return sum((commit / file).is_file() for file in files), commit.name == main, commit.stat().st_mtime

    with contextlib.suppress(OSError):
        return max((path for path in folder.iterdir() if path.is_dir()), key=rank, default=folder / "main")
    return folder / "main"


def pinned(repo: str, etags: Mapping[str, str], revision: str) -> Path:
    """The folder of a commit, or of another one where that lacks a file and every file has the content that is wanted.

    So what was fetched from another commit still counts, and nothing else does.

    Args:
        repo: OWNER/NAME.
        etags: the hub's name of each file's content by the file's path in the repository; empty where it is not known.
        revision: the commit.
    """
    folder = repo_folder(repo) / "snapshots"
    first = folder / revision
    if all(etags.values()) and not all((first / file).is_file() for file in etags):
        with contextlib.suppress(OSError):
            for commit in folder.iterdir():
                if all((commit / file).is_file() and known_etag(commit / file) == etag for file, etag in etags.items()):
                    return commit
    return first


def unfinished(repo: str, file: str, etag: str, kind: str = "model") -> Path:
    """Where the first part of a file waits for the rest; no other program takes it for a model."""
    return repo_folder(repo, kind) / "blobs" / f"{etag}.{Path(file).name}{_UNFINISHED}"


def place(repo: str, file: str, commit: str, etag: str, kind: str = "model") -> Path:
    """Put a finished blob, or else the finished download, where a commit's file belongs, and return its path."""
    folder = repo_folder(repo, kind)
    blob, path, fetched = folder / "blobs" / etag, folder / "snapshots" / commit / file, unfinished(repo, file, etag, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    if fetched.exists():
        fetched.replace(blob)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:  # Windows lets only some users make links
        blob.replace(path)
    return path


def note_main(repo: str, commit: str, kind: str = "model") -> None:
    """Note what the main branch is; a cache that cannot be written is no error."""
    file = repo_folder(repo, kind) / "refs" / "main"
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(commit, encoding="utf-8")


def remove(repo: str, file: str) -> int:
    """Take a file of a repository out of the cache, of all commits, and what was fetched of it; returns the bytes that this frees."""
    folder, freed = repo_folder(repo), 0
    gone = [*(folder / "blobs").glob(f"*.{Path(file).name}{_UNFINISHED}")]
    for path in (folder / "snapshots").glob(f"*/{file}"):
        if path.is_symlink():
            gone.append(Path(os.path.normpath(path.parent / path.readlink())))
            path.unlink()
        else:
            gone.append(path)
    for path in dict.fromkeys(gone):
        with contextlib.suppress(FileNotFoundError):
            freed += path.lstat().st_size  # a blob may be a link into a store that huggingface_hub's tools keep for several caches
            path.unlink()
    links = [link for link in (folder / "snapshots").rglob("*") if link.is_symlink() and not link.exists()]
    for link in links:  # of other names for the same content
        link.unlink()
    return freed


def known_etag(path: Path) -> str:
    """What the hub said of the content of a file in the cache; empty where the cache does not say."""
    return path.readlink().name if path.is_symlink() else ""


def is_as_said(path: Path, etag: str) -> bool | None:
    """Read a file and compare it with the hub's ETag; None where that does not tell the content.

    Large files have their SHA-256 as ETag, others the SHA-1 that git gives them.
    """
    if _SHA256.fullmatch(etag):
        return file_sha256(path) == etag
    if not _GIT.fullmatch(etag):
        return None
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == etag
