"""A draft or target that runs here: a writer over a sequence of an engine."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from rsd_local.config import Sampling
from rsd_local.errors import ContextFull
from rsd_local.events import CancelToken, Counters, total
from rsd_local.roles import NO_HINT, Abilities, Hint, Stream
from rsd_local.runtime.engine import Engine
from rsd_local.runtime.grammar import Follower
from rsd_local.runtime.latency import LatencyModel
from rsd_local.runtime.reading import ReadAhead, trace_of
from rsd_local.runtime.requests import Generation, Read
from rsd_local.runtime.sampler import Draws
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.trace import Tracing, surprise
from rsd_local.steps import Reading, Step

if TYPE_CHECKING:
    from rsd_local.runtime.thinking import Reader
    from rsd_local.segments import Scan


class LocalStep:
    """A step that an engine is writing."""

    def __init__(self, generation: Generation, written: queue.SimpleQueue[bytes | None]) -> None:
        self._generation, self._written = generation, written
        generation.future.add_done_callback(lambda _: written.put(None))

    def result(self) -> Step:
        """Wait for the step."""
        return self._generation.future.result()

    def cancel(self) -> None:
        """End it within one batch."""
        self._generation.cancel()

    def texts(self) -> Iterator[bytes]:
        """The bytes of each token as it is written."""
        while (piece := self._written.get()) is not None:
            yield piece


@dataclass(frozen=True, slots=True)
class LocalReading:
    """A step that an engine is reading ahead; of a model that gives no logits beside states, the state alone."""

    request: ReadAhead | Read

    def result(self) -> Reading:
        """Wait for the reading."""
        if isinstance(self.request, ReadAhead):
            return self.request.future.result()
        return Reading(trace_of(None, self.request.future.result()))

    def cancel(self) -> None:
        """End it within one batch."""
        self.request.cancel()


@dataclass(frozen=True, slots=True)
class LocalGuesser:
    """The multi-token head of a writer's model; see ``roles.Guesser``."""

    writer: LocalWriter
    latency: LatencyModel

    def guess(self, most: int, sampling: Sampling, stream: Stream, *, skip: int = 0) -> list[int]:
        """Guess the tokens behind what stands."""
        return self.writer.guess(most, sampling, stream, skip)


