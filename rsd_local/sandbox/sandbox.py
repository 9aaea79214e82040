"""Running one program in limits, by the strongest means of this machine."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from rsd_local.config import require, require_choice
from rsd_local.errors import Cancelled, SandboxTooWeak
from rsd_local.events import CancelToken
from rsd_local.sandbox.bounds import Bounds, Outcome, Protection

if TYPE_CHECKING:
    from rsd_local.sandbox.backends import Backend, BackendName

Level = Literal["auto", "strict"]

_finding = threading.Lock()
_found: list[Sandbox] = []
_log = logging.getLogger("rsd_local.sandbox")


def python(arguments: Sequence[str], *, packages: bool = False) -> list[str]:
    """The command that runs this interpreter apart from the user's settings and folders.

    Args:
        arguments: a script and its arguments, or ``-c`` and a text.
        packages: whether installed packages can be imported. Without them it starts faster, and the names ``exit`` and ``quit``
            are not there. A module beside the script is found in neither case: nothing is put on ``sys.path``.
    """
    return [sys.executable, "-I", *([] if packages else ["-S"]), *arguments]


class Sandbox:
    """Runs programs in limits; safe to use from many threads at once."""

    def __init__(self, backend: Backend, protections: tuple[Protection, ...]) -> None:
        self._backend, self._protections = backend, protections

    @classmethod
    def find(cls, level: Level = "auto") -> Sandbox:
        """The strongest sandbox of this machine, found by trying to break out of it, once in a process.

        Args:
            level: ``strict`` refuses where a protection does not hold.

        Raises:
            SandboxTooWeak: ``strict``, and something does not hold; or nothing can be run at all.
        """
        require_choice(level, Level, "sandbox")
        if hasattr(sys, "frozen"):  # sys.executable is the application itself
            raise SandboxTooWeak("an application that was made of Python has no Python to run programs with", hint="use another verifier")
        with _finding:
            if not _found:
                _found.append(_strongest())
        missing = [protection.name for protection in _found[0].protections if not protection.holds]
        if level == "strict" and missing:
            raise SandboxTooWeak(f"programs cannot be confined here: {', '.join(missing)} would not hold", hint=_hint())
        return _found[0]

    @classmethod
    def with_backend(cls, name: BackendName) -> Sandbox:
        """The sandbox of one backend, tried anew.

        Raises:
            SandboxTooWeak: it does not work on this machine.
        """
        return _strongest(name)

    @property
    def backend(self) -> BackendName:
        """What confines programs."""
        return self._backend.name

    @property
    def protections(self) -> tuple[Protection, ...]:
        """What a program is kept from, and what it is not."""
        return self._protections

    def run(
        self,
        argv: Sequence[str],
        *,
        files: Mapping[str, bytes] | None = None,
        told: bytes = b"",
        readable: Sequence[Path] = (),
        bounds: Bounds = Bounds(),  # noqa: B008 (frozen)
        cancel: CancelToken | None = None,
    ) -> Outcome:
        """Run a program to its end; nothing of it is left then.

        Args:
            argv: the program and its arguments. ``{pipe}`` becomes the number of a file descriptor that the program writes to
                what ``Outcome.said`` has, apart from standard output (on Windows: of a handle, for ``msvcrt.open_osfhandle``).
            files: written into its working folder before it starts, by names relative to it.
            told: given on standard input, which then ends.
            readable: files and folders that it may read besides the system's and this interpreter's, at the paths that they have.
                As root, those that everybody may read.
            bounds: what it may use.
            cancel: ends it at once from any thread.

        Raises:
            ConfigError: a name of ``files`` that leaves the folder, or a path that cannot be shown.
            SandboxTooWeak: the program could not be confined.
            Cancelled: the token was cancelled; the program is gone.
        """
        require(bool(argv), "a sandbox was asked to run nothing")
        files = dict(files or {})
        for name in files:
            _require_inside(name)
        if cancel is not None and cancel.cancelled:
            raise Cancelled("cancelled before a program ran")
        if sys.platform == "win32":
            from rsd_local.sandbox import windows

            return windows.run(argv, files, told, bounds, cancel)
        from rsd_local.sandbox import posix

        try:
            return posix.run(self._backend, argv, files, told, readable, bounds, cancel)
        except OSError as error:  # no room for temporary files, no descriptors, no processes
            raise SandboxTooWeak(f"a program could not be confined: {error}", hint="free what is short, or set TMPDIR") from None


def _strongest(name: BackendName | None = None) -> Sandbox:
    """The first backend that runs something, of all or of those with a name."""
    if sys.platform == "win32":
        from rsd_local.sandbox import windows

        return Sandbox(next(_candidates()), windows.PROTECTIONS)
    from rsd_local.sandbox.probe import probe

    why = "there is no way to do it on this system"
    for backend in _candidates():
        if name in (None, backend.name):
            try:
                return Sandbox(backend, probe(backend))
            except (SandboxTooWeak, OSError) as error:
                why = str(error)
                _log.info("%s", why)
    raise SandboxTooWeak(f"no program can be run in limits: {why}", hint=_hint())


def _candidates() -> Iterator[Backend]:
    """Backends from the strongest to the weakest."""
    from rsd_local.sandbox.backends import Backend

    if sys.platform == "win32":
        yield Backend("job-object")
        return
    root = os.getuid() == 0
    if sys.platform == "linux":
        yield Backend("bubblewrap", own_user=root)
        yield Backend("namespaces", own_user=root)
        if root:
            yield Backend("limits", own_user=True)
    if sys.platform == "darwin":
        yield Backend("sandbox-exec")
    if not root:  # nothing holds root by limits alone: it could end every process of the machine
        yield Backend("limits")


def _hint() -> str:
    if sys.platform != "linux":
        return "run rsd in a container or a virtual machine of Linux"
    hint = "install bubblewrap (apt-get install bubblewrap), and allow user namespaces where they are forbidden"
    return f"{hint}; or do not run rsd as root" if os.getuid() == 0 else hint


def _require_inside(name: str) -> None:
    path = PurePosixPath(name)
    plain = name not in ("", ".") and not path.is_absolute() and ".." not in path.parts and not set(name) & set("\\:\0")
    require(plain, f"{name!r} is no name of a file in a sandbox", "a relative path without '..', with '/' between folders")
