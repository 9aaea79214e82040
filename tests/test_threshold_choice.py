"""A threshold and its figures: no question reports on what it chose, and what is said of the target holds as often as it says."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest

from rsd_local.calibration.bands import StageFigures, measure, measure_each
from rsd_local.calibration.choice import Comparison, Wish, best, cross_fit, no_worse_than_target, require_enough
from rsd_local.calibration.paths import UNANSWERED, Path
from rsd_local.calibration.points import Point, RewardsSeen, Sweep
from rsd_local.calibration.statements import chosen_line, difference_line, fewer, fewer_flops, no_worse_lines, undecided, warnings
from rsd_local.calibration.table import table, table_note
from rsd_local.config import RewardConfig
from rsd_local.errors import ConfigError
from rsd_local.evaluation.paired import lower_bound, paired_interval, questions_needed
from rsd_local.steps import Score

NO_WORSE, BEST = Wish("no-worse-than-target"), Wish("best")


def paths(right: Sequence[bool], share: float = 0.5, cost: float = 1.0) -> tuple[Path, ...]:
    return tuple(Path(0.0, 1.0, one, 100, round(100 * share), 1.0, cost, cost) for one in right)


def made_up(
    target: Sequence[bool], points: Mapping[float, tuple[Sequence[bool], float, float]], values: Sequence[float] = (0.2, 0.8),
    **others: object,
) -> Sweep:  # fmt: skip
    """A sweep in which each threshold has answers, a target share and a cost; the target alone costs 1 a question."""
    curve = tuple(Point(threshold, "rsd", paths(*given)) for threshold, given in points.items())
    draft = Point(None, "draft", paths([False] * len(target), 0.0, 0.1))
    return Sweep(draft, Point(None, "target", paths(target, 1.0)), curve, 1, True, RewardsSeen(tuple(values)), **others)  # type: ignore[arg-type]


def some(right: int, total: int) -> list[bool]:
    return [place < right for place in range(total)]


# Choosing and reporting


def test_a_threshold_that_luck_chose_is_not_reported_with_that_luck() -> None:
    """Twenty thresholds of equal worth, each right on a fair coin: the best of them looks good where it was chosen, and nowhere else."""
    chance = random.Random(7)
    flattering, reported, asked = 0.0, 0.0, 80
    for number in range(asked):
        coin = {place / 20: ([chance.random() < 0.5 for _ in range(40)], 0.5, 1.0) for place in range(20)}
        found = made_up(some(20, 40), coin)
        choice = cross_fit(found, BEST, number)
        flattering += best(found).accuracy / asked
        reported += choice.held_out.accuracy / asked
        assert choice.threshold == best(found).threshold
    assert flattering > 0.62, "the questions that chose it flatter it"
    assert abs(reported - 0.5) < 0.025, "others do not"


def test_no_question_has_a_say_in_the_threshold_that_it_is_counted_at() -> None:
    """Turning one question's answers around at every threshold changes nothing of the threshold that it is counted at."""
    chance = random.Random(3)
    answers = {place / 10: [chance.random() < 0.4 + 0.04 * place for _ in range(23)] for place in range(10)}
    target = [chance.random() < 0.7 for _ in range(23)]
    for wish in (BEST, NO_WORSE):
        usual = cross_fit(made_up(target, {at: (right, at, 1.0) for at, right in answers.items()}), wish, 5)
        assert len(set(usual.thresholds)) > 1
        for place in range(23):
            turned = {at: ([one != (number == place) for number, one in enumerate(right)], at, 1.0) for at, right in answers.items()}
            other = [one != (number == place) for number, one in enumerate(target)]
            assert cross_fit(made_up(other, turned), wish, 5).thresholds[place] == usual.thresholds[place]


def test_each_question_is_counted_at_its_own_threshold_and_all_choose_the_one_that_is_kept() -> None:
    answers = {0.0: (some(5, 20), 0.0, 0.5), 0.5: (some(12, 20), 0.25, 0.75), 1.0: ([*some(4, 12), *[True] * 8], 1.0, 1.5)}
    found = made_up(some(15, 20), answers)
    choice = cross_fit(found, BEST, 0)
    assert (choice.threshold, choice.folds, choice.held_out.threshold) == (0.5, 10, 0.5)
    for place, (threshold, path) in enumerate(zip(choice.thresholds, choice.held_out.paths, strict=True)):
        assert path == next(point for point in found.points if point.threshold == threshold).paths[place]
    assert choice == cross_fit(found, BEST, 0) and choice.thresholds != cross_fit(found, BEST, 1).thresholds
    few = cross_fit(found.on([0, 19]), BEST, 0)
    assert few.folds == 2 and few.target.questions == 2


