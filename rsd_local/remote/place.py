"""A text on a server: what stands in it, what of that is in the server's cache, and what is being sent ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from rsd_local.errors import Cancelled, Closed, RemoteError
from rsd_local.events import CancelToken, Counters
from rsd_local.remote.api import Likelihood, ReadingServer, Timing
from rsd_local.remote.engine import RemoteEngine
from rsd_local.remote.sent_ahead import SentAhead
from rsd_local.remote.transport import Call
from rsd_local.remote.vocabulary import step_tokens
from rsd_local.steps import Step

_PATIENCE = 2.0  # seconds that counters wait for what is on its way


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    """Where a step begins, among steps whose tokens are not known yet."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prompt:
    """A prompt whose tokens are not known yet, and what asks for them."""

    ask: Callable[[], list[int]]


class Place:
    """A text on a server. One thread uses it; what is sent ahead has a thread of its own, which ``join`` waits for.

    Args:
        engine: of the server.
        tokens: that stand, from the prompt's first one on.
        written: of each, whether this model wrote it.
        shared: how many tokens, from the first on, mean the same to the other model.
        cancel: of the answer: ends what is sent ahead.

    Attributes:
        counters: of all that was done here.
        cancel: as above.
        lock: of what is noted, and of the counters.
    """

    def __init__(self, engine: RemoteEngine, tokens: list[int], written: bytearray, shared: int, cancel: CancelToken | None) -> None:
        self.engine, self.tokens, self.written, self._shared, self.cancel = engine, tokens, written, shared, cancel
        self._slot = engine.take_slot()
        self.counters = Counters(parameters=engine.parameters)
        self._noted: list[Step | _Mark | _Prompt] = []  # behind the tokens
        self._base: int | None = len(tokens)  # where the step begins; None where a mark says it
        self._touched = False  # whether anything was noted or written since
        self._cached = 0  # tokens that are in the server's cache, as far as is known
        self._seen = self._seen_before = 0  # tokens that the server has read, as it counts them, now and where the step begins
        self._opened = False
        self._ahead: SentAhead | None = None
        self._calls: set[Call] = set()
        self.lock = threading.RLock()
        self._closed = False

    @property
    def slot(self) -> int:
        """Of the server; −1, any, where it has none, or was started again with fewer."""
        return self._slot if self._slot < self.engine.facts.slots else -1

    def note_prompt(self, ask: Callable[[], list[int]]) -> None:
        """What stands begins with a prompt whose tokens are asked for once they are needed.

        Args:
            ask: gives them.
        """
        self._noted, self._base = [_Prompt(ask), _Mark()], None

    def begin(self) -> None:
        """A step begins here; what stands is sent ahead."""
        with self.lock:
            self._noted = [one for one in self._noted if not isinstance(one, _Mark)]
            self._touched, self._seen_before = False, self._seen
            if self._noted or self._busy:
                self._base = None
                self._noted.append(_Mark())
            else:
                self._base = len(self.tokens)
        self.send_ahead()

    def note(self, step: Step) -> None:
        """A step of the other model comes behind what stands; it is spelled later."""
        with self.lock:
            if step.raw or step.tokens:
                self._noted.append(step)
                self._touched = True

    def take_back(self) -> None:
        """What came since the step began is gone."""
        if not self._touched:
            return
        with self.lock:
            self._touched = False
            mark = next((place for place, one in enumerate(self._noted) if isinstance(one, _Mark)), None)
            if mark is not None:
                del self._noted[mark + 1 :]
                return
        self.join()
        with self.lock:
            self._noted.clear()
            assert self._base is not None
            self.counters.discarded_tokens += self.written.count(1, self._base)
            del self.tokens[self._base :], self.written[self._base :]
            self._cached = min(self._cached, len(self.tokens))
            self._seen = self._seen_before if self.engine.facts.texts else min(self._seen, len(self.tokens))

    def wrote(self, tokens: list[int], flags: bytearray) -> None:
        """This model wrote tokens."""
        self.tokens += tokens
        self.written += flags
        self._cached, self._touched = len(self.tokens) - 1, True

    def spell(self, call: Call) -> None:
        """Make tokens of the noted steps, in the thread that has the place for itself."""
        while True:
            with self.lock:
                if not self._noted:
                    return
                first = self._noted[0]
                if isinstance(first, _Mark):
                    self._base = len(self.tokens)
                    del self._noted[0]
                    continue
            if isinstance(first, _Prompt):
                with call.covering():
                    tokens = first.ask()
                self.counters.opening_tokens = len(tokens)
            elif first.tokens and all(token < self._shared for token in first.tokens):
                tokens = list(first.tokens)
            else:
                tokens = step_tokens(self.engine.server, first.raw, self.engine.marks, call)
            with self.lock:
                if self._noted and self._noted[0] is first:  # it was not taken back meanwhile
                    del self._noted[0]
                    self.tokens += tokens
                    self.written += bytes(len(tokens))

    @property
    def _busy(self) -> bool:
        return self._ahead is not None and not self._ahead.done

    @property
    def waits(self) -> bool:
        """Whether something stands that is not in the server's cache, but for the last token."""
        return self.engine.facts.ahead and (bool(self._noted) or len(self.tokens) - 1 > self._cached)

    def send_ahead(self) -> None:
        """Begin to evaluate what stands, but for its last token."""
        with self.lock:
            if self.waits and not self._busy and not self._closed:
                self._ahead = SentAhead(self)

    def evaluate(self, call: Call) -> None:
        """Evaluate what stands, but for its last token."""
        self.spell(call)
        tokens = self.tokens[:-1]
        if len(tokens) > self._cached:
            reuse = self._opened or self.engine.reuse
            self.took(len(tokens), self.engine.server.evaluate(tokens, self.slot, call, reuse=reuse), wrote=False)
            self._cached = len(tokens)

    def read(self, call: Call) -> tuple[list[int], Likelihood]:
        """The tokens of what was noted since the step began, and how likely they are to a server that says it; they are then read."""
        self.spell(call)
        with self.lock:
            start, tokens = self._base, list(self.tokens)
        assert start is not None
        if not tokens[start:]:
            return [], Likelihood((), (), Timing(0, 0, 0, 0.0, 0.0))
        server = cast(ReadingServer, self.engine.server)  # a reward that asks for this opens with no other one
        found = server.likelihood(tokens, start, call)
        self.took(len(tokens), found.timing, wrote=False)
        self._cached = len(tokens)
        return tokens[start:], found

    def rests(self, ahead: SentAhead) -> bool:
        """Whether there is nothing more to send ahead; then it is done with."""
        with self.lock:
            ahead.done = ahead.enough or not self.waits
            if not ahead.done:
                ahead.out.clear()
            return ahead.done

    def join(self, seconds: float | None = None) -> None:
        """Wait for what was sent ahead, at most some seconds."""
        ahead = self._ahead
        if ahead is not None:
            ahead.join(seconds)

    def settle(self) -> None:
        """Wait for what is sent ahead, for a request that comes behind it.

        A slot takes its requests in the order in which they come, so there it is enough that the one before is out: then both
        share a round trip. ``join`` comes before what the later one took is counted.

        Raises:
            Unreachable: the server was lost meanwhile: whoever waits has waited long enough.
        """
        ahead = self._ahead
        if ahead is not None and not ahead.done:
            if self.slot >= 0:
                ahead.wait_out()
            else:
                ahead.join(None)
            if ahead.lost is not None:
                raise ahead.lost

    def stop(self) -> None:
        """End what was sent ahead."""
        ahead = self._ahead
        if ahead is not None:
            ahead.cancel()

    def took(self, length: int, timing: Timing, *, wrote: bool) -> None:
        """Count a request.

        Args:
            length: of its prompt, as far as it is this place's.
            timing: of it.
            wrote: whether its tokens are written ones.
        """
        timing, texts = timing.with_cached(self._seen), self.engine.facts.texts
        self._seen = timing.cached + timing.read + (max(0, timing.written - 1) if wrote else 0)
        counters, first = self.counters, timing.cached if texts else min(timing.cached, length)
        if not self._opened:
            counters.cached_tokens, self._opened = first, True
            counters.opening_tokens = timing.cached + timing.read if texts else counters.opening_tokens
        counters.prompt_tokens += timing.read if texts else self.written.count(0, first, length)
        counters.evaluated_tokens += timing.rows if wrote else timing.read
        counters.decode_calls += timing.written if wrote else 1
        counters.seconds += timing.seconds if wrote else timing.reading

    def started(self, call: Call) -> None:
        """A request begins.

        Raises:
            Closed: the place was closed.
        """
        with self.lock:
            if self._closed:
                raise Closed(f"{self.engine.name}: the writer was closed")
            self._calls.add(call)

    @contextmanager
    def asking(self, call: Call) -> Iterator[None]:
        """While a step is asked for, behind what is sent ahead.

        Raises:
            Closed: the place was closed.
            Cancelled: the call was cancelled.
            RemoteError: what went wrong, which is noted.
        """
        try:
            self.started(call)
            self.engine.check_up(call)
            self.settle()
            if call.cancelled:
                raise Cancelled("cancelled")
            yield
        except Cancelled:
            if self._closed:
                raise Closed(f"{self.engine.name}: the writer was closed") from None
            raise
        except RemoteError as error:
            self.engine.note_failure(error)
            raise
        finally:
            self.ended(call)

    def ended(self, call: Call) -> None:
        """It is over: what went over the network counts."""
        traffic = call.traffic
        with self.lock:  # what was sent ahead may end at the same time
            self.counters.rounds += traffic.rounds
            self.counters.sent_bytes += traffic.sent
            self.counters.received_bytes += traffic.received
            self._calls.discard(call)

    def counted(self) -> Counters:
        """The counters, with what is on its way where that comes soon."""
        self.join(_PATIENCE)
        return self.counters

    def fork(self, call: Call) -> Place:
        """Another one with the same text, in a slot of its own.

        Args:
            call: what has to be asked for is part of that.
        """
        self.join()
        try:
            self.started(call)
            self.spell(call)
        finally:
            self.ended(call)
        made = Place(self.engine, list(self.tokens), bytearray(self.written), self._shared, self.cancel)
        made._seen = self._seen if self.engine.facts.slots == 0 else 0  # a cache without slots is everybody's
        return made

    def close(self) -> None:
        """End what goes on, and give the slot back."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        self.engine.give_slot(self._slot)
