"""Which files of this machine a program in a sandbox sees: the system's programs and libraries, and this interpreter."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = str(Path(__file__).with_name("launcher.py"))
DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_SETTINGS = ("/etc/alternatives", "/etc/ld.so.cache")  # where programs and libraries are found


@dataclass(frozen=True, slots=True)
class View:
    """What of this machine's files is to be seen, at the same path and only to be read.

    Attributes:
        shown: folders and files, a folder before what lies in it.
        links: symbolic links, as path and target.
    """

    shown: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, readable: Sequence[Path] = ()) -> View:
        """The system and the interpreter, and ``readable`` besides."""
        links = tuple((path, os.readlink(path)) for path in _SYSTEM if os.path.islink(path))
        roots = [path for path in _SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
        wanted = [*roots, *(path for path in _SETTINGS if os.path.exists(path)), *interpreter(), LAUNCHER]
        for path in readable:
            wanted += [os.path.abspath(path), os.path.realpath(path)]
        return cls(_uncovered(wanted, [path for path, _ in links]), links)


@functools.cache
def interpreter() -> tuple[str, ...]:
    """What this interpreter is made of: its programs, its library, its installed packages."""
    found = []
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        found += [os.path.join(prefix, name) for name in ("bin", "lib", "lib64", "pyvenv.cfg")]
    found += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    hop = sys.executable
    while os.path.islink(hop):  # each link on the way to the program must be there
        found.append(hop)
        hop = os.path.normpath(os.path.join(os.path.dirname(hop), os.readlink(hop)))
    found.append(hop)
    there = [path for path in found if path and os.path.exists(path)]
    return tuple(dict.fromkeys([*there, *(os.path.realpath(path) for path in there)]))


def _uncovered(paths: Iterable[str], links: list[str]) -> tuple[str, ...]:
    """The paths that lie in no other of them and behind no link, parents first."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: (path.count("/"), path)):
        if not any(path == other or path.startswith(other.rstrip("/") + "/") for other in [*kept, *links]):
            kept.append(path)
    return tuple(kept)
