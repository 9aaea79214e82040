"""Server-sent events, as far as servers of models send them: an object of JSON in each line of data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rsd_local.remote.faults import Faults, parsed

_LONGEST_LINE = 16 << 20
_SHOWN = 80  # characters of a line that is none


class EventStream:
    """Makes objects of the bytes of a stream.

    Args:
        faults: makes errors.
        path: that was asked, for people.
    """

    def __init__(self, faults: Faults, path: str) -> None:
        self._faults, self._path = faults, path
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The objects of the lines that end in these bytes.

        Raises:
            RemoteError, ContextFull: what they say is an error, or is no event.
        """
        self._rest += chunk
        if b"\n" in chunk:
            *lines, rest = self._rest.split(b"\n")
            self._rest = rest
            for line in lines:
                yield from self._objects(bytes(line))
        if len(self._rest) > _LONGEST_LINE:
            raise self._faults.garbage("a line without an end")

    def end(self) -> Iterator[dict[str, Any]]:
        """The object of a last line that has no end."""
        yield from self._objects(bytes(self._rest))

    def _objects(self, line: bytes) -> Iterator[dict[str, Any]]:
        field, _, text = line.strip().partition(b":")
        text = text.strip()
        if field in (b"", b"event", b"id", b"retry") or text == b"[DONE]":  # nothing, a comment, or no data
            return
        if field not in (b"data", b"error"):
            raise self._faults.garbage(f"what {self._path} streams are no events: {self._begin(line)}")
        try:
            found = parsed(text)
        except ValueError:
            raise self._faults.garbage(f"an event of {self._path} is no JSON: {self._begin(line)}") from None
        if not isinstance(found, dict):
            raise self._faults.garbage(f"an event of {self._path} is no object")
        if field == b"error" or found.get("error"):
            told = found.get("error") or found
            status = told.get("code") if isinstance(told, dict) else None
            raise self._faults.of_status(status if isinstance(status, int) and 400 <= status < 600 else 500, text, self._path)
        yield found

    def _begin(self, line: bytes) -> str:
        return repr(self._faults.said(line.decode("utf-8", "replace"), _SHOWN))
