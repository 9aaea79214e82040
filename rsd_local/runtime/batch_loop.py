"""What the device's thread does for one engine: one batch after another, with rows of all requests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from llama_cpp import llama_cpp as C

from rsd_local.errors import Cancelled, Closed, ContextFull, DecodeFailed, EngineError
from rsd_local.runtime import llama
from rsd_local.runtime.batch import Batch
from rsd_local.runtime.latency import LatencyModel
from rsd_local.runtime.model import Model
from rsd_local.runtime.mtp import MtpHead
from rsd_local.runtime.outputs import Outputs
from rsd_local.runtime.requests import Request
from rsd_local.runtime.rollback import Rollback
from rsd_local.runtime.schedule import ScheduledRows, schedule
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.sizes import Sizes
from rsd_local.runtime.slots import Slots


class BatchLoop:
    """Decodes requests of one context. For the device's thread only.

    Args:
        name: of the engine, for messages.
        context: llama.cpp's.
        model: its weights.
        sizes: of context and batches.
        slots: of the context's cache.
        rollback: of the slots.
        on_gpu: whether a decode returns before it is done.
        clock: that batches are timed by.
        head: the model's multi-token head, which goes with the context.
    """

    def __init__(
        self, name: str, context: Any, model: Model, sizes: Sizes, slots: Slots, rollback: Rollback, *, on_gpu: bool,
        clock: Callable[[], float], head: MtpHead | None = None,
    ) -> None:  # fmt: skip
        self._name, self._context, self._sizes, self._on_gpu, self._clock = name, context, sizes, on_gpu, clock
        self.slots, self._rollback, self._head = slots, rollback, head
        self.batch, self.outputs = Batch(sizes.rows), Outputs(context, model, name)
        self.asked: set[Request[Any]] = set()  # all that somebody waits for, whether it has come here or not
        self.active: list[Request[Any]] = []
        self.passed_over = 0  # batches of other engines since the last own one, while requests wait
        self.latency = LatencyModel()
        self.gives_both = False  # logits beside hidden states in one batch; until it is known that the model does
        self.gone: Callable[[], EngineError] | None = None  # makes what is said to whoever asks, once the engine was closed
        self._alone: deque[Request[Any]] = deque()  # of a batch that failed: each is tried by itself
        self._hidden_only = False  # in turns, so that neither prompts nor hidden states wait for the other for ever

    def step(self) -> None:
        """One pass over the weights: collect rows, decode them, hand the outputs to their requests."""
        try:
            self._step()
        except Exception as error:  # of no single request: all of this engine fail, their caches are made anew, others go on
            self._reset(error)

    def close(self, gone: Callable[[], EngineError]) -> None:
        """Take nothing more; what is in flight fails with what ``gone`` makes, and so does whoever asks. A second call does nothing."""
        if self.gone is None:
            self.gone = gone
            for request in list(self.asked):
                self._fail(request, gone())

    def abandon(self, error: BaseException) -> None:
        """Close it, because the device's thread died."""

        def gone() -> EngineError:
            made = EngineError(f"{self._name}: the decode thread died: {error!r}")
            made.__cause__ = error
            return made

        self.close(gone)

    def admit(self, request: Request[Any]) -> None:
        """Take a request."""
        if self.gone is None and not request.sequence.closed:
            self.active.append(request)
        else:
            self._fail(request, self.gone() if self.gone else Closed(f"{self._name}: the sequence was closed"))

    def retire(self, sequence: Sequence) -> None:
        """Take a closed sequence's slot back."""
        try:
            if sequence.request in self.active:
                self._fail(sequence.request, Closed(f"{self._name}: the sequence was closed"))
            self.slots.retire(sequence)
        except Exception:  # the slot is idle all the same, and cleared before it is used again
            llama.log.exception("%s: a sequence was not closed in order", self._name)

    def _step(self) -> None:
        for request in list(self.active):
            if request.cancelled:
                self._fail(request, Cancelled("cancelled"))
            else:
                self._guarded(request, self._prepare)
        self._hidden_only = not self._hidden_only
        at_marks = self._rollback.needs_marks
        ready = [self._alone.popleft()] if self._alone else self.active
        scheduled = schedule(
            self.batch,
            ready,
            self._sizes.outputs,
            self._sizes.context,
            at_marks=at_marks,
            hidden_only=self._hidden_only,
            both=self.gives_both,
        )
        if not scheduled:
            return
        began = self._clock()
        hidden, status = self._decode(scheduled)
        elapsed = self._clock() - began
        if status != 0:
            self._recover(scheduled, status)
            return
        self.latency.note(self.batch.rows, elapsed, len(scheduled))
        row = 0
        for share in scheduled:
            if self._head is not None:
                self._head.note(share.request.sequence.slot, share.request.sequence.cached, row, share.rows)
            self._count(share, elapsed)
            row += share.rows
        if self._rollback.needs_marks:
            self._rollback.evaluated({share.request.sequence.slot: share.rows for share in scheduled})
        self._process(scheduled, hidden)

    def _prepare(self, request: Request[Any]) -> None:
        """Bring a request's cache in line with its tokens, and serve it from there where that is enough."""
        sequence = request.sequence
        if sequence.failure is not None:
            raise EngineError(f"{self._name}: the sequence has no place in the cache: {sequence.failure}") from sequence.failure
        self.slots.sync(sequence)
        if request.positions:
            if sequence.cached > request.positions[0]:
                self.slots.step_back(sequence, request.positions[0])
                self.slots.sync(sequence)
            return
        if not request.reads_last:
            if sequence.cached >= request.start - 1:
                self._finish(request, request.process_output([]))
            return
        if sequence.cached < len(sequence.tokens):
            return
        known = sequence.cached_output
        if known is not None and request.accepts(known):
            self._finish(request, request.process_output([known]))
            self.slots.sync(sequence)  # before the row that it goes on with
        else:
            # The last token's output is gone, so it is evaluated again: nothing else gives its logits.
            self.slots.step_back(sequence, len(sequence.tokens) - 1)
            self.slots.sync(sequence)

    def _decode(self, scheduled: list[ScheduledRows]) -> tuple[bool, int]:
        """Decode the batch; whether its outputs have hidden states, and llama.cpp's status."""
        hidden = any(share.request.hidden and share.outputs for share in scheduled)
        if hidden:
            C.llama_set_embeddings(self._context, True)
        status: int = C.llama_decode(self._context, self.batch.struct)
        if status == 0 and self._on_gpu:  # on a CPU, a decode returns with its outputs
            C.llama_synchronize(self._context)
        if hidden:
            C.llama_set_embeddings(self._context, False)
        return hidden, status

    def _count(self, share: ScheduledRows, elapsed: float) -> None:
        sequence, counters = share.request.sequence, share.request.sequence.counters
        counters.prompt_tokens += sequence.written.count(0, sequence.cached, sequence.cached + share.rows)
        counters.evaluated_tokens += share.rows
        counters.decode_calls += 1
        counters.seconds += elapsed * share.rows / self.batch.rows
        share.request.computing += elapsed
        sequence.cached += share.rows

    def _process(self, scheduled: list[ScheduledRows], hidden: bool) -> None:
        """Give outputs to their requests."""
        for request, _, rows in scheduled:
            if rows:
                self._guarded(request, lambda one, rows=rows: self._hand_over(one, rows, hidden))  # type: ignore[misc]

    def _hand_over(self, request: Request[Any], rows: list[int], hidden: bool) -> None:
        done = request.process_output([self.outputs.row(row, hidden=hidden) for row in rows])
        if self._rollback.needs_marks and len(rows) > 1:
            self.slots.sync(request.sequence)  # wrong guesses: while the states before them are there
        self._finish(request, done)

    def _guarded(self, request: Request[Any], work: Callable[[Request[Any]], None]) -> None:
        """Do something for a request; whatever goes wrong with it is its own affair."""
        try:
            work(request)
        except Exception as error:  # a sampler's, a callback's, llama.cpp's: this request fails with it, and no other
            if request in self.active:
                self._fail(request, error)

    def _recover(self, scheduled: list[ScheduledRows], status: int) -> None:
        """After a failed decode: put every cache back, then try each request by itself, and say why the last one cannot go on."""
        for share in scheduled:
            self.slots.step_back(share.request.sequence, share.request.sequence.cached)
        if len(scheduled) > 1 or (status == 1 and self.slots.evict()):
            self._alone.extend(share.request for share in scheduled if share.request in self.active)
            return
        reason = "no free cells in its cache" if status == 1 else f"llama.cpp's status is {status}"
        kind = ContextFull if status == 1 else DecodeFailed
        self._fail(scheduled[0].request, kind(f"{self._name}: a batch could not be decoded, {reason}"))

    def _reset(self, error: Exception) -> None:
        for request in list(self.active):
            self._fail(request, error)
        self.slots.reset()

    def _fail(self, request: Request[Any], error: BaseException) -> None:
        """End a request with an error; its sequence is as before the call."""
        request.sequence.cut(request.start)
        self._let_go(request)
        request.future.set_exception(error)

    def _finish(self, request: Request[Any], done: bool) -> None:
        if done:
            self._let_go(request)
            request.future.set_result(request.value)

    def _let_go(self, request: Request[Any]) -> None:
        self.asked.discard(request)
        for held in (self.active, self._alone):
            if request in held:
                held.remove(request)
        request.sequence.request = None
        request.sequence.counters.waiting_seconds += max(0.0, time.perf_counter() - request.asked - request.computing)
