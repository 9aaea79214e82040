"""RSD where it pays: for each step the way that was the fastest so far, by what each cost and gave.

All ways give what the trio's policy accepts: a step of the draft that its reward lets stand, or the target's own, which is the same
text whether tokens were guessed for it or not. A program that checks makes steps better, not only cheaper, so there RSD stays.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rsd_local.config import Params
from rsd_local.decoding.rsd import rsd
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Chosen, Event, Way
from rsd_local.prompt import Prompt
from rsd_local.roles import Reward, Writer

_AT_FIRST = 2  # steps that each way is measured by before one is preferred
_LOSS = 0.01  # of the time that may go into trying another way again
_LEAST_WAIT, _MOST_DOUBLED = 8, 4
_FADE = 0.9


@dataclass(slots=True)
class _Measured:
    """What one way cost and gave, faded, and when it is tried again.

    Attributes:
        steps: that were measured.
        seconds, tokens: their faded sums.
        waits: steps of another way until it is tried again.
        failed: times in a row that it was tried again and was not the fastest.
    """

    steps: int = 0
    seconds: float = 0.0
    tokens: float = 0.0
    waits: int = 0
    failed: int = 0

    @property
    def cost(self) -> float:
        """Seconds a token, infinite where nothing is known."""
        return self.seconds / self.tokens if self.tokens else math.inf


@dataclass(slots=True)
class WayCosts:
    """What each way cost on this machine, with these models, over all answers so far."""

    _measured: defaultdict[Way, _Measured] = field(default_factory=lambda: defaultdict(_Measured))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, ways: tuple[Way, ...]) -> Way:
        """The way of the next step: one that was not measured enough, one whose turn it is to be tried again, or the fastest."""
        with self._lock:
            known = {way: self._measured[way] for way in ways}
            new = [way for way in ways if known[way].steps < _AT_FIRST]
            if new:
                return new[0]
            best = min(ways, key=lambda way: known[way].cost)
            for way in ways:
                one = known[way]
                if way == best:
                    one.failed = one.waits = 0
                elif one.waits <= 0:
                    excess = one.cost / known[best].cost - 1
                    one.waits = max(_LEAST_WAIT, math.ceil(min(excess, 100.0) / _LOSS)) << min(one.failed, _MOST_DOUBLED)
                    one.failed += 1
                elif one.waits == 1:
                    one.waits = 0
                    return way
                else:
                    one.waits -= 1
            return best

    def note(self, way: Way, tokens: int, seconds: float) -> None:
        """Take what a step cost and gave."""
        with self._lock:
            one = self._measured[way]
            one.steps, one.tokens, one.seconds = one.steps + 1, one.tokens * _FADE + tokens, one.seconds * _FADE + seconds

    def charge(self, way: Way, seconds: float) -> None:
        """Add what steps of a way have cost afterwards."""
        with self._lock:
            self._measured[way].seconds += seconds

    def costs(self, ways: tuple[Way, ...]) -> dict[Way, float]:
        """Seconds a token of each way that was measured."""
        with self._lock:
            return {way: self._measured[way].cost for way in ways if self._measured[way].tokens}


class Chooser:
    """Chooses the ways of one answer's steps.

    Args:
        way_costs: of all answers.
        ways: that there are.
        replayed: the ways of an earlier answer's steps, which are gone again.
    """

    def __init__(self, way_costs: WayCosts, ways: tuple[Way, ...], replayed: tuple[Way, ...] = ()) -> None:
        self._costs, self._ways, self._replayed = way_costs, ways, replayed
        self._way: Way | None = None
        self._seconds, self._tokens = 0.0, 0

    def choose(self, solution: Solution, draft: Writer, target: Writer, reward: Reward) -> Chosen:
        """The way of the next step; whoever it asks has then evaluated what stands, so that the step's cost is its own.

        What the target had not read of drafted steps is those steps' cost.
        """
        before = self._way
        if before is not None:
            self._costs.note(before, solution.tokens - self._tokens, _spent(draft, target, reward) - self._seconds)
        place, costs = solution.steps, self._costs.costs(self._ways)
        self._way = way = self._replayed[place] if place < len(self._replayed) else self._costs.choose(self._ways)
        if way != "draft":
            spent = target.counters().seconds
            target.settle()
            if before == "draft":
                self._costs.charge(before, target.counters().seconds - spent)
        if way != "target":
            draft.settle()
        if way == "draft":
            reward.settle()
        self._seconds, self._tokens = _spent(draft, target, reward), solution.tokens
        return Chosen(place, way, costs)


def _spent(draft: Writer, target: Writer, reward: Reward) -> float:
    """Seconds of batches so far, and of a model on a server those of the way there and back."""
    made = (draft.counters(), target.counters(), *reward.counters().values())
    return sum(one.seconds + (one.waiting_seconds if one.rounds else 0.0) for one in made)


def auto(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt by RSD, by the target alone or by the target with guessed tokens, whichever is the fastest, step by step.

    Yields a ``Chosen`` before each step, besides the events of ``rsd``.

    Raises:
        ContextFull: the prompt does not fit one of the contexts.
        VerifierFailed: a verifier does not work.
    """
    ways: tuple[Way, ...] = ("draft",) if trio.checked else ("draft", "target", "speculate") if trio.speculates else ("draft", "target")
    yield from rsd(prompt, trio, params, Chooser(trio.way_costs, ways, params.search.ways))
