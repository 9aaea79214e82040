"""An engine: one llama.cpp context and its sequences, decoded in one batch after another by the device's thread."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llama_cpp import llama_cpp as C

from rsd_local.config import RoleConfig
from rsd_local.errors import Cancelled, Closed, ContextFull, DecodeFailed, EngineError, NoSlot
from rsd_local.runtime import llama
from rsd_local.runtime.batch import Batch
from rsd_local.runtime.device import Device, shared_device
from rsd_local.runtime.latency import LatencyModel
from rsd_local.runtime.model import Model
from rsd_local.runtime.outputs import Output, Outputs
from rsd_local.runtime.requests import Request
from rsd_local.runtime.rollback import probe
from rsd_local.runtime.schedule import ScheduledRows, schedule
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.sizes import Sizes
from rsd_local.runtime.slots import Slots
from rsd_local.runtime.trials import Rounding, states_beside_logits

_CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}  # ggml_type
_FLASH = {"auto": -1, "off": 0, "on": 1}
_LARGE_VOCABULARY = 32_000  # from here on, draws of several sequences are worth threads of their own
_open_engines: weakref.WeakSet[Engine]
_drawing = ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 1))), "rsd-draw")


class Engine:
    """Decodes what its sequences ask for, all of them together in one batch after another (continuous batching).

    Args:
        model: the weights; shared with other engines where roles share a file.
        config: context size per sequence, threads, cache type, flash attention.
        slots: how many sequences can be open at once.
        name: the role, for messages.
        reuse: whether a new sequence goes on from what closed ones left in the cache.

    Raises:
        EngineError: llama.cpp cannot make such a context.
    """

    def __init__(self, model: Model, config: RoleConfig, slots: int = 1, name: str = "engine", *, reuse: bool = True) -> None:
        self.model, self.name, self.slots, self.config = model, name, slots, config
        self.threads = config.threads or llama.physical_cores()
        self._on_gpu = llama.supports_gpu() and config.layers_on_gpu != 0
        sizes = Sizes.of(config, slots, model.trained_context, on_gpu=self._on_gpu)
        self.context, self.chunk, self._outputs = sizes.context, sizes.chunk, sizes.outputs
        self.device = self._choose_device()
        self._context = self._make_context(sizes)
        self._memory = C.llama_get_memory(self._context)
        self.active: list[Request[Any]] = []  # the device's thread alone changes it
        self.passed_over = 0  # batches of other engines since the last own one, while requests wait
        self.latency = LatencyModel()
        self.gives_states = True  # until ``probe_states`` finds otherwise
        self._alone: deque[Request[Any]] = deque()  # of a batch that failed: each is tried by itself
        self._hidden_only = False  # in turns, so that neither prompts nor hidden states wait for the other for ever
        # One thread computes by itself, and others may have its core meanwhile: that is no part of a batch's time.
        self._clock = time.thread_time if self.threads == 1 and not self._on_gpu else time.perf_counter
        self._opened, self._closing, self._freed = 0, False, threading.Event()
        self._cause: BaseException | None = None  # why the device's thread died, if it did
        self.device.attach(self)
        try:
            self._rollback = self.device.call(lambda: probe(self._context))
        except BaseException:
            self.device.call(self._free)
            raise
        self._slots = Slots(self._rollback, slots, reuse=reuse)
        self._batch, self._read = Batch(sizes.rows), Outputs(self._context, model, name)
        self._rounding = Rounding(self._context, self._batch, self._read, model.n_vocab)
        model.adopt(self)
        _open_engines.add(self)

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closing

    @property
    def can_cut(self) -> bool:
        """Whether any token can be forgotten again, so that hints can be evaluated ahead."""
        return not self._rollback.needs_marks

    # What callers do, from any thread.

    def sequence(self, tokens: list[int] | None = None) -> Sequence:
        """A sequence that holds some tokens; those of a cached prefix are not evaluated again.

        Raises:
            NoSlot: all slots are taken.
            ContextFull: the tokens do not fit; nothing was opened.
        """
        made = Sequence(self)
        made.append(tokens or [])
        self._open(made, lambda: self._slots.place(made, list(tokens or [])))
        return made

    def fork(self, parent: Sequence) -> Sequence:
        """Another sequence with a sequence's tokens, which shares its cells; see ``Sequence.fork``."""
        made = Sequence(self)
        made.tokens, made.written = list(parent.tokens), bytearray(len(parent.tokens))
        made.marks, made.keep, made.cached_output = list(parent.marks), min(parent.keep, len(parent.tokens)), parent.cached_output
        self._open(made, lambda: self._slots.fork(parent, made))
        return made

    def check_fits(self, size: int) -> None:
        """Fail for a text that cannot fit, before the time is spent to tokenize it.

        Args:
            size: of the text, in bytes.

        Raises:
            ContextFull: even if each token were the longest of the vocabulary, there would be too many.
        """
        if size > self.context * self.model.longest_piece:
            raise ContextFull(
                f"{self.name}: a text of {size:,} bytes does not fit the context of {self.context} tokens",
                hint="shorten the question, or give a larger --ctx-size",
            )

    def submit(self, request: Request[Any]) -> None:
        """Take a request of one of its sequences."""
        with self.device.lock:
            self._check_open()
            request.sequence.request = request
            self.device.order(lambda: self._admit(request))

    def release(self, sequence: Sequence) -> None:
        """Give a sequence's slot back."""
        with self.device.lock:
            if sequence.closed:
                return
            sequence.closed = True
            self._opened -= 1
            if not self._closing and self.device.failure is None:
                self.device.order(lambda: self._retire(sequence))

    def positions(self, sequence: Sequence) -> tuple[int, int]:
        """The first and last position that llama.cpp's cache holds for a sequence, −1 where it is empty."""
        first, last = C.llama_memory_seq_pos_min, C.llama_memory_seq_pos_max
        return self._call(lambda: (first(self._memory, sequence.slot), last(self._memory, sequence.slot)))

    def sync_cache(self, sequence: Sequence) -> None:
        """Carry out a truncation now instead of with the next call, to measure it or to look at the cache."""
        self._call(lambda: self._slots.sync(sequence))

    def probe_states(self) -> bool:
        """Find out whether the model gives hidden states and logits in one pass; for some kinds llama.cpp leaves the logits out.

        To be called before traced generations, with a sequence free. The outcome is kept in ``gives_states``.
        """
        self.gives_states = True
        self.gives_states = states_beside_logits(self)
        return self.gives_states

    def exact_rows(self, sequence: Sequence, most: int) -> int:
        """How many rows of one sequence are rounded like single ones; see ``Sequence.exact_rows``."""

        def find() -> int:
            self._slots.sync(sequence)
            self._slots.step_back(sequence, 0)
            return self._rounding.exact_rows(sequence.slot, most)

        known = self._rounding.known.get(most) if self.can_cut else 1
        return known if known is not None else self._call(find)

    def about(self) -> str:
        """How the engine runs, in one line for people: model, context, threads, device and what was asked for."""
        config, layers = self.config, self.config.layers_on_gpu if self._on_gpu else 0
        split = f" split {config.tensor_split}" if config.tensor_split else ""
        device = f"{'all' if layers < 0 else layers} layers on gpu {config.main_gpu}{split}" if layers else "cpu"
        return (
            f"{self.model.path.name} ({self.model.description}), context {self.context} × {self.slots}, "
            f"{self.threads} threads, {device}, cache {config.cache_type}, flash attention {config.flash_attention}, "
            f"rollback by {type(self._rollback).__name__.lower()}"
        )

    def close(self) -> None:
        """Free the context; what is in flight fails with Closed. A second call waits for the first."""
        if llama.was_forked():
            return  # its memory is the parent's affair
        with self.device.lock:
            first, self._closing = not self._closing, True
        if self._cause is not None:
            self._free()  # its thread is gone
        elif first:
            self.device.call(self._free)
        else:
            self._freed.wait()

    def _check_open(self) -> None:
        llama.check_process()
        if self._closing:
            raise self._gone()

    def _gone(self) -> EngineError:
        """What is said to whoever asks a closed engine."""
        if self._cause is None:
            return Closed(f"{self.name}: the engine was closed")
        error = EngineError(f"{self.name}: the decode thread died: {self._cause!r}")
        error.__cause__ = self._cause
        return error

    def _call(self, work: Callable[[], Any]) -> Any:
        with self.device.lock:
            self._check_open()
        return self.device.call(work)

    def _open(self, sequence: Sequence, place: Callable[[], None]) -> None:
        def command() -> None:
            try:
                place()
            except Exception as error:  # whatever it is, this sequence alone has no place
                sequence.failure = error

        with self.device.lock:
            self._check_open()
            if self._opened == self.slots:
                raise NoSlot(f"{self.name}: all {self.slots} sequences are in use")
            self._opened += 1
            self.device.order(command)

    # What the device's thread does, alone.

    def step(self) -> None:
        """One pass over the weights: collect rows, decode them, hand the outputs to their requests."""
        try:
            self._step()
        except Exception as error:  # of no single request: all of this engine fail, their caches are made anew, others go on
            self._reset(error)

    def abandon(self, error: BaseException) -> None:
        """Fail every request, because the device's thread died."""
        self._closing, self._cause = True, error
        for request in list(self.active):
            self._fail(request, self._gone())

    def _step(self) -> None:
        for request in list(self.active):
            if request.cancelled:
                self._fail(request, Cancelled("cancelled"))
            else:
                self._guarded(request, self._prepare)
        self._hidden_only = not self._hidden_only
        at_marks = self._rollback.needs_marks
        ready = [self._alone.popleft()] if self._alone else self.active
        scheduled = schedule(self._batch, ready, self._outputs, self.context, at_marks=at_marks, hidden_only=self._hidden_only)
        if not scheduled:
            return
        began = self._clock()
        hidden, status = self._decode(scheduled)
        elapsed = self._clock() - began
        if status != 0:
            self._recover(scheduled, status)
            return
        self.latency.note(self._batch.rows, elapsed)
        for share in scheduled:
            self._count(share, elapsed)
        self._process(scheduled, hidden)

    def _prepare(self, request: Request[Any]) -> None:
        """Bring a request's cache in line with its tokens, and serve it from there where that is enough."""
        sequence = request.sequence
        if sequence.failure is not None:
            raise EngineError(f"{self.name}: the sequence has no place in the cache: {sequence.failure}") from sequence.failure
        self._slots.sync(sequence)
        at_start = len(sequence.tokens) == request.start
        if not request.reads_last and sequence.cached >= request.start - 1:
            self._finish(request, request.process_output([]))
        elif request.reads_last and sequence.cached_output is not None and at_start and (sequence.cached_output.hidden is not None or not request.hidden):
            self._finish(request, request.process_output([sequence.cached_output]))
            self._slots.sync(sequence)  # before the row that it goes on with
        elif request.reads_last and at_start and sequence.cached == len(sequence.tokens):
            # The last token's output is gone, so it is evaluated again: nothing else gives its logits.
            self._slots.step_back(sequence, len(sequence.tokens) - 1)
            self._slots.sync(sequence)

    def _decode(self, scheduled: list[ScheduledRows]) -> tuple[bool, int]:
        """Decode the batch; whether its outputs have hidden states, and llama.cpp's status."""
        hidden = any(share.request.hidden and share.outputs for share in scheduled)
        if hidden:
            C.llama_set_embeddings(self._context, True)
        status: int = C.llama_decode(self._context, self._batch.struct)
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
        counters.seconds += elapsed * share.rows / self._batch.rows
        share.request.computing += elapsed
        sequence.cached += share.rows

    def _process(self, scheduled: list[ScheduledRows], hidden: bool) -> None:
        """Give outputs to their requests; draws that take long go side by side."""
        given = [(share.request, [self._read.row(row, hidden=hidden) for row in share.outputs]) for share in scheduled if share.outputs]
        slow = [pair for pair in given if pair[0].takes_time] if self.model.n_vocab >= _LARGE_VOCABULARY else []
        side_by_side = slow[1:]  # the first one goes in this thread
        futures = [_drawing.submit(request.process_output, outputs) for request, outputs in side_by_side]
        beside = {id(request): future for (request, _), future in zip(side_by_side, futures, strict=True)}
        for request, outputs in sorted(given, key=lambda pair: id(pair[0]) in beside):
            future = beside.get(id(request))
            self._guarded(request, lambda r, o=outputs, f=future: self._finish(r, f.result() if f else r.process_output(o)))  # type: ignore[misc]

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
            self._slots.step_back(share.request.sequence, share.request.sequence.cached)
        if len(scheduled) > 1 or (status == 1 and self._slots.evict()):
            self._alone.extend(share.request for share in scheduled if share.request in self.active)
            return
        reason = "no free cells in its cache" if status == 1 else f"llama.cpp's status is {status}"
        kind = ContextFull if status == 1 else DecodeFailed
        self._fail(scheduled[0].request, kind(f"{self.name}: a batch could not be decoded, {reason}"))

    def _reset(self, error: Exception) -> None:
        for request in list(self.active):
            self._fail(request, error)
        self._slots.reset()

    def _admit(self, request: Request[Any]) -> None:
        if self._closing or request.sequence.closed:
            self._end(request, self._gone())
        else:
            self.active.append(request)

    def _fail(self, request: Request[Any], error: BaseException) -> None:
        """End a request with an error; its sequence is as before the call."""
        request.sequence.cut(request.start)
        self._let_go(request)
        self._end(request, error)

    def _finish(self, request: Request[Any], done: bool) -> None:
        if done:
            self._let_go(request)
            request.future.set_result(request.value)

    def _end(self, request: Request[Any], error: BaseException) -> None:
        request.sequence.request = None
        request.future.set_exception(error)

    def _let_go(self, request: Request[Any]) -> None:
        self.active.remove(request)
        if request in self._alone:
            self._alone.remove(request)
        request.sequence.request = None
        request.sequence.counters.waiting_seconds += max(0.0, time.perf_counter() - request.asked - request.computing)

    def _retire(self, sequence: Sequence) -> None:
        try:
            if sequence.request in self.active:
                self._fail(sequence.request, Closed(f"{self.name}: the sequence was closed"))
            self._slots.retire(sequence)
        except Exception:  # the slot is idle all the same, and cleared before it is used again
            llama.log.exception("%s: a sequence was not closed in order", self.name)

    def _free(self) -> None:
        if self._context:
            for request in list(self.active):
                self._fail(request, self._gone())
            C.llama_free(self._context)
            self._context = None
        self.device.detach(self)
        self._freed.set()

    def _choose_device(self) -> Device:
        """One device for the CPU and one for each GPU; an engine of one thread makes no OpenMP team, so it has a thread of its own."""
        if self._on_gpu:
            return shared_device(f"gpu{self.config.main_gpu}")
        return Device(self.name) if self.threads == 1 else shared_device("cpu")

    def _make_context(self, sizes: Sizes) -> Any:
        params = C.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = sizes.cells, self.slots, True
        params.n_batch = params.n_ubatch = sizes.rows
        params.n_outputs_max = sizes.outputs
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = _FLASH[self.config.flash_attention]
        params.type_k = params.type_v = _CACHE_TYPES[self.config.cache_type]
        params.pooling_type, params.swa_full, params.no_perf = 0, True, True
        llama.clear_errors()
        with self.model.in_use() as handle:
            context = C.llama_init_from_model(handle, params)
        if not context:
            raise EngineError(
                f"{self.name}: llama.cpp cannot make a context of {self.context} tokens for {self.slots} sequences: "
                f"{llama.last_errors() or 'no reason given'}",
                hint="a smaller --ctx-size or another cache type",
            )
        return context


_open_engines = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """No thread may decode while the process takes its libraries down."""
    for engine in list(_open_engines):
        engine.close()
