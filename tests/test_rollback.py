"""Forgetting a step leaves no trace: the claim of exactness, for every kind of memory that llama.cpp has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import EngineMaker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine import draws
from tiny import KINDS, SLIDING_WINDOW

from rsd_local.config import RoleConfig
from rsd_local.runtime import Engine, Model, Sequence
from rsd_local.runtime.rollback import Snapshots, Truncation

PROMPT = [1, *range(10, 10 + 3 * SLIDING_WINDOW)]
REJECTED, CHOSEN = [40, 41, 42, 43, 44], [50, 51, 52, 53, 54, 55, 56]


def read_after(sequence: Sequence, *parts: list[int]) -> np.ndarray:
    """The logits after the last part; each part goes through the model in a batch of its own."""
    for part in parts:
        sequence.mark()
        sequence.append(part)
        logits = sequence.read_logits().result()
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_rollback_the_logits_are_bit_for_bit_those_of_a_fresh_context(
    kind: str, tiny: dict[str, Path], open_engine: EngineMaker
) -> None:
    engine = open_engine(tiny[kind])
    sequence, fresh = engine.sequence(), engine.sequence()
    read_after(sequence, PROMPT, REJECTED)
    sequence.truncate(len(PROMPT))
    assert np.array_equal(read_after(sequence, CHOSEN), read_after(fresh, PROMPT, CHOSEN))


@pytest.mark.parametrize("kind", KINDS)
def test_a_slip_of_one_position_would_be_seen(kind: str, tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny[kind])
    right = read_after(engine.sequence(), PROMPT, CHOSEN)
    slipped = read_after(engine.sequence(), [*PROMPT, REJECTED[0]], CHOSEN)
    assert np.abs(right - slipped).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_holds_exactly_the_positions_of_the_tokens(kind: str, tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny[kind])
    sequence = engine.sequence()
    assert engine.positions(sequence) == (-1, -1)
    read_after(sequence, PROMPT)
    assert engine.positions(sequence)[1] == len(PROMPT) - 1
    sequence.mark()
    sequence.generate(draws(), 6).future.result()
    assert engine.positions(sequence)[1] == len(PROMPT) + 6 - 2, "the last token written is not evaluated yet"
    sequence.truncate(len(PROMPT))
    engine.sync_cache(sequence)
    first, last = engine.positions(sequence)
    assert last == len(PROMPT) - 1
    if kind in ("dense", "sliding"):
        assert first == 0, "the full window is kept"


@pytest.mark.parametrize(("kind", "way"), [("dense", Truncation), ("sliding", Truncation), ("recurrent", Snapshots), ("hybrid", Snapshots)])
def test_the_probe_finds_the_way_back(kind: str, way: type, tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    assert isinstance(open_engine(tiny[kind])._rollback, way)


@pytest.mark.parametrize("kind", KINDS)
def test_a_marked_place_is_gone_back_to_without_evaluating_anything_again(
    kind: str, tiny: dict[str, Path], open_engine: EngineMaker
) -> None:
    engine = open_engine(tiny[kind])
    sequence = engine.sequence()
    read_after(sequence, PROMPT, REJECTED)
    sequence.truncate(len(PROMPT))
    read_after(sequence, CHOSEN)
    assert sequence.counters.evaluated_tokens == len(PROMPT) + len(REJECTED) + len(CHOSEN)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_mark_a_rollback_is_as_exact(kind: str, tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny[kind])
    sequence = engine.sequence()
    sequence.append(PROMPT + REJECTED)
    sequence.read_logits().result()
    sequence.truncate(len(PROMPT) - 3)
    sequence.append(CHOSEN)
    logits = sequence.read_logits().result()
    fresh = engine.sequence()
    fresh.append(PROMPT[:-3] + CHOSEN)
    np.testing.assert_allclose(logits, fresh.read_logits().result(), atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_goes_its_own_way(kind: str, tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny[kind])
    parent = engine.sequence()
    read_after(parent, PROMPT)
    child = parent.fork()
    ours, theirs = read_after(parent, CHOSEN), read_after(child, REJECTED)
    assert np.array_equal(ours, read_after(engine.sequence(), PROMPT, CHOSEN))
    assert np.array_equal(theirs, read_after(engine.sequence(), PROMPT, REJECTED))
    assert child.counters.evaluated_tokens == len(REJECTED), "the prompt is shared, not evaluated again"


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(3, 262), min_size=1, max_size=9)),
        st.tuples(st.just("generate"), st.integers(1, 6)),
        st.tuples(st.just("trace"), st.integers(1, 6)),
        st.tuples(st.just("truncate"), st.floats(0.3, 1.0)),
        st.tuples(st.just("mark"), st.none()),
        st.tuples(st.just("read"), st.none()),
        st.tuples(st.just("fork"), st.none()),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module", params=KINDS)
def lasting_engine(request: pytest.FixtureRequest, tiny: dict[str, Path]):
    config = RoleConfig(tiny[request.param], ctx_size=256, cache_type="f32")
    model = Model(config)
    engine = Engine(model, config, 8, request.param, reuse=False)
    engine.probe_states()
    yield engine
    model.close()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_any_interleaving_holds_what_a_fresh_context_would(lasting_engine: Engine, operations: list) -> None:
    engine = lasting_engine
    sequences = [engine.sequence()]
    sequences[0].append(PROMPT[:10])
    try:
        for name, value in operations:
            current = sequences[-1]
            if len(current) > 180:
                break
            if name == "append":
                current.append(value)
            elif name == "generate":
                current.generate(draws(), value).future.result()
            elif name == "trace":
                current.generate(draws(), value, tracing="states").future.result()
            elif name == "truncate":
                current.truncate(max(1, int(value * len(current))))
            elif name == "mark":
                current.mark()
            elif name == "read":
                current.read_logits().result()
            elif len(sequences) < 5:
                sequences.append(current.fork())
        for sequence in sequences:
            fresh = engine.sequence()
            fresh.append(sequence.tokens)
            held, expected = sequence.read_logits().result(), fresh.read_logits().result()
            fresh.close()
            np.testing.assert_allclose(held, expected, atol=0.02)  # a slip of one position is 0.1 and more
            assert engine.positions(sequence)[1] == len(sequence) - 1
    finally:
        for sequence in sequences:
            sequence.close()
