"""An engine: one llama.cpp context and its sequences, decoded in one batch after another by the device's thread."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from llama_cpp import llama_cpp as C

from rsd_local import machine
from rsd_local.config import RoleConfig
from rsd_local.errors import Closed, ContextFull, NoSlot
from rsd_local.roles import Abilities
from rsd_local.runtime import llama
from rsd_local.runtime.batch_loop import BatchLoop
from rsd_local.runtime.contexts import make_contexts
from rsd_local.runtime.device import Device, shared_device
from rsd_local.runtime.latency import LatencyModel
from rsd_local.runtime.model import Model
from rsd_local.runtime.mtp import MtpHead, RollbackWithHead
from rsd_local.runtime.requests import Request
from rsd_local.runtime.rollback import MOST_SHARING, Rollback, kept_states, probe, way_back
from rsd_local.runtime.sampler import Draws
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.sizes import Sizes
from rsd_local.runtime.slots import Slots
from rsd_local.runtime.trials import Rounding, states_beside_logits

_open_engines: weakref.WeakSet[Engine]


class Engine:
    """Decodes what its sequences ask for, all of them together in one batch after another (continuous batching).

    Args:
        model: the weights; shared with other engines where roles share a file.
        config: context size per sequence, threads, cache type, flash attention, LoRA adapter.
        slots: how many sequences can be open at once.
        name: the role, for messages.
        reuse: whether a new sequence goes on from what closed ones left in the cache.
        reads_states: whether hidden states are read at many places of a text at once (``Sequence.read_at``): the buffer for outputs
            is then larger, and batches too.
        shares_prefixes: whether sequences may begin with the same tokens; otherwise each has a part of the cache for itself, so that none
            looks at cells of others.
        mtp: whether the model's multi-token head is opened too, where it was loaded (``Model.has_mtp``).

    Raises:
        EngineError: llama.cpp cannot make such a context.
        ModelNotFound, BadAdapter: there is no such adapter, or it is not one for the model.
    """

    def __init__(
        self, model: Model, config: RoleConfig, slots: int = 1, name: str = "engine", *, reuse: bool = True, reads_states: bool = False,
        shares_prefixes: bool = True, mtp: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.name, self.slots, self.config = model, name, slots, config
        self.threads = config.threads or machine.threads()
        self._on_gpu = llama.supports_gpu() and config.layers_on_gpu != 0
        sizes = Sizes.of(config, slots, model.trained_context, on_gpu=self._on_gpu, reads_states=reads_states)
        self.context, self.chunk = sizes.context, sizes.chunk
        # In a cache of one piece llama.cpp writes over what another sequence's window has left behind, but a rollback needs it.
        self.shares_cells = slots > 1 and shares_prefixes and model.sliding_window == 0
        self.device = self._choose_device()
        self.head: MtpHead | None = None  # the model's multi-token head
        self._context, self._head_context = make_contexts(
            model, config, sizes, name, threads=self.threads, unified=self.shares_cells, mtp=mtp and model.has_mtp
        )
        self._memory = C.llama_get_memory(self._context)
        self.gives_states = True  # until ``probe_states`` finds otherwise
        self._opened, self._closing, self._freed = 0, False, threading.Event()
        # One thread computes by itself, and others may have its core meanwhile: that is no part of a batch's time.
        clock = time.thread_time if self.threads == 1 and not self._on_gpu else time.perf_counter
        self.device.attach()
        try:
            if model.can_cut is None:
                model.can_cut = self.device.call(lambda: probe(self._context))
            self._rollback, self._kept_states = way_back(self._context, model.can_cut), kept_states(self._context)
            if self._head_context and (self.can_cut or self.takes_back):
                self._rollback = self._with_head(sizes, clock)
        except BaseException:
            self.device.call(self._free)
            self.device.detach(None)
            raise
        self._slots = Slots(self._rollback, slots, reuse=reuse, shared=self.shares_cells)
        self.loop = BatchLoop(
            name, self._context, model, sizes, self._slots, self._rollback, on_gpu=self._on_gpu, clock=clock, head=self.head
        )
        self.device.serve(self.loop)
        self._rounding = Rounding(self._context, self.loop.batch, self.loop.outputs, model.n_vocab)
        model.adopt(self)
        _open_engines.add(self)

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closing

    @property
    def latency(self) -> LatencyModel:
        """How long its batches took."""
        return self.loop.latency

    @property
    def gives_both(self) -> bool:
        """Whether it is known that logits stand beside hidden states (``probe_states``)."""
        return self.loop.gives_both

    @property
    def devices(self) -> frozenset[str]:
        """What it computes on: ``cpu``, ``gpu``, or both."""
        if not self._on_gpu:
            return frozenset({"cpu"})
        with self.model.in_use() as handle:
            layers = C.llama_model_n_layer(handle) + 1  # the head counts as one
        return frozenset({"gpu"} if not 0 <= self.config.layers_on_gpu < layers else {"gpu", "cpu"})

    @property
    def takes_back(self) -> int:
        """How many tokens of its last batch a sequence can forget where ``can_cut`` is false."""
        return self._kept_states

    @property
    def can_cut(self) -> bool:
        """Whether any token can be forgotten again, so that hints can be evaluated ahead."""
        return not self._rollback.needs_marks

    @property
    def abilities(self) -> Abilities:
        """What its writers can do."""
        return Abilities(verifies=self.can_cut, reads_ahead=True, writes_ahead=True, devices=self.devices)

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
        made.earlier_output = parent.earlier_output
        self._open(made, lambda: self._slots.fork(parent, made))
        return made

    def check_fits(self, size: int) -> None:
        """Fail for a text that cannot fit, before the time is spent to tokenize it.

        Args:
            size: of the text, in bytes.

        Raises:
            ContextFull: even if each token were the longest of the vocabulary, there would be too many.
        """
        if size > self.context and size > self.context * self.model.longest_piece:
            raise ContextFull(
                f"{self.name}: a text of {size:,} bytes does not fit the context of {self.context} tokens",
                hint="shorten the question, or give a larger --ctx-size",
            )

    def submit(self, request: Request[Any]) -> None:
        """Take a request of one of its sequences."""
        llama.check_process()
        with self.device.lock:
            self._check_open()
            request.sequence.request = request
            self.loop.asked.add(request)
            self.device.order(lambda: self.loop.admit(request))

    def release(self, sequence: Sequence) -> None:
        """Give a sequence's slot back."""
        if llama.was_forked():
            return  # whoever held the lock at the fork is not here to give it back
        with self.device.lock:
            if sequence.closed:
                return
            sequence.closed = True
            self._opened -= 1
            if not self._closing and self.loop.gone is None:
                self.device.order(lambda: self.loop.retire(sequence))

    def positions(self, sequence: Sequence) -> tuple[int, int]:
        """The first and last position that llama.cpp's cache holds for a sequence, −1 where it is empty."""
        first, last = C.llama_memory_seq_pos_min, C.llama_memory_seq_pos_max
        found: tuple[int, int] = self._call(lambda: (first(self._memory, sequence.slot), last(self._memory, sequence.slot)))
        return found

    def sync_cache(self, sequence: Sequence) -> None:
        """Carry out a truncation now instead of with the next call, to measure it or to look at the cache."""
        self._call(lambda: self._slots.sync(sequence))

    def probe_states(self) -> bool:
        """Find out whether the model gives hidden states and logits in one pass; for some kinds llama.cpp leaves the logits out.

        To be called before traced generations, with a sequence free. The outcome is kept in ``gives_states``.
        """
        if self.model.gives_states is None:
            self.gives_states = True
            self.model.gives_states = states_beside_logits(self)
        self.gives_states = self.loop.gives_both = self.model.gives_states
        return self.gives_states

    def exact_rows(self, sequence: Sequence, most: int) -> int:
        """How many rows of one sequence are rounded like single ones; see ``Sequence.exact_rows``."""

        def find() -> int:
            self._slots.sync(sequence)
            self._slots.step_back(sequence, 0)
            sequence.counters.cached_tokens = 0
            return self._rounding.exact_rows(sequence.slot, most)

        known = self._rounding.known.get(most) if self.can_cut else 1
        return known if known is not None else self._call(find)

    def guess(self, sequence: Sequence, most: int, draws: Draws) -> list[int]:
        """What the model's multi-token head guesses to come behind a sequence, in the device's thread; nothing without a head.

        Args:
            sequence: nothing may be asked of it meanwhile.
            most: tokens at most.
            draws: draws them as the model will draw its own.
        """
        head = self.head

        def guess() -> list[int]:
            crowded = not self.can_cut and len(self.loop.active) >= MOST_SHARING  # a wrong guess would cost too much
            if head is None or crowded or sequence.failure is not None:
                return []
            self._slots.sync(sequence)
            guessed, seconds = head.guess(sequence.slot, sequence.tokens, most, draws)
            sequence.counters.seconds += seconds
            return guessed

        guessed: list[int] = self._call(guess)
        return guessed

    def about(self) -> str:
        """How the engine runs, in one line for people: model, context, threads, device and what was asked for."""
        config, layers = self.config, self.config.layers_on_gpu if self._on_gpu else 0
        adapter = f" with the adapter {config.lora.name} × {config.lora_scale:g}" if config.lora else ""
        split = f" split {config.tensor_split}" if config.tensor_split else ""
        device = f"{'all' if layers < 0 else layers} layers on gpu {config.main_gpu}{split}" if layers else "cpu"
        return (
            f"{self.model.path.name} ({self.model.description}){adapter}, context {self.context} × {self.slots}, "
            f"{self.threads} threads, {device}, cache {config.cache_type}, flash attention {config.flash_attention}, "
            f"rollback by {type(self._rollback).__name__.lower()}"
        )

    def close(self) -> None:
        """Free the context; what is in flight fails with Closed. A second call waits for the first."""
        if llama.was_forked():
            return  # its memory is the parent's affair
        with self.device.lock:
            first, self._closing = not self._closing, True
        if not first:
            self._freed.wait()
            return

        def free() -> None:
            self.loop.close(lambda: Closed(f"{self.name}: the engine was closed"))
            self._free()

        if self.loop.gone is None:
            self.device.call(free)
        else:
            free()  # the device's thread died
        self.device.detach(self.loop)
        self._freed.set()

    def _check_open(self) -> None:
        if self.loop.gone is not None:
            raise self.loop.gone()
        if self._closing:
            raise Closed(f"{self.name}: the engine was closed")

    def _call(self, work: Callable[[], Any]) -> Any:
        llama.check_process()
        return self.device.call(work, self._check_open)

    def _open(self, sequence: Sequence, place: Callable[[], None]) -> None:
        def command() -> None:
            try:
                if self.loop.gone is not None:
                    raise self.loop.gone()
                place()
            except Exception as error:  # whatever it is, this sequence alone has no place
                sequence.failure = error

        llama.check_process()
        with self.device.lock:
            self._check_open()
            if self._opened == self.slots:
                raise NoSlot(f"{self.name}: all {self.slots} sequences are in use")
            self._opened += 1
            self.device.order(command)

    def _free(self) -> None:
        if self._head_context:
            C.llama_free(self._head_context)
        C.llama_free(self._context)
        self._context = self._head_context = None

    def _with_head(self, sizes: Sizes, clock: Callable[[], float]) -> Rollback:
        """Open the multi-token head; the way back of both caches."""
        self.head = MtpHead(
            self._context, self._head_context, self.model, rows=sizes.rows, tokens=self.context, on_gpu=self._on_gpu, clock=clock
        )
        return RollbackWithHead(self._rollback, self.head)

    def _choose_device(self) -> Device:
        """One device for the CPU and one for each GPU; an engine of one thread makes no OpenMP team, so it has a thread of its own."""
        if self._on_gpu:
            return shared_device(f"gpu{self.config.main_gpu}")
        return Device(self.name) if self.threads == 1 else shared_device("cpu")


_open_engines = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """No thread may decode while the process takes its libraries down."""
    for engine in list(_open_engines):
        engine.close()
