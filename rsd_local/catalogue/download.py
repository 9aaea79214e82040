"""The bytes of a file of the hub: fetched from where an earlier try ended, and stopped at once where nobody wants them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from rsd_local.catalogue.remote import LONGEST_WAIT, HubFile, Remote, Unreachable, answering, headers, refusal, text_of
from rsd_local.errors import Cancelled, RSDError

TRIES = 3  # in a row without a new byte
_ROOM = "free some, or let HF_HOME name a folder on another disk"

Progress = Callable[[int, int], None]
"""Told the bytes that are there and those of the whole file, from the downloading thread."""


def download(wanted: HubFile, remote: Remote, target: Path, progress: Progress | None, stop: threading.Event) -> bool:
    """Fetch the bytes of a file that are not in ``target`` yet.

    Args:
        wanted: the file.
        remote: what the hub says of it.
        target: what is there of it, or will be.
        progress: told how far it is.
        stop: ends it; what is there then stays.

    Returns:
        Whether an earlier try had fetched some of it.

    Raises:
        RSDError: it cannot be fetched or written.
        Cancelled: it was stopped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    began, fruitless = _there(target), 0
    _check_room(wanted, remote, target)
    while True:
        before = _there(target)
        if remote.size is not None and before >= remote.size:
            if before == remote.size:
                return bool(began)
            target.unlink()
            continue
        try:
            _stream(wanted, remote, target, progress, stop)
            if remote.size is None or _there(target) == remote.size:
                return bool(began)
            raise Unreachable(f"{wanted}: the hub sends fewer bytes than it said")
        except Unreachable as error:
            fruitless = 0 if _there(target) > before else fruitless + 1
            if fruitless == TRIES or error.wait > LONGEST_WAIT:
                raise _broken(wanted, remote, target, error) from None
            if stop.wait(error.wait):
                raise Cancelled("the download was stopped") from None


def _stream(wanted: HubFile, remote: Remote, target: Path, progress: Progress | None, stop: threading.Event) -> None:
    """One answer of the hub, as long as it lasts."""
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT

    there = _there(target)
    asked = headers() | ({"Range": f"bytes={there}-"} if there else {})
    url = wanted.url(remote.commit)
    with answering(wanted, url, "broke off") as http:
        settings = {"headers": asked, "timeout": HF_HUB_DOWNLOAD_TIMEOUT, "follow_redirects": True}
        with http.stream("GET", url, **settings) as answer:
            if answer.status_code == 416:  # what is there is no beginning of the file
                target.unlink(missing_ok=True)
                raise Unreachable(f"{wanted}: the hub cannot continue at byte {there}")
            if answer.status_code >= 400:
                raise refusal(wanted, answer.status_code, answer.headers, text_of(answer))
            resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {there}-")
            try:
                with target.open("ab" if resumed else "wb") as file:
                    there = there if resumed else 0
                    for piece in answer.iter_raw():
                        if stop.is_set():
                            raise Cancelled("the download was stopped")
                        file.write(piece)
                        there += len(piece)
                        if progress is not None:
                            progress(there, remote.size or there)
            except OSError as error:
                raise RSDError(f"{wanted}: {target} cannot be written: {error.strerror or error}", hint=_ROOM) from None


def _there(target: Path) -> int:
    return target.stat().st_size if target.exists() else 0


def _check_room(wanted: HubFile, remote: Remote, target: Path) -> None:
    needed, free = (remote.size or 0) - _there(target), shutil.disk_usage(target.parent).free
    if needed > free:
        raise RSDError(f"{wanted} needs {needed / 1e9:.2f} GB on {target.parent}, where {free / 1e9:.2f} GB are free", hint=_ROOM)


def _broken(wanted: HubFile, remote: Remote, target: Path, error: RSDError) -> RSDError:
    there = _there(target)
    if not there:
        return error
    whole = f" of {remote.size / 1e6:.1f}" if remote.size else ""
    fix = f"the next try continues from there; {error.hint}" if error.hint else "the next try continues from there"
    return RSDError(f"{error}, after {there / 1e6:.1f}{whole} MB", hint=fix)
