"""Starts one program in its limits; run as a script of its own, with nothing imported of the package.

It reads what to do from a file descriptor (``marshal``, of the same interpreter), makes namespaces and mounts where it is asked
to, forks the program as an unprivileged user, waits for it, writes how it ended to another descriptor, and ends everything that the
program left. It does so too when the caller closes its end of the control pipe, or is gone.
"""

from __future__ import annotations

import marshal
import os
import select
import sys

try:  # here, and not where it is used: there the libraries may be out of sight
    import resource
except ImportError:  # Windows, where nothing starts this
    pass

TYPE_CHECKING = False  # the modules typing and signal (for its enums) take longer to import than all else does
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount cgroup uts ipc pid net
NEW_USER = 0x10000000
NO_SUID, NO_DEVICES, NO_PROGRAMS, BIND, RECURSIVE, PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
READ_ONLY, DETACH, MOUNT_SETATTR, AT_RECURSIVE = 1, 2, 442, 0x8000
DIE_WITH_PARENT, DUMPABLE, ADOPT_ORPHANS, NO_NEW_RIGHTS = 1, 4, 36, 38  # prctl


def main(spec: dict[str, Any]) -> None:
    """Does what it is told, and never returns."""
    status = spec["status"]
    for fd in (status, spec["control"]):
        os.set_inheritable(fd, False)
    try:
        confine(spec)
        os.write(status, b"s")
        ended = run(spec)
    except BaseException as error:
        fail(status, error)
    if spec["adopt"]:
        end_children()
    os.write(status, b"" if ended is None else b"%d" % ended)
    if not spec["first"]:
        os.killpg(0, signal.SIGKILL)  # this process too
    os._exit(0)


def confine(spec: dict[str, Any]) -> None:
    """What this process does to itself, and what the program inherits."""
    if sys.platform == "linux":
        with open("/proc/self/oom_score_adj", "w") as file:  # where memory runs out, this goes first
            file.write("1000")
    if spec["view"] is not None:
        enter_namespaces(spec)
    if spec["adopt"]:
        call(libc().prctl, ADOPT_ORPHANS, 1, 0, 0, 0)
    if sys.platform == "linux" and not spec["uid"]:  # another process of the same user could read and write its memory and pipes
        call(libc().prctl, DUMPABLE, 0, 0, 0, 0)


def fail(status: int, error: BaseException) -> None:
    """Says why the program could not be confined, and ends this process."""
    os.write(status, f"e{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    os._exit(1)


def run(spec: dict[str, Any]) -> int | None:
    """Forks the program and waits for it; its exit code, −n of a signal, None where the caller wanted the end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    program = os.fork()
    if program == 0:
        become(spec)
    for fd in spec["pipes"]:
        os.close(fd)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(spec["control"], select.POLLIN)
    while True:
        if spec["control"] in [fd for fd, _ in poll.poll()]:
            return None
        os.read(reader, 4096)
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == program:
                return os.waitstatus_to_exitcode(found[1])


def become(spec: dict[str, Any]) -> None:
    """Turns this process into the program."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if spec["view"] is not None or spec["adopt"]:  # bubblewrap has done so
            call(libc().prctl, NO_NEW_RIGHTS, 1, 0, 0, 0)
        if spec["uid"]:
            os.setgroups([])
            os.setgid(spec["uid"])
            os.setuid(spec["uid"])
        os.umask(0o077)
        os.makedirs(spec["work"], exist_ok=True)
        os.chdir(spec["work"])
        for name, content in spec["files"].items():
            if os.path.dirname(name):
                os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "xb") as file:
                file.write(content)
        for number, most in spec["limits"]:
            limit(number, most)
    except BaseException as error:
        fail(spec["status"], error)
    try:
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        os.write(2, f"{spec['argv'][0]} cannot be started: {error.strerror}\n".encode("utf-8", "replace"))
    os._exit(127)


def limit(number: int, most: int) -> None:
    _, hard = resource.getrlimit(number)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(number, (most, most))
    except (ValueError, OSError):
        if sys.platform != "darwin":  # which has no limit on memory; the protections say so
            raise


def enter_namespaces(spec: dict[str, Any]) -> None:
    """Makes namespaces, forks the first process of them, and gives it a root folder of its own; the outer process only waits."""
    uid, gid = os.getuid(), os.getgid()
    call(libc().prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    call(libc().unshare, NEW_NAMESPACES | (NEW_USER if spec["view"]["user"] else 0))
    if spec["view"]["user"]:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    first = os.fork()
    if first:
        for fd in (0, 1, 2, *spec["pipes"], spec["control"]):
            os.close(fd)
        os.waitpid(first, 0)
        os._exit(0)
    call(libc().prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    build_root(spec["view"])


def build_root(view: dict[str, Any]) -> None:
    """A root folder in memory with what the program may see, as bubblewrap builds it."""
    mount("", "/", "", RECURSIVE | PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEVICES, "mode=755,size=1m")
    os.mkdir("/tmp/new", 0o755)
    os.mkdir("/tmp/old", 0o755)
    mount("/tmp/new", "/tmp/new", "", BIND)
    call(libc().pivot_root, b"/tmp", b"/tmp/old")
    os.chdir("/")
    for folder, room in (("/tmp", view["room"]), ("/dev/shm", view["room"])):
        os.makedirs("/new" + folder, 0o755)
        mount("tmpfs", "/new" + folder, "tmpfs", NO_SUID | NO_DEVICES, f"mode=1777,size={room},nr_inodes={view['inodes']}")
    os.mkdir("/new/proc")
    mount("proc", "/new/proc", "proc", NO_SUID | NO_DEVICES | NO_PROGRAMS)
    for name in view["devices"]:
        show(f"/dev/{name}", NO_SUID | NO_PROGRAMS)
    for path in view["shown"]:
        show(path, READ_ONLY | NO_SUID | NO_DEVICES)
    for path, target in view["links"]:
        os.symlink(target, "/new" + path)
    call(libc().umount2, b"/old", DETACH)
    os.chdir("/new")
    call(libc().pivot_root, b".", b".")
    call(libc().umount2, b".", DETACH)
    os.chdir("/")
    set_attributes("/", READ_ONLY | NO_SUID | NO_DEVICES, 0)


def show(path: str, attributes: int) -> None:
    """Mounts a path of the machine's at the same place of the new root."""
    source, place = "/old" + path, "/new" + path
    if os.path.isdir(source):
        os.makedirs(place, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, place, "", BIND | RECURSIVE)
    set_attributes(place, attributes, AT_RECURSIVE)


def set_attributes(path: str, attributes: int, flags: int) -> None:
    """mount_setattr(2), of Linux 5.12; it reaches the mounts below, which a remount does not."""
    import ctypes

    values = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    call(libc().syscall, ctypes.c_long(MOUNT_SETATTR), -100, path.encode(), flags, values, ctypes.c_size_t(32))


def mount(source: str, place: str, kind: str, flags: int, options: str = "") -> None:
    import ctypes

    call(libc().mount, source.encode(), place.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())


def libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def call(function: Any, *values: Any) -> None:
    import ctypes

    if function(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


def end_children() -> None:
    """Ends what the program left, where there is no process namespace that would; orphans come to this process."""
    while children := descendants():
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def descendants() -> list[int]:
    """Processes below this one, by the parents that /proc names."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    found, ahead = [], [os.getpid()]
    while ahead:
        above = ahead.pop()
        below = [pid for pid, parent in parents.items() if parent == above]
        found += below
        ahead += below
    return found


if __name__ == "__main__":
    with open(int(sys.argv[1]), "rb") as given:
        read = marshal.load(given)
    main(read)
