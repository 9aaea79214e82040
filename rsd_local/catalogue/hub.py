"""Files of the hub, into the cache that huggingface_hub's own tools use, and its failures as errors of ours.

huggingface_hub finds the cache, the account's token, the mirror and the HTTP client. Its ``hf_hub_download`` is not used: it
tries for half a minute what cannot work, says so in twenty lines, throws away what an interrupted download has, and cannot be
stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from rsd_local.catalogue import cache
from rsd_local.catalogue.download import Progress, download
from rsd_local.catalogue.remote import HubFile, Remote, ask
from rsd_local.errors import Cancelled, NotAModel, RSDError

T = TypeVar("T")
log = logging.getLogger("rsd_local.hub")
LARGEST = 50_000_000_000  # bytes of the largest file that the hub gives over HTTP
_LOCKED = 5.0  # seconds to wait for another process that downloads the same


def fetch(
    name: str,
    repo: str,
    file: str,
    revision: str | None = None,
    *,
    kind: str = "model",
    fix: str = "",
    sha256: str = "",
    progress: Progress | None = None,
) -> Path:
    """The path of a file in the cache; downloaded first where it is not there, from where an earlier try ended.

    Ctrl-C in the calling thread ends it at once.

    Args:
        name: what it is, for messages.
        repo: OWNER/NAME.
        file: its path in the repository.
        revision: a commit; the main branch where there is none.
        kind: ``model`` or ``dataset``.
        fix: what to do where the hub does not have it.
        sha256: that it must have; empty where only the hub says.
        progress: told how far the download is.

    Raises:
        ConfigError: it asks for an account.
        NotAModel: what came is not what was published.
        RSDError: it cannot be fetched; the message has the hub's own words.
    """
    wanted = HubFile(name, repo, file, revision, kind, fix)
    return all_of([lambda stop: fetch_here(wanted, sha256, progress, stop)], 1)[0]


def fetch_here(wanted: HubFile, sha256: str, progress: Progress | None, stop: threading.Event) -> Path:
    """``fetch`` in the calling thread, until ``stop`` is set.

    Raises:
        Cancelled: it was stopped.
        ConfigError, NotAModel, RSDError: as ``fetch``.
    """
    here = cache.snapshot(wanted.repo, [wanted.file], wanted.revision, wanted.kind) / wanted.file
    if cache.is_offline() or wanted.revision:
        if here.is_file():
            return here
        if cache.is_offline():
            raise RSDError(f"{wanted} is not in the cache", hint="go online: --offline or HF_HUB_OFFLINE keeps rsd from asking the hub")
    try:
        remote = ask(wanted)
        if sha256 and len(remote.etag) == 64 and remote.etag != sha256:
            fix = "the file was changed, or the list is wrong: an entry of your own models.toml without sha256 takes what the hub has"
            raise NotAModel(f"{wanted} is another file on the hub than models.toml lists: its SHA-256 is {remote.etag}", hint=fix)
        if wanted.revision and remote.commit != wanted.revision:
            raise RSDError(f"{wanted}: the hub answers with another commit, {remote.commit[:10]}", hint="check HF_ENDPOINT")
    except RSDError as error:
        if not here.is_file():
            raise
        log.warning("%s is kept as it is: %s", wanted, error)
        return here
    except Exception as error:  # the HTTP library's own errors, and those of a client that somebody has put in its place
        raise _strange(wanted, error) from None
    try:
        path = _placed(wanted, remote, sha256, progress, stop)
    except RSDError:
        raise
    except OSError as error:
        raise RSDError(f"{wanted} cannot be put into the cache: {error}", hint="check the folder, or set HF_HOME") from None
    except Exception as error:
        raise _strange(wanted, error) from None
    if wanted.revision is None:
        cache.note_main(wanted.repo, remote.commit, wanted.kind)
    return path


def _strange(wanted: HubFile, error: Exception) -> RSDError:
    return RSDError(f"{wanted} cannot be fetched: {type(error).__name__}: {error}", hint="check HF_ENDPOINT, HF_TOKEN and the proxy")


def _placed(wanted: HubFile, remote: Remote, sha256: str, progress: Progress | None, stop: threading.Event) -> Path:
    """The file of a commit, fetched where no other commit had the same."""
    place = wanted.repo, wanted.file, remote.commit, remote.etag, wanted.kind
    folder = cache.repo_folder(wanted.repo, wanted.kind)
    path, blob = folder / "snapshots" / remote.commit / wanted.file, folder / "blobs" / remote.etag
    if path.is_file():
        return path
    if blob.is_file():
        return cache.place(*place)
    if (remote.size or 0) > LARGEST:
        fix = f"hf download {wanted.repo} {wanted.file} puts it into the same cache"
        raise RSDError(f"{wanted} has {remote.size or 0:,} bytes, more than the hub gives over HTTP", hint=fix)
    target = cache.unfinished(wanted.repo, wanted.file, remote.etag, wanted.kind)
    with _only_one(wanted, target):
        resumed = download(wanted, remote, target, progress, stop)
        if not _right(target, remote, sha256) and resumed:  # the earlier part may be what is wrong
            target.unlink()
            download(wanted, remote, target, progress, stop)
        if not _right(target, remote, sha256):
            target.unlink(missing_ok=True)
            raise NotAModel(f"{wanted} is not the file that was published: its SHA-256 differs", hint="the next try fetches it anew")
        return cache.place(*place)


def _right(target: Path, remote: Remote, sha256: str) -> bool:
    return cache.is_as_said(target, sha256 or remote.etag) is not False


@contextmanager
def _only_one(wanted: HubFile, target: Path) -> Iterator[None]:
    """Keeps other processes from downloading the same file, by a lock that ends with the process."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    folder = cache.repo_folder(wanted.repo, wanted.kind)
    file = folder.parent / ".locks" / folder.name / f"{target.name}.lock"  # where huggingface_hub has its own
    file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(WeakFileLock(file, timeout=_LOCKED))
        except Timeout:
            fix = f"wait for it; where there is none, delete {file}"
            raise RSDError(f"{wanted}: another process is downloading it", hint=fix) from None
        yield


def all_of(calls: Sequence[Callable[[threading.Event], T]], at_once: int) -> list[T]:
    """Make calls side by side, in threads that no interpreter waits for at its end, and return their results in order.

    Args:
        calls: each is given an event that is set when nobody wants the result any more.
        at_once: as many run at a time.

    Raises:
        RSDError: of the first that failed, when all have ended; it names the others that did.
        BaseException: what interrupts the caller, at once.
    """
    stop, waiting = threading.Event(), list(enumerate(calls))[::-1]
    results: dict[int, T] = {}
    failed: dict[int, BaseException] = {}

    def work() -> None:
        while not stop.is_set():
            try:
                number, call = waiting.pop()
            except IndexError:
                return
            try:
                results[number] = call(stop)
            except BaseException as error:
                failed[number] = error

    for _ in range(min(at_once, len(calls))):
        threading.Thread(target=work, name="rsd-download", daemon=True).start()
    try:
        while len(results) + len(failed) < len(calls):
            stop.wait(0.05)  # not join: an interrupted one takes the thread for ended
    finally:
        stop.set()
    if failed:
        first, *others = (failed[number] for number in sorted(failed))
        if others and isinstance(first, RSDError) and not isinstance(first, Cancelled):
            more = "; ".join(dict.fromkeys(str(other) for other in others if str(other) != str(first)))
            raise type(first)(f"{first}; {more}" if more else str(first), hint=first.hint)
        raise first
    return [results[number] for number in range(len(calls))]
