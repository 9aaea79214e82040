"""The door to llama.cpp: its library, its log, its devices."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from rsd_local.errors import EngineError
from rsd_local.runtime import compiler, library

C = library.load()
log = logging.getLogger("rsd_local.llama")

T = TypeVar("T")
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


class GuardedCall:
    """A C call that calls Python functions: what they raise stops it, and is raised when it has returned.

    No exception passes through C: ctypes prints it and goes on. So ``callback`` keeps it. Ctrl-C needs more, for Python
    raises KeyboardInterrupt in the main thread wherever that is, also before a callback's first line. So ``run`` makes the
    call in a thread of its own, where none is ever raised, and waits for it.
    """

    def __init__(self) -> None:
        self._kept: BaseException | None = None

    def callback(self, function: Callable[..., T], stop: T) -> Callable[..., T]:
        """A function for C to call.

        Args:
            function: what it does.
            stop: what it returns from the moment that something was raised; chosen so that C ends the call.
        """

        def called(*arguments: Any) -> T:
            if self._kept is None:
                try:
                    return function(*arguments)
                except BaseException as error:
                    self._keep(error)
            return stop

        return called

    def run(self, call: Callable[[], T], undo: Callable[[T], object]) -> T:
        """Make the call and return its result.

        Args:
            call: the C call.
            undo: frees a result that nobody gets, because something was raised meanwhile; not called for 0 and None.

        Raises:
            BaseException: what the call, a callback, llama.cpp's log or the waiting caller raised first.
        """
        results: list[T | None] = []
        returned = threading.Event()

        def work() -> None:
            _this_thread.guarded = self
            result = None
            try:
                result = call()
            except BaseException as error:
                self._keep(error)
            results.append(result)
            returned.set()

        thread = threading.Thread(target=work, name="rsd-guarded-call")
        try:
            thread.start()
        except BaseException as error:
            self._keep(error)
        while True:  # no Thread.join: an interrupted one takes the thread for ended
            try:
                while not results and thread.ident is not None:
                    returned.wait(0.1)  # Windows lets no Ctrl-C into a longer wait
                break
            except BaseException as error:
                self._keep(error)
        result = results[0] if results else None
        if self._kept is not None:
            if result:
                undo(result)
            raise self._kept
        return cast("T", result)

    def _keep(self, error: BaseException) -> None:
        if self._kept is None:
            self._kept = error


def _log_callback(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp's log as C calls it, from any thread; what a log handler raises ends the guarded call, where there is one."""
    guarded: GuardedCall | None = getattr(_this_thread, "guarded", None)
    (guarded.callback(_take_log, None) if guarded else _take_log)(level, text, data)


_this_thread = threading.local()
# llama.cpp keeps the pointer for as long as the process lives, so the module does too.
_callback = C.llama_log_callback(_log_callback)
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
    There is no switch for AMX alone. A sound build is told by the compilers that its library names; RSD_AMX=1 says that this is
    one, RSD_AMX=0 that it is not.
    """
    if b"AMX_INT8 = 1" not in C.llama_print_system_info():
        return True
    if said := os.environ.get("RSD_AMX"):
        return said == "1"
    kernels = compiler.loaded_kernels()
    return bool(kernels) and all(compiler.amx_is_sound(library) for library in kernels)


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
