"""The statistics against values that were published or can be counted by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsd_local.evaluation.stats import discordant, holm, mcnemar, paired_bootstrap, ratio_bootstrap, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17, p. 857), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_share_lies_in_its_interval(counted: tuple[int, int]) -> None:
    low, high = wilson(*counted)
    assert 0 <= low <= counted[0] / counted[1] <= high <= 1


def test_nothing_counted_is_nothing_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (10, 2, 158 / 4096), (5, 5, 1.0), (2, 10, 158 / 4096)],
)
def test_mcnemar_is_the_two_sided_binomial_test(won: int, lost: int, p: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p)


def test_mcnemar_takes_thousands_of_questions() -> None:
    assert mcnemar(3000, 3000) == 1.0 and mcnemar(3100, 2900) == pytest.approx(0.01017, abs=2e-4) and mcnemar(6000, 0) < 1e-300


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_paired_interval_is_seeded_and_has_the_normal_width() -> None:
    chance = random.Random(0)
    pairs = [(chance.random() < 0.8, chance.random() < 0.7) for _ in range(1000)]
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    low, high = paired_bootstrap(first, second)
    assert (low, high) == paired_bootstrap(first, second)
    won, lost = discordant(first, second)
    middle, variance = (won - lost) / 1000, ((won + lost) / 1000 - ((won - lost) / 1000) ** 2) / 1000
    assert (low, high) == pytest.approx((middle - 1.96 * variance**0.5, middle + 1.96 * variance**0.5), abs=3e-3)


def test_strategies_that_never_differ_have_no_difference() -> None:
    assert paired_bootstrap([True, False, True], [True, False, True]) == (0.0, 0.0)
    assert paired_bootstrap([], []) == (-1.0, 1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_two_strategies_turns_the_interval_round(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    low, high = paired_bootstrap(first, second)
    assert -1 <= low <= high <= 1
    assert mcnemar(*discordant(first, second)) == mcnemar(*discordant(second, first))
    back_low, back_high = paired_bootstrap(second, first)
    assert (back_low, back_high) == pytest.approx((-high, -low), abs=2 / len(pairs) + 1e-9)


def test_the_interval_of_a_ratio_is_that_of_its_resampled_sums() -> None:
    chance = random.Random(3)
    others = [chance.uniform(50, 150) for _ in range(200)]
    assert ratio_bootstrap([0.7 * cost for cost in others], others) == pytest.approx((0.7, 0.7))
    costs = [cost * (0.3 if chance.random() < 0.5 else 1.1) for cost in others]
    low, high = ratio_bootstrap(costs, others) or (0.0, 0.0)
    share = sum(costs) / sum(others)
    # Half of the questions cost 0.3, the others 1.1 times as much: the mean of 200 such draws has a deviation of 0.4 / √200.
    assert low < share < high and high - low == pytest.approx(2 * 1.96 * 0.4 / 200**0.5, rel=0.15)
    assert ratio_bootstrap(costs, others) == (low, high) != ratio_bootstrap(costs, others, seed=1)
    assert ratio_bootstrap([1.0], [0.0]) is None is ratio_bootstrap([], [])
