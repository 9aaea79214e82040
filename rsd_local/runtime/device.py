"""A device: the one thread that computes for all engines there, and the queue in front of it.

OpenMP keeps a team of threads for each thread that ever decoded, and a second team slows every decode of the process
(docs/decisions/0010). So every call of llama.cpp that computes is made by the device's thread, batch after batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from rsd_local.errors import EngineError

if TYPE_CHECKING:
    from rsd_local.runtime.batch_loop import BatchLoop

T = TypeVar("T")
_PATIENCE = 4  # batches of others that an engine waits for at most


class Device:
    """Runs commands and batches of engines, one at a time, in a thread of its own that lives while an engine is attached.

    Args:
        name: for the thread and for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Condition()
        self.failure: BaseException | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._calls: set[Future[Any]] = set()  # that somebody waits for
        self._loops: list[BatchLoop] = []
        self._users = 0
        self._thread: threading.Thread | None = None

    @property
    def is_current(self) -> bool:
        """Whether the caller is the device's own thread."""
        return threading.current_thread() is self._thread

    def attach(self) -> None:
        """Count an engine in; the first one starts the thread."""
        with self.lock:
            self._users += 1
            if self._thread is None:
                self.failure = None
                self._thread = threading.Thread(target=self._run, name=f"rsd-{self.name}", daemon=True)
                self._thread.start()

    def serve(self, loop: BatchLoop) -> None:
        """Decode an engine's batches from now on."""
        with self.lock:
            self._loops.append(loop)

    def detach(self, loop: BatchLoop | None) -> None:
        """Count an engine out; the thread ends with the last one."""
        with self.lock:
            self._users -= 1
            if loop in self._loops:
                self._loops.remove(loop)
            self.lock.notify()

    def order(self, command: Callable[[], None]) -> None:
        """Have a command carried out between two batches, in the order of asking. A command handles its own exceptions.

        Raises:
            EngineError: the thread died, with its cause.
        """
        with self.lock:
            if self.failure is not None:
                raise EngineError(f"the decode thread of {self.name} died: {self.failure!r}") from self.failure
            self._commands.append(command)
            self.lock.notify()

    def call(self, work: Callable[[], T], check: Callable[[], None] = lambda: None) -> T:
        """Carry something out between two batches, and wait for it; what it raises is raised here.

        Args:
            work: what is done.
            check: raises where it cannot be done any more; nothing that holds the lock comes between both.
        """
        if self.is_current:
            check()
            return work()
        answer: Future[T] = Future()
        with self.lock:
            check()
            self._calls.add(answer)
            self.order(lambda: fulfil(answer, work))
        try:
            return answer.result()
        finally:
            self._calls.discard(answer)

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                while self._commands:
                    self._commands.popleft()()
                loop = self._next()
                if loop is not None:
                    loop.step()
        except BaseException as error:  # of any kind: whoever waits is told why
            self._die(error)

    def _wait_for_work(self) -> bool:
        """Wait for a command or a request; False once no engine is left."""
        with self.lock:
            while not self._commands and not any(loop.active for loop in self._loops):
                if not self._users:
                    self._thread = None
                    return False
                self.lock.wait()
            return True

    def _next(self) -> BatchLoop | None:
        """Who decodes next: the one with the most requests, or one that others went before for long."""
        ready = [loop for loop in self._loops if loop.active]
        if not ready:
            return None
        chosen = max(ready, key=lambda loop: (loop.passed_over >= _PATIENCE, len(loop.active), loop.passed_over))
        for loop in ready:
            loop.passed_over += 1
        chosen.passed_over = 0
        return chosen

    def _die(self, error: BaseException) -> None:
        with self.lock:
            self.failure = error
            self._commands.clear()  # what they would have done is ended below
            loops, self._loops, self._thread = self._loops, [], None
            calls, self._calls = self._calls, set()
        for loop in loops:
            loop.abandon(error)
        for call in calls:
            call.set_exception(EngineError(f"the decode thread of {self.name} died: {error!r}"))


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Set a future to what ``work`` returns or raises."""
    try:
        value = work()
    except Exception as error:  # whatever it is, it belongs to whoever waits
        future.set_exception(error)
    else:
        future.set_result(value)


_devices: dict[str, Device] = {}
_registry = threading.Lock()


def shared_device(name: str) -> Device:
    """The device of a name, the same for all of the process."""
    with _registry:
        return _devices.setdefault(name, Device(name))
