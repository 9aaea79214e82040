"""Something that a server is asked while whoever wants it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from rsd_local.errors import Cancelled
from rsd_local.remote.transport import Call

T = TypeVar("T")


class Asked(Generic[T]):
    """Requests in a thread of their own.

    Args:
        work: sends them over a call, and returns what came of them.
        name: of the thread.
        on_cancel: ends what else ``work`` waits for.
    """

    def __init__(self, work: Callable[[Call], T], name: str, on_cancel: Callable[[], None] | None = None) -> None:
        self._work, self._on_cancel, self._call = work, on_cancel, Call()
        self._future: Future[T] = Future()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            made = self._work(self._call)
        except BaseException as error:  # of any kind: whoever waits gets it
            self._future.set_exception(Cancelled("cancelled") if self._call.cancelled else error)
        else:
            self._future.set_result(made)

    def result(self) -> T:
        """Wait for it."""
        return self._future.result()

    def wait(self) -> None:
        """Wait until it is over, whatever came of it."""
        self._future.exception()

    def cancel(self) -> None:
        """Close the connection."""
        self._call.cancel()
        if self._on_cancel is not None:
            self._on_cancel()