def test_one_question_cannot_choose_and_report() -> None:
    found = made_up([True], {0.0: ([True], 0.0, 1.0)})
    with pytest.raises(ConfigError, match="1 question is too few"):
        cross_fit(found, BEST, 0)
    require_enough(3, bands=True)
    with pytest.raises(ConfigError, match="2 questions are too few: some choose the bands"):
        require_enough(2, bands=True)


def test_bands_are_measured_at_the_threshold_that_was_chosen_without_the_question() -> None:
    rewards = [RewardConfig("confidence"), RewardConfig("judge")]
    low, high = (Score(0.9, "confidence"), Score(0.3, "judge")), (Score(0.9, "confidence"), Score(0.7, "judge"))
    made = measure_each([[low, high], [low], []], rewards, [(0.2, 0.8)], [0.5, 0.2, 0.9])
    assert made[0] == StageFigures("confidence", (0.2, 0.8), True, 3, 3, 3, 3, 2)
    assert made == measure_each([[low, high], [low], []], rewards, [(0.2, 0.8)], [0.5, 0.2, 0.1])
    assert measure_each([[low], [high]], rewards, [None], [0.5, 0.5]) == measure([low, high], rewards, [None], 0.5)


# Against the target


def test_paired_intervals_are_those_of_the_literature() -> None:
    """Airway hyper-responsiveness of 21 children (Bentur et al. 2009) in Fagerland, Lydersen and Laake 2014, Stat. in Medicine 33."""
    assert paired_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert paired_interval(7, 1, 21) == pytest.approx((0.026, 0.517), abs=5e-4)
    low, high = paired_interval(40, 20, 160)
    assert low < lower_bound(40, 20, 160) < 0.125 < high
    # Where the two never differ, z² / (n + z²) is left.
    assert lower_bound(0, 0, 60) == pytest.approx(-(1.644854**2) / (60 + 1.644854**2))
    assert paired_interval(0, 0, 1)[0] < -0.7 and paired_interval(0, 5, 5)[0] == -1.0 and paired_interval(5, 0, 5)[1] == 1.0


def test_a_worse_one_is_rarely_called_no_worse() -> None:
    """Exact over all outcomes: RSD is worse by just the margin, and one run in twenty may say that it is not."""

    def wrongly(count: int, won: float, margin: float) -> float:
        lost, total = won + margin, 0.0
        for b in range(count + 1):
            for c in range(count + 1 - b):
                ways = math.comb(count, b) * math.comb(count - b, c)
                likely = ways * won**b * lost**c * (1 - won - lost) ** (count - b - c)
                if likely > 1e-6 and Comparison(b, c, count, margin).no_worse:
                    total += likely
        return total

    for count, won, margin in ((40, 0.03, 0.02), (60, 0.0, 0.05), (60, 0.05, 0.1), (90, 0.03, 0.05), (133, 0.0, 0.02)):
        assert wrongly(count, won, margin) < 0.07
    assert wrongly(60, 0.1, 0.1) > 0.02, "and it is not merely never said"


def test_the_number_of_questions_that_is_named_is_the_least_that_suffices() -> None:
    for won, lost, total, margin in ((0, 0, 60, 0.02), (1, 3, 100, 0.05), (3, 3, 60, 0.02), (4, 0, 30, 0.05)):
        needed = questions_needed(won, lost, total, margin)
        assert needed is not None
        shows = [lower_bound(won * count / total, lost * count / total, count) > -margin for count in (needed - 1, needed)]
        assert shows == [False, True]
    assert questions_needed(0, 0, 60, 0.02) == 133
    assert questions_needed(1, 3, 60, 0.02) is None, "it is worse by more than the margin"


