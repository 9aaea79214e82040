"""The door to llama.cpp: its library, its log, its devices."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque

import psutil
from llama_cpp import llama_cpp as C

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

    On CPUs with AMX it then uses those tiles, and its kernel crashes the process on some of them
    (ggml-org/llama.cpp#20824). There is no switch for AMX alone.
    """
    return b"AMX_INT8 = 1" not in C.llama_print_system_info()


def physical_cores() -> int:
    """CPU cores, not counting the second thread of each."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


class Lane:
    """One device's turn: engines take it in the order in which they asked, one batch each.

    A plain lock would let the engine that gave it back take it again at once, and starve the others.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._mutex:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


_lanes: dict[str, Lane] = {}


def lane_of(gpu_layers: int, main_gpu: int) -> Lane:
    """The lane of the device that a model's layers run on."""
    device = f"gpu{main_gpu}" if supports_gpu() and gpu_layers != 0 else "cpu"
    with _lock:
        return _lanes.setdefault(device, Lane())
