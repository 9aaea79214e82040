"""Any schedule of what sequences can be asked leaves each of them as a fresh context would have it.

`python -m pytest tests/test_state_machine.py --schedules 1000` runs the long version, of each kind of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from test_engine import draws, held
from tiny import KINDS

from rsd_local.config import RoleConfig, Sampling
from rsd_local.errors import Cancelled, Closed
from rsd_local.events import CancelToken
from rsd_local.roles import Hint
from rsd_local.runtime import Engine, Model, Sequence
from rsd_local.runtime.requests import Request

SLOTS, CONTEXT, LONGEST = 4, 128, 90
EQUAL = 1e-4  # what the place of cells changes, in the order of sums
NEAR = 0.02  # what batches of other shapes change; a slip of one position changes 0.1 and more
WARM = Sampling(temperature=0.8, seed=3)

tokens = st.lists(st.integers(3, 262), min_size=1, max_size=9)
asked = st.one_of(
    st.tuples(st.just("generate"), st.integers(1, 6)),
    st.tuples(st.just("warm"), st.integers(1, 6)),
    st.tuples(st.just("traced"), st.integers(1, 4)),
    st.tuples(st.just("wrong guess"), tokens),
    st.tuples(st.just("right guess"), st.integers(1, 5)),
    st.tuples(st.just("read"), st.none()),
    st.tuples(st.just("hidden"), st.none()),
    st.tuples(st.just("several"), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5)),
    st.tuples(st.just("several states"), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5)),
    st.tuples(st.just("prefill"), st.none()),
    st.tuples(st.just("cancel"), st.integers(1, 30)),
)


@dataclass
class Oracle:
    """A context that holds one text at a time and nothing else."""

    engine: Engine
    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    def parts(self, *parts: list[int]) -> np.ndarray:
        """The logits after some tokens of which each part is a batch of its own."""
        sequence = self.engine.sequence()
        for part in parts:
            sequence.append(part)
            logits = sequence.read_logits().result()
        sequence.close()
        return logits

    def logits(self, text: list[int]) -> np.ndarray:
        """The logits after some tokens."""
        key = tuple(text)
        if key not in self.known:
            self.known[key] = self.parts(text)
        return self.known[key]

    def state(self, text: list[int]) -> np.ndarray:
        """The hidden state after some tokens."""
        sequence = self.engine.sequence(text)
        state = sequence.read_hidden().result()
        sequence.close()
        return state

    def greedy(self, text: list[int], count: int) -> list[int]:
        """What would be written."""
        sequence = self.engine.sequence(text)
        made = sequence.generate(draws(), count).future.result().tokens
        sequence.close()
        return made


class Schedules(RuleBasedStateMachine):
    """Four sequences of one engine."""

    model: ClassVar[Model]
    oracle: ClassVar[Oracle]

    def __init__(self) -> None:
        super().__init__()
        self.sequences: list[Sequence] = []

    @initialize(reuse=st.booleans(), shares=st.booleans())
    def open_engine(self, reuse: bool, shares: bool) -> None:
        self.reuse, self.shares = reuse, shares
        config = self.model.config  # type: ignore[attr-defined]
        self.engine = Engine(self.model, config, SLOTS, "tested", reuse=reuse, shares_prefixes=shares)
        self.engine.gives_states = self.engine.loop.gives_both = self.oracle.engine.gives_states

    def pick(self, number: int) -> Sequence:
        return self.sequences[number % len(self.sequences)]

    @precondition(lambda self: len(self.sequences) < SLOTS)
    @rule(beginning=st.integers(0, 2), rest=tokens)
    def open(self, beginning: int, rest: list[int]) -> None:
        shared = [1, *range(20, 20 + 7 * beginning)]  # so that there are prefixes to go on from
        self.sequences.append(self.engine.sequence(shared + rest))

    @precondition(lambda self: self.sequences)
    @rule(number=st.integers(0, 9), more=tokens)
    def append(self, number: int, more: list[int]) -> None:
        if len(self.pick(number)) + len(more) < LONGEST:
            self.pick(number).append(more)

    @precondition(lambda self: self.sequences)
    @rule(number=st.integers(0, 9))
    def mark(self, number: int) -> None:
        self.pick(number).mark()

    @precondition(lambda self: self.sequences)
    @rule(number=st.integers(0, 9), share=st.floats(0.2, 1.0))
    def truncate(self, number: int, share: float) -> None:
        sequence = self.pick(number)
        sequence.truncate(max(1, int(share * len(sequence))))

    @precondition(lambda self: 0 < len(self.sequences) < SLOTS)
    @rule(number=st.integers(0, 9))
    def fork(self, number: int) -> None:
        self.sequences.append(self.pick(number).fork())

    @precondition(lambda self: self.sequences)
    @rule(number=st.integers(0, 9))
    def close(self, number: int) -> None:
        self.sequences.pop(number % len(self.sequences)).close()

    @precondition(lambda self: self.sequences)
    @rule(wanted=st.lists(asked, min_size=SLOTS, max_size=SLOTS), others=st.integers(1, SLOTS))
    def ask_all_at_once(self, wanted: list[tuple[str, Any]], others: int) -> None:
        before = [list(sequence.tokens) for sequence in self.sequences]
        cancels: list[tuple[int, CancelToken]] = []
        wanted = [  # the oracle may share the device, so it is asked before that is held
            (name, (value, self.oracle.greedy(sequence.tokens, value + 2)) if name == "right guess" else value)
            for (name, value), sequence in zip(wanted, self.sequences, strict=False)
        ]
        with held(self.engine):
            requests = {
                place: self.start(sequence, *wanted[place], place, cancels)
                for place, sequence in enumerate(self.sequences[:others])
                if len(sequence) < LONGEST
            }
            for place, cancel in cancels[::2]:
                del place
                cancel.cancel()
        for _, cancel in cancels[1::2]:
            cancel.cancel()
        for place, request in requests.items():
            self.check(self.sequences[place], before[place], *wanted[place], request)

    def start(self, sequence: Sequence, name: str, value: Any, place: int, cancels: list[tuple[int, CancelToken]]) -> Request[Any]:
        if name == "cancel":
            cancels.append((place, CancelToken()))
            return sequence.generate(draws(), value, cancel=cancels[-1][1])
        if name in ("read", "hidden"):
            return sequence.start_reading(hidden=name == "hidden")
        if name.startswith("several"):
            places = sorted({int(share * len(sequence)) for share in value})
            return sequence.read_at(places, hidden=name == "several states", take=np.copy)
        if name == "prefill":
            return Prefilled(sequence)  # type: ignore[return-value]
        if name == "wrong guess":
            return sequence.generate(draws(), 4, hint=Hint(tuple(value), 3))
        if name == "right guess":
            count, guess = value
            return sequence.generate(draws(), count, hint=Hint(tuple(guess), 2))
        return sequence.generate(draws(WARM if name == "warm" else Sampling()), value, tracing="states" if name == "traced" else "off")

    def check(self, sequence: Sequence, before: list[int], name: str, value: Any, request: Request[Any]) -> None:
        try:
            made = request.future.result(timeout=30)
        except Cancelled:
            assert name == "cancel" and sequence.tokens == before
            made = None
        counters = sequence.counters
        assert counters.generated_tokens == sequence.written.count(1) + counters.discarded_tokens
        if made is None or name == "prefill":
            return
        if name.startswith("several"):
            places = sorted({int(share * len(sequence)) for share in value})
            for place, values in zip(places, made, strict=True):
                text = sequence.tokens[: place + 1]
                wanted = self.oracle.logits(text) if name == "several" else self.oracle.state(text)
                np.testing.assert_allclose(values, wanted, atol=NEAR)
        elif name == "read":
            np.testing.assert_allclose(made, self.oracle.logits(sequence.tokens), atol=NEAR)
        elif name != "hidden":
            assert sequence.tokens == before + made.tokens and made.tokens
            if name != "warm":
                for place, token in enumerate(made.tokens):
                    logits = self.oracle.logits(before + made.tokens[:place])
                    assert logits[token] >= logits.max() - 2 * NEAR

    @precondition(lambda self: self.sequences)
    @rule(number=st.integers(0, 9))
    def close_engine_in_flight(self, number: int) -> None:
        requests = [sequence.generate(draws(), 20) for sequence in self.sequences if len(sequence) < LONGEST]
        self.engine.close()
        for request in requests:
            with suppress_closed():
                request.future.result(timeout=30)
        self.sequences.clear()
        self.open_engine(self.reuse, self.shares)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        try:
            for sequence in self.sequences:
                np.testing.assert_allclose(sequence.read_logits().result(timeout=30), self.oracle.logits(sequence.tokens), atol=NEAR)
                assert self.engine.positions(sequence)[1] == len(sequence) - 1
            for sequence in self.sequences:  # in equal shapes only the place of the cells differs
                text = list(sequence.tokens)
                sequence.truncate(0)
                sequence.append(text[:-1] or text)
                first = sequence.read_logits().result(timeout=30)
                np.testing.assert_allclose(first, self.oracle.parts(text[:-1] or text), atol=EQUAL)
            for sequence in self.sequences:
                sequence.close()
            opened = [self.engine.sequence() for _ in range(SLOTS)]
            if not self.reuse:
                assert [self.engine.positions(sequence) for sequence in opened] == [(-1, -1)] * SLOTS
        finally:
            self.engine.close()


class Prefilled:
    """A prefill with the face of a request."""

    def __init__(self, sequence: Sequence) -> None:
        self.future = sequence.prefill()


@contextmanager
def suppress_closed() -> Iterator[None]:
    try:
        yield
    except Closed:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_any_schedule_leaves_what_a_fresh_context_would_have(kind: str, tiny: dict[str, Path], request: pytest.FixtureRequest) -> None:
    config = RoleConfig(tiny[kind], ctx_size=CONTEXT, cache_type="f32", flash_attention="off", threads=1)
    model = Model(config)
    model.config = config  # type: ignore[attr-defined]
    engine = Engine(model, config, 1, "oracle", reuse=False)
    engine.probe_states()
    Schedules.model, Schedules.oracle = model, Oracle(engine)
    count = request.config.getoption("--schedules")
    chosen = settings(
        max_examples=count, stateful_step_count=20, deadline=None, derandomize=count <= 100, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        run_state_machine_as_test(Schedules, settings=chosen)  # type: ignore[no-untyped-call]
    finally:
        model.close()