def test_what_few_questions_cannot_show_is_not_claimed() -> None:
    few = no_worse_lines(Comparison(0, 0, 60))
    assert few == [
        "Not shown: no worse than the target by more than 2 points.",
        "It may be 4.3 points worse (one-sided 95 %); about 133 questions would show it.",
    ]
    assert max(map(len, few)) <= 80
    assert "about 200 questions" in no_worse_lines(Comparison(0, 0, 60), 2 / 3)[1], "a third of them choose the bands"
    enough = no_worse_lines(Comparison(0, 0, 200))
    assert enough == ["No worse than the target by more than 2 points: at most 1.3 points worse (one-sided 95 %)."]
    worse = no_worse_lines(Comparison(1, 9, 100))
    assert worse[0].startswith("Not shown") and "more like these would not show it" in worse[1]
    assert no_worse_lines(Comparison(60, 10, 100))[0].startswith("Better than the target by at least 3")
    assert "by more than 0.5 points" in no_worse_lines(Comparison(0, 0, 200, 0.005))[0]
    assert "by more than 1 point." in no_worse_lines(Comparison(0, 0, 200, 0.01))[0]
    for margin in (0.0, -0.01, 1.5, math.nan):
        with pytest.raises(ConfigError, match="margin"):
            Comparison(0, 0, 60, margin)


# What is said


def test_fewer_and_more_are_said_in_their_own_direction() -> None:
    assert [fewer(ratio) for ratio in (0.5, 1.3, 1.0, 0.999, 1.003, None)] == [
        "2.00× fewer", "1.30× more", "the same", "the same", "the same", "–",
    ]  # fmt: skip
    assert fewer_flops(0.5, (0.4, 0.8)) == "2.00× fewer FLOPs than the target alone (1.25× to 2.50×)"
    assert fewer_flops(1.3, (1.2, 1.5)) == "1.30× more FLOPs than the target alone (1.20× to 1.50×)"
    assert fewer_flops(0.9, (0.8, 1.1)) == "1.11× fewer FLOPs than the target alone (1.10× more to 1.25× fewer)"
    assert fewer_flops(1.0, (1.0, 1.0)) == "as many FLOPs as the target alone"
    assert fewer_flops(1.3, None) == "1.30× more FLOPs than the target alone"


def curve_of(count: int) -> Sweep:
    curve = {place / (count - 1): (some(10 + place, 80), place / (count - 1), 0.5 + place / count) for place in range(count)}
    return made_up(some(30, 80), curve)


def test_the_table_is_short_and_fits_eighty_columns_and_the_whole_one_has_every_threshold() -> None:
    found = curve_of(50)
    choice = cross_fit(found, NO_WORSE, 0)
    short = table(found, choice).splitlines()
    assert 5 <= len(short) - 2 <= 9 and max(map(len, short)) <= 80
    names = [line.split("|")[1].strip() for line in short[2:]]
    middle = names.index(f"{choice.threshold:g} ←")
    assert (names[0], names[1], names[-2], names[-1]) == ("draft alone", "0", "1", "target alone") and middle == 4
    whole = table(found, choice, whole=True).splitlines()
    assert len(whole) == 2 + 52 and "s/question" in whole[0]
    assert "--all" in table_note(found, choice) and "--all" not in table_note(found, choice, whole=True)
    for line in (short[middle + 2], next(line for line in whole if "←" in line)):
        assert f"{choice.held_out.accuracy:.1%}" in line, "not the figures of the questions that chose it"
    assert "×" in short[-2] and "fewer" not in short[-2] and "more" in short[-2]
    for few in (1, 2, 5):
        assert "--all" not in table_note(curve_of(few) if few > 1 else made_up([True], {0.4: ([True], 0.0, 1.0)}), None)


def test_the_line_of_the_choice_has_the_figures_of_questions_that_did_not_choose() -> None:
    found = curve_of(50)
    choice = cross_fit(found, NO_WORSE, 0)
    low, high = choice.held_out.interval
    line = chosen_line(found, choice)
    assert line.startswith(f"δ = {choice.threshold:g}: {choice.held_out.accuracy:.1%} right ({low:.1%} to {high:.1%}), ")
    assert "FLOPs than the target alone (" in line
    pair = difference_line(choice.compare())
    assert "on the same 80 questions" in pair and " points (" in pair


def test_a_question_that_ended_in_an_error_costs_nobody_anything() -> None:
    found = made_up([True] * 4, {0.0: ([True] * 4, 0.0, 0.5)})
    failed = Point(0.0, "rsd", (*found.points[0].paths[:3], UNANSWERED))
    assert failed.ratio(found.target, "full") == 0.5 and failed.full == 0.5 and failed.accuracy == 0.75
    none = Point(0.0, "rsd", (UNANSWERED,) * 4)
    assert none.ratio(found.target, "full") is None and none.ratio_interval(found.target, "full") is None and none.full == 0.0


