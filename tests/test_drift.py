"""The watch over a tuned trio's acceptance share: how often it is wrong, what it sees, and what a file must say for it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rsd_local.bench.datasets import load_dataset
from rsd_local.calibration.choice import Wish, cross_fit
from rsd_local.calibration.tuning import sweep
from rsd_local.catalogue import find_trio
from rsd_local.catalogue.own import save_threshold
from rsd_local.config import TunedFigures
from rsd_local.errors import ConfigError
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.ratios import Ratio, differ
from rsd_local.events import CancelToken, Rejected, StepDone, acceptance
from rsd_local.reasoner import Reasoner
from rsd_local.server.drift import ANSWERS, STEPS, DriftWatch

SERVERS, CHECKS = 200, 20
Answers = list[tuple[int, int]]


def answers(draws: np.random.Generator, share: float, count: int, spread: float) -> Answers:
    """Answers of 2 to 20 steps; each has a share of its own around ``share``, from a beta distribution (``spread`` 0: the same)."""
    steps = draws.integers(2, 21, count)
    own = draws.beta(share * (1 - spread) / spread, (1 - share) * (1 - spread) / spread, count) if spread else np.full(count, share)
    return list(zip(draws.binomial(steps, own).tolist(), steps.tolist(), strict=True))


def tuned(seen: Answers) -> TunedFigures:
    accepted, drafted = map(sum, zip(*seen, strict=True))
    return TunedFigures(0.5, accepted / drafted, drafted)


@pytest.mark.parametrize(("share", "spread"), [(0.7, 0.0), (0.7, 0.2), (0.97, 0.05), (0.3, 0.4)])
def test_one_check_is_wrong_in_about_one_of_a_hundred_and_drift_is_seldom_said_where_there_is_none(share: float, spread: float) -> None:
    draws = np.random.default_rng(5)
    logging.disable(logging.WARNING)
    wrong = checks = warned = 0
    for _ in range(SERVERS):
        watch = DriftWatch(tuned(answers(draws, share, 300, spread)))
        beyond, drifted = 0, False
        for one in answers(draws, share, ANSWERS * CHECKS, spread):
            before = watch.checks
            watch.add(*one)
            if watch.checks > before:
                beyond += watch._beyond != 0
                drifted |= watch.drift
        wrong, checks, warned = wrong + beyond, checks + watch.checks, warned + drifted
    logging.disable(logging.NOTSET)
    assert checks > SERVERS * CHECKS * 0.9
    assert wrong / checks < 0.02, "the interval is one of 99 %, and 50 answers say roughly how alike steps of one answer are"
    assert warned / SERVERS < 0.03, f"of {CHECKS} checks each"


@pytest.mark.parametrize("change", [-0.2, 0.2])
def test_a_share_that_has_changed_is_seen_after_two_checks_and_said_once(change: float, caplog: pytest.LogCaptureFixture) -> None:
    draws = np.random.default_rng(6)
    watch = DriftWatch(tuned(answers(draws, 0.7, 300, 0.1)))
    late = answers(draws, 0.7 + change, 6 * ANSWERS, 0.1)
    for one in late[:ANSWERS]:
        watch.add(*one)
    assert watch.checks == 1 and not watch.drift and not caplog.records, "once may be chance"
    for one in late[ANSWERS:]:
        watch.add(*one)
    assert watch.drift and watch.checks == 6 and watch.recent == pytest.approx(0.7 + change, abs=0.08)
    (record,) = caplog.records
    assert record.name == "rsd_local.server.drift" and "\n" not in record.getMessage()
    assert ("more often" if change > 0 else "less often") in record.getMessage() and "rsd tune" in record.getMessage()
    for one in answers(draws, 0.7, 2 * ANSWERS, 0.1):
        watch.add(*one)
    assert not watch.drift and len(caplog.records) == 1


def test_a_check_waits_for_answers_and_for_steps() -> None:
    watch = DriftWatch(TunedFigures(0.5, 1.0, 1000))
    for _ in range(ANSWERS + 10):
        watch.add(0, 1)
    assert watch.checks == 0 and watch.recent == 0.0, f"{ANSWERS + 10} steps are fewer than {STEPS}"
    for _ in range(STEPS):
        watch.add(0, 1)
    assert watch.checks == 1
    other = DriftWatch(TunedFigures(0.5, 1.0, 1000))
    for _ in range(ANSWERS - 1):
        other.add(0, 50)
    other.add(0, 0)
    assert other.checks == 0, "an answer in which the draft wrote nothing is none"


def test_shares_at_the_ends_are_compared_too() -> None:
    assert not differ(1.0, 400, 1.0, 200) and not differ(1.0, 400, 0.995, 200) and differ(1.0, 400, 0.95, 200)
    assert not differ(0.0, 1, 1.0, 1) and differ(0.0, 400, 0.1, 200)


def test_steps_of_one_answer_are_alike_and_the_interval_knows() -> None:
    draws = np.random.default_rng(7)
    inside = {0.0: 0, 0.3: 0}
    for spread in inside:
        for _ in range(400):
            low, high = Ratio.of(answers(draws, 0.6, 80, spread)).share_interval()
            inside[spread] += low <= 0.6 <= high
    assert all(0.92 <= count / 400 <= 0.98 for count in inside.values()), inside


def test_what_was_accepted_counts_places_and_not_tries() -> None:
    gone = Rejected("x", 0.1, 1)

    def step(author: str, rejected: Rejected | None = None) -> StepDone:
        return StepDone(0, author, "x", 0.5, 1, 0.1, rejected)  # type: ignore[arg-type]

    assert acceptance([step("draft"), step("draft", gone), step("target", gone), step("target")]) == (2, 3)


def test_tune_notes_the_share_that_the_same_questions_have_when_they_are_asked() -> None:
    items = load_dataset("arithmetic", 8, 3)
    trio = replace(find_trio("abacus"), parallel=1)
    with Reasoner.open(trio) as reasoner, Grader() as grader:
        found = sweep(
            reasoner, items, trio.params(), grader, seed=3, points=7, labelled=True, cancel=CancelToken(), watch=lambda *_: None
        )  # fmt: skip
        choice = cross_fit(found, Wish("best"), 3)
        weighting = replace(trio.params().weighting, threshold=choice.threshold)
        results = [reasoner.solve(item.question, replace(trio.params(), weighting=weighting)) for item in items]
    accepted, drafted = map(sum, zip(*(acceptance(result.steps) for result in results), strict=True))
    figures = choice.figures
    assert figures is not None and 0 < accepted < drafted
    assert (figures.threshold, figures.steps, figures.acceptance) == (
        choice.threshold,
        drafted,
        pytest.approx(accepted / drafted, abs=1e-5),
    )


def test_a_file_keeps_what_tune_saw_until_the_threshold_is_chosen_anew(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('threshold = 0.5 # mine\nreward_kind = "judge"\n\n[draft]\npath = "d.gguf"\n\n[target]\npath = "t.gguf"\n')
    assert find_trio(str(file)).tuned is None, "a file of an earlier version"
    save_threshold(str(file), 0.25, "a test", figures=TunedFigures(0.25, 0.75, 40))
    assert find_trio(str(file)).tuned == TunedFigures(0.25, 0.75, 40) and "tuned = {threshold = 0.25" in file.read_text()
    save_threshold(str(file), 0.3, "a test")
    assert find_trio(str(file)).tuned is None and "tuned" not in file.read_text()
    wrong = {"{acceptance = 0.5}": "missing", "{threshold = 0.5, acceptance = 2, steps = 1}": "outside 0 to 1", "3": "no table"}
    for value, words in wrong.items():
        file.write_text(f'tuned = {value}\nreward_kind = "judge"\n[draft]\npath = "d.gguf"\n[target]\npath = "t.gguf"\n')
        with pytest.raises(ConfigError, match=words):
            find_trio(str(file))
