"""A draft or target on a server: a writer over one of its slots.

The server keeps what it has evaluated, token for token, and each request names all tokens from the first on: what is in the cache
stays. The last token of what stands is left for the request that writes, so that nothing is evaluated twice. What was accepted meanwhile is
sent ahead, while the other model writes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from rsd_local.config import Sampling
from rsd_local.errors import ConfigError, ContextFull
from rsd_local.events import CancelToken, Counters, total
from rsd_local.remote.api import Timing, Wanted
from rsd_local.remote.asked import Asked
from rsd_local.remote.engine import RemoteEngine, RemoteLatency
from rsd_local.remote.place import Place
from rsd_local.remote.read_ahead import read_step
from rsd_local.remote.sent_ahead import ended_by
from rsd_local.remote.step import RemoteStep, Written, follow
from rsd_local.remote.transport import Call
from rsd_local.roles import NO_HINT, Abilities, Hint, Pending, Stream
from rsd_local.steps import Reading, Step

if TYPE_CHECKING:
    from rsd_local.segments import Scan

_CANNOT = "leave it away, or choose a model that runs here"


class RemoteWriter:
    """A writer over a server's slot; see ``roles.Writer``.

    Args:
        place: holds the prompt's tokens.
        family: places of all writers that were forked from the same; this one's is added.
        shared: how many tokens, from the first on, mean the same to the other model.
        cancel: ends whatever it writes.
    """

    def __init__(self, place: Place, family: list[Place], shared: int, cancel: CancelToken | None) -> None:
        self._place, self._family, self._shared, self._cancel = place, family, shared, cancel
        self._reading: Asked[Reading] | None = None
        self._read: Step | None = None  # that was read ahead and stands
        self._computed = 0.0  # seconds that the server took for the step that is being written
        family.append(place)

    @classmethod
    def open(cls, engine: RemoteEngine, ask: Callable[[], list[int]], *, shared: int, cancel: CancelToken | None = None) -> Self:
        """A writer at a prompt, which the server begins to evaluate.

        Where the server fails and may be left alone then, the prompt is asked for once the writer needs it.

        Args:
            engine: of the server.
            ask: gives the prompt's tokens.
            shared, cancel: as above.

        Raises:
            ContextFull: they leave no room for an answer.
            RemoteError: the server does not give them.
            Cancelled: the answer was cancelled.
        """

        def prompt() -> list[int]:
            tokens = ask()
            if len(tokens) >= engine.context:
                raise ContextFull(
                    f"{engine.name}: a prompt of {len(tokens)} tokens leaves no room in the server's context of {engine.context}",
                    hint="shorten the question, or start the server with a larger --ctx-size",
                )
            return tokens

        with ended_by(cancel, call := Call()):
            tokens = engine.try_asking(prompt, call)
        place = Place(engine, tokens or [], bytearray(len(tokens or [])), shared, cancel)
        if tokens is None:
            place.note_prompt(prompt)
        else:
            place.counters.opening_tokens = len(tokens)
            place.send_ahead()
        return cls(place, [], shared, cancel)

    @property
    def abilities(self) -> Abilities:
        """What its engine can do."""
        return self._place.engine.abilities

    @property
    def latency(self) -> RemoteLatency:
        """Of its model."""
        return self._place.engine.latency

    @property
    def guesser(self) -> None:
        """None: a server keeps its head to itself."""

    def begin(self) -> None:
        """Start a step here; what was noted is sent ahead."""
        self._wait()
        self._place.begin()

    def start_writing(
        self,
        limit: int,
        until: Scan | None,
        sampling: Sampling,
        stream: Stream,
        hint: Hint = NO_HINT,
        *,
        skip: int = 0,
        reading: Reading | None = None,
    ) -> RemoteStep:
        """Go on writing; see ``roles.Writer``. Hints have no effect, and the server draws, from a seed of the stream."""
        self._wait()
        known = () if reading is None else reading.own[: reading.kept]
        if reading is not None:
            self._place.take_back()
            self._place.counters.kept_tokens += len(known)
            self._place.counters.missed_guesses += len(reading.own) > reading.kept

        def work(call: Call, on_text: Callable[[bytes], None]) -> Step:
            with ended_by(self._cancel, call):
                return self._written(call, on_text, limit, until, sampling, stream, skip, known)

        return RemoteStep(work, self._place.stop)

    def _written(
        self,
        call: Call,
        on_text: Callable[[bytes], None],
        limit: int,
        until: Scan | None,
        sampling: Sampling,
        stream: Stream,
        skip: int,
        known: Sequence[int],
    ) -> Step:
        place, engine, began = self._place, self._place.engine, time.perf_counter()
        late = engine.marks if engine.facts.late else None
        written, done = Written(engine.server, engine.language, until, limit, on_text, late), False
        self._computed = 0.0
        try:
            with place.asking(call), call.covering():
                place.spell(call)
                written.give(known)
                self._requests(call, written, limit, until, sampling, stream, skip)
                step = written.step(written.ended or "context")
                place.join()
                place.wrote(step.tokens, written.flags)
                done = True
                return step
        finally:
            if not done:
                place.stop()
                place.join()
            drawn = len(written.tokens) - written.given
            place.counters.generated_tokens += drawn
            place.counters.discarded_tokens += 0 if done else drawn
            place.counters.waiting_seconds += max(0.0, time.perf_counter() - began - self._computed)

    def _requests(
        self, call: Call, written: Written, limit: int, until: Scan | None, sampling: Sampling, stream: Stream, skip: int
    ) -> None:
        """As many requests as the step takes: a text that may end it need not."""
        place, engine = self._place, self._place.engine
        while written.ended is None:
            done = len(written.tokens)
            tokens = place.tokens + written.tokens
            room = engine.context - len(tokens)
            if room < 1:
                return
            most = min(limit - done, room)
            if until is not None and until.tokens_left is not None:
                most = min(most, until.tokens_left)
            seed = int(stream.generator(skip + done).integers(2**32 - 1))
            stops = None if engine.facts.texts else () if until is None else until.ends  # of a text alone the end is found here
            follow(engine.server, Wanted(tokens, most, stops, sampling, seed, place.slot), written, call, self._took)
            if written.ended is None and (len(written.tokens) >= limit or len(written.tokens) == done):
                written.ended = "length"  # where nothing came, the limit has cut a character

    def _took(self, length: int, timing: Timing) -> None:
        place = self._place
        place.join()  # it was asked before, so its answer is there
        place.engine.latency.note(timing)
        self._computed += timing.seconds
        place.took(min(length, len(place.tokens)), timing, wrote=True)  # what is behind, this step wrote in requests before

    def start_ahead(self, limit: int, until: Scan | None, sampling: Sampling, stream: Stream) -> RemoteStep:
        """Steps that may be taken back yet are not written on a server.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a model on a server does not write ahead of a reward", hint=_CANNOT)

    def end_ahead(self, *, kept: bool) -> None:
        """There is nothing to end."""

    def entropy(self) -> float:
        """A server does not tell it.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a model on a server does not tell how sure it is, which --route-entropy asks", hint=_CANNOT)

    def read_ahead(self, step: Step, draws: tuple[Sampling, Stream] | None = None, *, tokens: bool, state: bool) -> Pending[Reading]:
        """Read a step of the other model; see ``roles.Writer``. A server tells no entropies.

        Raises:
            ConfigError: it is asked for its state, or the server does not say how likely given tokens are.
        """
        if state:
            raise ConfigError("a model on a server does not give its state after a step", hint=_CANNOT)
        if not self.abilities.reads_ahead:
            raise ConfigError("this server does not say how likely a step is that another model wrote", hint=_CANNOT)
        self._wait()
        place, sampling = self._place, draws[0] if draws is not None else None
        place.take_back()
        ends = step.ended == "end" and step.tokens
        place.note(replace(step, tokens=step.tokens[:-1]) if ends else step)

        def work(call: Call) -> Reading:
            with ended_by(self._cancel, call):
                return read_step(place, call, sampling)

        self._read, self._reading = None if ends else step, Asked(work, "rsd-remote-read", place.stop)
        return self._reading

    def _wait(self) -> None:
        """Until nothing is read any more; what was read may change then."""
        if self._reading is not None:
            self._reading.wait()
        self._reading = self._read = None

    def read(self, step: Step) -> None:
        """Begin a step and note one of the other model as it."""
        self.begin()
        self.correct(step)

    def correct(self, step: Step) -> None:
        """Note a step in place of everything since ``begin``."""
        stands = self._read is step
        self._wait()
        if stands:
            return
        self._place.take_back()
        self._place.note(step)

    def forget(self) -> None:
        """Take back everything since ``begin``."""
        self._wait()
        self._place.take_back()

    def pieces(self, tokens: list[int]) -> list[bytes]:
        """The bytes of each token; an end-of-text token has none."""
        language, server = self._place.engine.language, self._place.engine.server
        reader = language.reader() if language.reader is not None else None
        return [reader.piece(token) if reader is not None else server.piece(token).encode() for token in tokens]

    def exact_rows(self, most: int) -> int:
        """How a server's batches are rounded is its own affair."""
        return 0

    def fork(self) -> Self:
        """Another writer that goes on from here; a slot of its own evaluates what stands anew, unless the server has it."""
        self._wait()
        with ended_by(self._cancel, call := Call()):
            return type(self)(self._place.fork(call), self._family, self._shared, self._cancel)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self._wait()
        fork._wait()
        self._place, fork._place = fork._place, self._place

    def settle(self) -> None:
        """Wait until all that is noted is evaluated but for its last token."""
        self._wait()
        self._place.send_ahead()
        self._place.join()

    def counters(self) -> Counters:
        """What was evaluated and written so far, by this one and all that were forked from the same."""
        return total(place.counted() for place in self._family)

    def spent(self) -> float:
        """Seconds that the server computed so far, and that were waited beyond them."""
        return sum(place.counters.seconds + place.counters.waiting_seconds for place in self._family)

    def close(self) -> None:
        """Give the slot back; a step that is being written fails with Closed."""
        self._place.close()