def test_where_there_is_nothing_to_choose_it_is_said_why() -> None:
    def why(found: Sweep, wish: Wish = NO_WORSE, *, bands: bool = False) -> str | None:
        problem = undecided(found, wish, 0.7, bands=bands)
        assert problem is None or problem.hint and problem.exit_code == 1
        return None if problem is None else str(problem)

    right, wrong = [True] * 8, [False] * 8
    usual = {0.0: (right, 0.0, 0.5), 1.0: (right, 1.0, 1.5)}
    assert why(made_up(right, usual)) is None, "a target that is always right is one to be measured against"
    equal = why(made_up(right, usual, [0.5] * 21))
    assert equal == "the rewards of all 21 steps are 0.5, and no threshold tells steps apart: the threshold stays 0.7"
    assert "the only step" in str(why(made_up(right, usual, [0.5])))
    stays = {0.7: (right, 1.0, 1.5)}
    unchecked = made_up(right, stays, [])
    assert "is compared with the threshold" in str(why(unchecked)) and why(unchecked, bands=True) is None
    seen = RewardsSeen(unchecked=30), RewardsSeen(failed=30)
    checks, fails = (Sweep(unchecked.draft, unchecked.target, unchecked.points, 1, True, one) for one in seen)
    assert "found nothing to check in all 30 steps" in str(why(checks)) and "all 30 rewards failed" in str(why(fails))
    assert "target answered none of the 8 questions right" in str(why(made_up(wrong, usual))) and why(made_up(wrong, usual), BEST) is None
    hopeless = {0.0: (wrong, 0.0, 0.5), 1.0: (wrong, 1.0, 1.5)}
    assert "no threshold answers one of the 8 questions right" in str(why(made_up(right, hopeless), BEST))


def test_what_a_user_should_know_of_a_choice_is_said() -> None:
    def warned(found: Sweep, wish: Wish) -> str:
        return "; ".join(warnings(found, cross_fit(found, wish, 0)))

    right = [True] * 12
    assert warned(made_up(right, {0.0: (right, 0.3, 0.5), 1.0: (right, 1.0, 1.5)}), BEST) == ""
    assert "the target writes every step" in warned(made_up(right, {1.0: (right, 1.0, 1.5)}), BEST)
    assert "the answers are the draft's" in warned(made_up(right, {0.0: (right, 0.0, 0.5)}), NO_WORSE)
    assert "no threshold reaches the target" in warned(made_up(right, {0.0: (some(8, 12), 0.3, 0.5)}), NO_WORSE)
    tight = Wish("at-most-target-share", 0.2)
    assert "keeps the target's share at 20.0%" in warned(made_up(right, {0.0: (right, 0.3, 0.5)}), tight)
    errors = made_up(right, {0.0: (right, 0.3, 0.5)}, errors=2, cause="the context is full")
    assert "2 of 12 questions ended in an error and count as wrong: the context is full" in warned(errors, BEST)


def test_a_share_that_only_the_choosing_questions_kept_is_owned_up_to() -> None:
    """Half of the questions take many steps of the target: each is counted where the others alone kept the share."""

    def point(threshold: float, right: bool, shares: Sequence[int]) -> Point:
        return Point(threshold, "rsd", tuple(Path(0.0, 1.0, right, 10, share, 1.0, 1.0, 1.0) for share in shares))

    points = point(0.0, False, (3, 3, 3, 3)), point(0.5, True, (1, 9, 1, 9))
    usual = made_up([True] * 4, {})
    found = Sweep(usual.draft, usual.target, points, 1, True, usual.seen)
    choice = cross_fit(found, Wish("at-most-target-share", 0.5), 0, folds=4)
    assert choice.threshold == 0.5 and choice.met and choice.held_out.target_share == 0.6
    assert warnings(found, choice) == ["on questions that did not choose, the target writes 60.0% of the steps, more than 50.0%"]


def test_wishes_are_flags() -> None:
    assert [str(wish) for wish in (NO_WORSE, BEST, Wish("at-most-target-share", 0.3))] == [
        "--no-worse-than-target", "--best", "--at-most-target-share 0.3",
    ]  # fmt: skip
    found = curve_of(11)
    assert NO_WORSE.choose(found) == no_worse_than_target(found)
    with pytest.raises(ConfigError, match="target share 1.5 is outside 0 to 1"):
        Wish("at-most-target-share", 1.5)
