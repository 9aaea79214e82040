"""What servers answer, looked at before it is used: an answer of another kind is one clear line.

Numbers are finite and in bounds, texts can be written as UTF-8, and nothing else is made of either: a text of digits is no number.
"""

from __future__ import annotations

import math
import time
from typing import Any, TypeGuard, TypeVar

from rsd_local.errors import RSDError
from rsd_local.remote.api import Timing
from rsd_local.remote.transport import Call, Transport

T = TypeVar("T")
MOST = 1 << 53
"""The largest count: JSON's numbers are whole up to there."""
TOKENS = 1 << 31
"""More tokens than any vocabulary, context or answer has."""
_LEAST = -9999.0
"""What OpenAI's API writes for the logarithm of 0."""
_SECONDS = 1e9  # a request takes less


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

    def number(self, found: object, name: str, most: int = TOKENS) -> int:
        """A count, of tokens where nothing else is said."""
        if not is_count(found, most):
            raise self.wrong(name, found)
        return found

    def real(self, found: object, name: str, least: float, most: float) -> float:
        """A number between two others."""
        if isinstance(found, bool) or not isinstance(found, int | float) or not least <= found <= most:  # not so of NaN
            raise self.wrong(name, found)
        return float(found)

    def milliseconds(self, found: object, name: str) -> float:
        """Seconds, from thousandths of them; clocks may step back a little."""
        return max(0.0, self.real(found, name, -1e3 * _SECONDS, 1e3 * _SECONDS) / 1e3)

    def seconds(self, found: object, name: str) -> float:
        """Seconds."""
        return self.real(found, name, 0.0, _SECONDS)

    def share(self, found: object, name: str) -> float:
        """A share of 1, NaN where the model gave none."""
        return math.nan if found is None else min(1.0, self.real(found, name, 0.0, 1.001))

    def log_probability(self, found: object, name: str) -> float:
        """The natural logarithm of a probability."""
        return _LEAST if found == -math.inf else min(0.0, max(_LEAST, self.real(found, name, -1e9, 0.001)))

    def token(self, found: object) -> int:
        """A token id."""
        return self.number(found, "a token", TOKENS - 1)

    def tokens(self, found: object) -> tuple[int, ...]:
        """Token ids."""
        if not isinstance(found, list) or not all(is_count(one, TOKENS - 1) for one in found):
            raise self.garbage("tokens that are no numbers")
        return tuple(found)

    def string(self, found: object, path: str) -> str:
        """A text; half of a character is a question mark."""
        text = self.kind(found, str, path)
        return text if text.isascii() else text.encode("utf-8", "replace").decode()

    def text(self, found: object, path: str) -> str:
        """A text; null is an empty one."""
        return self.string("" if found is None else found, path)

    def label(self, found: object) -> str:
        """A name or a version for people, empty where there is none."""
        return self._transport.faults.said(found) if isinstance(found, str) else ""

    def first(self, found: object, path: str) -> dict[str, Any]:
        """The first of a list of objects."""
        listed = self.kind(found, list, path)
        return self.kind(listed[0] if listed else None, dict, path)

    def wrong(self, name: str, found: object) -> RSDError:
        """The error of a value that cannot be."""
        return self.garbage(f"{name} is {self._transport.faults.shown(found)}")

    def unknown_end(self, by: object) -> RSDError:
        """The error of an answer that ended in an unknown way."""
        return self.garbage(f"an answer that ended by {self._transport.faults.shown(by)}")

    def garbage(self, what: str) -> RSDError:
        """The error of an answer that is not what was asked for."""
        return self._transport.faults.garbage(what)


def is_count(found: object, most: int = TOKENS) -> TypeGuard[int]:
    """Whether a value is a number of things."""
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= most


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
