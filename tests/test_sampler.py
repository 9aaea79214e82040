from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_sampling import owns, parts, penalties, probabilities

from rsd_local.config import Sampling
from rsd_local.errors import ConfigError, DecodeFailed
from rsd_local.roles import DRAFT, POLICY, TARGET, Stream
from rsd_local.runtime.sampler import Draws, Floats, greedy, penalized, weigh_kept
from rsd_local.runtime.trace import Tracer

WARM = Sampling(temperature=0.7)
FILTERS = [
    WARM,
    Sampling(temperature=1.0),
    Sampling(temperature=0.7, top_p=0.95),
    Sampling(temperature=1.5, top_p=0.3),
    Sampling(temperature=0.7, min_p=0.05),
    Sampling(temperature=1.3, min_p=1e-4),
    Sampling(temperature=0.7, top_k=20),
    Sampling(temperature=0.7, top_k=6000),
    Sampling(temperature=0.7, top_p=0.9, min_p=0.02),
    Sampling(temperature=0.7, top_k=20, top_p=0.95, min_p=0.05),
    Sampling(temperature=2.0, top_k=7000, top_p=0.8, min_p=0.001),
]
LAST = math.nextafter(1.0, 0.0)


class Numbers:
    """A stream of chosen numbers."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = iter(numbers)

    def generator(self, skip: int = 0) -> Any:
        return self

    def random(self) -> float:
        return next(self._numbers)


def drawn(logits: Floats, sampling: Sampling, u: float, context: list[int] | None = None) -> int:
    return Draws(sampling, Numbers(u)).draw(logits, context or [])  # type: ignore[arg-type]


def frozen(values: Any) -> Floats:
    """Logits that nobody may write to."""
    logits = np.array(values, np.float32)
    logits.flags.writeable = False
    return logits


def made(words: int, spread: float, seed: int = 0, head: int = 0) -> Floats:
    """Normal logits of a spread, some of them with a head far above."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, spread, words)
    logits[chance.choice(words, head, replace=False)] += 12 - 3 * np.log1p(np.arange(head))
    return frozen(logits)


@pytest.mark.parametrize("sampling", FILTERS, ids=str)
@pytest.mark.parametrize(
    ("words", "spread", "head"), [(300, 2.0, 20), (4097, 0.3, 0), (9000, 3.0, 0), (20_000, 0.1, 0), (20_000, 2.0, 50), (40_000, 1.0, 5)]
)
def test_each_number_of_a_stream_draws_what_the_plain_definition_says(words: int, spread: float, head: int, sampling: Sampling) -> None:
    logits, stream = made(words, spread, words, head), Stream(7, TARGET, step=3)
    chances, numbers, draws = probabilities(logits, sampling), stream.generator(), Draws(sampling, stream)
    for _ in range(60):
        u, token = numbers.random(), draws.draw(logits)
        assert owns(token, u, chances, 1e-6), (u, token)
    begin, end = (float(edges[greedy(logits)]) for edges in parts(chances))
    for u in (0.0, max(begin - 2e-6, 0.0), begin + 2e-6, end - 2e-6, min(end + 2e-6, LAST), 0.999, LAST):
        assert owns(drawn(logits, sampling, u), u, chances, 1e-6), u


def test_a_vocabulary_of_150_thousand_words_is_drawn_from_as_the_definition_says() -> None:
    for logits in (made(151_936, 2.5, 1, 100), made(151_936, 0.3, 2)):
        for sampling in FILTERS:
            chances = probabilities(logits, sampling)
            for u in (0.001, 0.3, 0.9, 0.9999):
                assert owns(drawn(logits, sampling, u), u, chances, 1e-6), (sampling, u)


@pytest.mark.parametrize("sampling", FILTERS[2:], ids=str)
def test_of_a_flat_distribution_exactly_the_words_of_the_definition_are_kept(sampling: Sampling) -> None:
    logits = made(30_000, 0.4, 5)
    kept = weigh_kept(logits, float(logits.max()), sampling).reshape(-1)[: len(logits)]
    chances = probabilities(logits, sampling)
    assert np.array_equal(kept > 0, chances > 0)
    assert abs(kept / kept.sum(dtype=np.float64) - chances).max() < 1e-6 * chances.max() + 1e-9


