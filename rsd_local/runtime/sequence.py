"""One text in an engine: its tokens, and what of them the cache holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence as Tokens
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from rsd_local.errors import Closed, ContextFull, EngineError, SequenceBusy
from rsd_local.events import CancelToken, Counters
from rsd_local.runtime.outputs import Held
from rsd_local.runtime.requests import Generated, Generation, Guess, Prefill, Reading, Request
from rsd_local.runtime.sampler import Drawer, Floats
from rsd_local.runtime.trace import Tracing

if TYPE_CHECKING:
    from rsd_local.runtime.engine import Engine

_NO_GUESS = Guess()


class Sequence:
    """One slot of an engine's cache and the tokens that it stands for. ``Engine.sequence`` makes it.

    One thread at a time may use a sequence; any number of sequences may be used at once. ``append`` and ``truncate``
    only take note: tokens are evaluated, and cells given up, with the next ``generate`` or read.
    """

    def __init__(self, engine: Engine, slot: int) -> None:
        self.tokens: list[int] = []
        self.counters = Counters(parameters=engine.model.n_params)
        self.slot = slot
        self.written = bytearray()  # for each token, 1 where this model wrote it
        self.marks: list[int] = []
        self.cached = 0  # tokens that the cache holds; the worker's own
        self.keep = sys.maxsize  # of those, how many are still true
        self.held: Held | None = None  # the last token's outputs, where they are known
        self.request: Request[object] | None = None
        self.closed = False
        self.kin: set[Sequence] = set()  # those still open of one question: it, what it was forked from, and their forks
        self.engine = engine

    def __len__(self) -> int:
        return len(self.tokens)

    def append(self, tokens: Tokens[int]) -> None:
        """Notes tokens to be evaluated with the next call that needs them.

        Raises:
            ContextFull: they do not fit the context; nothing was noted.
        """
        self._check_idle()
        engine = self.engine
        if len(self.tokens) + len(tokens) > engine.context:
            raise ContextFull(
                f"{engine.name}: {len(self.tokens) + len(tokens)} tokens do not fit the context of {engine.context}",
                hint="shorten the question, or give a larger --ctx-size",
            )
        for token in tokens:
            if not 0 <= token < engine.model.n_vocab:
                raise EngineError(f"{engine.name}: token {token} is outside the vocabulary of {engine.model.n_vocab}")
        if tokens:
            self.held = None
        self.tokens.extend(tokens)
        self.written.extend(bytes(len(tokens)))

    def generate(
        self,
        sampler: Drawer,
        limit: int,
        *,
        until: bytes = b"",
        guess: Guess = _NO_GUESS,
        tracing: Tracing = "off",
        cancel: CancelToken | None = None,
    ) -> Future[Generated]:
        """Writes tokens until the delimiter, an end-of-text token or a limit; they are then part of the sequence.

        Args:
            sampler: draws each token.
            limit: most tokens to write, at least 1.
            until: ends with the token in which these bytes complete, once something other than white space stands
                before them; empty for no delimiter.
            guess: of the tokens to come, and what is known of the text before; not used where tokens cannot be forgotten.
            tracing: what to keep of what each token was drawn from; states only of a model that gives them.
            cancel: leaves the sequence as it was before the call.

        Returns:
            A future; it fails with Cancelled, DecodeFailed or Closed.
        """
        self._check_readable()
        if not self.engine.can_cut:
            guess = replace(guess, tokens=())
        if tracing == "states" and not self.engine.gives_states:
            tracing = "numbers"
        request = Generation(self, sampler, max(limit, 1), until, guess, tracing, cancel)
        self.engine.submit(request)
        return request.future

    def prefill(self, cancel: CancelToken | None = None) -> Future[None]:
        """Evaluates all tokens but the last, so that forks share them."""
        self._check_readable()
        request = Prefill(self, cancel)
        self.engine.submit(request)
        return request.future

    def read_logits(self, cancel: CancelToken | None = None) -> Future[Floats]:
        """The logits (n_vocab,) after the last token, as a copy."""
        return self._read(hidden=False, cancel=cancel)

    def read_hidden(self, cancel: CancelToken | None = None) -> Future[Floats]:
        """The hidden state (n_embd,) of the last token after the final norm, as a copy."""
        return self._read(hidden=True, cancel=cancel)

    def exact_rows(self, most: int) -> int:
        """Up to how many tokens of one sequence can share a batch and get bit for bit the logits that they get one by one.

        Found by trying once for each engine, alone, in this sequence's slot; more rows in the same batch can round them
        otherwise again.

        Args:
            most: the largest number of interest.

        Returns:
            1 where a batch of two is not exact, and of models that cannot cut their cache.

        Raises:
            EngineError: it is not known yet, and the sequence has evaluated something.
        """
        self._check_idle()
        return self.engine.exact_rows(self, most)

    def mark(self) -> None:
        """Says that a later ``truncate`` may come back to this length.

        Without a mark it may all the same; a recurrent model then evaluates again from the last mark before.
        """
        self._check_idle()
        if self.marks[-1:] != [len(self.tokens)]:
            self.marks = [*self.marks[-3:], len(self.tokens)]

    def replace(self, start: int, tokens: Tokens[int]) -> None:
        """Lets these tokens stand from a position on; what the cache holds of them already is kept.

        Raises:
            ContextFull: they do not fit the context; then the sequence ends where they differ from what stood there.
        """
        pairs = enumerate(zip(self.tokens[start:], tokens, strict=False))
        same = next((place for place, pair in pairs if pair[0] != pair[1]), min(len(self.tokens) - start, len(tokens)))
        self.truncate(start + same)
        self.append(tokens[same:])

    def truncate(self, length: int) -> None:
        """Forgets all tokens after the first ``length``."""
        self._check_idle()
        if not 0 <= length <= len(self.tokens):
            raise EngineError(f"{self.engine.name}: cannot cut {len(self.tokens)} tokens to {length}")
        self.counters.discarded_tokens += self.written.count(1, length)
        self.cut(length)

    def cut(self, length: int) -> None:
        """``truncate`` without its checks and its count, also for the worker."""
        if length < len(self.tokens):
            self.held = None
        del self.tokens[length:]
        del self.written[length:]
        self.marks = [mark for mark in self.marks if mark <= length]
        self.keep = min(self.keep, length)

    def fork(self) -> Sequence:
        """Another sequence with the same tokens, which shares the cells of the cache. Its counters start at zero.

        Raises:
            NoSlot: the engine was opened for fewer sequences.
        """
        self._check_idle()
        child = self.engine.sequence(self)
        child.tokens, child.written = list(self.tokens), bytearray(len(self.tokens))
        child.marks, child.keep, child.held = list(self.marks), min(self.keep, len(self.tokens)), self.held
        return child

    def take_counters(self) -> Counters:
        """A copy of the counters so far."""
        return replace(self.counters)

    def close(self) -> None:
        """Gives the slot back; a request in flight fails with Closed. A second call does nothing."""
        self.engine.release(self)

    def _read(self, hidden: bool, cancel: CancelToken | None) -> Future[Floats]:
        self._check_readable()
        request = Reading(self, hidden, cancel)
        self.engine.submit(request)
        return request.future

    def _check_idle(self) -> None:
        if self.closed:
            raise Closed(f"{self.engine.name}: the sequence was closed")
        if self.request is not None:
            raise SequenceBusy(f"{self.engine.name}: the sequence still works at an earlier call")

    def _check_readable(self) -> None:
        self._check_idle()
        if not self.tokens:
            raise EngineError(f"{self.engine.name}: a sequence without tokens has nothing to go on from")
