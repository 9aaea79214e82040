"""One connection to a role's server, which any thread can cut."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from rsd_local.config import RemoteRole
from rsd_local.errors import ConfigError
from rsd_local.remote.faults import Faults

if TYPE_CHECKING:
    import httpx

_KEPT = 3.0  # seconds that an idle connection is used again; llama-server closes them after 5
_LOOK = 0.5  # seconds between two looks at how long an answer's headers have been on their way
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class Connection:
    """Comes about with its first request, and again where the server has closed it.

    Args:
        role: where the server is.
        key: of it; empty for none.
        trust: certificates that are trusted.
        faults: makes errors.

    Attributes:
        lost: whether it was cut.
        when_sent: called where a request is out.

    Raises:
        ConfigError: the proxy that a variable names cannot be used.
    """

    def __init__(self, role: RemoteRole, key: str, trust: ssl.SSLContext, faults: Faults) -> None:
        import httpx

        wait = httpx.Timeout(role.read_timeout, connect=role.connect_timeout)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEPT)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._client = httpx.Client(base_url=role.url, timeout=wait, limits=limits, headers=headers, verify=trust)
        except (ImportError, ValueError, httpx.InvalidURL):  # their messages may hold a password
            named = " or ".join(name for name in os.environ if name.lower() in _PROXIES) or "the system's settings"
            raise ConfigError(
                f"the proxy of {named} cannot be used for {role.url}", hint="name a proxy with http:// or https://, or take the setting out"
            ) from None
        self._faults = faults
        self._stream: Any = None
        self._answer: Future[httpx.Response] | None = None
        self._sent: float | None = None  # when the request was out
        self.lost = False
        self.when_sent: Callable[[], None] | None = None

    def send(self, path: str, content: bytes | None) -> httpx.Response:
        """The response to a POST of JSON, or to a GET without one; nothing but its headers is read yet.

        It comes about in a thread of its own: neither the search for a host's address nor a connection that does not stand yet can be
        ended otherwise.

        Raises:
            httpx.HTTPError: what went wrong, or it was cut.
            Unreachable: the headers take too long.
        """
        import httpx

        headers = {} if content is None else {"Content-Type": "application/json"}
        request = self._client.build_request(
            "GET" if content is None else "POST", path, content=content, headers=headers, extensions={"trace": self._trace}
        )
        answer: Future[httpx.Response] = Future()
        self._sent, self._answer = None, answer
        if self.lost:  # while nobody could see that it waits
            raise httpx.ReadError("the connection was cut")
        threading.Thread(target=self._ask, args=(request, answer), name="rsd-remote-request", daemon=True).start()
        try:
            return self._waited(answer)
        finally:
            if not answer.done():  # nobody waits any more
                self.cut()

    def _waited(self, answer: Future[httpx.Response]) -> httpx.Response:
        import httpx

        while True:
            try:
                failed = answer.exception(_LOOK)
            except CancelledError:
                raise httpx.ReadError("the connection was cut") from None
            except TimeoutError:
                if self._sent is not None and time.monotonic() > self._sent + self._faults.patience:
                    raise self._faults.slow() from None
                continue
            if failed is not None:
                raise failed
            return answer.result()

    def _ask(self, request: httpx.Request, answer: Future[httpx.Response]) -> None:
        try:
            response = self._client.send(request, stream=True)
        except BaseException as error:  # of any kind: whoever waits gets it
            with contextlib.suppress(InvalidStateError):
                answer.set_exception(error)
            return
        try:
            answer.set_result(response)
        except InvalidStateError:  # it was cut meanwhile, and nobody waits
            response.close()
            self._client.close()

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's hook: notes the socket, and that a request is out."""
        if event.endswith(".send_request_body.complete"):
            self._sent = time.monotonic()
            if self.when_sent is not None:
                self.when_sent()
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = info["return_value"]
            if self.lost:
                self.cut()

    def cut(self) -> None:
        """End the connection under whoever waits for it, also where it does not stand yet."""
        self.lost = True
        if self._answer is not None:
            self._answer.cancel()
        found = self._stream.get_extra_info("socket") if self._stream is not None else None
        if found is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # not the TLS socket's own, which would wait for the other side

    def close(self) -> None:
        """Close it where nobody waits for it."""
        self._client.close()


def trusted(role: RemoteRole) -> ssl.SSLContext:
    """The certificates that a role's server is checked by; none where it has no TLS.

    Raises:
        ConfigError: those that a variable names cannot be read.
    """
    import httpx  # here, so that a command without a server need not load it

    if not role.url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        name = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "the system")
        raise ConfigError(
            f"the certificates of {name} cannot be read: {error.strerror or 'they are none'}",
            hint="name a file of certificates in PEM form, or take the variable out",
        ) from None