logit = st.one_of(st.floats(-30, 30, width=32), st.integers(-3, 3).map(float), st.just(-math.inf))
share = st.floats(0.001, 1.0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(logit, min_size=1, max_size=40).filter(lambda values: max(values) > -math.inf),
    st.builds(Sampling, temperature=st.floats(0.05, 5), top_k=st.integers(0, 45), top_p=share, min_p=st.one_of(st.just(0.0), share)),
    st.lists(st.integers(0, 45), max_size=30),
    st.sampled_from([{}, {"repeat_penalty": 1.3}, {"presence_penalty": 1.5, "frequency_penalty": -0.5, "penalty_last_n": 7}]),
    st.floats(0, LAST),
)
@example([0.0] * 20, Sampling(temperature=1, top_p=0.95), [], {}, 0.9999)
def test_any_small_vocabulary_is_drawn_from_as_the_definition_says(
    values: list[float], sampling: Sampling, context: list[int], extra: dict[str, Any], u: float
) -> None:
    logits, sampling = frozen(values), replace(sampling, **extra)
    changed = penalties(logits, context, sampling).astype(np.float32)
    chances = probabilities(changed, replace(sampling, penalty_last_n=0))
    assert owns(drawn(logits, sampling, u, context), u, chances, 1e-12)


def test_the_shares_of_equal_words_are_met_to_the_edge() -> None:
    for words in (4, 8, 16_384):
        logits = frozen(np.full(words, 3.5))
        for token in range(0, words, max(words // 8, 1)):
            assert drawn(logits, WARM, token / words) == token
            assert drawn(logits, WARM, math.nextafter((token + 1) / words, 0)) == token


def test_of_equal_logits_the_first_are_kept() -> None:
    for words in (100, 20_000):
        logits = np.full(words, -1.0, np.float32)
        logits[words // 2 :: 2] = 2.0  # a quarter of the words, at odd or even ids
        tied = list(range(words // 2, words, 2))
        for sampling in (Sampling(temperature=1, top_k=5), Sampling(temperature=1, top_k=len(tied) - 3)):
            last = tied[sampling.top_k - 1]
            assert drawn(logits, sampling, LAST) == last
            assert drawn(logits, sampling, 0.0) == tied[0]
        half = Sampling(temperature=0.1, top_p=0.5)  # nearly all the probability is theirs
        kept = np.flatnonzero(probabilities(logits, half))
        assert set(kept) < set(tied) and drawn(logits, half, LAST) == kept[-1]


@pytest.mark.parametrize(("words", "top_p", "kept"), [(20, 0.95, 19), (10, 0.7, 7), (20_000, 0.5, 10_000), (20_000, 0.95, 19_000)])
def test_top_p_keeps_the_smallest_set_that_reaches_it(words: int, top_p: float, kept: int) -> None:
    assert drawn(frozen(np.zeros(words)), Sampling(temperature=0.7, top_p=top_p), LAST) == kept - 1


def test_min_p_of_1_keeps_the_most_likely_words_only() -> None:
    for words in (10, 10_000):
        logits = made(words, 1.0).copy()
        logits[[3, 7]] = 50.0
        assert {drawn(logits, Sampling(temperature=5, min_p=1.0), u) for u in (0.0, 0.4999, 0.5, LAST)} == {3, 7}


def test_draws_have_the_distribution() -> None:
    logits, count = made(12, 1.0, 3), 20_000
    chances = probabilities(logits, WARM)
    draws = Draws(WARM, Stream(11, DRAFT))
    seen = np.bincount([draws.draw(logits) for _ in range(count)], minlength=12)
    assert ((seen - count * chances) ** 2 / (count * chances)).sum() < 31.3  # chi-squared of 11 degrees of freedom, 0.1 %


@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_a_draw_takes_one_number_and_can_be_skipped_to(sampling: Sampling) -> None:
    rows = [made(5000, 0.2 + place % 3, place) for place in range(8)]
    stream = Stream(5, TARGET, turn=1, step=2, attempt=3)
    draws = Draws(sampling, stream)
    tokens = [draws.draw(row) for row in rows]
    assert [Draws(sampling, stream, skip=place).draw(row) for place, row in enumerate(rows)] == tokens
    resumed = Draws(sampling, stream, skip=3)
    assert [resumed.draw(row) for row in rows[3:]] == tokens[3:]


def test_a_greedy_draw_takes_no_number() -> None:
    draws = Draws(Sampling(), Numbers())  # type: ignore[arg-type]
    assert draws.draw(frozen([1.0, 3.0, 3.0])) == 1
    assert greedy(frozen([1.0, 3.0, 3.0])) == 1


@pytest.mark.parametrize("sampling", FILTERS, ids=str)
def test_tokens_follow_one_another_in_the_order_of_their_ids(sampling: Sampling) -> None:
    for logits in (made(300, 1.0, 1), made(9000, 0.3, 2)):
        tokens = [drawn(logits, sampling, u) for u in (*np.linspace(0, 0.999, 60), LAST)]
        kept = np.flatnonzero(probabilities(logits, sampling) > 1e-6)
        assert tokens == sorted(tokens) and len(set(tokens)) > 2
        assert tokens[0] <= kept[0] and tokens[-1] >= kept[-1]


@pytest.mark.parametrize("sampling", [WARM, Sampling(temperature=1, top_p=0.9), Sampling(temperature=1, min_p=0.05)], ids=str)
def test_draft_and_target_draw_the_same_token_where_its_parts_overlap(sampling: Sampling) -> None:
    target = made(6000, 2.0, 1, 30)
    draft = frozen(target + made(6000, 0.3, 2))
    (begins, ends), (other_begins, other_ends) = (parts(probabilities(logits, sampling)) for logits in (target, draft))
    first, last = np.maximum(begins, other_begins), np.minimum(ends, other_ends)
    numbers = np.random.default_rng(3).random(300)
    alike = 0
    for u in numbers.tolist():
        one, other = drawn(target, sampling, u), drawn(draft, sampling, u)
        alike += one == other
        if one == other:
            assert first[one] - 1e-6 <= u < last[one] + 1e-6
        else:
            assert not ((first + 1e-6 <= u) & (u < last - 1e-6)).any()
    assert 0.4 < alike / len(numbers) < 1


def test_threads_draw_what_one_thread_draws() -> None:
    cases = [
        (sampling, made(words, 1.0, words), Stream(1, DRAFT, attempt=place))
        for place, sampling in enumerate(FILTERS)
        for words in (5000, 9000)
    ]

    def run(case: tuple[Sampling, Floats, Stream]) -> list[int]:
        draws = Draws(replace(case[0], repeat_penalty=1.2), case[2])
        context: list[int] = []
        for _ in range(10):
            context.append(draws.draw(case[1], context))
        return context

    alone = [run(case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, cases)) == alone


@pytest.mark.parametrize("words", [1, 2, 300, 5000])
@pytest.mark.parametrize("sampling", [Sampling(), *FILTERS], ids=str)
def test_what_is_no_number_is_refused_and_a_masked_word_is_fine(words: int, sampling: Sampling) -> None:
    for bad, place in itertools.product((math.nan, math.inf), {0, words // 2, words - 1}):
        logits = made(words, 1.0).copy()
        logits[place] = bad
        with pytest.raises(DecodeFailed, match="not finite"):
            drawn(logits, sampling, 0.5)
    masked = np.full(words, -math.inf, np.float32)
    with pytest.raises(DecodeFailed, match="not finite"):
        drawn(masked, sampling, 0.5)
    masked[words // 3] = -2.0
    assert {drawn(masked, sampling, u) for u in (0.0, 0.5, LAST)} == {words // 3}
    half = made(words, 1.0).copy()
    half[1::2] = -math.inf
    assert all(drawn(half, sampling, u) % 2 == 0 for u in np.linspace(0, LAST, 30))


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-3, 5.0])
@pytest.mark.parametrize("words", [3, 5000])
def test_extreme_temperatures_and_logits_draw_the_best_word_or_a_fair_one(words: int, temperature: float) -> None:
    logits = np.full(words, -3.4e38, np.float32)
    logits[:3] = [-3.4e38, 3.4e38, 0.0]
    for extra in ({}, {"top_k": 2}, {"top_p": 5e-324}, {"top_p": LAST}, {"min_p": 5e-324}, {"top_p": 0.5, "min_p": 0.5}):
        assert drawn(logits, Sampling(temperature=temperature, **extra), LAST) == 1  # type: ignore[arg-type]


def test_penalties_are_those_of_llama_cpp() -> None:
    logits, context = frozen([2.0, -1.0, 0.5, 0.0]), [3, 0, 0, 1]
    sampling = Sampling(repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    assert penalized(logits, context, sampling).tolist() == [0.0, -2.75, 0.5, -0.75]
    assert penalized(logits, context, replace(sampling, penalty_last_n=1)).tolist() == [2.0, -2.75, 0.5, 0.0]
    assert logits.tolist() == [2.0, -1.0, 0.5, 0.0]


def test_penalties_change_what_greedy_draws_unless_switched_off() -> None:
    logits = frozen([2.0, -1.0, 1.5])
    sampling = Sampling(repeat_penalty=2.0)
    assert Draws(sampling, Stream(0, TARGET)).draw(logits, [0]) == 2
    assert Draws(sampling, Stream(0, TARGET)).draw(logits, []) == 0
    assert Draws(sampling, Stream(0, TARGET)).draw(logits, [0] + [1] * 64) == 0  # 64 tokens count
    assert Draws(replace(sampling, penalty_last_n=0), Stream(0, TARGET)).draw(logits, [0]) == 0
    assert Draws(Sampling(), Stream(0, TARGET)).draw(logits, [0]) == 0
    assert Draws(Sampling(presence_penalty=-2.0), Stream(0, TARGET)).draw(logits, [2]) == 2
    assert Draws(Sampling(frequency_penalty=0.2), Stream(0, TARGET)).draw(logits, [0, 0, 0]) == 2


def test_penalties_pass_over_tokens_that_the_vocabulary_does_not_have() -> None:
    logits = frozen([2.0, -math.inf, 1.9])
    assert Draws(Sampling(repeat_penalty=1.5), Stream(0, TARGET)).draw(logits, [-1, 3, 10**6, 0, 1]) == 2


def test_a_penalty_on_a_word_masked_with_the_least_float_leaves_it_masked() -> None:
    logits = frozen([-3.4e38, 0.5, 0.4])
    assert {drawn(logits, Sampling(temperature=1, repeat_penalty=2.0), u, [0]) for u in np.linspace(0, LAST, 9)} == {1, 2}


@pytest.mark.parametrize("words", [300, 6000])
def test_penalties_come_before_the_filters(words: int) -> None:
    logits, context = made(words, 2.0), [int(token) for token in np.argsort(-made(words, 2.0))[:50]]
    for base in FILTERS:
        sampling = replace(base, repeat_penalty=1.4, presence_penalty=0.3, frequency_penalty=0.1)
        changed = penalties(logits, context, sampling).astype(np.float32)
        chances = probabilities(changed, base)
        for u in (0.0, 0.2, 0.7, 0.99):
            assert owns(drawn(logits, sampling, u, context), u, chances, 1e-6), (base, u)


@pytest.mark.parametrize(
    "wrong",
    [
        {"repeat_penalty": 0.0},
        {"repeat_penalty": -1.0},
        {"repeat_penalty": math.inf},
        {"repeat_penalty": math.nan},
        {"presence_penalty": 2.1},
        {"presence_penalty": math.nan},
        {"frequency_penalty": -2.1},
        {"penalty_last_n": -1},
    ],
    ids=str,
)
def test_penalties_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_no_two_streams_are_the_same() -> None:
    places = itertools.product((DRAFT, TARGET, POLICY, 5), (0, 1, 5), (0, 1, 5), (0, 1, 5))
    streams = [Stream(seed, *place) for place in places for seed in (0, 1, 5, 2**32, 2**32 + 5, 2**64 - 1)]
    firsts = {stream.generator().random(4).tobytes() for stream in streams}
    assert len(firsts) == len(streams) == 4 * 27 * 6


def test_a_trace_has_the_log_probability_and_the_entropy_of_float64() -> None:
    cases: list[Callable[[], Floats]] = [
        lambda: made(151_936, 2.5, 1, 100),
        lambda: made(151_936, 0.3),
        lambda: made(300, 1.0),
        lambda: made(1, 1.0),
    ]
    for case in cases:
        logits = case()
        masked = logits.copy()
        masked[1 :: len(masked) // 7 + 1] = -math.inf
        tracer = Tracer()
        for row in (logits, masked, frozen(logits)):
            tracer.note(len(row) // 2 if len(row) > 1 else 0, row, np.ones(3, np.float32))
        trace = tracer.trace(None)
        for place, row in enumerate((logits, masked, logits)):
            exact = row.astype(np.float64) - np.logaddexp.reduce(row.astype(np.float64))
            finite = exact[np.isfinite(exact)]
            assert trace.log_probabilities[place] == pytest.approx(exact[len(row) // 2 if len(row) > 1 else 0], abs=1e-4)
            assert trace.entropies[place] == pytest.approx(-(np.exp(finite) * finite).sum(), abs=1e-4)
        assert trace.hidden.shape == (3, 3)
