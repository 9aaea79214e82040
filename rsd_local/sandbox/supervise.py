"""The caller's side of a run on a POSIX system: pipes, the limits on time and output, the cancel, and the end of it all."""

from __future__ import annotations

import contextlib
import marshal
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from rsd_local.errors import Cancelled, SandboxTooWeak
from rsd_local.events import CancelToken
from rsd_local.sandbox.bounds import Bounds, Outcome

GRACE = 5.0  # seconds that the launcher has to end everything, before it is killed
_CHUNK = 1 << 16


class Wake:
    """Wakes the loop from any thread; a wake that comes after the end does nothing."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self._lock, self._open = threading.RLock(), True

    def __call__(self) -> None:
        with self._lock:
            if self._open:
                self._writer.send(b"c")

    def close(self) -> None:
        with self._lock:
            self._open = False
            self.reader.close()
            self._writer.close()


@dataclass(slots=True)
class Pipes:
    """File descriptors of one run: of each pipe the program's end and ours."""

    theirs: dict[str, int] = field(default_factory=dict)
    ours: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls) -> Pipes:
        pipes = cls()
        try:
            for name in ("stdin", "control"):
                pipes.theirs[name], pipes.ours[name] = os.pipe()
            for name in ("stdout", "stderr", "said", "status"):
                pipes.ours[name], pipes.theirs[name] = os.pipe()
            for fd in pipes.ours.values():
                os.set_blocking(fd, False)
        except BaseException:
            pipes.close()
            raise
        return pipes

    def close(self, *names: str) -> None:
        """Close ours by name, or all of both sides."""
        for name in names or tuple(self.ours):
            if (fd := self.ours.pop(name, None)) is not None:
                os.close(fd)
        if not names:
            self.close_theirs()

    def close_theirs(self) -> None:
        """Close the program's ends, which only it shall hold."""
        while self.theirs:
            os.close(self.theirs.popitem()[1])


def supervise(command: list[str], spec: dict[str, Any], pipes: Pipes, told: bytes, bounds: Bounds, cancel: CancelToken | None) -> Outcome:
    """Start a launcher and see it through.

    Args:
        command: what starts it; the number of the descriptor with ``spec`` is put behind it.
        spec: what the launcher is to do.
        pipes: of this run; all are closed at the end.

    Raises:
        SandboxTooWeak: the launcher could not confine the program.
        Cancelled: the caller cancelled.
    """
    wake = Wake()
    try:
        with contextlib.nullcontext() if cancel is None else cancel.calling(wake):
            with tempfile.TemporaryFile() as given:
                marshal.dump(spec, given)
                given.seek(0)
                process = _start([*command, str(given.fileno())], given.fileno(), pipes, spec["env"])
            loop = _Loop(process, pipes, told, bounds, wake)
            try:
                pipes.close_theirs()
                ended = loop.watch()
            finally:
                loop.end()
            return loop.outcome(ended)
    finally:
        wake.close()
        pipes.close()


def _start(command: list[str], given: int, pipes: Pipes, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=pipes.theirs["stdin"],
            stdout=pipes.theirs["stdout"],
            stderr=pipes.theirs["stderr"],
            pass_fds=(given, *(pipes.theirs[name] for name in ("said", "status", "control"))),
            start_new_session=True,
            cwd="/",
            env=environment,
        )
    except OSError as error:
        raise SandboxTooWeak(f"a program could not be confined: {command[0]}: {error.strerror}") from None


class _Loop:
    def __init__(self, process: subprocess.Popen[bytes], pipes: Pipes, told: bytes, bounds: Bounds, wake: Wake) -> None:
        self.process, self.pipes, self.bounds, self.wake = process, pipes, bounds, wake
        self.told = memoryview(told)
        self.read: dict[str, bytearray] = {name: bytearray() for name in ("stdout", "stderr", "said", "status")}
        self.deadline = time.monotonic() + bounds.seconds

    def watch(self) -> Literal["exited", "time", "output"]:
        """Read and write until the launcher is gone or a limit is reached."""
        with selectors.DefaultSelector() as selector:
            for name in self.read:
                selector.register(self.pipes.ours[name], selectors.EVENT_READ, name)
            selector.register(self.wake.reader, selectors.EVENT_READ, "wake")
            if self.told:
                selector.register(self.pipes.ours["stdin"], selectors.EVENT_WRITE, "stdin")
            else:
                self.pipes.close("stdin")
            while (left := self.deadline - time.monotonic()) > 0:
                for name in [key.data for key, _ in selector.select(left)]:
                    if name == "wake":
                        raise Cancelled("cancelled while a program ran")
                    fd = self.pipes.ours[name]
                    if not (self._write(fd) if name == "stdin" else self._take(name, fd)):
                        selector.unregister(fd)
                        self.pipes.close(name)
                    if len(self.read.get(name, b"")) > self.bounds.output_bytes and name != "status":
                        return "output"
                if "status" not in self.pipes.ours:
                    return self._drain()
        return "time"

    def _write(self, fd: int) -> bool:
        """Tells some more; whether there is more to tell."""
        try:
            self.told = self.told[os.write(fd, self.told[:_CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self.told)

    def _take(self, name: str, fd: int) -> bool:
        """Reads what is there; whether more may come."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        self.read[name] += data
        return bool(data)

    def _drain(self) -> Literal["exited", "output"]:
        """Takes what the pipes hold yet; somebody may hold their other ends open for ever."""
        for name in ("stdout", "stderr", "said"):
            before = -1
            while name in self.pipes.ours and before < len(self.read[name]) <= self.bounds.output_bytes:
                before = len(self.read[name])
                self._take(name, self.pipes.ours[name])
            if len(self.read[name]) > self.bounds.output_bytes:
                return "output"
        return "exited"

    def end(self) -> None:
        """End everything that runs yet; returns when the launcher is gone, and with it all that it started."""
        self.pipes.close("control")
        limit = time.monotonic() + GRACE
        try:
            if "status" in self.pipes.ours:
                _wait_for(self.pipes.ours["status"], limit, lambda fd: not self._take("status", fd))
            _wait_for_process(self.process, limit)  # a namespace's last processes go after its first one has closed its files
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, 9)  # not waited for yet, so the number is its own
            self.process.wait()

    def outcome(self, ended: Literal["exited", "time", "output"]) -> Outcome:
        """What is known at the end.

        Raises:
            SandboxTooWeak: the launcher could not confine the program.
        """
        status, most = bytes(self.read["status"]), self.bounds.output_bytes
        started, trouble, said = status[:1] == b"s", status.partition(b"e")[2], status[1:]
        if trouble or (not started and ended == "exited"):
            why = (trouble or bytes(self.read["stderr"])).decode("utf-8", "replace").strip().splitlines()
            raise SandboxTooWeak(f"a program could not be confined: {why[0 if trouble else -1] if why else 'its launcher ended early'}")
        code = None if ended != "exited" else int(said) if said else -9
        stdout, stderr, told = (bytes(self.read[name][:most]) for name in ("stdout", "stderr", "said"))
        return Outcome(ended, code, stdout, stderr, told)


def _wait_for(fd: int, limit: float, enough: Callable[[int], bool]) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while (left := limit - time.monotonic()) > 0:
            if selector.select(left) and enough(fd):
                return


def _wait_for_process(process: subprocess.Popen[bytes], limit: float) -> None:
    """Waits until a process has ended, and leaves it to be waited for; where Linux or its pidfd is not there, no time at all."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(process.pid)
            try:
                _wait_for(fd, limit, lambda _: True)
            finally:
                os.close(fd)
