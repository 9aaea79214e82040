"""Requests to a role's server: the only place of the package that sends any, but for the hub's.

Each request has a connection to itself while it lasts, so that a cancel can close it; connections are kept and used again.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsd_local.config import RemoteRole
from rsd_local.errors import Cancelled, Closed, RemoteBusy, RSDError
from rsd_local.remote.connection import Connection, trusted
from rsd_local.remote.event_stream import EventStream
from rsd_local.remote.faults import Faults, parsed
from rsd_local.remote.keys import read_key

if TYPE_CHECKING:
    import httpx

_TRIES = 3  # where a connection fails before anything was written
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 1.0
_MOST_BYTES = 64 << 20  # of an answer that is no stream
_MOST_OF_ERROR, _ERROR_SECONDS = 65_536, 10.0
_SHOWN = 80  # characters of an answer that is none
_THREAD = threading.local()  # has the call that what the thread asks is part of


@dataclass(slots=True)
class Traffic:
    """What requests took.

    Attributes:
        rounds: requests that were sent.
        sent, received: bytes of their bodies.
    """

    rounds: int = 0
    sent: int = 0
    received: int = 0


class Call:
    """Requests that can be ended from any thread, also where one is sent while another one goes on.

    Attributes:
        traffic: what they took.
        when_sent: called where a request is out, before its answer comes.
    """

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.when_sent: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._connections: list[Connection] = []
        self._ended = threading.Event()

    def cancel(self) -> None:
        """Close the connections; what waits for them raises Cancelled."""
        with self._lock:
            self._ended.set()
            for connection in self._connections:
                connection.cut()

    @property
    def cancelled(self) -> bool:
        """Whether it was."""
        return self._ended.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, unless it is cancelled meanwhile."""
        if self._ended.wait(seconds):
            raise Cancelled("cancelled")

    @contextmanager
    def covering(self) -> Iterator[None]:
        """Requests of this thread in the block that have no call of their own are part of this one, and end with it."""
        before = getattr(_THREAD, "call", None)
        _THREAD.call = self
        try:
            yield
        finally:
            _THREAD.call = before

    @contextmanager
    def over(self, connection: Connection) -> Iterator[None]:
        """While a request goes over a connection."""
        with self._lock:
            if self._ended.is_set():
                raise Cancelled("cancelled")
            self._connections.append(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.remove(connection)


class Transport:
    """Sends requests to one server.

    Args:
        role: where it is, and how long to wait.

    Raises:
        ConfigError: the key, or the certificates that a variable names, cannot be read.
    """

    def __init__(self, role: RemoteRole) -> None:
        self.role = role
        self._key = read_key(role)
        self.faults = Faults(role, self._key)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._trust = trusted(role)

    def ask(self, path: str, body: object = None, call: Call | None = None, *, most: int = _MOST_BYTES) -> Any:
        """The JSON that a path answers: to a POST of a body, or to a GET without one.

        Args:
            path: that is asked.
            body: what is sent.
            call: the request, to end it.
            most: bytes of an answer that is one.

        Raises:
            RemoteError, ContextFull: what went wrong.
            Cancelled: the call was cancelled.
        """
        call = call or getattr(_THREAD, "call", None) or Call()
        with self._answered(path, body, call) as response:
            content, end = bytearray(), time.monotonic() + self.faults.patience
            for chunk in response.iter_bytes():
                content += chunk
                call.traffic.received += len(chunk)
                if len(content) > most:
                    raise self.faults.garbage("an answer without an end")
                if time.monotonic() > end:
                    raise self.faults.slow()
        try:
            return parsed(content)
        except ValueError:
            said = repr(self.faults.said(content.decode("utf-8", "replace"), _SHOWN))
            raise self.faults.garbage(f"what {path} answers is no JSON: {said}") from None

    def stream(self, path: str, body: object, call: Call, *, most: int) -> Iterator[dict[str, Any]]:
        """The objects of a stream of server-sent events, until it ends.

        Args:
            path, body, call: as for ``ask``.
            most: objects of a stream that is an answer.

        Raises:
            RemoteError, ContextFull: what went wrong.
            Cancelled: the call was cancelled.
        """
        with self._answered(path, body, call) as response:
            events, last = EventStream(self.faults, path), time.monotonic()
            for found in self._objects(response, events, call):
                if call.cancelled:  # what came before the connection was closed is nobody's any more
                    raise Cancelled("cancelled")
                if found is not None:
                    most -= 1
                    if most < 0:
                        raise self.faults.garbage("a stream without an end")
                    yield found
                    last = time.monotonic()
                elif time.monotonic() > last + self.faults.patience:
                    raise self.faults.slow()

    def _objects(self, response: httpx.Response, events: EventStream, call: Call) -> Iterator[dict[str, Any] | None]:
        """The objects of a stream, and None where bytes have come."""
        for chunk in response.iter_bytes():
            call.traffic.received += len(chunk)
            yield from events.feed(chunk)
            yield None
        yield from events.end()

    @contextmanager
    def _answered(self, path: str, body: object, call: Call) -> Iterator[httpx.Response]:
        """A response whose status is 200; asked again where nothing was written yet and that may help."""
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        end, tries, wait = time.monotonic() + self.role.connect_timeout, 0, _FIRST_WAIT
        while True:
            tries += 1
            written = False
            try:
                with self._sent(path, content, call) as response:
                    if response.status_code == 200:
                        written = True
                        yield response
                        if call.cancelled:  # the end of a connection may be that of an answer
                            raise Cancelled("cancelled")
                        return
                    told = response.headers.get("retry-after", "")
                    fault: RSDError = self.faults.of_status(response.status_code, _read(response, call), path)
                    again = isinstance(fault, RemoteBusy)
            except RSDError:
                raise
            except Exception as error:  # httpx's, or the socket's that a cancel has cut
                if call.cancelled:
                    raise Cancelled("cancelled") from None
                if not _of_transport(error):
                    raise
                fault, again, told = self.faults.of_transport(error), not written and tries < _TRIES and self.faults.hides(error), ""
            wait = min(_LONGEST_WAIT, 2 * wait)
            pause = max(wait * random.uniform(0.5, 1.0), float(told) if told.isdecimal() else 0.0)
            if not again or time.monotonic() + pause > end:
                raise fault from None
            call.pause(pause)

    @contextmanager
    def _sent(self, path: str, content: bytes | None, call: Call) -> Iterator[httpx.Response]:
        connection = self._take()
        try:
            with call.over(connection):
                call.traffic.rounds += 1
                call.traffic.sent += len(content or b"")
                connection.when_sent = call.when_sent
                response = connection.send(path, content)
                try:
                    yield response
                finally:
                    response.close()
        finally:
            self._give_back(connection, call)

    def _take(self) -> Connection:
        with self._lock:
            if self._closed:
                raise Closed(f"the connections to {self.role.url} were closed")
            connection = self._idle.pop() if self._idle else Connection(self.role, self._key, self._trust, self.faults)
            self._busy.add(connection)
            return connection

    def _give_back(self, connection: Connection, call: Call) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not (self._closed or call.cancelled or connection.lost):
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close all connections; whatever goes over them fails."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in busy:
            connection.cut()
        for connection in idle:
            connection.close()


def _of_transport(error: Exception) -> bool:
    """Whether an exception is one of the connection, and none of this program."""
    import httpx

    return isinstance(error, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError | OSError)


def _read(response: httpx.Response, call: Call) -> bytes:
    """The first bytes of an error's body, as many as come soon."""
    import httpx

    content, end = bytearray(), time.monotonic() + _ERROR_SECONDS
    try:
        for chunk in response.iter_bytes():
            content += chunk
            call.traffic.received += len(chunk)
            if len(content) > _MOST_OF_ERROR or time.monotonic() > end:
                break
    except httpx.HTTPError:  # the status alone says enough
        if call.cancelled:
            raise
    return bytes(content[:_MOST_OF_ERROR])
