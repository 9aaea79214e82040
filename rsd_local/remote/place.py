"""A text on a server: what stands in it, what of that is in the server's cache, and what is being sent ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rsd_local.errors import Cancelled, Closed, ConfigError, RemoteError, RSDError, Unreachable
from rsd_local.events import Counters
from rsd_local.remote.api import Likelihood, ReadingServer, Timing
from rsd_local.remote.engine import RemoteEngine
from rsd_local.remote.transport import Call
from rsd_local.remote.vocabulary import step_tokens
from rsd_local.steps import Step

_PATIENCE = 2.0  # seconds that counters wait for what is on its way


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    """Where a step begins, among steps whose tokens are not known yet."""


class Place:
    """A text on a server. One thread uses it; what is sent ahead has a thread of its own, which ``join`` waits for.

    Args:
        engine: of the server.
        tokens: that stand, from the prompt's first one on.
        written: of each, whether this model wrote it.
        shared: how many tokens, from the first on, mean the same to the other model.

    Attributes:
        counters: of all that was done here.
        slot: of the server.
    """

    def __init__(self, engine: RemoteEngine, tokens: list[int], written: bytearray, shared: int) -> None:
        self.engine, self.tokens, self.written, self._shared = engine, tokens, written, shared
        self.slot = engine.take_slot()
        self.counters = Counters(parameters=engine.parameters)
        self._noted: list[Step | _Mark] = []  # behind the tokens
        self._base: int | None = len(tokens)  # where the step begins; None where a mark says it
        self._touched = False  # whether anything was noted or written since
        self._cached = 0  # tokens that are in the server's cache, as far as is known
        self._seen = self._seen_before = 0  # tokens that the server has read, as it counts them, now and where the step begins
        self._opened = False
        self._ahead: _Ahead | None = None
        self._calls: set[Call] = set()
        self._lock = threading.RLock()
        self._closed = False

    def begin(self) -> None:
        """A step begins here; what stands is sent ahead."""
        with self._lock:
            self._noted = [one for one in self._noted if isinstance(one, Step)]
            self._touched, self._seen_before = False, self._seen
            if self._noted or self._busy:
                self._base = None
                self._noted.append(_Mark())
            else:
                self._base = len(self.tokens)
        self.send_ahead()

    def note(self, step: Step) -> None:
        """A step of the other model comes behind what stands; it is spelled later."""
        with self._lock:
            if step.raw or step.tokens:
                self._noted.append(step)
                self._touched = True

    def take_back(self) -> None:
        """What came since the step began is gone."""
        if not self._touched:
            return
        with self._lock:
            self._touched = False
            mark = next((place for place, one in enumerate(self._noted) if isinstance(one, _Mark)), None)
            if mark is not None:
                del self._noted[mark + 1 :]
                return
        self.join()
        with self._lock:
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
            with self._lock:
                if not self._noted:
                    return
                first = self._noted[0]
                if isinstance(first, _Mark):
                    self._base = len(self.tokens)
                    del self._noted[0]
                    continue
            same = bool(first.tokens) and all(token < self._shared for token in first.tokens)
            tokens = list(first.tokens) if same else step_tokens(self.engine.server, first.raw, self.engine.marks, call)
            with self._lock:
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
        with self._lock:
            if self.waits and not self._busy and not self._closed:
                self._ahead = _Ahead(self)

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
        with self._lock:
            start, tokens = self._base, list(self.tokens)
        assert start is not None
        if not tokens[start:]:
            return [], Likelihood((), (), Timing(0, 0, 0, 0.0, 0.0))
        found = self.reader.likelihood(tokens, start, call)
        self.took(len(tokens), found.timing, wrote=False)
        self._cached = len(tokens)
        return tokens[start:], found

    @property
    def reader(self) -> ReadingServer:
        """The server, where it says how likely given tokens are.

        Raises:
            ConfigError: it does not.
        """
        server = self.engine.server
        if not isinstance(server, ReadingServer):
            raise ConfigError(
                f"{self.engine.name}: {self.engine.facts.api} does not say how likely a step is that another one wrote",
                hint="choose another --reward-kind, or a model that runs here",
            )
        return server

    def rests(self, ahead: _Ahead) -> bool:
        """Whether there is nothing more to send ahead; then it is done with."""
        with self._lock:
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
        with self._lock:
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
            self.engine.check_up()
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
        with self._lock:  # what was sent ahead may end at the same time
            self.counters.rounds += traffic.rounds
            self.counters.sent_bytes += traffic.sent
            self.counters.received_bytes += traffic.received
            self._calls.discard(call)

    def counted(self) -> Counters:
        """The counters, with what is on its way where that comes soon."""
        self.join(_PATIENCE)
        return self.counters

    def fork(self) -> Place:
        """Another one with the same text, in a slot of its own."""
        self.join()
        call = Call()
        try:
            self.spell(call)
        finally:
            self.ended(call)
        made = Place(self.engine, list(self.tokens), bytearray(self.written), self._shared)
        made._seen = self._seen if self.engine.facts.slots == 0 else 0  # a cache without slots is everybody's
        return made

    def close(self) -> None:
        """End what goes on, and give the slot back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        self.engine.give_slot(self.slot)


class _Ahead:
    """Tokens that are being evaluated while nobody waits for them; where that fails, the next request evaluates them itself."""

    def __init__(self, place: Place) -> None:
        self._place, self._call, self.done, self.enough = place, Call(), False, False
        self.lost: Unreachable | None = None
        self.out = threading.Event()  # what is to be evaluated is on its way, and the place's texts are not touched any more
        self._thread = threading.Thread(target=self._run, name="rsd-remote-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        place, call = self._place, self._call
        try:
            place.started(call)
            place.engine.check_up()
            while not place.rests(self):
                place.spell(call)
                call.when_sent = self.out.set
                place.evaluate(call)
                call.when_sent = None
        except RemoteError as error:
            self.lost = error if isinstance(error, Unreachable) else None
            place.engine.note_failure(error)
        except RSDError:
            pass  # a full context, or the end of all: the request that writes meets it too
        finally:
            place.ended(call)
            self.done = True
            self.out.set()

    def wait_out(self) -> None:
        """Wait until what is being sent is out; nothing further is."""
        with self._place._lock:  # no new round begins behind this
            self.enough = True
        self.out.wait()

    def join(self, seconds: float | None) -> None:
        """Wait for what is on its way; nothing further is sent."""
        self.enough = True
        self._thread.join(seconds)

    def cancel(self) -> None:
        """End it."""
        self.enough = True
        self._call.cancel()
