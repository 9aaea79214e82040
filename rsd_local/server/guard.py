"""Who may ask: keys, and the Host and Origin that a browser names."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from rsd_local.config import require
from rsd_local.server.errors import BadKey, NotAllowed
from rsd_local.server.page import is_public
from rsd_local.text_files import read_text

_OPEN = ("/health",)
"""Paths that need no key, besides the page."""
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides which requests are taken.

    Attributes:
        keys: of which a request must name one; empty for none.
        hosts: names in ``Host`` that are taken; empty for any.
        origins: other pages that may ask, such as ``http://localhost:3000``; ``*`` for any.
    """

    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] = _LOCAL
    origins: tuple[str, ...] = ()

    def check(self, path: str, method: str, headers: Headers) -> None:
        """Refuse a request that may not be made.

        Raises:
            NotAllowed: its Host or its Origin is none of those that are taken: a page of somewhere else may be behind it.
            BadKey: it names no key, or a wrong one.
        """
        host = headers.get("host", "")
        if self.hosts and _name(host) not in self.hosts:
            raise NotAllowed(f"the host {host[:100]!r} is not served", hint="start rsd with --allowed-host NAME")
        origin = headers.get("origin")
        if origin is not None and "*" not in self.origins and origin not in self.origins and _host_of(origin) != host.lower():
            raise NotAllowed(f"pages of {origin[:100]!r} may not ask", hint="start rsd with --cors-origin ORIGIN")
        if self.keys and path not in _OPEN and not is_public(path) and not self._knows(_key(headers)):
            raise BadKey("a valid API key is needed", hint="send it as Authorization: Bearer KEY")

    def _knows(self, given: bytes) -> bool:
        """Whether a key is one of ours; the time that takes says nothing of them."""
        return any([hmac.compare_digest(given, key) for key in self.keys])


def read_keys(file: Path) -> tuple[bytes, ...]:
    """The keys in a file, one a line.

    Raises:
        ConfigError: it cannot be read, or has none.
    """
    lines = (line.strip() for line in read_text(file, hint="give a file with one key a line").splitlines())
    keys = tuple(line.encode() for line in lines if line)
    require(bool(keys), f"{file} has no key", "write one a line")
    return keys


def _key(headers: Headers) -> bytes:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return (key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")).encode("latin-1", "replace")


def _name(host: str) -> str:
    """The name of a Host header, without its port."""
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def _host_of(origin: str) -> str:
    """Host and port of an origin; nothing where it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
