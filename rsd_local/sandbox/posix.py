"""One run of a program on a POSIX system, from its folder to its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsd_local.config import require
from rsd_local.events import CancelToken
from rsd_local.sandbox.backends import WORK, Backend, free_user, room_for
from rsd_local.sandbox.bounds import Bounds, Outcome
from rsd_local.sandbox.supervise import Pipes, supervise
from rsd_local.sandbox.view import View

PIPE = "{pipe}"


def run(
    backend: Backend,
    argv: Sequence[str],
    files: Mapping[str, bytes],
    told: bytes,
    readable: Sequence[Path],
    bounds: Bounds,
    cancel: CancelToken | None,
) -> Outcome:
    """See ``Sandbox.run``."""
    uid = free_user() if backend.own_user else 0
    for path in readable:
        _require_readable(path, backend)
    view, room = View.of(readable), room_for(files, bounds)
    with _folder(backend, uid) as folder:
        pipes = Pipes.open()
        try:
            argv = [str(pipes.theirs["said"]) if word == PIPE else word for word in argv]
            command = backend.command(view, folder, room)
            spec = backend.spec(argv, files, view, folder, room, bounds, uid, pipes)
            return supervise(command, spec, pipes, told, bounds, cancel)
        finally:
            pipes.close()


@contextlib.contextmanager
def _folder(backend: Backend, uid: int) -> Iterator[str]:
    """Where the program works: in memory of its own, or in a temporary folder that is removed."""
    if backend.isolated:
        yield WORK
        return
    folder = os.path.realpath(tempfile.mkdtemp(prefix="rsd-sandbox-"))
    try:
        if uid:
            os.chown(folder, uid, uid)
        yield folder
    finally:
        shutil.rmtree(folder, onerror=_open_up)


def _open_up(function: Callable[..., Any], path: str, _: object) -> None:
    """A folder that its program closed is opened, and removed then."""
    for closed in (os.path.dirname(path), path):
        with contextlib.suppress(OSError):
            os.chmod(closed, stat.S_IRWXU, follow_symlinks=False) if os.chmod in os.supports_follow_symlinks else os.chmod(closed, 0o700)
    if function in (os.open, os.scandir, os.lstat):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            function(path)


def _require_readable(path: Path, backend: Backend) -> None:
    found = os.path.realpath(path)
    require(os.path.exists(found), f"{path} is to be readable in a sandbox, and is not there")
    own = ("/", "/tmp", "/dev", "/dev/shm", "/proc", WORK)
    require(found not in own and os.path.abspath(path) not in own, f"{path} cannot be readable in a sandbox, which has its own")
    if backend.own_user:
        mode = os.stat(found).st_mode
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        require(mode & needed == needed, f"{path} can be read by its owner alone", "as root, programs run as another user: chmod -R o+rX")
