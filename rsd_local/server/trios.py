"""Which trios are loaded: those that are asked for, as many at once as fit, the longest unused one unloaded for another.

All of it happens in the event loop, but for loading and unloading, which have threads of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from rsd_local.errors import Cancelled, DoesNotFit, QueueFull, RSDError
from rsd_local.events import Role
from rsd_local.in_thread import in_thread
from rsd_local.server.errors import Loading, Stopping
from rsd_local.server.served import Loaded, Offer, Served, free

log = logging.getLogger("rsd_local.server")


class Place:
    """A request's place in line for a trio. ``granted`` is done once it has it; ``leave`` gives either back."""

    def __init__(self, trios: Trios, served: Served) -> None:
        self._trios, self.served = trios, served
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = False

    def leave(self) -> None:
        """Give it back. A second call does nothing."""
        if not self._left:
            self._left = True
            self._trios.left(self)


class Trios:
    """Loads and unloads trios as they are asked for.

    Args:
        offers: at least one.
        most: how many are loaded at once.
        idle: seconds after which one that nobody asks for is unloaded; 0 for never.
    """

    def __init__(self, offers: tuple[Offer, ...], most: int, idle: float) -> None:
        self.served = {offer.name: Served(offer) for offer in offers}
        self._most, self._idle = most, idle
        self._line: list[Place] = []
        self._started = self._stopping = False
        self._threads: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._started and not self._stopping

    @property
    def stopping(self) -> bool:
        """Whether no new work is taken any more."""
        return self._stopping

    @property
    def waiting(self) -> int:
        """Requests that wait for their trio to be loaded."""
        return len(self._line)

    def check(self) -> None:
        """Refuse whoever asks too early or too late.

        Raises:
            Stopping, Loading: it is one of the two.
        """
        if self._stopping:
            raise Stopping("the server is stopping and takes no new work")
        if not self._started:
            raise Loading("the models are being loaded", hint="ask again in a moment")

    async def start(self) -> None:
        """Load the first trios, as many as are loaded at once.

        Raises:
            RSDError: one cannot be loaded.
        """
        for served in list(self.served.values())[: self._most]:
            await self._load(served)
            self._rest(served)
        self._started = True

    def enter(self, name: str) -> Place:
        """A place in line for a trio, which it has at once where it is loaded and nobody waits for room.

        Raises:
            QueueFull: too many wait for it already.
            Stopping, Loading: as ``check``.
        """
        self.check()
        served = self.served[name]
        config = served.offer.config
        limit = config.parallel + config.queue if config is not None else 256
        if sum(place.served is served for place in self._line) >= limit:
            raise QueueFull(f"{limit} requests wait already for {name} to be loaded", hint="ask again later")
        place = Place(self, served)
        self._line.append(place)
        self._advance()
        return place

    def left(self, place: Place) -> None:
        """Take a place back."""
        if place in self._line:
            self._line.remove(place)
            place.granted.cancel()
        else:
            served = place.served
            served.users -= 1
            served.used = time.monotonic()
            self._rest(served)
        self._advance()

    def stop(self) -> None:
        """Take no new work; what is being loaded is given up, and so is who waits for it."""
        self._stopping = True
        for served in self.served.values():
            if served.timer is not None:
                served.timer.cancel()
        self._fail(lambda place: True, Stopping("the server is stopping and takes no new work"))

    async def settle(self, seconds: float) -> None:
        """Wait until nothing is loaded or unloaded any more."""
        if self._threads:
            await asyncio.wait(set(self._threads), timeout=seconds)

    def close(self) -> None:
        """Free all models; runs that go on end with Closed."""
        self._stopping = True
        for served in self.served.values():
            if served.loaded is not None:
                free(served.loaded)

    def _advance(self) -> None:
        """Give places what they wait for, in their order; whoever waits for room holds up all behind."""
        if self._stopping:
            return
        for place in list(self._line):
            served = place.served
            if served.state == "loaded":
                self._line.remove(place)
                served.users += 1
                if served.timer is not None:
                    served.timer.cancel()
                place.granted.set_result(None)
            elif served.state == "unloaded" and not self._make_room(served):
                return

    def _make_room(self, served: Served) -> bool:
        """Begin to load a trio, or to unload another one for it; False where all are in use."""
        others = [one for one in self.served.values() if one.state != "unloaded"]
        if len(others) < self._most:
            self._begin(self._load_for_requests(served))
            served.state = "loading"
            return True
        if any(one.state == "unloading" for one in others):
            return False
        victim = self._longest_unused()
        if victim is not None:
            self._begin_unload(victim)
        return False

    def _begin_unload(self, served: Served) -> None:
        served.state = "unloading"  # at once, before anybody is given it
        self._begin(self._unload(served))

    def _longest_unused(self) -> Served | None:
        return min((one for one in self.served.values() if one.idle), key=lambda one: one.used, default=None)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._threads.add(task)
        task.add_done_callback(self._threads.discard)

    async def _load_for_requests(self, served: Served) -> None:
        try:
            while True:
                try:
                    await self._load(served)
                    break
                except DoesNotFit:
                    victim = self._longest_unused()
                    if victim is None or self._stopping:
                        raise
                    served.state = "loading"  # still
                    await self._unload(victim)
        except Exception as error:  # of any kind: whoever waits for this trio gets it
            failure = error if isinstance(error, RSDError) else RSDError(f"{served.name} could not be loaded; the server's log has why")
            if not self._stopping:
                log.warning("%s could not be loaded: %s", served.name, error, exc_info=None if isinstance(error, RSDError) else error)
            self._fail(lambda place: place.served is served, failure)
        else:
            self._rest(served)
        self._advance()

    async def _load(self, served: Served) -> None:
        served.state = "loading"
        served.progress.clear()

        def note(role: Role, share: float) -> None:
            if self._stopping:
                raise Cancelled("the server is stopping")
            served.progress[role] = share

        def work() -> Loaded:
            loaded = served.offer.loader(note)
            if self._stopping:  # nobody will ask for it
                free(loaded)
                raise Cancelled("the server is stopping")
            return loaded

        try:
            served.take(await in_thread(work, _nothing, free))
        except BaseException:
            served.state = "unloaded"
            raise

    async def _unload(self, served: Served) -> None:
        loaded, served.loaded, served.state = served.loaded, None, "unloading"
        try:
            if loaded is not None:
                await in_thread(lambda: free(loaded), _nothing, _nothing)
        finally:
            served.state = "unloaded"
        log.info("%s was unloaded", served.name)
        self._advance()

    def _rest(self, served: Served) -> None:
        """Unload a trio that nobody has once it was not asked for so long."""
        if served.timer is not None:
            served.timer.cancel()
        if self._idle and served.idle and not self._stopping:
            served.timer = asyncio.get_running_loop().call_later(self._idle, self._time_out, served)

    def _time_out(self, served: Served) -> None:
        if served.idle and not self._stopping:
            self._begin_unload(served)

    def _fail(self, chosen: Callable[[Place], bool], error: RSDError) -> None:
        """End the wait of some places with an error."""
        for place in list(self._line):
            if chosen(place):
                self._line.remove(place)
                place._left = True
                place.granted.set_exception(error)
                place.granted.exception()  # where nobody waits any more, it is no warning


def _nothing(*_: object) -> None:
    """What there is to do for a wait that was given up."""
