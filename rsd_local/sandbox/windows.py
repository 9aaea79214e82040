"""Running a program in a job object of Windows: memory, processes and the end of all of them; it was not tried there by us.

A job object keeps nobody from files or from the network, and a program is the caller's user.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from rsd_local.errors import Cancelled, SandboxTooWeak
from rsd_local.events import CancelToken
from rsd_local.sandbox.bounds import ONE_THREAD, Bounds, Outcome, Protection

ACTIVE_PROCESSES, PROCESS_MEMORY, DIE_ON_EXCEPTION, KILL_ON_CLOSE = 0x8, 0x100, 0x400, 0x2000
_EXTENDED_LIMITS, _SUSPENDED = 9, 0x4

PROTECTIONS = tuple(
    Protection(name, holds, how)
    for name, holds, how in (
        ("files", False, "can read and write what you can"),
        ("network", False, "can reach the network and this machine's servers"),
        ("processes", True, "a limit of its job object (not tried by us)"),
        ("memory", True, "a limit of its job object for each process (not tried by us)"),
        ("disk", False, "no limit"),
        ("user", False, "is your user, and can see and end your other programs"),
        ("time", True, "a limit on seconds and on output"),
        ("end", True, "its job object ends with it (not tried by us)"),
    )
)


@dataclass(frozen=True, slots=True)
class JobLimits:
    """The basic and extended limits of a job object that are set."""

    flags: int
    processes: int
    process_memory: int

    @classmethod
    def of(cls, bounds: Bounds) -> JobLimits:
        """Those of some bounds."""
        flags = ACTIVE_PROCESSES | PROCESS_MEMORY | DIE_ON_EXCEPTION | KILL_ON_CLOSE
        return cls(flags, bounds.processes, bounds.memory)


class _Basic(ctypes.Structure):
    _fields_ = [
        ("per_process_time", ctypes.c_int64),
        ("per_job_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("least_working_set", ctypes.c_size_t),
        ("most_working_set", ctypes.c_size_t),
        ("processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority", ctypes.c_uint32),
        ("scheduling", ctypes.c_uint32),
    ]


class Extended(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = [
        ("basic", _Basic),
        ("io", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    ]


def extended(limits: JobLimits) -> Extended:
    """The limits as Windows takes them."""
    found = Extended()
    found.basic.flags, found.basic.processes, found.process_memory = limits.flags, limits.processes, limits.process_memory
    return found


def environment(folder: str) -> dict[str, str]:
    """All that a program sees of the environment; Python does not start without ``SYSTEMROOT``."""
    root = os.environ.get("SYSTEMROOT", "C:\\Windows")
    return {"SYSTEMROOT": root, "PATH": f"{root}\\System32", "TEMP": folder, "TMP": folder, "USERPROFILE": folder, **ONE_THREAD}


def run(
    argv: Sequence[str], files: Mapping[str, bytes], told: bytes, bounds: Bounds, cancel: CancelToken | None, pipe: str = "{pipe}"
) -> Outcome:
    """See ``Sandbox.run``; what is readable is not limited here."""
    with tempfile.TemporaryDirectory(prefix="rsd-sandbox-", ignore_cleanup_errors=True) as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with _Job(JobLimits.of(bounds)) as job:
            return _watched(job, argv, folder, told, bounds, cancel, pipe)


def _watched(job: _Job, argv: Sequence[str], folder: str, told: bytes, bounds: Bounds, cancel: CancelToken | None, pipe: str) -> Outcome:
    happened: queue.SimpleQueue[Literal["exited", "output", "cancelled"]] = queue.SimpleQueue()
    process, said = job.start(argv, folder, pipe)
    sources: dict[str, Any] = {"stdout": process.stdout, "stderr": process.stderr, "said": said}
    read = {name: bytearray() for name in sources}

    def take(name: str, source: IO[bytes]) -> None:
        while len(read[name]) <= bounds.output_bytes:
            if not (data := source.read1(1 << 16)):  # type: ignore[attr-defined]
                return
            read[name] += data
        happened.put("output")

    def tell() -> None:
        with contextlib.suppress(OSError), process.stdin:  # type: ignore[union-attr]
            process.stdin.write(told)  # type: ignore[union-attr]

    def wait() -> None:
        process.wait()
        happened.put("exited")

    threads = [threading.Thread(target=take, args=pair, daemon=True) for pair in sources.items()]
    threads += [threading.Thread(target=work, daemon=True) for work in (tell, wait)]
    for thread in threads:
        thread.start()
    try:
        with contextlib.nullcontext() if cancel is None else cancel.calling(lambda: happened.put("cancelled")):
            ended: Literal["exited", "output", "cancelled", "time"] = happened.get(timeout=bounds.seconds)
    except queue.Empty:
        ended = "time"
    finally:
        job.end()
        for thread in threads:
            thread.join()
        for source in sources.values():
            source.close()
    if ended == "cancelled":
        raise Cancelled("cancelled while a program ran")
    if any(len(data) > bounds.output_bytes for data in read.values()):
        ended = "output"
    stdout, stderr, spoken = (bytes(read[name][: bounds.output_bytes]) for name in ("stdout", "stderr", "said"))
    return Outcome(ended, process.returncode if ended == "exited" else None, stdout, stderr, spoken)


class _Job:
    """A job object; leaving it ends all that runs in it."""

    _kernel: Any
    _handle: ctypes.c_void_p

    def __init__(self, limits: JobLimits) -> None:
        if sys.platform != "win32":
            raise SandboxTooWeak("there are job objects on Windows alone")
        self._kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        self._kernel.CreateJobObjectW.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._kernel.CreateJobObjectW(None, None))
        values = extended(limits)
        if not self._kernel.SetInformationJobObject(self._handle, _EXTENDED_LIMITS, ctypes.byref(values), ctypes.sizeof(values)):
            raise SandboxTooWeak("a job object of Windows could not be limited")

    def __enter__(self) -> _Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._kernel.CloseHandle(self._handle)

    def start(self, argv: Sequence[str], folder: str, pipe: str) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        """Starts a program inside; it does nothing before it is in."""
        if sys.platform != "win32":
            raise SandboxTooWeak("there are job objects on Windows alone")
        import msvcrt

        reader, writer = os.pipe()
        handle = msvcrt.get_osfhandle(writer)
        os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        flags = _SUSPENDED | subprocess.CREATE_NO_WINDOW
        try:
            process = subprocess.Popen(
                [str(handle) if word == pipe else word for word in argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=environment(folder),
                startupinfo=startup,
                creationflags=flags,
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        inside = ctypes.c_void_p(int(getattr(process, "_handle")))  # noqa: B009
        if not self._kernel.AssignProcessToJobObject(self._handle, inside):
            process.kill()
            raise SandboxTooWeak("a program could not be put into a job object of Windows")
        ctypes.WinDLL("ntdll").NtResumeProcess(inside)
        return process, os.fdopen(reader, "rb")

    def end(self) -> None:
        """Ends every process of it."""
        self._kernel.TerminateJobObject(self._handle, 1)
