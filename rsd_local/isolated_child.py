"""The process that an isolated reasoner's models live in.

It is spawned by ``isolated``, reads commands from a pipe and writes events to it, both pickled:

==============================================  ==========================================================
``("load", pickled trio, folder, log level)``    ``("progress", role, share)``, then ``("ready",)`` or ``("failed", error)``
``("run", number, prompt, params, strategy, text)``  ``(number, event)`` …, ``(number, error)`` where it failed
``("room", number, prompt, tokens, share)``      ``(number, answer)``
``("more", number, count)``                      that many events may follow
``("cancel", number)``, ``("close", number)``
``("stop",)``                                    the end of the pipe
==============================================  ==========================================================

Without being asked it sends ``("log", logger, level, text)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from rsd_local.admission import Admission
from rsd_local.backend import LocalBackend
from rsd_local.config import Params, Strategy, Trio
from rsd_local.errors import ConfigError, EngineError, RSDError
from rsd_local.events import CancelToken, Role
from rsd_local.prompt import Prompt
from rsd_local.run import Run
from rsd_local.runtime.rehearsal import last_words

NAME = "rsd-isolated"
UNGUARDED = 97  # the exit code where the main module opens a reasoner as it is imported
WINDOW = 64  # events that a run may be ahead of whoever reads them
_WORDS = 1 << 16  # bytes of what it said
_LAST = 5.0  # seconds to free the models once nobody is there any more
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux
_begun = False


def main(pipe: Connection, parent: int, words: str) -> None:
    """Serves one parent until it stops this process, or has gone.

    Args:
        pipe: to the parent.
        parent: its process id.
        words: the file that standard output and error go to, so that a crash leaves its last words there.
    """
    global _begun
    _begun = True
    for number in (signal.SIGINT, signal.SIGTERM):  # they go to the parent too, which ends this process
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the programs of verifiers would inherit
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if sys.platform == "linux":  # ends this process even where it hangs
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    _redirect(words)
    _Child(pipe).serve()


def end_if_unguarded() -> None:
    """End this process at once where it is one of these and still imports the program's main module.

    An exception would be printed by the interpreter, and nobody could catch it: the parent says what is wrong.
    """
    if multiprocessing.current_process().name == NAME and not _begun:
        os._exit(UNGUARDED)


def _redirect(words: str) -> None:
    """Points standard input at nothing, and standard output and error at a file."""
    with contextlib.suppress(OSError):
        nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(words, os.O_WRONLY | os.O_APPEND)
        for source, targets in ((nothing, (0,)), (file, (1, 2))):
            for target in targets:
                os.dup2(source, target)
            os.close(source)
        if sys.platform != "win32":
            os.unlink(words)  # the parent has it open
    for name in ("stdout", "stderr"):  # a windowed application has none
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                setattr(sys, name, os.fdopen({"stdout": 1, "stderr": 2}[name], "w", encoding="utf-8", errors="replace", closefd=False))


@dataclass(slots=True)
class _Answer:
    """A run, and how many more events may be sent."""

    run: Run
    credit: threading.Semaphore
    closed: bool = False

    def hear(self, wish: str, count: int = 0) -> None:
        """Carry out what the parent wants of it."""
        if wish == "more":
            self.credit.release(count)
            return
        self.run.cancel()
        if wish == "close":
            self.closed = True
            self.credit.release()


class _Child:
    """Carries out what the parent sends.

    Args:
        pipe: to the parent.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._sending = pipe, threading.Lock()
        self._answers: dict[int, _Answer] = {}
        self._backend: LocalBackend | None = None
        self._admission = Admission(1, 0)

    def serve(self) -> None:
        """Read commands to the end; nothing here takes long, so that each is heard at once."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                match self._pipe.recv():
                    case ("load", bytes(config), str(folder), int(level)):
                        _in_thread(self._load, config, folder, level)
                    case ("run", int(number), *arguments):
                        self._begin(number, *arguments)
                    case ("room", int(number), *arguments):
                        _in_thread(self._reply, number, *arguments)
                    case (str(wish), int(number), *arguments) if answer := self._answers.get(number):
                        answer.hear(wish, *arguments)
                    case ("stop",):
                        break
        threading.Timer(_LAST, os._exit, (0,)).start()
        self._stop()
        os._exit(0)

    def _load(self, config: bytes, folder: str, level: int) -> None:
        logger = logging.getLogger("rsd_local")
        logger.addHandler(_Forward(self._send))
        logger.setLevel(level)
        logger.propagate = False
        try:
            with contextlib.suppress(OSError):
                os.chdir(folder)
            trio = _unpickled(config)
            self._backend = LocalBackend.open(trio, self._report, CancelToken())
            self._admission = Admission(trio.parallel, 1_000_000)  # whoever is here was admitted by the parent
        except BaseException as error:
            self._send("failed", portable(error))
        else:
            self._send("ready")

    def _report(self, role: Role, share: float) -> None:
        self._send("progress", role, share)

    def _begin(self, number: int, prompt: Prompt, params: Params, strategy: Strategy, text: bool) -> None:
        assert self._backend is not None  # nothing is asked before it is ready
        events = partial(self._backend.events, prompt, params, strategy, text)
        self._answers[number] = _Answer(Run(self._admission.enter(number), events, None), threading.Semaphore(WINDOW))
        _in_thread(self._answer, number)

    def _answer(self, number: int) -> None:
        answer = self._answers[number]
        try:
            for event in answer.run:
                self._send(number, event)
                answer.credit.acquire()
                if answer.closed:
                    break
        except BaseException as error:  # of any kind: it is raised in the parent
            self._send(number, portable(error))
        finally:
            answer.run.close()
            del self._answers[number]

    def _reply(self, number: int, prompt: Prompt, tokens: int, share: int) -> None:
        assert self._backend is not None
        try:
            self._send(number, self._backend.leaves_room(prompt, tokens, share))
        except BaseException as error:
            self._send(number, portable(error))

    def _send(self, *message: Any) -> None:
        with self._sending, contextlib.suppress(OSError):  # where the parent has gone, ``serve`` finds it out
            self._pipe.send(message)

    def _stop(self) -> None:
        with contextlib.suppress(Exception):
            for answer in list(self._answers.values()):
                answer.run.cancel()
            for answer in list(self._answers.values()):
                answer.run.close()
            if self._backend is not None:
                self._backend.close()


class _Forward(logging.Handler):
    """Sends log records to the parent, whose handlers they are for."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send_message = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as text."""
        try:
            self._send_message("log", record.name, record.levelno, record.getMessage())
        except Exception:  # a record that cannot be rendered must not end an answer
            self.handleError(record)


