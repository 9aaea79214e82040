"""One text in an engine: its tokens, and what of them the cache holds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rsd_local.errors import Closed, ContextFull, EngineError, SequenceBusy
from rsd_local.events import CancelToken, Counters
from rsd_local.roles import NO_HINT, Hint
from rsd_local.runtime.outputs import Output
from rsd_local.runtime.reading import ReadAhead, ReadAt
from rsd_local.runtime.requests import Generation, Prefill, Read, Request
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.slots import common_prefix
from rsd_local.runtime.trace import Tracing
from rsd_local.steps import Step

if TYPE_CHECKING:
    from rsd_local.runtime.engine import Engine
    from rsd_local.runtime.thinking import Reader
    from rsd_local.segments import Scan

R = TypeVar("R", bound=Request[Any])
V = TypeVar("V")


class Sequence:
    """One slot of an engine's cache and the tokens that it stands for. ``Engine.sequence`` makes it.

    One thread at a time may use a sequence; any number of sequences may be used at once. ``append`` and ``truncate``
    only take note: tokens are evaluated, and cells given up, with the next ``generate`` or read.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokens: list[int] = []
        self.counters = Counters(parameters=engine.model.active_params)
        self.written = bytearray()  # for each token, 1 where this model wrote it
        self.marks: list[int] = []
        self.request: Request[object] | None = None
        self.closed = False
        # What follows belongs to the device's thread.
        self.slot = -1
        self.cached = 0  # tokens that the cache holds
        self.keep = sys.maxsize  # of those, how many are still true
        self.cached_output: Output | None = None  # the last token's, where it is known
        self.earlier_output: tuple[int, Output] | None = None  # one behind so many tokens, for when it is cut back to them
        self.failure: Exception | None = None  # why it has no slot

    def __len__(self) -> int:
        return len(self.tokens)

    def append(self, tokens: Tokens[int]) -> None:
        """Note tokens to be evaluated with the next call that needs them.

        Raises:
            ContextFull: they do not fit the context; nothing was noted.
        """
        self._check_idle()
        self._check_fits(tokens)
        if tokens:
            self.cached_output = None
        self.tokens.extend(tokens)
        self.written.extend(bytes(len(tokens)))

    def _check_fits(self, tokens: Tokens[int]) -> None:
        engine = self.engine
        if len(self.tokens) + len(tokens) > engine.context:
            raise ContextFull(
                f"{engine.name}: {len(self.tokens) + len(tokens)} tokens do not fit the context of {engine.context}",
                hint="shorten the question, or give a larger --ctx-size",
            )
        for token in tokens:
            if not 0 <= token < engine.model.n_vocab:
                raise EngineError(f"{engine.name}: token {token} is outside the vocabulary of {engine.model.n_vocab}")

    def generate(
        self,
        draws: Draws,
        limit: int,
        *,
        until: Scan | None = None,
        hint: Hint = NO_HINT,
        tracing: Tracing = "off",
        cancel: CancelToken | None = None,
        on_text: Callable[[bytes], None] | None = None,
        reader: Reader | None = None,
        own: Tokens[int] = (),
        kept: int = 0,
    ) -> Generation:
        """Start to write tokens until a step's end, an end-of-text token or a limit; they are then part of the sequence.

        Args:
            draws: draws each token.
            limit: most tokens to write, at least 1.
            until: says where the step ends; None for no delimiter. It is fed in the device's thread.
            hint: a guess of the tokens to come; not used where tokens cannot be forgotten.
            tracing: what to keep of what each token was drawn from; states only of a model that gives them.
            cancel: leaves the sequence as it was before the call.
            on_text: given the bytes of each token in the device's thread, so it must not wait.
            reader: turns tokens into bytes, where the step was begun before; None for a new one.
            own: tokens that a reading ahead has drawn already; ``draws`` goes on behind them.
            kept: how many of them stand at the sequence's end, read and not written.

        Returns:
            The request, whose ``future`` gives the step, or fails with Cancelled, DecodeFailed, Closed, or what a part of it raised.
        """
        self._check_readable()
        if not self.engine.can_cut:
            hint = replace(hint, tokens=hint.tokens[: self.engine.takes_back])
        if tracing == "states" and not self.engine.gives_states:
            tracing = "numbers"
        generation = Generation(self, draws, max(limit, 1), until, hint, tracing, cancel, on_text, reader)
        if own and generation.take_over(own, kept):
            generation.future.set_result(cast(Step, generation.value))
            return generation
        return self._submit(generation)

    def read_ahead(
        self, tokens: Tokens[int], draws: Draws | None, *, traced: bool, state: bool, cancel: CancelToken | None = None
    ) -> ReadAhead:
        """Start to evaluate tokens that another model wrote, with an output before and after each; they are then part of the sequence.

        Args:
            tokens: at least one.
            draws: what would be drawn at each place; None where nobody asks.
            traced: whether the reading has each token's log-probability and entropy.
            state: whether it has the hidden state after the last one.
            cancel: leaves the sequence as it was before the call.

        Returns:
            The request, whose ``future`` gives the reading, or fails as that of ``generate``.

        Raises:
            ContextFull: they do not fit the context; nothing was noted.
        """
        self._check_readable()
        self._check_fits(tokens)
        return self._submit(ReadAhead(self, tokens, draws, traced=traced, state=state, cancel=cancel))

    def guess(self, most: int, draws: Draws) -> list[int]:
        """What the model's multi-token head guesses to come next; see ``Engine.guess``."""
        self._check_readable()
        return self.engine.guess(self, most, draws)

    def prefill(self, cancel: CancelToken | None = None) -> Future[None]:
        """Evaluate all tokens but the last, so that forks share them."""
        self._check_readable()
        return self._submit(Prefill(self, cancel)).future

    def read_logits(self, cancel: CancelToken | None = None) -> Future[Floats]:
        """The logits (n_vocab,) after the last token, as a copy."""
        return self.start_reading(hidden=False, cancel=cancel).future

    def read_hidden(self, cancel: CancelToken | None = None) -> Future[Floats]:
        """The hidden state (n_embd,) of the last token after the final norm, as a copy."""
        return self.start_reading(hidden=True, cancel=cancel).future

    def start_reading(self, *, hidden: bool, cancel: CancelToken | None = None) -> Read:
        """Start to read the hidden state or the logits of the last token; ``cancel`` of what is returned ends it."""
        self._check_readable()
        return self._submit(Read(self, hidden, cancel))

    def read_at(self, positions: Tokens[int], *, hidden: bool, take: Callable[[Floats], V], cancel: CancelToken | None = None) -> ReadAt[V]:
        """Start to read hidden states or logits at several tokens, in one pass over what is not evaluated yet.

        Args:
            positions: of the tokens, ascending; what the cache holds from the first of them on is evaluated again.
            hidden: whether states (n_embd,) are read, otherwise logits (n_vocab,).
            take: makes of a row what is kept, such as ``np.copy``: the row itself is overwritten by the next batch. Called in the
                device's thread, so it must not wait.
            cancel: leaves the sequence as it was before the call.

        Returns:
            The request, whose ``future`` gives what was taken at each position.

        Raises:
            EngineError: a position is outside the sequence, or they do not ascend.
        """
        self._check_readable()
        if not positions or positions[0] < 0 or positions[-1] >= len(self.tokens) or any(a >= b for a, b in pairwise(positions)):
            raise EngineError(f"{self.engine.name}: {list(positions)} are no ascending positions of {len(self.tokens)} tokens")
        return self._submit(ReadAt(self, positions, hidden, take, cancel))

    def exact_rows(self, most: int) -> int:
        """Up to how many tokens of one sequence can share a batch and get bit for bit the logits that they get one by one.

        Found by trying once for each engine, alone, in this sequence's slot, which is emptied for it; more rows in the same
        batch can round them otherwise again.

        Args:
            most: the largest number of interest.

        Returns:
            1 where a batch of two is not exact, and of models that cannot cut their cache.
        """
        self._check_idle()
        return self.engine.exact_rows(self, most)

    def mark(self) -> None:
        """Mark this length as a rollback point.

        Without a mark it may all the same; a recurrent model then evaluates again from the last mark before.
        """
        self._check_idle()
        if self.marks[-1:] != [len(self.tokens)]:
            self.marks = [*self.marks[-3:], len(self.tokens)]

    def replace(self, start: int, tokens: Tokens[int]) -> None:
        """Replace everything from ``start`` on with ``tokens``, keeping the cached common prefix.

        Raises:
            ContextFull: they do not fit the context; then the sequence ends where they differ from what stood there.
        """
        same = common_prefix(self.tokens[start:], list(tokens))
        self.truncate(start + same)
        self.append(tokens[same:])

    def truncate(self, length: int) -> None:
        """Forget all tokens after the first ``length``."""
        self._check_idle()
        if not 0 <= length <= len(self.tokens):
            raise EngineError(f"{self.engine.name}: cannot cut {len(self.tokens)} tokens to {length}")
        self.cut(length)

    def cut(self, length: int) -> None:
        """``truncate`` without its checks, also for the device's thread."""
        self.counters.discarded_tokens += self.written.count(1, length)
        place, output = self.earlier_output or (-1, None)
        if length < len(self.tokens):
            self.cached_output = output if place == length else None
        if place > length:
            self.earlier_output = None
        self.keep = min(self.keep, length)  # first: the device's thread may look at the tokens meanwhile, see Slot.cached
        del self.tokens[length:]
        del self.written[length:]
        self.marks = [mark for mark in self.marks if mark <= length]

    def fork(self) -> Sequence:
        """Another sequence with the same tokens, which shares the cells of the cache. Its counters start at zero.

        Raises:
            NoSlot: the engine was opened for fewer sequences.
        """
        self._check_idle()
        return self.engine.fork(self)

    def take_counters(self) -> Counters:
        """A copy of the counters so far."""
        return replace(self.counters)

    def close(self) -> None:
        """Give the slot back; a request in flight fails with Closed. A second call does nothing."""
        self.engine.release(self)

    def _submit(self, request: R) -> R:
        self.engine.submit(request)
        return request

    def _check_idle(self) -> None:
        if self.closed:
            raise Closed(f"{self.engine.name}: the sequence was closed")
        if self.failure is not None:
            raise EngineError(f"{self.engine.name}: the sequence has no place in the cache: {self.failure}") from self.failure
        if self.request is not None:
            raise SequenceBusy(f"{self.engine.name}: the sequence still works at an earlier call")

    def _check_readable(self) -> None:
        self._check_idle()
        if not self.tokens:
            raise EngineError(f"{self.engine.name}: a sequence without tokens has nothing to go on from")
