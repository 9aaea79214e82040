"""Figures, report and estimate over rows whose every number can be checked by hand."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bench_support import run_fake, sums

from rsd_local.bench.drawing import DPI, WIDTH, wrapped
from rsd_local.bench.estimate import estimate
from rsd_local.bench.machine import note_run, read_runs
from rsd_local.bench.page import _label
from rsd_local.bench.plots import _thresholds
from rsd_local.bench.report import read_summary, write_report
from rsd_local.bench.results import Results, Row
from rsd_local.bench.summary import Summary, summarize
from rsd_local.bench.tables import markdown, pair_table, remarks, setting, strategy_table
from rsd_local.errors import ConfigError
from rsd_local.evaluation.journal import Config, read_config
from rsd_local.evaluation.stats import mcnemar, wilson

LABELS = ["target", "draft", "rsd"]
CONFIG: Config = {
    "dataset": "d.jsonl",
    "level": None,
    "seed": 0,
    "questions": {"number": 4, "sha256": ""},
    "strategies": {label: {"weighting": {"kind": "step", "threshold": 0.7}} for label in LABELS},
    "trio": {"parallel": 4, "threshold": 0.7, "reward_kind": "judge"}
    | {role: {"file": f"{role}.gguf", "bytes": 10**6} for role in ("draft", "target", "reward")},
    "versions": {"rsd-local": "1"},
}


def row(strategy: str, name: str, correct: bool, seconds: float, full: float, authors: str = "", error: str | None = None) -> Row:
    steps = [{"author": {"d": "draft", "t": "target"}[author], "reward": 0.5, "tokens": 5} for author in authors]
    counters = {role: {"generated_tokens": 10, "kept_tokens": 3, "seconds": 0.6} for role in ("draft", "target", "reward")}
    made: dict[str, Any] = dict.fromkeys(Row.__annotations__)
    made |= {"id": name, "strategy": strategy, "correct": correct, "seconds": seconds, "steps": steps, "error": error}
    made |= {} if error else {"answer": "7" if correct else None, "text": authors}
    return made | {"counters": {} if error else counters, "flops": {} if error else {"paper": full / 2, "full": full}}  # type: ignore[return-value]


ROWS = [
    *(row("target", name, name != "c", 8.0, 100.0, "tt") for name in "abcd"),
    *(row("draft", name, name == "a", 1.0, 10.0, "d") for name in "abcd"),
    row("rsd", "a", True, 2.0, 40.0, "dd"),
    row("rsd", "b", True, 4.0, 60.0, "dtd"),
    row("rsd", "c", True, 3.0, 50.0, "dtt"),
    row("rsd", "d", False, 0.1, 0.0, error="context-full"),
]


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarize(CONFIG, ROWS)


def test_the_figures_of_a_strategy_are_those_of_its_rows(summary: Summary) -> None:
    target, draft, rsd = summary.strategies
    assert (rsd.questions, rsd.errors, rsd.accuracy, rsd.interval) == (4, 1, 0.75, wilson(3, 4))
    assert (rsd.full_flops, rsd.paper_flops, rsd.seconds, rsd.tokens) == (50.0, 25.0, 3.0, 20.0), "an error has no cost"
    assert rsd.full_ratio == rsd.paper_ratio == 0.5 and rsd.speed == pytest.approx(24 / 9), "on the questions of both"
    assert rsd.per_minute == 60 * 4 / 3.0
    assert rsd.target_share == 3 / 8 and target.target_share == 1.0 and draft.target_share == 0.0
    assert (rsd.fallback_steps, rsd.kept, rsd.fallback_seconds) == (3, 3.0, pytest.approx(0.6))
    assert target.fallback_steps == 0
    assert target.full_ratio == target.speed == 1.0


def test_a_pair_is_compared_on_common_questions(summary: Summary) -> None:
    pairs = {(pair.first, pair.second): pair for pair in summary.pairs}
    pair = pairs["target", "rsd"]
    assert (pair.questions, pair.difference, pair.only_first, pair.only_second) == (4, 0.0, 1, 1)
    assert pair.p_value == mcnemar(1, 1) == 1.0
    assert pairs["target", "draft"].difference == 0.5 and pairs["target", "draft"].p_value == 0.5
    assert pairs["target", "draft"].adjusted == 1.0
    assert (pair.same_answers, pair.same_texts) == (2, 0), "both right on a and b; an error is like nothing"
    assert (pairs["target", "draft"].same_answers, pairs["draft", "rsd"].same_texts) == (2, 0)
    twins = summarize(CONFIG, [*ROWS[:4], *(line | {"strategy": "rsd"} for line in ROWS[:4])]).pairs[0]  # type: ignore[list-item]
    assert (twins.same_answers, twins.same_texts) == (4, 4)


def test_what_could_not_be_checked_and_who_decided_is_told() -> None:
    rows = [dict(line) for line in ROWS]
    rows[8] |= {"unchecked": 2, "decided_by": {}, "steps": [{"author": "target", "reward": None, "tokens": 5}]}
    rows[9] |= {"unchecked": 1, "decided_by": {"python-tests": 2, "judge": 1}}
    rows[10] |= {"unchecked": 0, "decided_by": {"judge": 4}}
    made = summarize(CONFIG, rows)  # type: ignore[arg-type]
    rsd, left = made.strategies[2], made.strategies[2].unchecked
    assert left is not None and (left.questions, left.right, left.by_target) == (2, 2, 1)
    assert rsd.decided_by == {"python-tests": 2, "judge": 5}
    told = "\n".join(remarks(made))
    assert (
        "on 2 of 4 questions there was something that no reward could check; 2 of them were answered right, 1 by the target alone" in told
    )
    assert "decided by python-tests (2), judge (5)" in told
    assert made.strategies[0].unchecked is None and "target: on" not in told, "rows of earlier versions say nothing of it"


def test_ratios_have_their_intervals(summary: Summary) -> None:
    rsd = summary.strategies[2]
    assert rsd.full_interval is not None and 0.4 <= rsd.full_interval[0] <= 0.5 <= rsd.full_interval[1] <= 0.6
    assert rsd.speed_interval is not None and rsd.speed_interval[0] < 24 / 9 < rsd.speed_interval[1]
    assert f"0.50 ({rsd.full_interval[0]:.2f} … {rsd.full_interval[1]:.2f})" in strategy_table(summary)


def test_who_is_beaten_is_said(summary: Summary) -> None:
    beaten = {one.label: one.beaten_by for one in summary.strategies}
    assert beaten == {"target": ("rsd",), "draft": (), "rsd": ()}
    told = "\n".join(remarks(summary))
    assert "target is beaten on these questions" in told and "Strategy rsd: 1 question ended in an error" in told


def test_without_a_target_there_are_no_ratios() -> None:
    (rsd,) = summarize(CONFIG, [line for line in ROWS if line["strategy"] == "rsd"]).strategies
    assert rsd.full_ratio is None and rsd.speed is None
    told = remarks(summarize(CONFIG, ROWS[8:10]))
    assert "rsd is not finished: 2 questions have no line yet." in told and "target has no line yet." in told


def test_a_summary_is_json(summary: Summary) -> None:
    assert json.loads(json.dumps(dataclasses.asdict(summary)))["strategies"][2]["label"] == "rsd"


def test_a_table_is_markdown_and_lines_up(summary: Summary) -> None:
    lines = strategy_table(summary).splitlines()
    assert len({len(line) for line in lines}) == 1 and len({line.count("|") for line in lines}) == 1
    assert lines[1].startswith("| ---") and lines[1].endswith("-: |")
    assert "a\\|b" in markdown(["x"], [["a|b"]])


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_one_page_of_its_own_and_markdown_with_plots(tmp_path: Path) -> None:
    out = tmp_path / "<b>"
    run_fake(out, ["target", "draft", "rsd", "rsd:weighting=constant", "majority:samples=4"], sums(40))
    _, files = write_report(out)
    assert {file.name for file in files} == {
        "report.md",
        "report.html",
        "accuracy_flops.png",
        "accuracy_seconds.png",
        "accepted_by_step.png",
        "rewards.png",
    }
    text = (out / "report.md").read_text()
    assert all(f"]({file.name})" in text for file in files if file.suffix == ".png")
    page = Page()
    html = (out / "report.html").read_text()
    page.feed(html)
    assert page.open == [] and len(page.sources) == 4
    for source in page.sources:
        assert base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not re.search(r"https?://", html) and "prefers-color-scheme: dark" in html
    assert len(html) < 1_000_000


def test_thresholds_that_were_tried_make_a_curve() -> None:
    thresholds = {"rsd": 0.7, "rsd:threshold=0.2": 0.2, "rsd:threshold=0.9": 0.9, "rsd:threshold=0.5,fallback=off": 0.5}
    strategies: dict[str, Any] = {label: {"weighting": {"kind": "step", "threshold": 0.7}} for label in ("target", "draft")}
    strategies |= {"rsd:weighting=constant": {"weighting": {"kind": "constant", "threshold": 0.7}}}
    for label, threshold in thresholds.items():
        strategies[label] = {
            "weighting": {"kind": "step", "threshold": threshold},
            "search": {"fallback": "off" if "off" in label else "auto"},
        }
    rows = [
        row(label, name, name in "ab", 2.0 + strategies[label]["weighting"]["threshold"], 50.0, "dt")
        for label in strategies
        for name in "abcd"
    ]
    rows = [line | {"correct": True} if line["strategy"] == "rsd:threshold=0.9" else line for line in rows]  # type: ignore[misc]
    figure = _thresholds(summarize(CONFIG | {"strategies": strategies}, rows))
    assert figure is not None
    left, right = figure.axes
    drawn = {line.get_label(): [round(float(value), 6) for value in line.get_ydata()] for line in left.lines}  # type: ignore[union-attr]
    assert drawn == {"accuracy": [50, 50, 100], "target share": [50, 50, 50], "target alone": [50, 50], "draft alone": [50, 50]}
    assert [label.get_text() for label in left.get_xticklabels()] == ["0.2", "0.7", "0.9"]
    assert [float(value) for value in right.lines[0].get_ydata()] == pytest.approx([2.2, 2.7, 2.9])  # type: ignore[union-attr]
    assert _thresholds(summarize(CONFIG, ROWS)) is None  # one threshold is no curve


def test_names_from_outside_cannot_write_the_page(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["rsd"], sums(3))
    path = tmp_path / "out" / "config.json"
    path.write_text(path.read_text().replace('"sums"', '"<script>alert(1)</script>"'))
    write_report(tmp_path / "out")
    assert "<script>" not in (tmp_path / "out" / "report.html").read_text()


def test_a_plot_without_figures_is_left_out_and_an_old_one_taken_away(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["draft"], sums(5))
    (tmp_path / "out" / "rewards.png").write_bytes(b"of another report")
    _, files = write_report(tmp_path / "out")
    assert {file.name for file in files} == {"report.md", "report.html", "accuracy_flops.png", "accuracy_seconds.png"}
    assert not (tmp_path / "out" / "rewards.png").exists()


def test_the_same_rows_make_the_same_report(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["target", "rsd"], sums(20))
    first = [file.read_bytes() for file in write_report(tmp_path / "out")[1]]
    assert first == [file.read_bytes() for file in write_report(tmp_path / "out")[1]]


def test_what_is_no_folder_of_a_bench_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match=r"results\.jsonl"):
        Results.read(tmp_path)
    run_fake(tmp_path / "empty", ["rsd"], [])
    with pytest.raises(ConfigError, match="no line yet"):
        write_report(tmp_path / "empty")


def test_an_estimate_is_the_arithmetic_that_it_shows() -> None:
    worths = {worth.label: worth for worth in estimate(CONFIG, ROWS, 3600.0, 2.0)}
    rsd = worths["rsd"]
    assert set(worths) == {"draft", "rsd"}
    assert (rsd.questions, rsd.seconds, rsd.machine_seconds) == (3, 3.0, 0.75), "3 s a question, 4 at once"
    assert (rsd.hours, rsd.cost, rsd.saved_hours, rsd.saved_cost) == (0.75, 1.5, 1.25, 2.5)
    assert rsd.difference == pytest.approx(1 / 3)
    shown = "\n".join(rsd.arithmetic)
    assert (
        "8.000 s a question / 4 at once = 2.000 s of the machine; × 3,600 a day / 3,600 = 2.00 h a day; × 2.00 an hour = 4.00 a day"
        in shown
    )
    assert "saved: 2.00 h − 0.75 h = 1.25 h a day; × 2.00 an hour = 2.50 a day, × 30 = 75.00 a month" in shown
    assert "accuracy: 100.0 % − 66.7 % = +33.3 points" in shown


@pytest.mark.parametrize("per_day", [0.7, 3.0, 11.0, 170.0])
def test_the_arithmetic_of_small_figures_adds_up_as_it_is_shown(per_day: float) -> None:
    worth = next(worth for worth in estimate(CONFIG, ROWS, per_day, 0.07) if worth.label == "rsd")
    line = next(line for line in worth.arithmetic if line.startswith("saved"))
    more, less, saved, price, day, _, month = re.findall(r"[0-9]+(?:\.[0-9]+)?", line)
    by_day = float(saved) * float(price)
    for shown, value in ((saved, float(more) - float(less)), (day, by_day), (month, 30 * by_day)):
        assert float(shown) > 0 and float(shown) == pytest.approx(value, abs=0.51 * 10 ** -len(shown.partition(".")[2])), line


def test_an_estimate_needs_the_target_and_sensible_numbers() -> None:
    with pytest.raises(ConfigError, match="target"):
        estimate(CONFIG, ROWS[4:], 100.0, 1.0)
    for number in (0.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="no number above 0"):
            estimate(CONFIG, ROWS, number, 1.0)
    for number in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="no number from 0 on"):
            estimate(CONFIG, ROWS, 1.0, number)


def rows_of(strategy: str, right: str, full: float, names: str = "abcdefghij") -> list[Row]:
    """Ten questions, of which some are right, all for the same FLOPs."""
    return [row(strategy, name, name in right, 1.0, full, "d") for name in names]


def compared(*rows: list[Row]) -> Summary:
    return summarize(CONFIG, [line for lines in rows for line in lines])


def test_an_equal_rival_is_equal_and_not_beaten() -> None:
    made = compared(rows_of("target", "abcde", 100.0), rows_of("draft", "abcde", 100.0))
    assert [one.beaten_by for one in made.strategies] == [(), ()]
    assert (made.pairs[0].accuracy, made.pairs[0].cost) == ("equal", "equal") and "| equal |" in re.sub(" +", " ", pair_table(made))
    assert "target and draft are equal here" in "\n".join(remarks(made))


def test_one_question_in_ten_is_no_difference_seen() -> None:
    made = compared(rows_of("target", "abcde", 100.0), rows_of("draft", "abcdef", 100.0))
    pair = made.pairs[0]
    assert pair.difference == pytest.approx(-0.1) and pair.interval[0] < 0 <= pair.interval[1]
    assert pair.accuracy == "no difference seen" and [one.beaten_by for one in made.strategies] == [(), ()]
    assert "no difference seen" in pair_table(made) and "beaten" not in "\n".join(remarks(made))


def test_a_difference_that_is_seen_says_which_is_higher() -> None:
    names = "abcdefghijklmnopqrst"
    made = compared(rows_of("target", names, 100.0, names), rows_of("draft", "abcdefghij", 100.0, names))
    assert made.pairs[0].accuracy == "first higher" and "target higher" in pair_table(made)
    assert [one.beaten_by for one in made.strategies] == [(), ("target",)]
    assert "draft is beaten on these questions by target: more accurate (+50.0 points, +3" in "\n".join(remarks(made))


def test_the_same_accuracy_for_less_is_said_with_both_figures() -> None:
    made = compared(rows_of("target", "abcde", 100.0), rows_of("draft", "abcdf", 25.0))
    assert [one.beaten_by for one in made.strategies] == [("draft",), ()] and made.pairs[0].cost == "first higher"
    told = "\n".join(remarks(made))
    assert "target is beaten on these questions by draft: no difference in accuracy seen (+0.0 points, −" in told
    assert "for 0.25 of its full FLOPs." in told


def test_two_questions_are_too_few_for_any_difference() -> None:
    made = compared(rows_of("target", "ab", 100.0, "ab"), rows_of("draft", "", 900.0, "ab"))
    assert (made.pairs[0].accuracy, made.pairs[0].cost) == ("no difference seen", "no difference seen")
    assert not any(one.beaten_by for one in made.strategies)


def test_errors_are_told_by_their_causes() -> None:
    rows = [dict(row("rsd", name, False, 0.0, 0.0, error="context-full")) for name in "abcd"]
    for number, line in enumerate(rows):
        line["message"] = f"the question has {1000 + number} tokens,\nthe context 512" if number else "'x' is no question"
    made = summarize(CONFIG, rows)  # type: ignore[arg-type]
    assert made.unanswered == ["rsd"] and [cause.questions for cause in made.strategies[0].causes] == [3, 1]
    told = remarks(made)
    assert "Strategy rsd: 4 questions ended in an error, and none could be answered, so each counts as wrong, and in no cost." in told
    assert "rsd: 3 × context-full: the question has 1001 tokens, the context 512" in told
    assert summarize(CONFIG, ROWS).unanswered == [] and "rsd: 1 × context-full" in remarks(summarize(CONFIG, ROWS)), (
        "rows without a message"
    )


def test_a_report_names_machine_threads_date_and_versions_of_the_run_and_not_of_the_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fake(out, ["target", "rsd"], sums(5))
    assert ("machine", "not recorded: an earlier version wrote this folder") in setting(read_summary(out))
    note_run(out, {"draft": 2, "target": 3})
    (run,) = read_runs(out)
    run |= {"cpu": "Abacus <i9>", "begun": "2024-02-03T04:05:06+00:00", "system": "Plan 9"}
    run["versions"]["llama.cpp"] = "b1234"
    (out / "runs.jsonl").write_text(json.dumps(run) + "\n" + '{"torn')
    write_report(out)
    told = dict(setting(read_summary(out)))
    assert told["machine"].startswith("Abacus <i9>, ") and "allowed" in told["machine"]
    assert told["threads"] == "draft 2, target 3" and told["date"] == "2024-02-03 04:05:06 UTC" and told["system"] == "Plan 9"
    for name in ("rsd-local", "llama-cpp-python", "llama.cpp b1234", "python"):
        assert name in told["software"]
    assert "2024-02-03 04:05:06 UTC" in (out / "report.md").read_text() and "Abacus &lt;i9&gt;" in (out / "report.html").read_text()
    note_run(out, {"draft": 1})
    assert dict(setting(read_summary(out)))["date"].endswith("2 runs") and any(
        "different machines" in line for line in remarks(read_summary(out))
    )


def test_plots_can_be_read_at_360_pixels(tmp_path: Path) -> None:
    from matplotlib.image import imread

    run_fake(tmp_path / "out", ["target", "rsd", "rsd:threshold=0.5", "best-of-n:samples=8,aggregate=min"], sums(20))
    _, files = write_report(tmp_path / "out")
    pictures = [file for file in files if file.suffix == ".png"]
    assert len(pictures) == 5
    for file in pictures:
        assert abs(imread(file).shape[1] - WIDTH * DPI) <= 1, "one column, so that letters of 10 points keep 9 pixels and more"
    assert 10 / 72 * 330 / WIDTH > 9, "of the 360 pixels the page's margins take 30"
    assert max(map(len, wrapped("rsd:weighting=constant,probability=0.5,fallback=off,candidates=4").split("\n"))) <= 46


def test_a_label_is_never_broken_within_a_name() -> None:
    assert _label("best-of-n:samples=8,aggregate=min") == "<span>best-of-n:</span><span>samples=8,</span><span>aggregate=min</span>"
    assert _label("<b> − x") == "<span>&lt;b&gt;</span> <span>−</span> <span>x</span>"


def test_a_strategy_that_costs_more_than_the_target_saves_nothing() -> None:
    rows = [row(label, name, True, seconds, 50.0, "d") for label, seconds in (("target", 2.0), ("rsd", 4.0)) for name in "ab"]
    (worth,) = estimate(CONFIG, rows, 3600.0, 2.0)
    shown = "\n".join(worth.arithmetic)
    assert "costs more: 1.00 h − 0.50 h = 0.50 h a day; × 2.00 an hour = 1.00 a day, × 30 = 30.00 a month" in shown
    assert "saved" not in shown and worth.saved_hours == -0.5


def test_seconds_too_short_to_be_measured_are_drawn_without_a_ratio(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fake(out, ["target", "rsd"], sums(6))
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for place, line in enumerate(lines):
        line["seconds"] = 0.0 if line["strategy"] == "target" and place else 0.001
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (out / "accuracy_seconds.png") in write_report(out)[1]
