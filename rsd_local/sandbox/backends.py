"""The means of confining a program on a POSIX system: what is started, and what the launcher is told.

``bubblewrap`` and ``namespaces`` (Linux) give a program files, processes and a network of its own. ``sandbox-exec`` (macOS) forbids
files and network. ``limits`` sets resource limits alone.
"""

from __future__ import annotations

import functools
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsd_local.errors import SandboxTooWeak
from rsd_local.sandbox import macos
from rsd_local.sandbox.bounds import ONE_THREAD, Bounds
from rsd_local.sandbox.supervise import Pipes
from rsd_local.sandbox.view import DEVICE_LINKS, DEVICES, LAUNCHER, View

BackendName = Literal["bubblewrap", "namespaces", "sandbox-exec", "limits", "job-object"]
WORK = "/tmp/rsd-sandbox"  # where a program starts that has a /tmp of its own
_FILES = 4  # times the size of one file that all of them may take
_INODES = 16384
_OPEN_FILES = 128
_FREE_USERS = (2_010_000_000, 2_147_000_000)  # above those that SSSD and systemd give, and below 2^31


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to confine programs.

    Attributes:
        name: of the means.
        own_user: whether each program gets a user of its own, which only root can give.
    """

    name: BackendName
    own_user: bool = False

    @property
    def isolated(self) -> bool:
        """Whether programs have namespaces of their own, which end with them."""
        return self.name in ("bubblewrap", "namespaces")

    def command(self, view: View, folder: str, room: int) -> list[str]:
        """What starts the launcher, without the number of its descriptor.

        Args:
            view: the files that are shown.
            folder: where the program works.
            room: bytes that all its files may take.
        """
        launcher = [sys.executable, "-I", "-S", LAUNCHER]
        if self.name == "bubblewrap":
            return [*bubblewrap(view, room, user_namespace=os.getuid() != 0), *launcher]
        if self.name == "sandbox-exec":
            return ["/usr/bin/sandbox-exec", "-p", macos.profile(view.shown, folder), *launcher]
        return launcher

    def spec(
        self, argv: Sequence[str], files: Mapping[str, bytes], view: View, folder: str, room: int, bounds: Bounds, uid: int, pipes: Pipes
    ) -> dict[str, Any]:
        """What the launcher is told; see ``launcher.py``.

        Args:
            uid: of the program's own user, 0 for the caller's.
        """
        import resource

        limits = {
            resource.RLIMIT_AS: bounds.memory,
            resource.RLIMIT_NPROC: bounds.processes + self._others(),
            resource.RLIMIT_FSIZE: bounds.file_bytes,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NOFILE: _OPEN_FILES,
        }
        shown = {
            "shown": view.shown,
            "links": (*view.links, *DEVICE_LINKS),
            "devices": [name for name in DEVICES if os.path.exists(f"/dev/{name}")],
            "room": room,
            "inodes": _INODES + len(files),
            "user": os.getuid() != 0,
        }
        return {
            "argv": list(argv),
            "env": environment(folder),
            "files": dict(files),
            "work": folder,
            "uid": uid,
            "limits": list(limits.items()),
            "view": shown if self.name == "namespaces" else None,
            "first": self.isolated,
            "adopt": self.name == "limits" and sys.platform == "linux",
            "status": pipes.theirs["status"],
            "control": pipes.theirs["control"],
            "pipes": [pipes.theirs["said"]],
        }

    def _others(self) -> int:
        """Processes that count towards the user's besides the program's own."""
        if self.own_user:
            return 0
        if self.isolated and _counts_in_namespaces():
            return 2 if self.name == "namespaces" else 1  # of the launcher
        return own_tasks() + 4


def bubblewrap(view: View, room: int, *, user_namespace: bool) -> list[str]:
    """The command of bubblewrap up to the program, which becomes the first process of its namespace.

    Raises:
        SandboxTooWeak: it is not installed.
    """
    if (program := shutil.which("bwrap")) is None:
        raise SandboxTooWeak("bubblewrap is not installed")
    command = [program, "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if user_namespace:
        command.append("--unshare-user")
    else:  # as root the launcher gives up root itself, which needs these two
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for folder in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(room), "--tmpfs", folder]
    command += ["--proc", "/proc"]
    for name in DEVICES:
        command += ["--dev-bind-try", f"/dev/{name}", f"/dev/{name}"]
    for path, target in (*view.links, *DEVICE_LINKS):
        command += ["--symlink", target, path]
    above = dict.fromkeys(str(parent) for path in view.shown for parent in reversed(Path(path).parents[:-1]))
    for folder in above:  # it makes them itself, but for the owner alone
        if folder not in ("/tmp", "/dev", "/dev/shm", "/proc"):
            command += ["--perms", "0755", "--dir", folder]
    for path in view.shown:
        command += ["--ro-bind", path, path]
    return [*command, "--remount-ro", "/", "--chdir", "/", "--"]


def room_for(files: Mapping[str, bytes], bounds: Bounds) -> int:
    """Bytes that all files of a program may take, those included that it is given."""
    return _FILES * bounds.file_bytes + sum(len(content) + 8192 for content in files.values()) + (1 << 20)


def environment(folder: str) -> dict[str, str]:
    """All that a program sees of the environment."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder, **ONE_THREAD}


def free_user() -> int:
    """The number of a user that nobody has, another one each time, as far as this system's numbers go."""
    lines = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    first, count = max(((inside, count) for inside, _, count in lines), key=lambda entry: entry[1])
    low, high = _FREE_USERS if count > _FREE_USERS[1] else (first + count // 2, first + count - 2)
    return low + secrets.randbelow(max(1, high - low))


def own_tasks() -> int:
    """Processes and threads that this user has now, as far as they can be seen."""
    if sys.platform != "linux":
        import psutil

        return len(psutil.pids())
    count = 0
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{entry.name}/task"))
        except OSError:
            continue  # it has ended
    return count


@functools.cache
def _counts_in_namespaces() -> bool:
    """Whether Linux counts a user's processes in each user namespace apart (5.14 and later)."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)) >= (5, 14)
