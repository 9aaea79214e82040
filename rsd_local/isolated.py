"""Models in a process of their own, so that what ends llama.cpp ends no program that embeds it.

One thread owns the process: it starts it, reads its pipe, hands what comes to whoever waits for it, and sees it end. A second
one writes to the pipe, so that nobody who asks or cancels waits for a process that hangs. ``isolated_child`` is the other side.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any

from rsd_local import isolated_child
from rsd_local.config import Params, Strategy, Trio
from rsd_local.errors import Cancelled, Closed, EngineCrashed, EngineError
from rsd_local.events import CancelToken, Event, Finished
from rsd_local.open_trio import LoadProgress
from rsd_local.prompt import Prompt
from rsd_local.runtime.llama import note_process, was_forked

_GRACE = 5.0  # seconds for the process to end by itself
_MORE = isolated_child.WINDOW // 2  # events after which others may follow
_CANCELLED = object()
_UNGUARDED = "did not start: the main module opens a reasoner whenever it is imported, and that process imports it too"
_GUARD = "in a program that is a script, open the reasoner below  if __name__ == '__main__':"
_AGAIN = "ask again: the models are loaded anew"
_backends = weakref.WeakSet["IsolatedBackend"]()


class IsolatedBackend:
    """Models in one child process, alive until that ends.

    Args:
        config: the trio.

    Raises:
        ConfigError: a verifier cannot be sent to another process.
    """

    def __init__(self, config: Trio) -> None:
        self._config = config
        folder = ""
        with contextlib.suppress(OSError):  # one that was deleted
            folder = os.getcwd()
        self._load = ("load", isolated_child.pickled(config), folder, logging.getLogger("rsd_local").getEffectiveLevel())
        note_process()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()  # the garbage collector may close a run while this thread is inside
        self._inboxes: dict[int, SimpleQueue[Any]] = {0: SimpleQueue()}  # 0 has the news of loading
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._process: BaseProcess | None = None
        self._ready = self._stopping = False
        self._ended = threading.Event()
        self._why, self._hint = "", _AGAIN
        self._deadline: threading.Timer | None = None
        _backends.add(self)
        threading.Thread(target=self._own, name="rsd-isolated", daemon=True).start()

    @classmethod
    def open(cls, config: Trio, progress: LoadProgress | None, cancel: CancelToken) -> IsolatedBackend:
        """Start a process and load the models in it.

        Arguments and errors as ``Reasoner.open``; ``progress`` is called in this thread, and ``cancel`` ends the loading at once.
        """
        isolated_child.end_if_unguarded()
        backend = cls(config)
        inbox = backend._inboxes[0]
        try:
            with cancel.calling(lambda: inbox.put(_CANCELLED)):
                while True:
                    match inbox.get():
                        case ("ready",):
                            return backend
                        case ("progress", role, share):
                            if progress is not None:
                                progress(role, share)
                        case ("failed", BaseException() as error) | (BaseException() as error):
                            raise error
                        case _:
                            raise Cancelled("loading was cancelled")
        except BaseException:
            backend.kill()
            backend._ended.wait(_GRACE)
            raise

    @property
    def config(self) -> Trio:
        """The trio that was opened."""
        return self._config

    @property
    def alive(self) -> bool:
        """Whether the process runs and answers."""
        return not self._ended.is_set()

    @property
    def pid(self) -> int | None:
        """The process' id, None where it has ended."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def events(self, prompt: Prompt, params: Params, strategy: Strategy, text: bool, cancel: CancelToken) -> Iterator[Event]:
        """The events of an answer; see ``Backend.events``.

        Raises:
            EngineCrashed: the process ended.
        """
        with self._call("run", prompt, params, strategy, text) as (number, inbox), cancel.calling(lambda: self._send("cancel", number)):
            for count in itertools.count(1):
                event = _taken(inbox)
                yield event
                if isinstance(event, Finished):
                    return
                if count % _MORE == 0:
                    self._send("more", number, _MORE)

    def leaves_room(self, prompt: Prompt, tokens: int, share: int) -> bool:
        """Whether each context has room for an answer; see ``LocalTrio.leaves_room``."""
        with self._call("room", prompt, tokens, share) as (_, inbox):
            return bool(_taken(inbox))

    def begin_close(self) -> None:
        """Give the process a few seconds to end."""
        self._stopping = True
        if self._deadline is None:
            self._deadline = threading.Timer(_GRACE, self.kill)
            self._deadline.name, self._deadline.daemon = "rsd-isolated-deadline", True
            self._deadline.start()

    def close(self) -> None:
        """End the process; in a few seconds at most, also where it hangs. A second call does nothing."""
        if was_forked():
            return
        self.begin_close()
        self._send("stop")
        self._ended.wait()
        if self._deadline is not None:
            self._deadline.cancel()

    def kill(self) -> None:
        """End the process at once."""
        with self._lock:
            self._stopping = True
            if self._process is not None:
                self._process.kill()

    @contextlib.contextmanager
    def _call(self, kind: str, *arguments: Any) -> Iterator[tuple[int, SimpleQueue[Any]]]:
        """Asks the process for something, and tells it when nobody waits for more."""
        number, inbox = next(self._numbers), SimpleQueue[Any]()
        with self._lock:
            if not self.alive:
                raise self._error()
            self._inboxes[number] = inbox
        try:
            self._send(kind, number, *arguments)
            yield number, inbox
        finally:
            with self._lock:
                self._inboxes.pop(number, None)
            self._send("close", number)

    def _send(self, *message: Any) -> None:
        self._outbox.put(pickle.dumps(message))

    def _error(self) -> EngineError:
        if self._stopping:
            return Closed("the reasoner was closed")
        return EngineCrashed(self._why, hint=self._hint)

    def _own(self) -> None:
        """The life of the process, from its start to its end; then whoever waits for it is told."""
        try:
            why = self._live()
        except Exception as error:  # the system's, or of multiprocessing about this process
            why = f"cannot be started: {' '.join(str(error).split())}"
        with self._lock:
            self._why = f"the process of the models {why}"
            self._ended.set()
            inboxes = list(self._inboxes.values())
        for inbox in inboxes:
            inbox.put(self._error())

    def _live(self) -> str:
        """Starts the process, reads its pipe to the end, and says how it ended."""
        handle, words = tempfile.mkstemp(prefix="rsd-", suffix=".log")
        broken = ""
        try:
            pipe = self._start(words)
            writer = threading.Thread(target=self._write, args=(pipe,), name="rsd-isolated-writer", daemon=True)
            writer.start()
            try:
                while True:
                    self._hand_on(pipe.recv())
            except (EOFError, OSError):
                pass
            except Exception as error:  # whatever reading bytes of a broken process can raise
                broken = f"sent what cannot be read: {type(error).__name__}: {error}"
            code = self._reap(at_once=bool(broken))
            self._outbox.put(None)
            writer.join()
            pipe.close()
            if not self._ready and code in (1, isolated_child.UNGUARDED):  # 1 is that of an exception in the main module
                self._hint = _GUARD
            if code == isolated_child.UNGUARDED:
                return _UNGUARDED
            return broken or f"ended: {isolated_child.how_it_ended(code, handle)}"
        finally:
            os.close(handle)
            with contextlib.suppress(OSError):
                os.unlink(words)

    def _start(self, words: str) -> Connection:
        """Starts the process, and gives this side's end of the pipe."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=isolated_child.main, args=(theirs, os.getpid(), words), name=isolated_child.NAME, daemon=False)
            with self._lock:
                if self._stopping:
                    raise Closed("the reasoner was closed")
                with _interrupts_blocked():
                    process.start()
                self._process = process
        self._outbox.put(pickle.dumps(self._load))
        return ours

    def _write(self, pipe: Connection) -> None:
        with contextlib.suppress(OSError):  # the process has gone
            while (data := self._outbox.get()) is not None:
                pipe.send_bytes(data)

    def _hand_on(self, message: Any) -> None:
        match message:
            case ("log", str(name), int(level), str(text)):
                logging.getLogger(name).log(level, "%s", text)
            case ("ready" | "progress" | "failed", *_):
                self._ready |= message[0] == "ready"
                self._inboxes[0].put(message)
            case (int(number), item):
                inbox = self._inboxes.get(number)
                if inbox is not None:
                    inbox.put(item)

    def _reap(self, *, at_once: bool) -> int | None:
        """The exit code of the process; one that does not end is ended."""
        process = self._process
        assert process is not None
        if at_once or not wait([process.sentinel], _GRACE):
            process.kill()
            wait([process.sentinel])
        with self._lock:  # nobody may signal a process id that is free
            process.join()
            code = process.exitcode
            process.close()
            self._process = None
        return code


def _taken(inbox: SimpleQueue[Any]) -> Any:
    """What comes next; errors are raised."""
    item = inbox.get()
    if isinstance(item, BaseException):
        raise item
    return item


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes that this thread starts inside do not hear Ctrl-C until they are ready to ignore it."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # which starts a process too, and unblocks Ctrl-C after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_all() -> None:
    """When the program ends, so do the processes of reasoners that nobody closed; multiprocessing would wait for them."""
    if not was_forked():
        for backend in list(_backends):
            backend.kill()


atexit.register(_end_all)
