"""Cached prefixes: what closed and open sequences leave for new ones is what a fresh context would have evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import EngineMaker
from test_engine import draws, held
from tiny import KINDS

from rsd_local.runtime import Engine, Sequence

BASE = [1, *np.random.default_rng(0).integers(3, 250, 60).tolist()]


def logits(engine: Engine, tokens: list[int]) -> np.ndarray:
    sequence = engine.sequence(list(tokens))
    read = sequence.read_logits().result()
    sequence.close()
    return read


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_with_common_beginnings_get_the_logits_of_a_fresh_context(
    kind: str, slots: int, tiny: dict[str, Path], open_engine: EngineMaker
) -> None:
    """Many of them, so that slots are shared, cut, filled again, and cells out of a sliding window given away."""
    settings = {"flash_attention": "off", "threads": 1}
    engine, fresh = open_engine(tiny[kind], slots, reuse=True, **settings), open_engine(tiny[kind], 1, **settings)
    chance, cached = np.random.default_rng(1), 0
    for _ in range(120):
        sequence = engine.sequence(BASE[: chance.integers(5, 60)])
        sequence.mark()
        sequence.append(chance.integers(3, 250, chance.integers(1, 40)).tolist())
        np.testing.assert_allclose(sequence.read_logits().result(), logits(fresh, sequence.tokens), atol=1e-3)
        cached += sequence.counters.cached_tokens
        assert sequence.counters.cached_tokens + sequence.counters.evaluated_tokens == len(sequence)
        sequence.close()
    assert cached > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_taken_back_from_a_cache_that_others_wrote_into_leaves_no_trace(
    kind: str, tiny: dict[str, Path], open_engine: EngineMaker
) -> None:
    """While a sequence goes on, cells out of its sliding window go to others; going back moves the window back over them."""
    settings = {"flash_attention": "off", "threads": 1}
    engine, fresh = open_engine(tiny[kind], 3, **settings), open_engine(tiny[kind], 1, **settings)
    chance = np.random.default_rng(2)

    def read(count: int) -> Sequence:
        sequence = engine.sequence(chance.integers(3, 250, count).tolist())
        sequence.read_logits().result()
        return sequence

    for cut in range(1, 30):
        room = read(30)
        sequence = read(45)
        sequence.mark()
        sequence.append(chance.integers(3, 250, cut).tolist())
        sequence.read_logits().result()
        room.close()
        other = read(72)  # more than the room: the rest is taken from what is out of the window
        sequence.truncate(45)
        np.testing.assert_allclose(sequence.read_logits().result(), logits(fresh, sequence.tokens), atol=1e-3)
        for one in (sequence, other):
            one.close()


def test_a_prompt_goes_on_from_an_open_sequence_that_is_about_to_be_cut(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine, fresh = (open_engine(tiny["dense"], 2, reuse=reuse, threads=1) for reuse in (True, False))
    open_one = engine.sequence(BASE[:30])
    open_one.read_logits().result()
    open_one.truncate(20)  # a note: the cells go with the next call
    prompt = [*BASE[:20], 7, 8, 9]
    other = engine.sequence(list(prompt))
    np.testing.assert_allclose(other.read_logits().result(), logits(fresh, prompt), atol=1e-3)
    assert other.counters.cached_tokens == 20
    np.testing.assert_allclose(open_one.read_logits().result(), logits(fresh, BASE[:20]), atol=1e-3)


def test_a_prompt_goes_on_from_a_sequence_that_is_being_written(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine, fresh = (open_engine(tiny["dense"], 2, reuse=reuse, threads=1) for reuse in (True, False))
    writing = engine.sequence(BASE[:30])
    with held(engine):
        generation = writing.generate(draws(), 100)
        other: Sequence = engine.sequence([*BASE[:30], 7])
        reading = other.read_logits()
    np.testing.assert_allclose(reading.result(), logits(fresh, [*BASE[:30], 7]), atol=1e-3)
    assert len(generation.future.result().tokens) == 100


def test_without_reuse_nothing_is_left_behind(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    for reuse, left in ((False, (-1, -1)), (True, (0, len(BASE) - 2))):
        engine = open_engine(tiny["dense"], 1, reuse=reuse, threads=1)
        logits(engine, BASE)
        again = engine.sequence(list(BASE))
        assert engine.positions(again) == left
        assert again.counters.cached_tokens == left[1] + 1


def test_a_full_cache_gives_up_what_closed_sequences_left(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine, fresh = (open_engine(tiny["dense"], 4, reuse=reuse, threads=1, ctx_size=64) for reuse in (True, False))
    chance = np.random.default_rng(3)
    for _ in range(8):
        logits(engine, chance.integers(3, 250, 64).tolist())
    prompts = [chance.integers(3, 250, 64).tolist() for _ in range(4)]
    together = [engine.sequence(list(prompt)) for prompt in prompts]
    with held(engine):
        readings = [sequence.read_logits() for sequence in together]
    for reading, prompt in zip(readings, prompts, strict=True):
        np.testing.assert_allclose(reading.result(), logits(fresh, prompt), atol=1e-3)
