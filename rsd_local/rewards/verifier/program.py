"""A program beside this process that is written lines and answers in lines."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from typing import IO

from rsd_local.rewards.verifier.values import short

MAX_LINE = 1 << 20
"""Bytes of a line of its output."""
_MOST_UNREAD = 8  # lines of its output; a program that writes more of them without being asked is no longer read
_SECONDS_TO_LEAVE = 0.5  # once its input ended
_running: weakref.WeakSet[Program] = weakref.WeakSet()


class Program:
    """Starts a program in a session of its own (a process group on Windows); it is ended when the interpreter exits, at the latest.

    Args:
        arguments: as ``subprocess.Popen`` takes them, without a shell.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, arguments: str | list[str]) -> None:
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=sys.platform != "win32", creationflags=flags,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # of its output; None wakes who waits
        self._errors: deque[bytes] = deque(maxlen=2)
        self._ending = threading.Lock()
        self._ended = False
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), name="rsd-verifier-out", daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), name="rsd-verifier-err", daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        _running.add(self)

    def ask(self, line: bytes, seconds: float) -> bytes | None:
        """Writes a line and waits for one.

        Returns:
            The line with its newline; without it where the program ended its output or the line is too long. None after
            ``seconds``, or ``wake``.
        """
        # Written by a thread: a program that does not read would hold up this one, whatever the time.
        threading.Thread(target=self._write, args=(line,), name="rsd-verifier-in", daemon=True).start()
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def unasked(self) -> bytes | None:
        """A line of output that nobody asked for, or None; empty where the program ended."""
        with contextlib.suppress(queue.Empty):
            return self._lines.get_nowait()
        return None

    def wake(self) -> None:
        """Ends the wait of ``ask``, from any thread."""
        self._lines.put(None)

    def how_it_ended(self) -> str:
        """Its exit code in words; a program that still runs is said to have closed its output."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code < 0:
            try:
                return f"was ended by {signal.Signals(-code).name}"
            except ValueError:
                return f"was ended by signal {-code}"
        return f"ended with exit code {code}"

    def last_words(self) -> str:
        """The last line of its standard error, as the end of a sentence; empty where there is none."""
        if self._process.poll() is not None:
            self._readers[1].join(0.5)
        words = [line for part in list(self._errors) for line in part.decode("utf-8", "replace").splitlines() if line.strip()]
        return f"; it said: {short(words[-1], 200)}" if words else ""

    def end(self, gently: bool) -> None:
        """Ends it and what it started.

        Args:
            gently: leaves it half a second to end by itself, once its input ended.
        """
        with self._ending:
            if self._ended:
                return
            self._ended = True
            _running.discard(self)
            if gently and self._process.stdin is not None:
                # Not closed here: a thread that still writes would hold up the close.
                threading.Thread(target=_close, args=(self._process.stdin,), daemon=True).start()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_SECONDS_TO_LEAVE)
            self._kill()
            self._process.wait()
            self._lines.put(b"")
            for reader in self._readers:
                reader.join(1.0)
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    threading.Thread(target=_close, args=(pipe,), daemon=True).start()

    def _kill(self) -> None:
        if sys.platform == "win32":
            if self._process.poll() is None:
                command = ["taskkill", "/F", "/T", "/PID", str(self._process.pid)]
                with contextlib.suppress(OSError):
                    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
                self._process.kill()
        else:
            # The group of its session; it is there as long as one process of it is.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if self._process.returncode is None:
                self._process.kill()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it ended, and the reader says so
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _read_lines(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := pipe.readline(MAX_LINE):
                self._lines.put(line)
                if not line.endswith(b"\n") or self._lines.qsize() > _MOST_UNREAD:
                    return
        self._lines.put(b"")

    def _read_errors(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := pipe.readline(4096):
                if line.strip():
                    self._errors.append(line)


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        pipe.close()


@atexit.register
def _end_all() -> None:
    until = time.monotonic() + 5.0
    for program in list(_running):
        program.end(gently=time.monotonic() < until)
