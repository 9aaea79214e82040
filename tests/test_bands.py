"""The bands of a cascade: which ones are chosen, on what, what is said of them, and that the cascade then does what was said."""

from __future__ import annotations

import json
import math
import random
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_checked import lot
from test_cli import refused, rsd
from test_rsd import role
from tiny import chain, write_model, write_script

from rsd_local import Limits, Params, Prompt, Reasoner, Sampling, Trio, Weighting
from rsd_local.calibration.bands import FEWEST, Band, band_of, choose, choose_bands, is_sure, measure, measure_each, with_bands
from rsd_local.calibration.choice import Wish, best, cross_fit
from rsd_local.calibration.plot import draw
from rsd_local.calibration.stage_scores import StepScores, collect
from rsd_local.calibration.tuning import sweep
from rsd_local.catalogue import find_trio, user_models_file
from rsd_local.catalogue.own import require_reward_tables, save_threshold
from rsd_local.config import RewardConfig, Search
from rsd_local.errors import Cancelled, ConfigError, VerifierFailed
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.questions import question_seed
from rsd_local.evaluation.stats import wilson
from rsd_local.events import CancelToken, Drafted
from rsd_local.steps import UNCHECKED, Score

FEW = Sampling(temperature=0.9, top_k=5)
LIMITS = Limits(tokens=160, step_tokens=5, repeats=0)
PARAMS = Params(FEW, Weighting(threshold=0.5), LIMITS, Search(fallback="off"))
ITEMS = [Item(f"q{number}", f"What is the number after {number}?", "7", "number") for number in range(12)]
Check = Callable[[Prompt, tuple[str, ...], str], float | None]


def silent(*_: object) -> None:
    """Nobody watches."""


def stage(check: Check, band: Band | None = None) -> RewardConfig:
    return RewardConfig("verifier", verifier=check, lower=band and band[0], upper=band and band[1])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bands")
    return {name: write_model(folder / f"{name}.gguf", "dense", seed) for name, seed in (("draft", 1), ("target", 3), ("reward", 2))}


def opened(files: dict[str, Path], *rewards: RewardConfig, target: str = "target", **settings: object) -> Reasoner:
    usual = {"reuse": False, "parallel": 2}
    return Reasoner.open(Trio(role(files["draft"]), role(files[target]), rewards=rewards, **usual | settings))  # type: ignore[arg-type]


