"""The server as a process: its socket, its signals, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rsd_local.config import Trio
from rsd_local.errors import Cancelled, ConfigError
from rsd_local.server.app import MOST_HEADER_BYTES, make_app
from rsd_local.server.exchange import Patience
from rsd_local.server.guard import Guard
from rsd_local.server.models import Loader, Models, Offer
from rsd_local.server.routes import Service

_HEADERS = 15.0  # seconds in which the head of a request must be there
_IDLE = 75  # seconds that a connection is kept between two requests
_LAST = 5.0  # seconds for answers that were ended to be sent, and for models to be freed


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how a server runs.

    Attributes:
        host: the address that it listens at.
        port: 0 for any that is free.
        name: of the trio, for clients.
        guard: which requests are taken; without hosts, those of this machine are, where it listens for this machine alone.
        grace: seconds that running answers get to their end once the server is told to stop.
        patience: further time limits.
        others: further trios.
        models_max: how many trios are loaded at once.
        idle_unload: seconds after which a trio that nobody asks for is unloaded; 0 for never.
        config: of the trio, as far as it is known before it is loaded.
    """

    host: str = "127.0.0.1"
    port: int = 8177
    name: str = "abacus"
    guard: Guard = field(default_factory=Guard)
    grace: float = 30.0
    patience: Patience = field(default_factory=Patience)
    others: tuple[Offer, ...] = ()
    models_max: int = 1
    idle_unload: float = 0.0
    config: Trio | None = None


def serve(settings: Settings, loader: Loader, listening: Callable[[str], None], ready: Callable[[], None]) -> int:
    """Serve until a signal ends it.

    Args:
        settings: where and how.
        loader: loads the models, while the server answers already that it is loading them.
        listening: told the server's address.
        ready: told when the models are loaded.

    Returns:
        The exit code: 0 where it was ended in order, 130 by Ctrl-C.

    Raises:
        ConfigError: the address cannot be used, or is open to other machines and there is no key.
        RSDError: the models cannot be loaded.
    """
    with bound_socket(settings) as listener:
        address, port = listener.getsockname()[:2]
        local = ipaddress.ip_address(address).is_loopback
        if not local and not settings.guard.keys:
            raise ConfigError(
                f"{settings.host} is open to other machines, and there is no key", hint="give --api-key-file, or a loopback --host"
            )
        guard = settings.guard if local or settings.guard.hosts != Guard().hosts else replace(settings.guard, hosts=())
        listening(f"http://{f'[{address}]' if ':' in address else address}:{port}")
        return asyncio.run(_serve(replace(settings, guard=guard), loader, listener, ready))


@contextlib.contextmanager
def bound_socket(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens at the address.

    Raises:
        ConfigError: the address is none of this machine, or is in use.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        dual = found[0] == socket.AF_INET6 and found[4][0] == "::" and socket.has_dualstack_ipv6()
        made = socket.create_server(found[4][:2], family=found[0], backlog=1024, dualstack_ipv6=dual)
    except (OSError, OverflowError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen at {where}: {said}", hint="choose another --port or --host") from None
    with made:
        yield made


async def _serve(settings: Settings, loader: Loader, listener: socket.socket, ready: Callable[[], None]) -> int:
    first = Offer(settings.name, loader, settings.config)
    models = Models((first, *settings.others), settings.models_max, settings.idle_unload)
    service = Service(models, settings.patience)
    loop = asyncio.get_running_loop()

    def stopping() -> None:
        models.stop()
        loop.call_later(settings.grace, service.end_all)

    config = uvicorn.Config(
        make_app(service, settings.guard),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=math.ceil(settings.grace + _LAST),
    )
    server = _Server(config, stopping)
    loading = asyncio.create_task(models.load())

    def loaded(task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            server.should_exit = True
        else:
            ready()

    loading.add_done_callback(loaded)
    try:
        await server.serve(sockets=[listener])
    finally:
        await asyncio.wait({loading}, timeout=_LAST)
        await models.trios.settle(_LAST)
        await asyncio.to_thread(models.close)
    failure = loading.exception() if loading.done() else None
    if failure is not None and not (server.signal and isinstance(failure, Cancelled)):
        raise failure
    return 130 if server.signal == signal.SIGINT else 0


class _Server(uvicorn.Server):
    """Ends with an exit code of its own where a signal tells it to, and says when it begins to end.

    Args:
        config: of the server.
        stopping: called when no new connection is taken any more.
    """

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping
        self.signal: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals while the server runs; unlike the method in its place, does not send them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server in order, a second one at once."""
        self.force_exit = self.signal is not None
        self.signal, self.should_exit = sig, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, and wait for those that there are."""
        self._stopping()
        await super().shutdown(sockets)


class _Protocol(H11Protocol):
    """HTTP/1.1 that gives a client so long to send the head of a request."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection was opened."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Something came: the end of a head, or a part of it."""
        super().data_received(data)
        if self._head_is_due():
            if self._patience is None:
                self._wait_for_head()
        else:
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._forget()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(_HEADERS, self._give_up)

    def _head_is_due(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self._head_is_due():
            self.transport.close()
