"""RSD where it pays: for each step the way that was the fastest so far, by what each cost and gave.

All ways give what the trio's policy accepts: a step of the draft that its reward lets stand, or the target's own, which is the same
text whether tokens were guessed for it or not. A program that checks makes steps better, not only cheaper, so there RSD stays.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from rsd_local.config import Params
from rsd_local.decoding.rsd import rsd
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Chosen, Event, Way
from rsd_local.prompt import Prompt
from rsd_local.roles import Reward, Writer

_STEPS, _TOKENS = 2, 24  # by which each way is measured before one is preferred: as many steps, or as many tokens of one
_LOSS = 0.005  # of the time that may go into trying another way again
_FADE = 0.9  # of what a way cost, with each further step of it
_FADE_LOSS = 0.998  # of the time and of what was lost in it, with each further step


@dataclass(slots=True)
class _Measured:
    """What one way cost and gave, and what trying it has lost.

    Attributes:
        steps: that were measured.
        last: tokens of the last one.
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
        return self.steps >= _STEPS or self.tokens >= _TOKENS


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
            ordered = sorted(ways, key=lambda way: self._measured[way].cost)
            new = [way for way in ways if not self._measured[way].known]
            if new:
                return new[0]
            best = self._measured[ordered[0]]
            for way in ordered[1:]:
                one = self._measured[way]
                expected = (one.cost - best.cost) * one.last + one.reading * unread.get(way, 0)
                if one.lost + expected <= _LOSS * self._seconds:
                    return way
            return ordered[0]

    def prefers(self, way: Way, ways: tuple[Way, ...]) -> bool:
        """Whether all ways are known well enough, and this one is the fastest."""
        with self._lock:
            return all(self._measured[one].known for one in ways) and way == min(ways, key=lambda one: self._measured[one].cost)

    def note(self, way: Way, tokens: int, seconds: float) -> None:
        """Take what a step cost and gave."""
        with self._lock:
            for other in self._measured.values():
                other.lost *= _FADE_LOSS
            self._seconds *= _FADE_LOSS
            one, fastest = self._measured[way], self._fastest_but(way)
            one.steps, one.last = one.steps + 1, tokens
            one.tokens, one.seconds = one.tokens * _FADE + tokens, one.seconds * _FADE + seconds
            self._seconds += seconds
            if fastest < one.cost:
                one.lost += max(0.0, seconds - fastest * tokens)

    def charge(self, way: Way, seconds: float) -> None:
        """Add what steps of a way have cost afterwards."""
        with self._lock:
            self._measured[way].seconds += seconds
            self._lose(way, seconds)

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


@dataclass(frozen=True, slots=True)
class _Spent:
    """Seconds so far.

    Attributes:
        clock: without pauses; always 0 where other questions are answered too, whose batches it would have.
        batches: of this question's, and of a model on a server those of the way there and back.
    """

    clock: float
    batches: float

    def until(self, later: _Spent) -> float:
        """What was spent in between; a pause hides batches that went on in it."""
        return max(later.clock - self.clock, later.batches - self.batches)


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
        self._measures = True  # whether the step's cost is its own
        self._begun, self._tokens, self._paused = _Spent(0.0, 0.0), 0, 0.0
        self._read = dict.fromkeys(ways, 0)  # tokens of the answer that the models of each way have read

    def choose(self, solution: Solution, draft: Writer, target: Writer, reward: Reward) -> Chosen:
        """The way of the next step; whoever it asks has then evaluated what stands, so that the step's cost is its own.

        What the target had not read of drafted steps is those steps' cost. A first step by the way that is the fastest anyhow goes
        without: the prompt is then read with the step, in one batch less, and nobody learns from it.
        """
        before, came = self._way, self._spent(draft, target, reward)
        if before is not None and self._measures:
            self._costs.note(before, solution.tokens - self._tokens, self._begun.until(came))
        place, costs = solution.steps, self._costs.costs(self._ways)
        unread: dict[Way, int] = {way: solution.tokens - read for way, read in self._read.items() if way != "target"}
        self._way = way = self._replayed[place] if place < len(self._replayed) else self._costs.choose(self._ways, unread)
        self._measures = before is not None or not self._costs.prefers(way, self._ways)
        if self._measures:
            if way != "draft" and before in (None, "draft"):
                target.settle()
                read = self._spent(draft, target, reward)
                if before == "draft":
                    self._costs.charge(before, came.until(read))
                came = read
            if way != "target":
                draft.settle()
            if way == "draft":
                reward.settle()
        self._begun, self._tokens = self._spent(draft, target, reward), solution.tokens
        self._costs.caught_up(way, 0 if way == before else unread.get(way, 0), came.until(self._begun))
        for one in self._ways:
            if one == way or way == "draft":
                self._read[one] = solution.tokens
        return Chosen(place, way, costs)

    def _spent(self, draft: Writer, target: Writer, reward: Reward) -> _Spent:
        made = (draft.counters(), target.counters(), *reward.counters().values())
        batches = sum(one.seconds + (one.waiting_seconds if one.rounds else 0.0) for one in made)
        return _Spent(self._now() - self._paused, batches)

    def _now(self) -> float:
        return self._costs.clock() if self._costs.clock is not None else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While whoever reads the events has one: that time belongs to no way."""
        began = self._now()
        try:
            yield
        finally:
            self._paused += self._now() - began


def auto(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt by RSD, by the target alone or by the target with guessed tokens, whichever is the fastest, step by step.

    Yields a ``Chosen`` before each step, besides the events of ``rsd``.

    Raises:
        ContextFull: the prompt does not fit one of the contexts.
        VerifierFailed: a verifier does not work.
    """
    ways: tuple[Way, ...] = ("draft",) if trio.checked else ("draft", "target", "speculate") if trio.speculates else ("draft", "target")
    chooser = Chooser(trio.way_costs, ways, params.search.ways)
    with closing(rsd(prompt, trio, params, chooser)) as events:
        for event in events:
            with chooser.paused():
                yield event