def cheap(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
    return round(lot(step), 3)


def dear(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
    """Accepts what ``cheap`` gives 0.7 or more, and nothing below 0.3; between them it has an opinion of its own."""
    value = round(lot(step), 3)
    return lot(step, "own") if 0.3 <= value < 0.7 else value


# Choosing


def test_a_band_ends_where_the_two_begin_to_differ() -> None:
    """0.00 to 0.39 rejected, 0.40 to 0.59 in turn accepted and rejected, 0.60 to 0.99 accepted."""
    pairs = [(place / 100, place >= 60 or (place >= 40 and place % 2 == 0)) for place in range(100)]
    assert band_of(pairs, 1.0) == (0.4, 0.6)
    # Up to 0.43 two of 44 are accepted (4.5 %), up to 0.45 three of 46; from 0.57 on two of 43 are rejected (4.7 %), from 0.55 three of 45.
    assert band_of(pairs, 0.95) == (0.44, 0.56)
    assert band_of(list(reversed(pairs)), 0.95) == (0.44, 0.56), "their order is of no matter"


def test_equal_scores_are_on_one_side() -> None:
    pairs = [(0.1, False)] * 60 + [(0.5, False)] * 3 + [(0.5, True)] * 27 + [(0.9, True)] * 30
    assert band_of(pairs, 1.0) == (0.5, 0.9)
    assert band_of(pairs, 0.95) == (0.5, 0.5), "57 of 60 are accepted from 0.5 on"
    assert band_of(pairs[30:], 0.95) == (0.5, 0.9), "but three of the 33 that are to be rejected are more than one in twenty"
    assert band_of([(0.5, place % 2 == 0) for place in range(100)], 0.95) == (0.0, 1.0)


def test_a_side_with_few_steps_stays_open() -> None:
    pairs = [(0.2, False)] * (FEWEST - 1) + [(0.8, True)] * FEWEST
    assert band_of(pairs, 0.95) == (0.0, 0.8)
    assert band_of([*pairs, (0.2, False)], 0.95) == (0.8, 0.8)
    assert band_of(pairs[: FEWEST + 5], 0.95) == (0.0, 1.0) and band_of([], 0.95) == (0.0, 1.0)


def test_a_reward_that_agrees_everywhere_decides_what_it_has_been_seen_to_give() -> None:
    assert band_of([(0.3 + place / 100, True) for place in range(30)], 0.95) == (0.0, 0.3)
    lower, upper = band_of([(0.3 + place / 100, False) for place in range(30)], 0.95)
    assert lower == math.nextafter(0.59, 1.0) and upper == 1.0, "nothing is known of higher ones"


def test_where_the_two_sides_cross_the_one_that_decides_more_goes_first() -> None:
    # From 0.4 on 400 of 410 are accepted, and below 0.6 300 of 306 rejected: what lies between would be on both sides.
    pairs = [(0.2, False)] * 290 + [(0.4, True)] * 6 + [(0.4, False)] * 10 + [(0.8, True)] * 394
    assert band_of(pairs, 0.95) == (0.8, 0.8)
    more = [(0.2, False)] * 290 + [(0.4, True)] * 10 + [(0.4, False)] * 6 + [(0.8, True)] * 394
    assert band_of(more, 0.95) == (0.4, 0.4)


def test_a_reward_that_knows_nothing_decides_nothing_though_nearly_all_is_accepted() -> None:
    chance = random.Random(1)
    pairs = [(chance.random(), chance.random() < 0.97) for _ in range(1000)]
    lower, upper = band_of(pairs, 0.95)
    assert lower == 0.0 and sum(value >= upper for value, _ in pairs) < 100


def test_each_side_agrees_as_asked_and_no_wider_side_would() -> None:
    chance = random.Random(5)
    for agreement in (0.8, 0.95, 1.0):
        for _ in range(40):
            slope = chance.choice((2, 8, 30))
            pairs = []
            for _ in range(chance.choice((30, 150, 400))):
                value = round(chance.random(), 2)
                pairs.append((value, chance.random() < 1 / (1 + math.exp(-slope * (value - 0.5)))))
            lower, upper = band_of(pairs, agreement)
            rejected = lambda at: [not good for value, good in pairs if value < at]  # noqa: B023, E731
            accepted = lambda at: [good for value, good in pairs if value >= at]  # noqa: B023, E731
            good = sum(accepts for _, accepts in pairs)
            leak = lambda side, others: len(side) - sum(side) <= (1 - agreement) * min(len(side), others) + 1e-9  # noqa: B023, E731
            fits_below = lambda at: len(rejected(at)) >= FEWEST and leak(rejected(at), good)  # noqa: B023, E731
            fits_above = lambda at: len(accepted(at)) >= FEWEST and leak(accepted(at), len(pairs) - good)  # noqa: B023, E731
            assert 0 <= lower <= upper <= 1
            assert (lower == 0.0 or fits_below(lower)) and (upper == 1.0 or fits_above(upper))
            values = {value for value, _ in pairs}
            wider = [at for at in values if (lower < at <= upper and fits_below(at)) or (lower <= at < upper and fits_above(at))]
            assert not wider, (lower, upper, wider)


def scores(*values: float | None) -> StepScores:
    return tuple(UNCHECKED if value is None else Score(value, "x") for value in values)


def test_a_later_reward_is_fitted_to_the_steps_that_are_left_to_it() -> None:
    rewards = [RewardConfig("confidence"), RewardConfig("digit"), RewardConfig("judge")]
    sure = [scores(0.1, 0.9, 0.0)] * 50 + [scores(0.9, 0.1, 1.0)] * 50  # the second one is wrong where the first is sure
    unsure = [scores(0.5, 0.2, 0.0)] * 30 + [scores(0.5, 0.8, 1.0)] * 30
    bands = choose([*sure, *unsure], rewards, 0.5, 0.95)
    assert bands == ((0.5, 0.9), (0.8, 0.8))
    first, second, last = measure([*sure, *unsure], rewards, bands, 0.5)
    assert (first.asked, first.decided, first.compared, first.agreed, first.saved) == (160, 100, 100, 100, 0.625)
    assert (second.asked, second.decided, second.agreed, last.asked, last.decided, last.band) == (60, 60, 60, 0, 0, None)
    assert first.agreement == 1.0 and first.interval == wilson(100, 100) and last.agreement is None


def test_what_gives_no_number_is_compared_with_nothing() -> None:
    rewards = [RewardConfig("confidence"), RewardConfig("judge")]
    known = [scores(0.2, 0.0)] * 30 + [scores(0.8, 1.0)] * 30
    failed = (Score(None, "confidence", failed=True), Score(1.0, "judge"))
    silent_ones = [scores(None, 0.0), failed, scores(0.8, None), (Score(0.2, "x"), Score(None, "judge", failed=True))] * 50
    assert choose([*known, *silent_ones], rewards, 0.5, 0.95) == choose(known, rewards, 0.5, 0.95) == ((0.8, 0.8),)
    first, last = measure([*known, *silent_ones], rewards, [(0.8, 0.8)], 0.5)
    assert (first.asked, first.decided, first.compared, first.agreed) == (260, 160, 60, 60)
    assert (last.asked, last.decided) == (100, 100)
    assert choose(silent_ones, rewards, 0.5, 0.95) == ((0.0, 1.0),)
    assert not is_sure((0.0, 0.0), Score(None, failed=True)) and not is_sure(None, UNCHECKED)


def test_a_verifier_that_only_passes_or_fails_keeps_its_band() -> None:
    steps = [scores(None, 1.0)] * 40 + [scores(0.0, 1.0)] * 40 + [scores(1.0, 0.0)] * 40
    plain, own = stage(cheap), stage(cheap, (0.0, 1.0))
    for one, band in ((plain, (1.0, 1.0)), (own, (0.0, 1.0))):
        assert choose(steps, [one, RewardConfig("judge")], 0.5, 0.95) == (None,)
        figures = measure(steps, [one, RewardConfig("judge")], [None], 0.5)[0]
        assert (figures.band, figures.chosen) == (band, False)
    figures = measure(steps, [plain, RewardConfig("judge")], [None], 0.5)[0]
    assert (figures.decided, figures.compared, figures.agreed) == (80, 80, 0)
    graded = [*([scores(0.25, 0.0)] * 20), *([scores(0.75, 1.0)] * 20)]
    assert choose(graded, [plain, RewardConfig("judge")], 0.5, 0.95) == ((0.75, 0.75),)
    assert choose(steps, [RewardConfig("confidence"), RewardConfig("judge")], 0.5, 0.95) != (None,)


# Scores of real runs


def test_every_reward_scores_every_step_of_the_drafts_own_solution(files: dict[str, Path]) -> None:
    asked: dict[str, list[tuple[str, str]]] = {"dear": [], "sure": []}

    def sure(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        asked["sure"].append((prompt.question, step))
        return float(lot(step) > 0.5)

    def noted(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        asked["dear"].append((prompt.question, step))
        return None if lot(step) > 0.8 else lot(step, "own")

    rewards = stage(sure), RewardConfig("tag-logits", model=role(files["reward"])), stage(noted)
    with opened(files, *rewards) as reasoner:
        found = collect(reasoner, ITEMS[:4], PARAMS, 3, CancelToken(), silent)
        for place, (item, steps) in enumerate(zip(ITEMS[:4], found, strict=True)):
            texts = [text for question, text in asked["sure"] if question == item.question]
            assert texts == [text for question, text in asked["dear"] if question == item.question] and steps is not None
            params = replace(PARAMS, sampling=replace(FEW, seed=question_seed(3, place)))
            whole = reasoner.solve(item.question, params, strategy="draft")
            assert len(texts) == sum(bool(step.text.strip()) for step in whole.steps) > 10
            assert [step[0].value for step in steps] == [float(lot(text) > 0.5) for text in texts]
            assert [step[2].value for step in steps] == [None if lot(text) > 0.8 else lot(text, "own") for text in texts]
            assert len({step[1].value for step in steps}) > 10
            rsd_scores = [step.reward for step in reasoner.solve(item.question, params).steps if step.reward_by == "tag-logits"]
            assert not rsd_scores, "the first one is always sure"
        stopped = CancelToken()
        stopped.cancel()
        with pytest.raises(Cancelled):
            collect(reasoner, ITEMS[:2], PARAMS, 3, stopped, silent)


def test_a_step_of_white_space_alone_is_shown_to_no_reward(tmp_path: Path) -> None:
    words = ["One", "\n", "Two"]
    model = write_script(tmp_path / "m.gguf", words, chain(*words))
    asked: list[tuple[tuple[str, ...], str]] = []

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        asked.append((steps, step))
        return 0.5

    with Reasoner.open(Trio(role(model), role(model), rewards=(stage(check), stage(dear)), system="", delimiter="tokens:1")) as reasoner:
        (found,) = collect(reasoner, ITEMS[:1], Params(), 0, CancelToken(), silent)
    assert asked == [((), "One"), (("One",), "Two")] and found is not None and len(found) == 2


def test_a_verifier_that_fails_is_a_failed_score_or_a_lost_question(files: dict[str, Path]) -> None:
    def breaks(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        if prompt.question != ITEMS[1].question:
            raise ZeroDivisionError
        return 0.5

    with opened(files, stage(breaks, (0.2, 0.8)), stage(dear), on_verifier_error="target") as reasoner:
        failed, fine = collect(reasoner, ITEMS[:2], PARAMS, 0, CancelToken(), silent)
        assert failed and all(step[0].failed and step[0].value is None and step[1].value is not None for step in failed)
        assert fine and not any(step[0].failed for step in fine)
    with opened(files, stage(breaks, (0.2, 0.8)), stage(dear)) as reasoner:
        lost, fine = collect(reasoner, ITEMS[:2], PARAMS, 0, CancelToken(), silent)
        assert lost is None and fine
        with pytest.raises(VerifierFailed, match="breaks"):
            collect(reasoner, ITEMS[2:4], PARAMS, 0, CancelToken(), silent)
        found, _ = choose_bands(reasoner, ITEMS[:3], PARAMS, seed=1, agreement=0.95, cancel=CancelToken(), watch=silent)
        assert found.lost == 2


def test_bands_are_recovered_on_some_questions_and_hold_on_the_others(files: dict[str, Path]) -> None:
    with opened(files, stage(cheap, (0.0, 0.0)), stage(dear)) as reasoner:
        found, others = choose_bands(reasoner, ITEMS, PARAMS, seed=0, agreement=1.0, cancel=CancelToken(), watch=silent)
        again, same = choose_bands(reasoner, ITEMS, PARAMS, seed=0, agreement=1.0, cancel=CancelToken(), watch=silent)
        rewards = reasoner.config.stages
        for agreement in (0.5, 1.1):
            with pytest.raises(ConfigError, match="agreement"):
                choose_bands(reasoner, ITEMS, PARAMS, seed=0, agreement=agreement, cancel=CancelToken(), watch=silent)
        with pytest.raises(ConfigError, match="too few"):
            choose_bands(reasoner, ITEMS[:1], PARAMS, seed=0, agreement=0.95, cancel=CancelToken(), watch=silent)
    assert (found, others) == (again, same)
    steps = [step for question in found.measured for step in question]
    assert (found.questions, len(others), found.lost, found.threshold) == (4, 8, 0, 0.5) and len(steps) > found.steps > 80
    assert len(found.measured) == len(others)
    (band,) = found.bands
    assert band is not None and 0.3 <= band[0] < 0.42 and 0.58 < band[1] < 0.72
    figures = measure(steps, rewards, found.bands, 0.5)
    assert measure_each(found.measured, rewards, found.bands, [0.5] * 8) == figures
    assert found.accepted_by_last([0.5] * 8) == sum((step[1].value or 0.0) >= 0.5 for step in steps) / len(steps)
    assert figures[0].chosen and figures[0].agreement is not None and figures[0].agreement > 0.9
    assert figures[0].saved == figures[0].decided / len(steps) > 0.5


def test_the_cascade_asks_and_decides_as_the_table_says(files: dict[str, Path]) -> None:
    """A target that writes what the draft does: then the steps are the draft's own, whatever is rejected."""

    def first(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return None if lot(step, "none") < 0.1 else cheap(prompt, steps, f"{len(steps)} {step}")

    def second(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return dear(prompt, steps, f"{len(steps)} {step}")

    greedy = replace(PARAMS, sampling=Sampling(0.0))
    with opened(files, stage(first), stage(second), target="draft") as reasoner:
        found, others = choose_bands(reasoner, ITEMS, greedy, seed=2, agreement=0.9, cancel=CancelToken(), watch=silent)
        config = with_bands(reasoner.config, found.bands)
    figures = measure_each(found.measured, config.stages, found.bands, [0.5] * len(others))
    decided: Counter[str] = Counter()
    with Reasoner.open(config) as reasoner:
        for item in others:
            events = list(reasoner.stream(item.question, greedy))
            assert any(isinstance(event, Drafted) for event in events)
            decided.update(events[-1].decided_by)  # type: ignore[union-attr]
    assert decided == {"first": figures[0].decided, "second": figures[1].decided} and min(decided.values()) > 0


def test_a_short_form_becomes_a_list_of_rewards_with_bands() -> None:
    draft, target = role(Path("d.gguf")), role(Path("t.gguf"))
    short = Trio(draft, target, reward_kind="verifier,confidence,judge", verifier="arithmetic", threshold=0.4, parallel=3)
    made = with_bands(short, [None, (0.1, 0.6)])
    assert [one.band(last=False) for one in made.stages[:2]] == [(1.0, 1.0), (0.1, 0.6)]
    assert (made.threshold, made.parallel) == (0.4, 3) and [one.name for one in made.stages] == ["arithmetic", "confidence", "judge"]


@pytest.mark.parametrize(("what", "points"), [("names", 4), ("equal names", 4), ("retries", 16)])
def test_one_sweep_of_a_cascade_gives_what_a_run_at_each_threshold_gives(files: dict[str, Path], what: str, points: int) -> None:
    if what == "equal names":
        rewards = [stage(lambda *given: cheap(*given), (0.2, 0.7)), stage(lambda *given: dear(*given))]
    else:
        rewards = [stage(cheap, (0.2, 0.7)), stage(dear)]
    params = replace(PARAMS, search=Search(fallback="off", retries=int(what == "retries")), limits=replace(LIMITS, tokens=80))
    with opened(files, *rewards) as reasoner, Grader() as grader:
        found = sweep(reasoner, ITEMS[:3], params, grader, seed=0, points=points, labelled=True, cancel=CancelToken(), watch=silent)
        for point in found.points:
            assert point.threshold is not None
            results = []
            for place, item in enumerate(ITEMS[:3]):
                given = replace(params, sampling=replace(FEW, seed=question_seed(0, place)), weighting=Weighting(threshold=point.threshold))
                results.append(reasoner.solve(item.question, given))
            steps = [step for result in results for step in result.steps]
            assert point.paper == pytest.approx(sum(result.paper_flops for result in results) / 3), point.threshold
            assert point.target_share == pytest.approx(sum(step.author == "target" for step in steps) / len(steps)), point.threshold
    shares = [point.target_share for point in found.points]
    assert len(set(shares)) > 2 and shares[0] > 0, "the first reward rejects at every threshold"
    tried = [point.threshold or 0.0 for point in found.points[1:-1]]
    assert what == "equal names" or all(0.2 <= at < 0.3 or round(at, 3) != at for at in tried), (
        "numbers of the first one, which has its own band"
    )


def test_a_threshold_that_nothing_is_compared_with_stays(files: dict[str, Path], tmp_path: Path) -> None:
    with opened(files, stage(cheap, (0.5, 0.5)), stage(dear)) as reasoner, Grader() as grader:
        params = replace(PARAMS, weighting=Weighting(threshold=0.4))
        found = sweep(reasoner, ITEMS[:2], params, grader, seed=0, points=5, labelled=True, cancel=CancelToken(), watch=silent)
    (point,) = found.points
    assert point.threshold == best(found).threshold == 0.4 and 0 < point.target_share < 1 and found.runs == 2
    choice = cross_fit(found, Wish("best"), 0)
    assert choice.threshold == 0.4 and choice.held_out == point, "there is nothing to choose"
    draw(found, choice, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


# Files and the command


TABLES = """# mine
threshold = 0.5 # by hand
draft.path = "d.gguf"
target.path = "t.gguf"

# the cheap one
[[reward]]
kind = "confidence" # free
upper = 0.9 # a guess

# then this
[[reward]]
kind = "verifier"
verifier = "arithmetic"

# and the target
[[reward]]
kind = "judge"
lower = 0.5
upper = 0.6
"""


def test_bands_are_written_into_tables_whose_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TABLES)
    require_reward_tables(str(file), 3)
    save_threshold(str(file), 0.25, "a test", [(0.125, 0.75), None])
    text = file.read_text()
    assert 'kind = "confidence" # free\nupper = 0.75 # a guess\nlower = 0.125\n\n# then this\n[[reward]]' in text
    assert [line for line in TABLES.splitlines() if line.startswith("#")] == [line for line in text.splitlines() if line.startswith("#")]
    trio = find_trio(str(file))
    assert trio.threshold == 0.25 and [one.band(last=False) for one in trio.stages[:2]] == [(0.125, 0.75), (1.0, 1.0)]
    assert trio.stages[2].upper == 0.25 and tomllib.loads(text)["threshold_from"] == "a test"
    file.write_text("threshold = = 1")
    for call in (lambda: require_reward_tables(str(file), 2), lambda: save_threshold(str(file), 0.25, "a test", [(0.1, 0.2)])):
        with pytest.raises(ConfigError, match="cannot be"):
            call()


def test_without_tables_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for text in ('reward_kind = "confidence,judge"\ndraft.path = "d"\ntarget.path = "t"\n', TABLES, "reward.path = 'r.gguf'\n"):
        file.write_text(text)
        for call in (lambda: require_reward_tables(str(file), 2), lambda: save_threshold(str(file), 0.25, "a test", [(0.1, 0.2)])):
            with pytest.raises(ConfigError, match=r"no \[\[reward\]\] tables"):
                call()
        assert file.read_text() == text
    with pytest.raises(ConfigError, match=r"no \[\[trio.coder.reward\]\] tables"):
        require_reward_tables("coder", 2)
    own = user_models_file()
    own.parent.mkdir(parents=True, exist_ok=True)
    tables = [f'[[trio.mine.reward]]\nkind = "{kind}"\n' for kind in ("confidence", "judge")]
    own.write_text('[trio.mine]\ndraft.path = "d"\ntarget.path = "t"\n' + "".join(tables))
    try:
        require_reward_tables("mine", 2)
        save_threshold("mine", 0.5, "a test", [(0.1, 0.2)])
        assert find_trio("mine").stages[0].band(last=False) == (0.1, 0.2) and find_trio("mine").threshold == 0.5
    finally:
        own.unlink()


def test_a_command_tunes_bands_and_threshold_and_keeps_them(tmp_path: Path) -> None:
    abacus, file = find_trio("abacus"), tmp_path / "mine.toml"
    assert abacus.reward is not None
    head = f'task = "arithmetic"\nsystem = ""\ndraft.path = "{abacus.draft.path}"\ntarget.path = "{abacus.target.path}"\n'
    threads = "draft.threads = 1\ntarget.threads = 1\n"
    tables = f'[[reward]]\nkind = "confidence"\n\n[[reward]] # dear\nkind = "tag-logits"\npath = "{abacus.reward.path}"\nthreads = 1\n'
    file.write_text(head + threads + tables)
    arguments = ("--trio", file, "--data", "arithmetic", "--limit", "24", "-n", "150", "--points", "4", "--best")
    done = rsd("tune", *arguments, "--agreement", "0.9")
    assert done.returncode == 0, done.stderr
    assert "bands chosen on 8 questions" in done.stdout and "of the 16 others" in done.stdout and "confidence" in done.stdout
    trio = find_trio(str(file))
    assert "--agreement 0.9 --best" in trio.threshold_from and "# dear" in file.read_text()
    band = trio.stages[0].band(last=False)
    assert band is not None and band != (0.2, 0.8) and f"δ = {trio.threshold:g}: " in done.stdout
    assert f"; threshold and bands written to {file}\n" in done.stdout
    kept = file.read_text()
    done = rsd("tune", *arguments, "--json", "--dry-run")
    assert done.returncode == 0 and file.read_text() == kept, done.stderr
    made = json.loads(done.stdout)
    first, last = made["bands"]["rewards"]
    assert (first["name"], last["name"], last["band"]) == ("confidence", "tag-logits", None)
    assert first["saved"] == first["decided"] / first["steps"] and last["asked"] == first["steps"] - first["decided"]
    assert made["bands"]["chosen_on"]["questions"] == 8 and made["target"]["questions"] == 16
    assert 0 <= made["bands"]["accepted_by_last"] <= 1
    assert [one["band"] for one in made["bands"]["rewards_at_their_threshold"]] == [first["band"], None]
    assert made["bands"]["chosen_on"]["threshold"] == trio.threshold and made["bands"]["chosen_on"]["agreement"] == 0.95

    file.write_text(head + f'reward_kind = "confidence,tag-logits"\nreward.path = "{abacus.reward.path}"\n')
    refused(rsd("tune", *arguments), 2, "has no [[reward]] tables", "--dry-run")
    refused(rsd("tune", "--data", "arithmetic", "--best", "--agreement", "0.9"), 2, "--agreement is for several rewards")
