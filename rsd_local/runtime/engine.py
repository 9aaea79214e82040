"""An engine: one llama.cpp context, its slots, and the one thread that works it."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from llama_cpp import llama_cpp as C

from rsd_local.config import RoleConfig
from rsd_local.errors import Cancelled, Closed, ContextFull, DecodeFailed, EngineError, NoSlot, RSDError
from rsd_local.runtime import llama
from rsd_local.runtime.batch import Batch
from rsd_local.runtime.model import Model
from rsd_local.runtime.outputs import Held, Outputs
from rsd_local.runtime.pace import Pace
from rsd_local.runtime.requests import Request
from rsd_local.runtime.rollback import probe
from rsd_local.runtime.schedule import Share, fill
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.sizes import Sizes
from rsd_local.runtime.trials import Rounding, states_beside_logits

_CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}  # ggml_type
_FLASH = {"auto": -1, "off": 0, "on": 1}
T = TypeVar("T")
_open_engines: weakref.WeakSet[Engine]


class Engine:
    """Decodes what its sequences ask for, all of them together in one batch after another (continuous batching).

    Args:
        model: the weights; shared with other engines where roles share a file.
        config: context size per sequence, threads, cache type, flash attention.
        slots: how many sequences can be open at once.
        name: the role, for messages.

    Raises:
        EngineError: llama.cpp cannot make such a context.
    """

    def __init__(self, model: Model, config: RoleConfig, slots: int = 1, name: str = "engine") -> None:
        self.model, self.name, self.slots, self.config = model, name, slots, config
        self.threads = config.threads or llama.physical_cores()
        self.gpu_build = llama.supports_gpu()
        sizes = Sizes.of(config, slots, model.trained_context, on_gpu=self.gpu_build and config.layers_on_gpu != 0)
        self.context, self.chunk, self._outputs = sizes.context, sizes.chunk, sizes.outputs
        params = C.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = sizes.cells, slots, True
        params.n_batch = params.n_ubatch = sizes.rows
        params.n_outputs_max = sizes.outputs
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = _FLASH[config.flash_attention]
        params.type_k = params.type_v = _CACHE_TYPES[config.cache_type]
        params.pooling_type, params.swa_full, params.no_perf = 0, True, True
        llama.clear_errors()
        self._context = C.llama_init_from_model(model.handle, params)
        if not self._context:
            raise EngineError(
                f"{name}: llama.cpp cannot make a context of {self.context} tokens for {slots} sequences: "
                f"{llama.last_errors() or 'no reason given'}",
                hint="a smaller --ctx-size or another cache type",
            )
        self._memory = C.llama_get_memory(self._context)
        self._rollback = probe(self._context)
        self._batch, self._read = Batch(sizes.rows), Outputs(self._context, model, name)
        self._rounding = Rounding(self._context, self._batch, self._read, model.n_vocab)
        self._bare = False  # in turns, so that neither prompts nor hidden states wait for the other for ever
        # One thread computes by itself, and there may be more of them than cores: its waits for one are no part of a batch's time.
        self._clock = time.thread_time if self.threads == 1 and not (self.gpu_build and config.layers_on_gpu) else time.perf_counter
        self.pace = Pace()
        self.gives_states = True  # until ``probe_states`` finds otherwise
        self._free = list(range(slots))
        self.questions = 0  # that have a sequence: those that were opened, with all that was forked from them
        self._active: list[Request[Any]] = []
        self._orders: list[Callable[[], None]] = []
        self._wake = threading.Condition()
        self._closing = False
        model.adopt(self)
        _open_engines.add(self)
        self._worker = threading.Thread(target=self._run, name=f"rsd-{name}", daemon=True)
        self._worker.start()

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closing

    @property
    def can_cut(self) -> bool:
        """Whether any token can be forgotten again, so that guesses can be evaluated ahead."""
        return not self._rollback.needs_marks

    # What callers do, from any thread.

    def sequence(self, parent: Sequence | None = None) -> Sequence:
        """An empty sequence, or one that starts with what ``parent`` holds.

        Raises:
            NoSlot: all slots are taken.
        """
        with self._wake:
            self._check_open()
            if not self._free:
                raise NoSlot(f"{self.name}: all {self.slots} sequences are in use")
            made = Sequence(self, self._free.pop(0))
            if parent is None:
                self.questions += 1
            else:
                made.kin = parent.kin
                self._order(lambda: self._copy(parent, made))
            made.kin.add(made)
            return made

    def submit(self, request: Request[Any]) -> None:
        """Takes a request of one of its sequences."""
        with self._wake:
            self._check_open()
            request.sequence.request = request
            self._order(lambda: self._active.append(request))

    def release(self, sequence: Sequence) -> None:
        """Gives a sequence's slot back."""
        with self._wake:
            if sequence.closed:
                return
            sequence.closed = True
            sequence.kin.remove(sequence)
            self.questions -= not sequence.kin
            if not self._closing:
                self._order(lambda: self._clear(sequence))
                self._free.append(sequence.slot)

    def positions(self, sequence: Sequence) -> tuple[int, int]:
        """The first and last position that llama.cpp's cache holds for a sequence, −1 where it is empty."""
        first, last = C.llama_memory_seq_pos_min, C.llama_memory_seq_pos_max
        return self._ask(lambda: (first(self._memory, sequence.slot), last(self._memory, sequence.slot)))

    def settle(self, sequence: Sequence) -> None:
        """Carries out a truncation now instead of with the next call, to measure it or to look at the cache."""
        self._ask(lambda: self._settle(sequence))

    def probe_states(self) -> bool:
        """Finds out whether the model gives hidden states and logits in one pass; for some kinds llama.cpp leaves the logits out.

        To be called before traced generations, with a sequence free. The outcome is kept in ``gives_states``.
        """
        self.gives_states = True
        self.gives_states = states_beside_logits(self)
        return self.gives_states

    def exact_rows(self, sequence: Sequence, most: int) -> int:
        """See ``Sequence.exact_rows``."""

        def find() -> int:
            if sequence.cached:
                raise EngineError(f"{self.name}: exact rows are tried before anything is evaluated")
            with self.model.lane.turn(self.threads):
                return self._rounding.exact_rows(sequence.slot, most)

        known = self._rounding.known.get(most) if self.can_cut else 1
        return known if known is not None else self._ask(find)

    def about(self) -> str:
        """How the engine runs, in one line for people: model, context, threads, device and what was asked for."""
        config, layers = self.config, self.config.layers_on_gpu if self.gpu_build else 0
        split = f" split {config.tensor_split}" if config.tensor_split else ""
        device = f"{'all' if layers < 0 else layers} layers on gpu {config.main_gpu}{split}" if layers else "cpu"
        return (
            f"{self.model.path.name} ({self.model.description}), context {self.context} × {self.slots}, "
            f"{self.threads} threads, {device}, cache {config.cache_type}, flash attention {config.flash_attention}, "
            f"rollback by {type(self._rollback).__name__.lower()}"
        )

    def close(self) -> None:
        """Ends the worker and frees the context; what is in flight fails with Closed. A second call does nothing."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._worker:
            self._worker.join()

    def _check_open(self) -> None:
        if self._closing:
            raise Closed(f"{self.name}: the engine was closed")

    def _ask(self, work: Callable[[], T]) -> T:
        """Lets the worker do something between two batches, and waits for it."""
        answer: Future[T] = Future()

        def order() -> None:
            try:
                answer.set_result(work())
            except RSDError as error:
                answer.set_exception(error)

        with self._wake:
            self._check_open()
            self._order(order)
        return answer.result()

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._wake.notify()

    # What the worker does, alone.

    def _run(self) -> None:
        try:
            while self._take_orders():
                self._step()
        finally:
            with self._wake:
                self._closing = True
                orders, self._orders = self._orders, []
            for order in orders:
                order()
            for request in list(self._active):
                self._fail(request, Closed(f"{self.name}: the engine was closed"))
            C.llama_free(self._context)
            self._context = None

    def _take_orders(self) -> bool:
        with self._wake:
            while not (self._orders or self._active or self._closing):
                self._wake.wait()
            if self._closing:
                return False
            orders, self._orders = self._orders, []
        for order in orders:
            order()
        return True

    def _step(self) -> None:
        """One pass over the weights: collect rows, decode them, hand the outputs out."""
        for request in [r for r in self._active if r.cancel is not None and r.cancel.cancelled]:
            self._fail(request, Cancelled("cancelled"))
        for request in list(self._active):
            self._settle(request.sequence)
            if not request.reads_last and request.sequence.cached >= request.start - 1:
                self._hand_out(request, [], self._read)
            elif request.reads_last and request.sequence.held and len(request.sequence.tokens) == request.start:
                self._hand_out(request, [0], request.sequence.held)
                if request in self._active:
                    self._settle(request.sequence)  # before the row that it goes on with
        self._bare = not self._bare
        shares = fill(self._batch, self._active, self._outputs, self.context, self._rollback.needs_marks, self._bare)
        if not shares:
            return
        with self.model.lane.turn(self.threads):
            began = self._clock()
            status = self._decode(shares)
            elapsed = self._clock() - began
        if status != 0:
            self._recover(shares, status)
            return
        self.pace.note(self._batch.rows, elapsed)
        for share in shares:
            self._count(share, elapsed)
        for share in shares:
            if share.outputs:
                self._hand_out(share.request, share.outputs, self._read)

    def _decode(self, shares: list[Share]) -> int:
        hidden = any(share.request.hidden and share.outputs for share in shares)
        if hidden:
            C.llama_set_embeddings(self._context, True)
        status: int = C.llama_decode(self._context, self._batch.struct)
        if status == 0 and self.gpu_build:  # on a CPU, a decode returns with its outputs
            C.llama_synchronize(self._context)
        if hidden:
            C.llama_set_embeddings(self._context, False)
        return status

    def _count(self, share: Share, elapsed: float) -> None:
        sequence, counters = share.request.sequence, share.request.sequence.counters
        counters.prompt_tokens += sequence.written.count(0, sequence.cached, sequence.cached + share.rows)
        counters.evaluated_tokens += share.rows
        counters.decode_calls += 1
        counters.seconds += elapsed * share.rows / self._batch.rows
        sequence.cached += share.rows

    def _hand_out(self, request: Request[Any], rows: list[int], outputs: Outputs | Held) -> None:
        try:
            deliver = request.take(rows, outputs, self.model, self.context)
        except RSDError as error:
            self._fail(request, error)
            return
        if deliver is not None:
            self._done(request)
            deliver()

    def _settle(self, sequence: Sequence) -> None:
        """Brings the cache in line with the tokens: forgets what was cut, takes a snapshot where one was asked for."""
        if sequence.keep < sequence.cached:
            sequence.cached = self._rollback.back(sequence.slot, sequence.keep)
        request = sequence.request
        if request is not None and request.reads_last and not sequence.held and sequence.cached == len(sequence.tokens) == request.start:
            # The last token's output is gone, so it is evaluated again: nothing else gives its logits.
            sequence.cached = self._rollback.back(sequence.slot, len(sequence.tokens) - 1)
        sequence.keep = 1 << 62
        if self._rollback.needs_marks and sequence.cached in sequence.marks:
            self._rollback.mark(sequence.slot, sequence.cached)

    def _recover(self, shares: list[Share], status: int) -> None:
        """After a failed decode: puts every cache back; a batch of several is tried again one request at a time."""
        for share in shares:
            share.request.sequence.cached = self._rollback.back(share.request.sequence.slot, share.request.sequence.cached)
        if len(shares) > 1:
            for share in shares:
                everyone, self._active = self._active, [share.request]
                self._step()
                self._active = [request for request in everyone if request is not share.request] + self._active
            return
        reason = "no free cells in its cache" if status == 1 else f"llama.cpp's status is {status}"
        kind = ContextFull if status == 1 else DecodeFailed
        self._fail(shares[0].request, kind(f"{self.name}: a batch could not be decoded, {reason}"))

    def _fail(self, request: Request[Any], error: BaseException) -> None:
        """Ends a request with an error; its sequence is as before the call."""
        request.sequence.cut(request.start)
        self._done(request)
        request.future.set_exception(error)

    def _done(self, request: Request[Any]) -> None:
        self._active.remove(request)
        request.sequence.request = None

    def _copy(self, parent: Sequence, child: Sequence) -> None:
        self._rollback.copy(parent.slot, child.slot)
        child.cached = parent.cached

    def _clear(self, sequence: Sequence) -> None:
        if sequence.request in self._active:
            self._fail(sequence.request, Closed(f"{self.name}: the sequence was closed"))
        self._rollback.clear(sequence.slot)
        sequence.held = None


_open_engines = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A worker must not decode while the process takes its libraries down."""
    for engine in list(_open_engines):
        engine.close()