class LocalWriter:
    """A writer over a sequence; see ``roles.Writer``.

    Args:
        sequence: holds the prompt's tokens.
        family: sequences of all writers that were forked from the same; this one's is added.
        shared: how many tokens, from the first on, mean the same to the other model.
        tracing: what trace its steps are to carry.
        cancel: ends whatever it writes.
        follower: of the answer's grammar, where it has one.
    """

    def __init__(
        self, sequence: Sequence, family: list[Sequence], shared: int, tracing: Tracing, cancel: CancelToken | None, follower: Follower
    ) -> None:
        self.sequence, self._family, self._follower = sequence, family, follower
        self._shared, self._tracing, self._cancel = shared, tracing, cancel
        self._before = len(sequence)
        self._spelling = sequence.engine.model.spelling
        self._reader = self._spelling.reader()
        self._ahead: tuple[LocalStep, int, Reader, int, int] | None = None  # and what stood before it was begun
        family.append(sequence)

    @classmethod
    def open(
        cls,
        engine: Engine,
        prompt: list[int],
        *,
        shared: int,
        tracing: Tracing = "off",
        cancel: CancelToken | None = None,
        in_thought: bool = False,
    ) -> Self:
        """A writer at a prompt's tokens.

        Args:
            engine: that holds them.
            prompt: the tokens.
            shared, tracing, cancel: as of the class.
            in_thought: whether the answer begins inside a thought that the prompt opened.

        Raises:
            ContextFull: they do not fit, or leave no room for an answer.
            NoSlot: all slots of the engine are taken.
        """
        if len(prompt) >= engine.context:
            raise ContextFull(
                f"{engine.name}: a prompt of {len(prompt)} tokens leaves no room in the context of {engine.context}",
                hint="shorten the question, or give a larger --ctx-size",
            )
        sequence = engine.sequence(prompt)
        sequence.counters.opening_tokens = len(prompt)
        return cls(sequence, [], shared, tracing, cancel, Follower(engine.model, len(prompt), in_thought=in_thought))

    @property
    def abilities(self) -> Abilities:
        """What its engine can do."""
        return self.sequence.engine.abilities

    @property
    def latency(self) -> LatencyModel:
        """Of its engine."""
        return self.sequence.engine.latency

    @property
    def guesser(self) -> LocalGuesser | None:
        """The model's multi-token head, where it has one."""
        head = self.sequence.engine.head
        return None if head is None else LocalGuesser(self, head.latency)

    def guess(self, most: int, sampling: Sampling, stream: Stream, skip: int) -> list[int]:
        """What the head guesses; see ``roles.Guesser``."""
        grammar = self._follower.state(sampling.grammar, self.sequence.tokens) if sampling.grammar else None
        return self.sequence.guess(most, Draws(sampling, stream, skip, grammar))

    def begin(self) -> None:
        """Start a step here: the place that ``forget`` goes back to."""
        self._before = len(self.sequence)
        self._reader = self._spelling.reader()
        self.sequence.mark()

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
    ) -> LocalStep:
        """Go on writing; see ``roles.Writer``. A hint counts up to its first token that the two models do not share."""
        own, kept = (reading.own, reading.kept) if reading is not None else ((), 0)
        if reading is not None:
            self.sequence.truncate(self._before + kept)
        shared = self.sequence.engine.model.n_vocab if hint.own else self._shared
        known = next((place for place, token in enumerate(hint.tokens) if token >= shared), len(hint.tokens))
        written: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        grammar = self._follower.state(sampling.grammar, [*self.sequence.tokens, *own[kept:]]) if sampling.grammar else None
        generation = self.sequence.generate(
            Draws(sampling, stream, skip + len(own), grammar),
            limit,
            until=until,
            hint=replace(hint, tokens=hint.tokens[:known]),
            tracing=self._tracing,
            cancel=self._cancel,
            on_text=written.put,
            reader=self._reader,
            own=own,
            kept=kept,
        )
        return LocalStep(generation, written)

    def start_ahead(self, limit: int, until: Scan | None, sampling: Sampling, stream: Stream) -> LocalStep:
        """Begin a step behind the one written last, which may be taken back yet."""
        counters = self.sequence.counters
        before = self._before, self._reader, counters.generated_tokens, counters.discarded_tokens
        self.begin()
        pending = self.start_writing(limit, until, sampling, stream)
        self._ahead = pending, *before
        return pending

    def end_ahead(self, *, kept: bool) -> None:
        """Say whether the step before the one written ahead was accepted; otherwise take this one back."""
        ahead, self._ahead = self._ahead, None
        if kept or ahead is None:
            return
        pending, before, reader, generated, discarded = ahead
        pending.cancel()
        with suppress(Exception):  # whatever came of it is of no interest any more
            pending.result()
        self.sequence.truncate(self._before)
        self._before, self._reader = before, reader
        counters = self.sequence.counters
        counters.unused_tokens += counters.generated_tokens - generated
        counters.generated_tokens, counters.discarded_tokens = generated, discarded

    def entropy(self) -> float:
        """In nats, of what the next token would be drawn from at temperature 1."""
        read = self.sequence.start_reading(hidden=self._tracing == "states", cancel=self._cancel)
        read.future.result()
        known = self.sequence.cached_output
        assert known is not None
        return surprise(known.logits)[1]

    def read_ahead(self, step: Step, draws: tuple[Sampling, Stream] | None = None, *, tokens: bool, state: bool) -> LocalReading:
        """Evaluate a step of the other model; see ``roles.Writer``."""
        self.sequence.truncate(self._before)
        read = self._tokens(step)
        if read and self.sequence.engine.model.is_end(read[-1]):
            read = read[:-1]
        if state and not self.sequence.engine.gives_states:
            self.sequence.append(read)
            return LocalReading(self.sequence.start_reading(hidden=True, cancel=self._cancel))
        drawn = None if draws is None else Draws(*draws, grammar=self._follower.state(draws[0].grammar, self.sequence.tokens))
        return LocalReading(self.sequence.read_ahead(read, drawn, traced=tokens, state=state, cancel=self._cancel))

    def read(self, step: Step) -> None:
        """Begin a step and note one of the other model as it."""
        self.begin()
        self.correct(step)

    def correct(self, step: Step) -> None:
        """Note a step in place of everything since ``begin``, keeping the cached common prefix."""
        self.sequence.replace(self._before, self._tokens(step))

    def _tokens(self, step: Step) -> list[int]:
        """A step in this model's vocabulary."""
        same = bool(step.tokens) and all(token < self._shared for token in step.tokens)
        return step.tokens if same else self._spelling.tokens(step.raw, thought=step.part == "thought")

    def forget(self) -> None:
        """Take back everything since ``begin``; the cache is as before it."""
        self._reader = self._spelling.reader()
        self.sequence.truncate(self._before)

    def pieces(self, tokens: list[int]) -> list[bytes]:
        """The bytes of each token; an end-of-text token has none."""
        model, reader = self.sequence.engine.model, self._spelling.reader()
        return [b"" if model.is_end(token) else reader.piece(token) for token in tokens]

    def exact_rows(self, most: int) -> int:
        """How many rows of a batch are rounded like single ones; see ``Sequence.exact_rows``."""
        return self.sequence.exact_rows(most)

    def fork(self) -> Self:
        """Another writer that goes on from here and shares the cache."""
        return type(self)(self.sequence.fork(), self._family, self._shared, self._tracing, self._cancel, self._follower.copy())

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self.sequence, fork.sequence = fork.sequence, self.sequence
        self._follower, fork._follower = fork._follower, self._follower

    def settle(self) -> None:
        """Evaluate what is noted but for its last token, so that forks share it."""
        self.sequence.prefill(self._cancel).result()

    def counters(self) -> Counters:
        """What was evaluated and written so far, by this one and all that were forked from the same."""
        return total(sequence.counters for sequence in self._family)

    def spent(self) -> float:
        """Seconds of its batches so far."""
        return sum(sequence.counters.seconds for sequence in self._family)

    def close(self) -> None:
        """Give the cache back; a step that is being written fails with Closed."""
        self.sequence.close()
