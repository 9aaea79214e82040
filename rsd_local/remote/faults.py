"""What goes wrong with a server, as one clear line each."""

from __future__ import annotations

import json
import re
import ssl
from typing import TYPE_CHECKING, Any

from rsd_local.config import RemoteRole
from rsd_local.errors import BadAnswer, ContextFull, RemoteBusy, RemoteRefused, RSDError, Unauthorized, Unreachable

if TYPE_CHECKING:
    import httpx

_SHOWN = 200  # characters of what a server says
_LOOKED_AT = 4096  # of which these are chosen
_PATIENCE = 10  # times read_timeout
_CONTEXT = re.compile(r"context (size|length|window)|exceed_context_size", re.IGNORECASE)
_BROKEN = ("disconnected", "peer closed", "connection closed")


class Faults:
    """Makes errors of what a role's server does.

    Args:
        role: whose server it is.
        key: that no message may hold.
    """

    def __init__(self, role: RemoteRole, key: str = "") -> None:
        self._role, self._key = role, key
        spelled = json.dumps(key)[1:-1]
        self._secrets = sorted({key, spelled, spelled.replace("/", "\\/")} - {""}, key=len, reverse=True)

    @property
    def patience(self) -> float:
        """Seconds of what may take many bytes: an answer's headers, an answer that is no stream, and between two events of one."""
        return _PATIENCE * self._role.read_timeout

    def of_transport(self, error: Exception) -> RSDError:
        """Of a connection that did not come about, or broke."""
        import httpx

        url, role = self._role.url, self._role
        if isinstance(error, httpx.ConnectTimeout):
            return Unreachable(f"{url} takes no connection within {role.connect_timeout:g} s", hint="is it there, and is nothing between?")
        if isinstance(error, httpx.TimeoutException):
            return self.silent()
        causes = list(_causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in causes):
            return Unreachable(f"the certificate of {url} is not trusted", hint="name your authority's with the variable SSL_CERT_FILE")
        if any(isinstance(cause, ssl.SSLError) for cause in causes):
            return Unreachable(f"{url} does not speak TLS as it should", hint="is it http:// rather than https://?")
        if isinstance(error, httpx.ConnectError):
            if any(isinstance(cause, OSError) and "refused" in str(cause).lower() for cause in causes):
                return Unreachable(f"{url} refuses connections", hint="is the server running there, and listening on that address?")
            return Unreachable(f"{url} cannot be reached: {self.said(str(causes[-1]))}", hint="check the address")
        if isinstance(error, httpx.RemoteProtocolError) and not any(mark in str(error) for mark in _BROKEN):
            return BadAnswer(f"{url} does not answer as an HTTP server", hint="check the address and the port")
        if isinstance(error, httpx.TransportError):
            return self.broken()
        return BadAnswer(f"{url} answers what cannot be read: {self.said(str(error))}")

    def silent(self) -> Unreachable:
        """Of a server that sends nothing."""
        limit = self._role.read_timeout
        return Unreachable(f"{self._role.url} has sent nothing for {limit:g} s", hint="is it busy? a larger read_timeout waits longer")

    def slow(self) -> Unreachable:
        """Of a server that sends bytes, and comes to no end."""
        return Unreachable(f"{self._role.url} comes to no end within {self.patience:g} s", hint="a larger read_timeout waits longer")

    def broken(self) -> Unreachable:
        """Of a connection that ended too early."""
        return Unreachable(f"{self._role.url} broke the connection off", hint="was the server stopped?")

    def garbage(self, what: str) -> BadAnswer:
        """Of an answer that is not what was asked for."""
        return BadAnswer(f"{self._role.url}: {what}", hint="does it speak what `api` says?")

    def of_status(self, status: int, body: bytes, path: str) -> RSDError:
        """Of an answer that is no success.

        Args:
            status: HTTP's.
            body: of the answer.
            path: that was asked.
        """
        url, said = self._role.url, self.said(_message(body))
        if status in (401, 403):
            has = "does not take this key" if self._key else "wants a key"
            return Unauthorized(f"{url} {has} ({status})", hint="name its variable or file (api_key_env, api_key_file)")
        if status == 429:
            return RemoteBusy(f"{url} has too much to do (429)", hint="try again later, or with a smaller --parallel")
        if status == 503:
            what = "is still loading its model" if "loading" in said.lower() else "takes no requests"
            return RemoteBusy(f"{url} {what} (503)", hint="try again in a moment")
        if status in (400, 413, 422) and _CONTEXT.search(body.decode("utf-8", "replace")):
            return ContextFull(f"{url}: {said}", hint="shorten the question, or start the server with a larger context")
        if status == 404:
            more = "" if not said or said.startswith("<") else f": {said}"
            return RemoteRefused(f"{url} has no {path} (404){more}", hint="check the address, and what `api` says")
        if 300 <= status < 400:
            return RemoteRefused(f"{url} sends on to another address ({status})", hint="give that one")
        if status < 500:
            return RemoteRefused(f"{url} refuses {path} ({status}): {said}")
        failed = BadAnswer(f"{url} failed ({status}): {said}", hint="the server's log says more")
        failed.status = status
        return failed

    def said(self, text: str, most: int = _SHOWN) -> str:
        """What a server says, fit for a line: without the key, printable, and cut, in this order.

        Args:
            text: of any length.
            most: characters of the line.
        """
        for secret in self._secrets:
            text = text.replace(secret, "…")
        text = " ".join(text[:_LOOKED_AT].split())
        printable = "".join(one if one.isprintable() else "?" for one in text)
        return printable if len(printable) <= most else printable[: most - 1] + "…"

    def shown(self, found: object) -> str:
        """A value that a server sent, fit for a line; of lists and objects just that they are some."""
        if isinstance(found, list | dict):
            return "a list" if isinstance(found, list) else "an object"
        return repr(self.said(found)) if isinstance(found, str) else self.said(repr(found), 40)

    def hides(self, error: httpx.HTTPError | Exception) -> bool:
        """Whether nothing was written yet when a connection failed, so that asking again does no harm."""
        import httpx

        return isinstance(error, httpx.ConnectError | httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError)


def parsed(content: bytes | bytearray | str) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or is nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 16:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _message(body: bytes) -> str:
    """The message of an error's body in one of the usual forms; the body itself where it has none."""
    text = body.decode("utf-8", "replace")
    try:
        found = parsed(text)
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and key in found:
                found = found[key]
        return found if isinstance(found, str) else json.dumps(found)
    except (ValueError, RecursionError):
        return text
