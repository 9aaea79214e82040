"""A read-out fitted on rollouts, and a threshold tuned: both on abacus, whose steps mean something."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import refused, rsd

from rsd_local.bench.datasets import load_dataset
from rsd_local.calibration.choice import at_most_target_share, best, no_worse_than_target
from rsd_local.calibration.fit import PENALTIES, fit, log_loss
from rsd_local.calibration.labels import Labelling
from rsd_local.calibration.paths import Path as Run
from rsd_local.calibration.paths import path_of, serving, thresholds
from rsd_local.calibration.points import Point, Sweep
from rsd_local.calibration.rollouts import STORED, RolloutRow, Rollouts, pack, roll_out, unpack
from rsd_local.calibration.training import gather
from rsd_local.calibration.tuning import sweep
from rsd_local.catalogue import find_trio, user_models_file
from rsd_local.catalogue.own import save_threshold
from rsd_local.config import Limits, Params, Sampling, Search, Weighting
from rsd_local.errors import ConfigError
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.stats import area_under_curve
from rsd_local.events import CancelToken
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.features import PARTS, Course, step_features
from rsd_local.rewards.heads import ReadOut, read_head
from rsd_local.roles import DRAFT, Stream
from rsd_local.steps import Trace


def made_up(rows: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    features = chance.normal(size=(rows, width)) * chance.uniform(0.1, 50, width) + chance.normal(size=width)
    slope = chance.normal(size=width)
    likely = 1 / (1 + np.exp(-((features - features.mean(0)) / features.std(0)) @ slope))
    return features, (chance.random(rows) < likely).astype(float), np.arange(rows) // 4, likely


def test_a_fit_finds_what_made_the_labels() -> None:
    features, labels, groups, likely = made_up(2_000, 12, 0)
    made = fit(features, labels, groups)
    assert np.abs(made.probabilities(features) - likely).mean() < 0.04
    assert made.loss == pytest.approx(log_loss(likely, labels), abs=0.03)
    # The optimum's own equation: the slope of the loss is the penalty's.
    standardized = (features - made.mean) / made.scale
    slope = standardized.T @ (made.probabilities(features) - labels) + made.penalty * made.weight
    assert np.abs(slope).max() < 1e-2 and made.penalty in PENALTIES


def test_questions_are_never_on_both_sides_of_a_cut() -> None:
    """Features that name the question, and labels that only depend on it: whoever mixes rows of a question learns it by heart."""
    chance = np.random.default_rng(1)
    groups = np.repeat(np.arange(80), 8)
    names = chance.normal(size=(80, 120))
    features = names[groups] + 0.01 * chance.normal(size=(640, 120))
    labels = chance.integers(0, 2, 80).astype(float)[groups]
    assert fit(features, labels, groups).loss > 0.6
    assert fit(features, labels, np.arange(640)).loss < 0.4


def test_what_a_fit_says_of_its_own_rows_comes_from_heads_that_never_saw_them() -> None:
    chance = np.random.default_rng(0)
    features, labels = chance.standard_normal((200, 150)), chance.integers(0, 2, 200).astype(float)
    made = fit(features, labels, np.arange(200))
    right = (labels > 0.5).tolist()
    assert area_under_curve(made.probabilities(features).tolist(), right) > 0.75, "noise is learnt by heart"
    assert 0.4 < area_under_curve(made.left_out.tolist(), right) < 0.6
    assert made.loss == pytest.approx(log_loss(made.left_out, labels))


def test_a_head_learns_from_the_features_that_it_is_later_given() -> None:
    chance = np.random.default_rng(2)
    sizes = (3, 1, 5)
    traces = [
        Trace(
            chance.normal(size=(size, 4)).astype(np.float32),
            -chance.random(size).astype(np.float32),
            chance.random(size).astype(np.float32),
        )
        for size in sizes
    ]
    stored = pack([step_features(trace, Course(place), STORED) for place, trace in enumerate(traces)])
    row = RolloutRow(
        id="q", sample=0, steps=["a", "b", "c"], answer="1", correct=True, labels=[1.0] * 3, confidences=[0.5] * 3, features=stored
    )
    steps, course, given = gather([row], 4), Course(), []
    for trace in traces:
        given.append(step_features(trace, course, PARTS))
        course = course.after(trace)
    np.testing.assert_allclose(steps.features, given, atol=4e-3)  # they are stored in 16 bits
    before_last = Course().after(traces[0]).after(traces[1])
    for part in PARTS:
        np.testing.assert_allclose(steps.columns((part,))[2], step_features(traces[2], before_last, (part,)), atol=4e-3)


def test_rollouts_have_the_features_that_a_reward_is_given(tmp_path: Path) -> None:
    trio = replace(find_trio("abacus"), reward=None, reward_kind="confidence", width=2, reuse=False)
    items, params = load_dataset("arithmetic", 6, 5), Params(Sampling(), search=Search(samples=1))
    with Reasoner.open(trio) as opened, Grader() as grader, Rollouts.open(tmp_path / "rollouts", {}, resume=False) as kept:
        roll_out(opened, items, params, Labelling(), kept, grader, seed=0, cancel=CancelToken(), watch=lambda *_: None)
        for item in items:
            (row,) = [row for row in kept.rows if row["id"] == item.id]
            learnt = gather([row], opened.trio.draft.model.n_embd).features
            writer, course = opened.trio.writer("draft", opened.read_prompt(item.question), tracing="states"), Course()
            scan = opened.trio.segmenter.start()
            assert len(row["steps"]) >= 2
            for text, features in zip(row["steps"], learnt, strict=True):
                scan.begin()
                step = writer.start_writing(200, scan, Sampling(), Stream(0, DRAFT)).result()
                assert step.text == text and step.trace is not None
                np.testing.assert_allclose(step_features(step.trace, course, PARTS), features, rtol=5e-3, atol=5e-3)
                course = course.after(step.trace)
            writer.close()


def test_packed_features_come_back() -> None:
    rows = [np.array([1.5, -2.0, 0.25], np.float32), np.array([0.0, 3.0, 1e3], np.float32)]
    np.testing.assert_array_equal(unpack(pack(rows), 2), rows)


@pytest.fixture(scope="module")
def abacus() -> Iterator[Reasoner]:
    trio = find_trio("abacus")
    draft, target = (replace(role, flash_attention="off", cache_type="f32") for role in (trio.draft, trio.target))
    with Reasoner.open(
        replace(trio, draft=draft, target=target, reward=None, reward_kind="confidence", parallel=4, width=4, reuse=False)
    ) as opened:
        yield opened


@pytest.mark.parametrize("labelling", [Labelling(), Labelling("mc", 3)])
def test_rollouts_resume_to_what_an_unbroken_run_gives(abacus: Reasoner, tmp_path: Path, labelling: Labelling) -> None:
    items = load_dataset("arithmetic", 12, 5)
    params = Params(Sampling(0.9), limits=Limits(tokens=150), search=Search(samples=2))

    def run(folder: Path, count: int, resume: bool = False) -> list[object]:
        with Rollouts.open(folder, {"for": "test"}, resume) as kept, Grader() as grader:
            roll_out(abacus, items[:count], params, labelling, kept, grader, seed=1, cancel=CancelToken(), watch=lambda *_: None)
            return sorted((row["id"], row["sample"], row["answer"], tuple(row["labels"])) for row in kept.rows)

    whole = run(tmp_path / "whole", 12)
    run(tmp_path / "broken", 7)
    file = tmp_path / "broken" / "rollouts.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    assert run(tmp_path / "broken", 12, resume=True) == whole and len(whole) == 24
    labels = [label for *_, row in whole for label in row]  # type: ignore[misc]
    assert 0.2 < sum(labels) / len(labels) < 1
    assert any(0 < label < 1 for label in labels) == (labelling.label == "mc")


def test_monte_carlo_labels_drop_at_the_first_wrong_step(abacus: Reasoner, tmp_path: Path) -> None:
    from rsd_local.abacus.task import check

    items = load_dataset("arithmetic", 30, 8, level=4)
    params = Params(Sampling(1.2), limits=Limits(tokens=150), search=Search(samples=1))
    with Rollouts.open(tmp_path / "mc", {}, False) as kept, Grader() as grader:
        roll_out(abacus, items, params, Labelling("mc", 3), kept, grader, seed=1, cancel=CancelToken(), watch=lambda *_: None)
    questions = {item.id: item.question for item in items}
    by_verdict: dict[bool, list[float]] = {True: [], False: []}
    for row in kept.rows:
        for verdict, label in zip(check(questions[row["id"]], row["steps"]), row["labels"], strict=True):
            by_verdict[verdict].append(label)
    assert np.mean(by_verdict[True]) > np.mean(by_verdict[False]) + 0.3


def test_a_trained_read_out_scores_without_a_third_model(tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    trained = rsd("train-reward", "--data", "arithmetic", "--limit", "120", "--out", out, "-P", "8", "--json")
    assert trained.returncode == 0, trained.stderr
    figures = json.loads(trained.stdout)
    assert figures["held_out"]["auc"] > 0.6 and figures["held_out"]["questions"] == 24 and figures["questions"] == 96
    assert isinstance(read_head(out), ReadOut)
    again = rsd("train-reward", "--data", "arithmetic", "--limit", "120", "--out", tmp_path / "2.safetensors", "--rollouts",
                f"{out}.rollouts", "-P", "8", "--resume")  # fmt: skip
    assert again.returncode == 0 and "rollouts: 120/120" in again.stderr and "going on with 120 rollouts in" in again.stderr
    assert (tmp_path / "2.safetensors").read_bytes() == out.read_bytes()
    refused(rsd("train-reward", "--data", "arithmetic", "--out", tmp_path), 2, "is a directory")
    refused(rsd("train-reward", "--data", "arithmetic", "--out", out, "--head", out), 2, "--head is of no use here")
    refused(rsd("train-reward", "--data", "arithmetic", "--out", out, "--samples", "4", "--temp", "0"), 2, "every sample is the same")

    done = rsd("solve", "12+30-5", "--reward-kind", "read-out", "--head", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counters"]["reward"]["evaluated_tokens"] == 0
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(out.read_bytes()[:-1] + b"\x7f")
    refused(rsd("solve", "1+1", "--reward-kind", "read-out", "--head", damaged), 1, "damaged")
    draft = find_trio("abacus").target.path
    refused(
        rsd("solve", "1+1", "--trio", "abacus", "--draft", draft, "--reward-kind", "read-out", "--head", out),
        1,
        "another file",
        "rsd train-reward",
    )


def test_an_area_that_nothing_tells_is_null_and_said_in_words(tmp_path: Path) -> None:
    """The two questions that are held out are both answered right, so there is nothing to tell apart."""
    words = ["train-reward", "--data", "arithmetic", "--limit", "12", "--out", tmp_path / "head.safetensors", "-t", "1"]

    def none_in_json(constant: str) -> None:
        raise AssertionError(constant)

    done = rsd(*words, "--json")
    held_out = json.loads(done.stdout, parse_constant=none_in_json)["held_out"]
    assert (held_out["good"], held_out["auc"], held_out["auc_interval"]) == (1.0, None, [None, None])
    done = rsd(*words)
    assert "area under the curve not known, for all these steps have one label\n" in done.stdout and "nan" not in done.stdout


def test_what_keeps_a_read_out_from_being_trained_is_said_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    words = ["train-reward", "--data", "arithmetic", "--out", out, "-P", "4"]
    refused(rsd(*words, "--limit", "9"), 2, "9 questions are too few to learn from")
    refused(rsd(*words, "--limit", "12", "--held-out", "0.9"), 2, "questions are left to learn from")
    refused(rsd(*words[:-3], tmp_path / "none" / "head", "--limit", "20"), 2, "no directory")
    assert list(tmp_path.iterdir()) == [], "no folder that blocks the next try"


def test_the_same_command_goes_on_from_its_rollouts_also_with_more_questions(tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    data = tmp_path / "data.jsonl"

    def train(*more: object, questions: int = 16) -> subprocess.CompletedProcess[str]:
        lines = [{"id": item.id, "question": item.question, "answer": item.answer} for item in load_dataset("arithmetic", questions, 5)]
        data.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"id": "no sum", "question": "hello", "answer": "1"}]))
        return rsd("train-reward", "--data", data, "--out", out, "-P", "4", *more)

    rows = tmp_path / "head.safetensors.rollouts" / "rollouts.jsonl"
    first = train()
    assert first.returncode == 0, first.stderr
    assert "no rollout: 1 × question-refused: not an arithmetic expression: 'hello'" in first.stderr
    paid = rows.read_text()
    again = train("--held-out", "0.4")
    assert again.returncode == 0 and "going on with 17 rollouts in" in again.stderr and rows.read_text() == paid
    more = train(questions=20)
    assert more.returncode == 0 and rows.read_text().startswith(paid) and len(rows.read_text().splitlines()) == 21
    fewer = train("--role", "target")
    assert fewer.returncode == 0 and "of 20 questions" not in fewer.stdout and "target's states: 16/16" in fewer.stderr, fewer.stderr
    refused(train("-n", "100"), 2, "params.limits.tokens is 768 there and 100 here", "--rollouts with another folder")


def test_rollouts_where_every_step_is_right_are_kept_for_the_next_try(tmp_path: Path) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "head.safetensors"
    easy = [{"id": f"easy-{number}", "question": f"{number}+1", "answer": str(number + 1)} for number in range(1, 13)]
    data.write_text("".join(json.dumps(line) + "\n" for line in easy))
    refused_after = rsd("train-reward", "--data", data, "--out", out, "-P", "4")
    assert refused_after.returncode == 2 and "every step is labelled right" in refused_after.stderr.splitlines()[-1]
    hard = [{"id": item.id, "question": item.question, "answer": item.answer} for item in load_dataset("arithmetic", 12, 5, level=5)]
    data.write_text("".join(json.dumps(line) + "\n" for line in [*easy, *hard]))
    done = rsd("train-reward", "--data", data, "--out", out, "-P", "4")
    assert done.returncode == 0 and "rollouts: 12/24" in done.stderr, done.stderr


def test_a_folder_of_rollouts_of_0_2_is_gone_on_with(tmp_path: Path) -> None:
    from rsd_local.bench.results import describe_questions

    out = tmp_path / "head.safetensors"
    words = ["train-reward", "--data", "arithmetic", "--limit", "16", "-s", "5", "--out", out, "-P", "4"]
    assert rsd(*words).returncode == 0
    file = tmp_path / "head.safetensors.rollouts" / "config.json"
    written = json.loads(file.read_text())
    written["config"]["questions"] = describe_questions(load_dataset("arithmetic", 16, 5))
    for role in ("draft", "target"):
        del written["config"]["trio"][role]["sha256"]
    file.write_text(json.dumps(written))
    again = rsd(*words)
    assert again.returncode == 0 and "going on with 16 rollouts" in again.stderr, again.stderr
    refused(rsd(*words, "--limit", "17"), 2, "questions.number is 16 there and 17 here")


def test_one_sweep_gives_what_a_run_at_each_threshold_gives() -> None:
    items = load_dataset("arithmetic", 10, 3)
    params = Params(limits=Limits(tokens=200), search=Search(fallback="off"))  # whether a guess pays changes with the machine's pace
    with Reasoner.open(replace(find_trio("abacus"), reuse=False)) as opened, Grader() as grader:
        found = sweep(opened, items, params, grader, seed=0, points=48, labelled=True, cancel=CancelToken(), watch=lambda *_: None)
        assert len(found.points) >= 12 and found.runs < len(items) * len(found.points) / 2
        for point in found.points[::3]:
            assert point.threshold is not None
            results = [opened.solve(item.question, replace(params, weighting=Weighting(threshold=point.threshold))) for item in items]
            assert point.right == sum(grader.grade(item, result.answer) for item, result in zip(items, results, strict=True))
            written = sum(step.author == "target" for result in results for step in result.steps)
            assert point.target_share == pytest.approx(written / sum(len(result.steps) for result in results))
            assert point.paper == pytest.approx(sum(result.paper_flops for result in results) / len(items))
    assert found.draft.target_share == 0 and found.target.target_share == 1
    shares = [point.target_share for point in found.points]
    assert shares[0] == 0 and shares[-1] > 0.9


def test_a_path_serves_from_above_what_it_rejected_to_what_it_accepted() -> None:
    run = Run(0.3, 0.6, True, 3, 1, 0.0, 1.0, 1.0)
    assert [run.serves(threshold) for threshold in (0.3, 0.301, 0.6, 0.601)] == [False, True, True, False]
    other = replace(run, above=0.6, up_to=0.9)
    assert serving([run, other], 0.6) is run and serving([run, other], 0.61) is other
    assert thresholds([place / 8 for place in range(9)], 3) == [0.0, 0.25, 1.0] and thresholds([], 3) == [0.0, 1.0]


def test_wishes() -> None:
    def point(threshold: float | None, right: int, share: float) -> Point:
        paths = (Run(0.0, 1.0, place < right, 100, round(100 * share), 1.0, 1.0, 1.0) for place in range(100))
        return Point(threshold, "rsd", tuple(paths))

    found = Sweep(
        point(None, 50, 0), point(None, 90, 1), (point(0, 50, 0), point(0.4, 80, 0.2), point(0.8, 91, 0.4), point(1, 91, 1)), 9, True
    )
    assert no_worse_than_target(found).threshold == 0.8 and best(found).threshold == 0.8
    assert at_most_target_share(found, 0.3).threshold == 0.4 and at_most_target_share(found, 0.0).threshold == 0
    assert no_worse_than_target(replace(found, target=point(None, 95, 1))).threshold == 0.8
    with pytest.raises(ConfigError, match="outside 0 to 1"):
        at_most_target_share(found, 1.5)


def test_a_tuned_threshold_is_kept_used_and_told(tmp_path: Path) -> None:
    unlabelled = tmp_path / "questions.jsonl"
    unlabelled.write_text("".join(json.dumps({"question": item.question}) + "\n" for item in load_dataset("arithmetic", 8, 4)))
    plot = tmp_path / "plot.png"
    done = rsd("tune", "--data", unlabelled, "--no-worse-than-target", "--plot", plot)
    assert done.returncode == 0, done.stderr
    assert "agreement" in done.stdout and re.search(r"target alone \| +100.0%", done.stdout) and plot.read_bytes()[:4] == b"\x89PNG"
    try:
        own = tomllib.loads(user_models_file().read_text())["trio"]["abacus"]
        assert find_trio("abacus").threshold == own["threshold"] and "questions.jsonl" in own["threshold_from"]
        told = rsd("solve", "1+1")
        assert told.stdout == "2\n" and f"threshold {own['threshold']:g}, from rsd tune --data questions.jsonl" in told.stderr
        other = rsd("solve", "1+1", "--reward-kind", "confidence", "--stats")
        assert re.search(r"abacus-draft\.gguf \(llama [0-9.]+M Q8_0\)", other.stderr), other.stderr
        assert "rsd tune" not in other.stderr, "a threshold of another reward"
    finally:
        user_models_file().unlink()
    refused(rsd("tune", "--data", "arithmetic"), 2, "one wish")
    refused(rsd("tune", "--data", "arithmetic", "--best", "--reward-kind", "confidence"), 2, "another combination")


def test_a_threshold_is_written_into_a_file_whose_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('# mine\nthreshold = 0.5 # by hand\ndraft.path = "d.gguf"\ntarget.path = "t.gguf"\nreward_kind = "judge"\n')
    assert save_threshold(str(file), 0.25, "a test") == file
    text = file.read_text()
    assert text.startswith("# mine\nthreshold = 0.25 # by hand\n") and tomllib.loads(text)["threshold_from"] == "a test"
    assert find_trio(str(file)).threshold == 0.25
    file.write_text("threshold = = 1")
    with pytest.raises(ConfigError, match="cannot be changed"):
        save_threshold(str(file), 0.25, "a test")


def test_a_users_own_file_adds_trios_and_changes_single_settings() -> None:
    own = user_models_file()
    assert str(own).startswith(os.environ["XDG_CONFIG_HOME"])
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(
        "[trio.abacus]\nthreshold = 0.5\ndraft.threads = 1\n"
        '[trio.mine]\nreward_kind = "judge"\ndraft.path = "d.gguf"\ntarget.path = "/t.gguf"\n'
    )
    try:
        changed, mine = find_trio("abacus"), find_trio("mine")
        assert changed.threshold == 0.5 and changed.draft.threads == 1 and changed.draft.path.exists() and changed.task == "arithmetic"
        assert mine.draft.path == own.parent / "d.gguf" and mine.target.path == Path("/t.gguf") and mine.reward is None
        own.write_text("[trio.abacus]\ntreshold = 0.5\n")
        with pytest.raises(ConfigError, match=r"models.toml: \[trio.abacus\]: unknown key 'treshold'"):
            find_trio("abacus")
    finally:
        own.unlink()


def test_results_become_paths(abacus: Reasoner) -> None:
    params = Params(weighting=Weighting(threshold=0.9))
    for item in load_dataset("arithmetic", 10, 2, level=4):
        result = abacus.solve(item.question, params)
        run = path_of(result, True)
        assert run.above < 0.9 <= run.up_to and run.target_steps == sum(step.rejected is not None for step in result.steps)
