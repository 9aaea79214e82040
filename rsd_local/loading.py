"""Models that are loaded when they are needed, unloaded when they are idle, and replaced while others are asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rsd_local.backend import Backend, Opener
from rsd_local.config import Trio
from rsd_local.errors import Cancelled, Closed
from rsd_local.events import CancelToken
from rsd_local.open_trio import LoadProgress


@dataclass(slots=True, eq=False)
class _Held:
    """Open models, and how many answers and calls use them."""

    backend: Backend
    users: int = 0
    retired: bool = False  # whether the last user closes them


class LoadedModels:
    """The models of a reasoner.

    Args:
        config: the trio.
        opener: opens it.
        idle: seconds without a user after which the models are unloaded; None for never.
    """

    def __init__(self, config: Trio, opener: Opener, idle: float | None) -> None:
        self.config, self._open, self._idle = config, opener, idle
        self._changed = threading.Condition()
        self._held: _Held | None = None
        self._all = set[_Held]()  # with those that were replaced and are still in use
        self._busy: CancelToken | None = None  # of whoever loads or unloads
        self._timer: threading.Timer | None = None
        self._closed = False

    @property
    def loaded(self) -> bool:
        """Whether the models are in memory."""
        return not self._closed and self.last is not None and self.last.alive

    @property
    def last(self) -> Backend | None:
        """The models that were loaded last, also once they are closed; None where they were unloaded."""
        held = self._held
        return None if held is None else held.backend

    @contextmanager
    def used(self, cancel: CancelToken) -> Iterator[Backend]:
        """The open models, which nothing unloads inside; they are loaded where they are not.

        Args:
            cancel: ends the waiting.

        Raises:
            Cancelled: ``cancel`` was called while they were loaded.
            Closed: they were closed.
            RSDError: they cannot be loaded.
        """
        held = self._take(cancel)
        try:
            yield held.backend
        finally:
            self._give_back(held)

    def load(self, config: Trio, progress: LoadProgress | None, cancel: CancelToken) -> None:
        """Load a trio, in the place of the one that there is; on failure that one stays.

        Answers that are being written go on with the models that they began with, which are freed after the last one.

        Args:
            config: the trio.
            progress: called with a role and its loaded share, 0 to 1.
            cancel: stops the loading.

        Raises:
            Cancelled: ``cancel`` was called.
            Closed: the models were closed meanwhile.
            RSDError: it cannot be loaded.
        """
        with cancel.calling(self._wake):
            with self._changed:
                while self._busy is not None:
                    self._check(cancel)
                    self._changed.wait()
                self._check(cancel)
                busy = self._busy = CancelToken()
            self._give_back(self._load(config, progress, cancel, busy))

    def unload(self) -> bool:
        """Free the models until they are needed again; False, and nothing is done, while something uses them."""
        with self._changed:
            if self._closed or self._busy is not None or (self._held is not None and self._held.users):
                return self._closed
            held, self._held = self._held, None
            if held is None:
                return True
            self._busy = CancelToken()
        try:
            self._free(held)
        finally:
            self._done()
        return True

    def begin_close(self) -> None:
        """Give up what is being loaded, and let nobody in any more."""
        with self._changed:
            self._closed = True
            if self._busy is not None:
                self._busy.cancel()
            if self._timer is not None:
                self._timer.cancel()
            held = list(self._all)
            self._changed.notify_all()
        for one in held:
            one.backend.begin_close()

    def close(self) -> None:
        """Free all models."""
        with self._changed:
            held = list(self._all)
        for one in held:
            self._free(one)

    def _take(self, cancel: CancelToken) -> _Held:
        with cancel.calling(self._wake):
            with self._changed:
                while True:
                    self._check(cancel)
                    if self._held is not None and self._held.backend.alive:
                        self._held.users += 1
                        return self._held
                    if self._busy is None:
                        break
                    self._changed.wait()
                busy = self._busy = CancelToken()
            return self._load(self.config, None, cancel, busy)

    def _load(self, config: Trio, progress: LoadProgress | None, cancel: CancelToken, busy: CancelToken) -> _Held:
        """Opens a trio for one user, in the place of what there is."""
        try:
            with cancel.calling(busy.cancel):
                backend = self._open(config, progress, busy)
        except Cancelled:
            self._done()
            if self._closed:
                raise Closed("the reasoner was closed") from None
            raise
        except BaseException:
            self._done()
            raise
        with self._changed:
            late, before = self._closed, self._held
            if not late:
                self._held = _Held(backend, users=1)
                self._all.add(self._held)
                self.config = config
                taken = self._held
        self._done()
        if late:
            backend.close()
            raise Closed("the reasoner was closed")
        if before is not None:
            self._retire(before)
        return taken

    def _retire(self, held: _Held) -> None:
        with self._changed:
            held.retired = True
            idle = not held.users
        if idle:
            self._free(held)

    def _give_back(self, held: _Held) -> None:
        with self._changed:
            held.users -= 1
            over = held.retired and not held.users
            if held is self._held and not held.users and self._idle is not None and not self._closed:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = threading.Timer(self._idle, self._unload_idle, (held,))
                self._timer.name, self._timer.daemon = "rsd-idle", True
                self._timer.start()
        if over:
            self._free(held)

    def _unload_idle(self, held: _Held) -> None:
        """The timer's end: nobody used these models since it began, or a later one will come."""
        if self._timer is threading.current_thread() and self._held is held:
            self.unload()

    def _free(self, held: _Held) -> None:
        with self._changed:
            self._all.discard(held)
        held.backend.close()

    def _done(self) -> None:
        with self._changed:
            self._busy = None
            self._changed.notify_all()

    def _check(self, cancel: CancelToken) -> None:
        if self._closed:
            raise Closed("the reasoner was closed")
        if cancel.cancelled:
            raise Cancelled("cancelled")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
