"""Requests to a role's server: the only place of the package that sends any, but for the hub's.

Each request has a connection to itself while it lasts, so that a cancel can close it; connections are kept and used again.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsd_local.config import RemoteRole
from rsd_local.errors import Cancelled, Closed, RemoteBusy, RSDError
from rsd_local.remote.faults import Faults
from rsd_local.remote.keys import read_key

if TYPE_CHECKING:
    import httpx

_KEPT = 3.0  # seconds that an idle connection is used again; llama-server closes them after 5
_TRIES = 3  # where a connection fails before anything was written
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 1.0
_MOST_BYTES = 64 << 20  # of an answer that is no stream
_LONGEST_LINE = 16 << 20
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
    """Requests that can be ended from any thread.

    Attributes:
        traffic: what they took.
        when_sent: called where a request is out, before its answer comes.
    """

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.when_sent: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._ended = threading.Event()

    def cancel(self) -> None:
        """Close the connection; what waits for it raises Cancelled."""
        with self._lock:
            self._ended.set()
            if self._link is not None:
                self._link.cut()

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
    def over(self, link: _Link) -> Iterator[None]:
        """While a request goes over a connection."""
        with self._lock:
            if self._ended.is_set():
                raise Cancelled("cancelled")
            self._link = link
        try:
            yield
        finally:
            with self._lock:
                self._link = None


class _Link:
    """One connection, which comes about with its first request and again where the server has closed it."""

    def __init__(self, role: RemoteRole, key: str, trust: ssl.SSLContext) -> None:
        import httpx

        wait = httpx.Timeout(role.read_timeout, connect=role.connect_timeout)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEPT)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=role.url, timeout=wait, limits=limits, headers=headers, verify=trust)
        self._stream: Any = None
        self._lost = False
        self.when_sent: Callable[[], None] | None = None

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's hook: notes the socket, and that a request is out."""
        if event.endswith(".send_request_body.complete") and self.when_sent is not None:
            self.when_sent()
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = info["return_value"]
            if self._lost:
                self.cut()

    def cut(self) -> None:
        """End the connection under whoever waits for it."""
        self._lost = True
        found = self._stream.get_extra_info("socket") if self._stream is not None else None
        if found is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # not the TLS socket's own, which would wait for the other side


class Transport:
    """Sends requests to one server.

    Args:
        role: where it is, and how long to wait.

    Raises:
        ConfigError: the key cannot be read.
    """

    def __init__(self, role: RemoteRole) -> None:
        self.role = role
        self._key = read_key(role)
        self.faults = Faults(role, self._key)
        self._idle: list[_Link] = []
        self._busy: set[_Link] = set()
        self._lock = threading.Lock()
        self._closed = False
        import httpx  # here, so that a command without a server need not load it

        self._trust = httpx.create_ssl_context()

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
            content, end = bytearray(), time.monotonic() + self.role.read_timeout
            for chunk in response.iter_bytes():
                content += chunk
                call.traffic.received += len(chunk)
                if len(content) > most:
                    raise self.faults.garbage("an answer without an end")
                if time.monotonic() > end:
                    raise self.faults.silent()
        try:
            return json.loads(content)
        except ValueError:
            raise self.faults.garbage(f"what {path} answers is no JSON: {self._begin(bytes(content[:80]))}") from None

    def stream(self, path: str, body: object, call: Call) -> Iterator[dict[str, Any]]:
        """The objects of a stream of server-sent events, until it ends.

        Raises:
            RemoteError, ContextFull: what went wrong.
            Cancelled: the call was cancelled.
        """
        with self._answered(path, body, call) as response:
            rest = b""
            for chunk in response.iter_bytes():
                call.traffic.received += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if call.cancelled:  # what came before the connection was closed is nobody's any more
                        raise Cancelled("cancelled")
                    found = self._event(line.strip(), path)
                    if found is not None:
                        yield found
                if len(rest) > _LONGEST_LINE:
                    raise self.faults.garbage("a line without an end")
            if rest.strip() and (found := self._event(rest.strip(), path)) is not None:
                yield found

    def _event(self, line: bytes, path: str) -> dict[str, Any] | None:
        """The object of a line; None where it holds none."""
        if not line or line.startswith(b":") or line == b"data: [DONE]":
            return None
        field, _, text = line.partition(b":")
        if field not in (b"data", b"error"):
            if field in (b"event", b"id", b"retry"):
                return None
            raise self.faults.garbage(f"what {path} streams are no events: {self._begin(line)}")
        try:
            found = json.loads(text)
        except ValueError:
            raise self.faults.garbage(f"an event of {path} is no JSON: {self._begin(line)}") from None
        if not isinstance(found, dict):
            raise self.faults.garbage(f"an event of {path} is no object")
        if field == b"error" or "error" in found:
            told = found.get("error", found)
            status = told.get("code") if isinstance(told, dict) else None
            raise self.faults.of_status(status if isinstance(status, int) and status >= 400 else 500, text, path)
        return found

    def _begin(self, content: bytes) -> str:
        """The first characters of an answer, for people."""
        return repr(self.faults.said(content[:80].decode("utf-8", "replace")))

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
                        return
                    told = response.headers.get("retry-after", "")
                    fault: RSDError = self.faults.of_status(response.status_code, _read(response), path)
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
        link = self._take()
        try:
            with call.over(link):
                call.traffic.rounds += 1
                call.traffic.sent += len(content or b"")
                link.when_sent = call.when_sent
                method = "GET" if content is None else "POST"
                headers = {} if content is None else {"Content-Type": "application/json"}
                with link.client.stream(method, path, content=content, headers=headers, extensions={"trace": link.trace}) as response:
                    yield response
        finally:
            self._give_back(link, call)

    def _take(self) -> _Link:
        with self._lock:
            if self._closed:
                raise Closed(f"the connections to {self.role.url} were closed")
            link = self._idle.pop() if self._idle else _Link(self.role, self._key, self._trust)
            self._busy.add(link)
            return link

    def _give_back(self, link: _Link, call: Call) -> None:
        with self._lock:
            self._busy.discard(link)
            if not (self._closed or call.cancelled):
                self._idle.append(link)
                return
        link.client.close()

    def close(self) -> None:
        """Close all connections; whatever goes over them fails."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for link in busy:
            link.cut()
        for link in idle:
            link.client.close()


def _of_transport(error: Exception) -> bool:
    """Whether an exception is one of the connection, and none of this program."""
    import httpx

    return isinstance(error, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError | OSError)


def _read(response: httpx.Response) -> bytes:
    """The first bytes of an error's body."""
    content = b""
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > 65_536:
            break
    return content
