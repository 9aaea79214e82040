"""What each way to a step costs, from what was seen, and which of them is worth another try."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rsd_local.events import Way

PIECE = 24  # tokens of a step that the target writes by a way that is tried
_STEPS = 2  # by which each way is measured before one is preferred, or by as many tokens as a piece has
_LOSS = 0.005  # of the time that may go into trying another way again
_FADE = 0.9  # of what a way cost, with each further step of it
_FADE_LOSS = 0.998  # of the time and of what was lost in it, with each further step


@dataclass(slots=True)
class _Measured:
    """What one way cost and gave, and what trying it has lost.

    Attributes:
        steps: that were measured.
        last: tokens that another try would have: those of the last step; a piece at most where that is all that is tried.
        seconds, tokens: their faded sums.
        lost: faded seconds over those that the fastest way would have taken.
        reading: seconds a token in which its models read what others had written, when that happened last.
    """

    steps: int = 0
    last: int = 0
    seconds: float = 0.0
    tokens: float = 0.0
    lost: float = 0.0
    reading: float = 0.0

    @property
    def cost(self) -> float:
        """Seconds a token, infinite where nothing is known."""
        return self.seconds / self.tokens if self.tokens else math.inf

    @property
    def known(self) -> bool:
        """Whether it was measured enough."""
        return self.steps >= _STEPS or self.tokens >= PIECE


@dataclass(slots=True)
class WayCosts:
    """What each way cost on this machine, with these models, over all answers so far.

    Attributes:
        clock: seconds, where one question is answered at a time, so that it says what a step took; None where several are.
    """

    clock: Callable[[], float] | None = None
    _measured: defaultdict[Way, _Measured] = field(default_factory=lambda: defaultdict(_Measured))
    _seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, ways: tuple[Way, ...], unread: Mapping[Way, int]) -> Way:
        """The way of the next step: one that was not measured enough, one for which there is time to try it again, or the fastest.

        Args:
            ways: that there are.
            unread: tokens that the models of a way have not read yet; none of a way that is missing.
        """
        with self._lock:
            first = self._first(ways)
            best = self._measured[first]
            if not best.known:
                return first
            for way in sorted(ways, key=lambda way: self._measured[way].cost)[1:]:
                one = self._measured[way]
                expected = (one.cost - best.cost) * one.last + one.reading * unread.get(way, 0)
                if one.lost + expected <= _LOSS * self._seconds:
                    return way
            return first

    def fastest(self, ways: tuple[Way, ...]) -> Way:
        """The first way that was not measured enough, otherwise the fastest."""
        with self._lock:
            return self._first(ways)

    def _first(self, ways: tuple[Way, ...]) -> Way:
        new = [way for way in ways if not self._measured[way].known]
        return new[0] if new else min(ways, key=lambda way: self._measured[way].cost)

    def prefers(self, way: Way, ways: tuple[Way, ...]) -> bool:
        """Whether all ways are known well enough, and this one is the fastest."""
        with self._lock:
            return self._measured[way].known and way == self._first(ways)

    def note(self, way: Way, tokens: int, seconds: float) -> None:
        """Take what a step cost and gave."""
        with self._lock:
            for other in self._measured.values():
                other.lost *= _FADE_LOSS
            self._seconds *= _FADE_LOSS
            one, fastest = self._measured[way], self._fastest_but(way)
            one.steps, one.last = one.steps + 1, tokens if way == "draft" else min(tokens, PIECE)
            one.tokens, one.seconds = one.tokens * _FADE + tokens, one.seconds * _FADE + seconds
            self._seconds += seconds
            if fastest < one.cost:
                one.lost += max(0.0, seconds - fastest * tokens)

    def charge(self, way: Way, seconds: float) -> None:
        """Add what steps of a way have cost afterwards."""
        with self._lock:
            self._measured[way].seconds += seconds
            self._lose(way, seconds)

    def passed(self, seconds: float) -> None:
        """Take time that went well and says nothing of a way."""
        with self._lock:
            self._seconds += seconds

    def caught_up(self, way: Way, tokens: int, seconds: float) -> None:
        """Take what it cost that the models of a way read what others had written; it is no cost of the way's own steps.

        Args:
            way: it.
            tokens: that they read; 0 at the prompt.
            seconds: in which they did.
        """
        with self._lock:
            self._lose(way, seconds)
            if tokens:
                self._measured[way].reading = seconds / tokens

    def _lose(self, way: Way, seconds: float) -> None:
        self._seconds += seconds
        one = self._measured[way]
        if self._fastest_but(way) < one.cost:
            one.lost += seconds

    def _fastest_but(self, way: Way) -> float:
        return min((one.cost for name, one in self._measured.items() if name != way), default=math.inf)

    def costs(self, ways: tuple[Way, ...]) -> dict[Way, float]:
        """Seconds a token of each way that was measured."""
        with self._lock:
            return {way: self._measured[way].cost for way in ways if self._measured[way].tokens}