def how_it_ended(code: int | None, handle: int) -> str:
    """How a process ended, and its last words about that.

    Args:
        code: its exit code; None where somebody else took that.
        handle: of the file with what it said.
    """
    if code is None:
        return "its exit code is not known"
    with open(handle, "rb", closefd=False) as said:
        said.seek(max(0, os.fstat(handle).st_size - _WORDS))
        how, words = last_words(code, b""), last_words(code, said.read())
    return how if words == how else f"{how}: {words}"


def pickled(config: Trio) -> bytes:
    """A trio for another process.

    Raises:
        ConfigError: it has a verifier that cannot be sent there.
    """
    try:
        return pickle.dumps(config)
    except Exception as error:  # whatever a verifier's own pickling raises
        named = [stage.name for stage in config.stages if stage.kind == "verifier" and not isinstance(stage.verifier, str)]
        raise ConfigError(
            f"the verifier {', '.join(named)} cannot be sent to another process: {error}",
            hint="give a function of a module's top level, or an object that can be pickled",
        ) from error


def _unpickled(config: bytes) -> Any:
    try:
        return pickle.loads(config)
    except Exception as error:  # of any kind: the modules of a verifier are imported here
        raise ConfigError(
            f"the verifier cannot be loaded in another process: {type(error).__name__}: {error}",
            hint="define it at the top level of a module that can be imported",
        ) from error


def portable(error: BaseException) -> BaseException:
    """An error that the parent can read; of one that is not ours with the place that it comes from."""
    if not isinstance(error, RSDError):
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        return EngineError(f"{type(error).__name__}: {error}")
    return again if isinstance(again, BaseException) else EngineError(str(error))


def _in_thread(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, name="rsd-isolated", daemon=True).start()
