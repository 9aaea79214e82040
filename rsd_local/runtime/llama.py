"""The door to llama.cpp: its library, its log, its devices."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections import deque
from typing import Any

import psutil
from llama_cpp import llama_cpp as C

from rsd_local.errors import EngineError

log = logging.getLogger("rsd_local.llama")

_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_recent_errors: deque[str] = deque(maxlen=8)
_line: list[str] = []
_level = logging.INFO
_lock = threading.Lock()


def _take_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Feeds llama.cpp's lines to ``logging``; a line can come in parts (level 5)."""
    global _level
    with _lock:
        if level != 5:
            _level = _LEVELS.get(level, logging.DEBUG)
        _line.append(text.decode("utf-8", "replace"))
        if not _line[-1].endswith("\n"):
            return
        whole = "".join(_line).strip()
        _line.clear()
    if _level >= logging.ERROR:
        _recent_errors.append(whole)
    if whole:
        # What llama.cpp warns of is worth a look only while looking for a fault: its errors reach callers as exceptions.
        log.log(min(_level, logging.INFO), "%s", whole)


# llama.cpp keeps the pointer for as long as the process lives, so the module does too.
_callback = C.llama_log_callback(_take_log)
C.llama_log_set(_callback, ctypes.c_void_p(0))
C.llama_backend_init()


def quick(function: Any, returns: Any) -> Any:
    """A C function that is called without letting go of the interpreter's lock.

    For calls that take less time than the lock does to come back from another thread; never for those that may wait.

    Args:
        function: of ``llama_cpp``.
        returns: the ctypes type of what it returns.
    """
    address: Any = ctypes.cast(function, ctypes.c_void_p).value
    return ctypes.PYFUNCTYPE(returns, *function.argtypes)(address)


def clear_errors() -> None:
    """Forgets llama.cpp's error lines so far, before a call whose errors are to be read."""
    _recent_errors.clear()


def last_errors() -> str:
    """llama.cpp's error lines since ``clear_errors``, the first of them, which names the cause."""
    return _recent_errors[0] if _recent_errors else ""


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(C.llama_supports_gpu_offload())


def repacks_safely() -> bool:
    """Whether llama.cpp may lay weights out anew for this CPU.

    On CPUs with AMX it then uses those tiles, and compiled by GCC 12 it crashes the process there (docs/decisions/0003).
    There is no switch for AMX alone, and nothing to tell a sound build by: RSD_AMX=1 says that this is one.
    """
    return os.environ.get("RSD_AMX") == "1" or b"AMX_INT8 = 1" not in C.llama_print_system_info()


def physical_cores() -> int:
    """CPU cores, not counting the second thread of each."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


_home: int | None = None  # the process that loaded the first model


def note_process() -> None:
    """Note that this process has loaded a model.

    Raises:
        EngineError: a process that this one was forked from did.
    """
    global _home
    check_process()
    _home = os.getpid()


def check_process() -> None:
    """Fail in a process that was forked from one that has loaded a model: its threads are not here, and calls would hang.

    Raises:
        EngineError: this is such a process.
    """
    if was_forked():
        raise EngineError(
            "this process was forked from one that has loaded a model, and llama.cpp does not survive a fork",
            hint="start processes with the method spawn, or load models after the fork",
        )


def was_forked() -> bool:
    """Whether this process was forked from one that has loaded a model."""
    return _home is not None and _home != os.getpid()
