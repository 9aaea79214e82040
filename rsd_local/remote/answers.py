"""What servers answer, looked at before it is used: an answer of another kind is one clear line."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from rsd_local.errors import RSDError
from rsd_local.remote.api import Timing
from rsd_local.remote.transport import Call, Transport

T = TypeVar("T")


class Answers:
    """Asks one server, and checks what it answers.

    Args:
        transport: to it.
        api: that it is to speak, for people.
    """

    def __init__(self, transport: Transport, api: str) -> None:
        self._transport, self._api = transport, api

    def ask(self, path: str, body: dict[str, Any] | None = None, call: Call | None = None) -> dict[str, Any]:
        """The object that a path answers."""
        return self.kind(self._transport.ask(path, body, call), dict, path)

    def kind(self, found: object, kind: type[T], path: str) -> T:
        """What was found, where it is of a kind."""
        if not isinstance(found, kind):
            raise self.garbage(f"what {path} answers is not {self._api}'s")
        return found

    def number(self, found: object, name: str) -> int:
        """A count."""
        if not isinstance(found, int) or isinstance(found, bool) or found < 0:
            raise self.garbage(f"{name} is {found!r}")
        return found

    def tokens(self, found: object) -> tuple[int, ...]:
        """Token ids."""
        if not isinstance(found, list) or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in found):
            raise self.garbage("tokens that are no numbers")
        return tuple(found)

    def text(self, found: object, path: str) -> str:
        """A text; null is an empty one."""
        return self.kind("" if found is None else found, str, path)

    def first(self, found: object, path: str) -> dict[str, Any]:
        """The first of a list of objects."""
        listed = self.kind(found, list, path)
        return self.kind(listed[0] if listed else None, dict, path)

    def garbage(self, what: str) -> RSDError:
        """The error of an answer that is not what was asked for."""
        return self._transport.faults.garbage(what)


class Clock:
    """Times a request here, for servers that do not say how long they computed: the way there is in it."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first: float | None = None

    def first(self) -> None:
        """The first token has come."""
        if self._first is None:
            self._first = time.perf_counter()

    def timing(self, prompt: int, written: int, cached: int | None, computed: float | None = None) -> Timing:
        """What it took so far.

        Args:
            prompt: tokens of the prompt.
            written: tokens that were drawn.
            cached: of the prompt's; None where the server does not say.
            computed: seconds of all, where the server says them.
        """
        now = time.perf_counter()
        writing = 0.0 if self._first is None else now - self._first
        reading = (now if self._first is None else self._first) - self._began
        if computed is not None:
            writing = min(writing, computed)
            reading = computed - writing
        known = min(cached or 0, prompt)
        return Timing(known, prompt - known, written, reading, writing, told=cached is not None)
