"""What becomes of a scored step: the paper's weighting functions, and the decisions that go beyond them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rsd_local.config import Params, Weighting
from rsd_local.decoding.policy import Decision, History, WeightingPolicy, weight
from rsd_local.errors import ConfigError
from rsd_local.steps import Score, Step

KEEP, REWRITE, REDRAFT, HAND_OVER = Decision.KEEP, Decision.REWRITE, Decision.REDRAFT, Decision.HAND_OVER
STEP = Step([5], b"a step\n\n", "delimiter")
NEVER = Weighting("constant", probability=0.0)


@pytest.mark.parametrize(
    ("weighting", "values"),
    [
        (Weighting("constant", probability=0.3), [0.3, 0.3, 0.3]),
        (Weighting("step", threshold=0.7), [0.0, 1.0, 1.0]),
        (Weighting("clip"), [0.0, 0.7, 1.0]),
        (Weighting("ratio"), [0.0, 0.7 / 1.7, 0.5]),
        (Weighting("logistic", threshold=0.7, steepness=10), [1 / (1 + math.exp(7)), 0.5, 1 / (1 + math.exp(-3))]),
    ],
    ids=lambda value: value.kind if isinstance(value, Weighting) else "",
)
def test_the_weighting_functions_are_the_papers(weighting: Weighting, values: list[float]) -> None:
    assert [weight(weighting, reward) for reward in (0.0, 0.7, 1.0)] == pytest.approx(values)
    for reward in (math.nan, math.inf, -math.inf):
        assert weight(weighting, reward) == 0.0


def decisions(weighting: Weighting, score: Score, places: int, seed: int = 3, turn: int = 0) -> list[Decision]:
    policy = WeightingPolicy(weighting, seed, turn)
    return [policy.decide(STEP, score, History(place)) for place in range(places)]


def test_steps_are_kept_as_often_as_their_weight_says() -> None:
    made = decisions(Weighting("ratio"), Score(0.8, "judge"), 20_000)
    assert set(made) == {KEEP, REWRITE}
    assert made.count(KEEP) / 20_000 == pytest.approx(0.8 / 1.8, abs=4 * math.sqrt(0.25 / 20_000))


@pytest.mark.parametrize("kind", ["step", "constant", "clip", "ratio", "logistic"])
def test_a_reward_that_failed_is_never_kept_and_a_step_that_nothing_checks_always(kind: str) -> None:
    weighting = Weighting(kind, threshold=0.0, probability=1.0)  # type: ignore[arg-type]
    assert decisions(weighting, Score(None, "judge", failed=True), 100) == [REWRITE] * 100
    strict = Weighting(kind, threshold=1.0, probability=0.0)  # type: ignore[arg-type]
    assert decisions(strict, Score(None), 100) == [REWRITE if kind == "constant" else KEEP] * 100
    assert decisions(replace(strict, unchecked="target"), Score(None), 100) == [REWRITE] * 100
    again = REDRAFT if kind == "constant" else REWRITE
    assert decisions(replace(strict, unchecked="target", redrafts=3), Score(None), 100) == [again] * 100


def test_the_threshold_of_the_reward_that_decided_goes_before_the_runs_own() -> None:
    step = Weighting("step", threshold=0.5)
    assert decisions(step, Score(0.6), 10) == decisions(step, Score(0.4, threshold=0.3), 10) == [KEEP] * 10
    assert decisions(step, Score(0.6, threshold=0.7), 10) == decisions(step, Score(0.4), 10) == [REWRITE] * 10


def test_a_draw_belongs_to_its_seed_turn_place_and_attempt() -> None:
    half, score = Weighting("constant", probability=0.5, redrafts=9), Score(0.5)
    first = decisions(half, score, 200)
    assert decisions(half, score, 200) == first
    assert decisions(half, score, 200, seed=4) != first != decisions(half, score, 200, turn=1)
    policy = WeightingPolicy(half, 3)
    again = [policy.decide(STEP, score, History(place, attempts=1)) for place in range(200)]
    assert again != first and [policy.decide(STEP, score, History(place)) for place in reversed(range(200))] == first[::-1]


def test_a_rejected_step_is_drafted_again_so_often_and_then_rewritten() -> None:
    policy = WeightingPolicy(Weighting("step", threshold=0.5, redrafts=2), seed=0)
    assert [policy.decide(STEP, Score(0.1), History(attempts=attempts)) for attempts in range(3)] == [REDRAFT, REDRAFT, REWRITE]
    assert policy.decide(STEP, Score(0.6), History(attempts=1)) is KEEP
    assert policy.decide(STEP, Score(None, failed=True), History()) is REWRITE, "another draft's check would not work either"


@pytest.mark.parametrize("unchecked", ["accept", "target"])
@pytest.mark.parametrize("kind", ["step", "constant"])
def test_what_the_target_cannot_afford_is_kept_unless_its_score_failed(kind: str, unchecked: str) -> None:
    weighting = Weighting(kind, threshold=1.0, probability=0.0, redrafts=2, unchecked=unchecked, target_budget=0.2)  # type: ignore[arg-type]
    policy, spent, spare = WeightingPolicy(weighting, 0), History(10, 2, 0, 100, 20), History(10, 2, 0, 100, 10)
    assert (policy.affords(spent), policy.affords(spare), policy.affords(History())) == (False, True, False)
    for history in (spent, spare, History()):
        assert policy.decide(STEP, Score(None, failed=True), history) is REWRITE
    assert [policy.decide(STEP, Score(0.5), history) for history in (spent, spare)] == [KEEP, REWRITE]
    given = [policy.decide(STEP, Score(None), history) for history in (spent, spare)]
    assert given == ([KEEP, KEEP] if kind == "step" and unchecked == "accept" else [KEEP, REWRITE])
    assert WeightingPolicy(Weighting(), 0).affords(History(1, 0, 1, 9, 9)), "without a budget it affords everything"


def test_the_target_takes_over_from_the_so_manieth_place_in_a_row_on() -> None:
    policy = WeightingPolicy(Weighting("step", threshold=0.5, redrafts=1, hand_over=3), seed=0)

    def decided(rewritten: int, attempts: int = 1) -> Decision:
        return policy.decide(STEP, Score(0.1), History(5, attempts, rewritten))

    assert [decided(rewritten) for rewritten in range(4)] == [REWRITE, REWRITE, HAND_OVER, HAND_OVER]
    assert decided(2, attempts=0) is REDRAFT, "the draft has its further tries first"
    assert policy.decide(STEP, Score(0.9), History(5, 0, 2)) is KEEP
    assert WeightingPolicy(Weighting("constant", probability=0.0, hand_over=1), 0).decide(STEP, Score(0.1), History()) is HAND_OVER
    assert WeightingPolicy(NEVER, 0).decide(STEP, Score(0.1), History(9, 0, 99)) is REWRITE, "0 is never"


def test_numbers_out_of_range_are_refused() -> None:
    for settings in ({"redrafts": -1}, {"redrafts": 65}, {"hand_over": -1}, {"hand_over": 1001}, {"threshold": 1.1}, {"steepness": 0.0}):
        with pytest.raises(ConfigError, match=f"{next(iter(settings))} .* is "):
            Weighting(**settings)  # type: ignore[arg-type]
    assert Params().weighting == Weighting("step", 0.7, redrafts=0, hand_over=0)
