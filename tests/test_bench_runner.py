"""The runner and its folder: nothing is lost, nothing is done twice, and no other bench gets mixed in."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from bench_support import FakeSolver, run_fake, sums, trio_of_files

from rsd_local.bench.results import Results, configuration
from rsd_local.bench.runner import Tally, question_seed, run
from rsd_local.bench.strategies import read_strategies
from rsd_local.config import Params
from rsd_local.errors import Cancelled, Closed, ConfigError, ContextFull
from rsd_local.evaluation.grading import Grader
from rsd_local.events import CancelToken, Result

SPECS = ["rsd", "target", "majority:samples=4"]


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a folder without what no two runs share."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {(row["id"], row["strategy"]): row | {"seconds": 0} for row in rows}


def test_every_question_has_a_line_for_every_strategy_with_all_that_is_promised(tmp_path: Path) -> None:
    config = run_fake(tmp_path / "out", SPECS, sums(6))
    rows = rows_of(tmp_path / "out")
    assert set(rows) == {(f"sum-{number}", spec) for number in range(6) for spec in SPECS}
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["config"] == config
    for row in rows.values():
        assert row["config"] == written["hash"] and row["finish_reason"] == "stop" and row["error"] is None
        assert row["n_steps"] == len(row["steps"]) and set(row["steps"][0]) == {"author", "reward", "tokens", "text"}
        assert row["correct"] is (row["answer"] == row["expected"])
        assert row["counters"]["target"]["parameters"] == 10**9 and set(row["flops"]) == {"paper", "full"}


def test_a_seed_comes_from_the_place_of_a_question_and_from_nothing_else(tmp_path: Path) -> None:
    solver = FakeSolver()
    run_fake(tmp_path / "out", SPECS, sums(5), solver)
    for question, _, seed in solver.asked:
        assert seed == question_seed(0, int(question.partition("+")[0]))
    assert len({question_seed(seed, place) for seed in range(20) for place in range(20)}) == 400


def test_a_folder_with_something_in_it_is_refused_without_resume(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["rsd"], sums(2))
    with pytest.raises(ConfigError, match="not empty"):
        run_fake(tmp_path / "out", ["rsd"], sums(2))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for resume in (False, True):
        with pytest.raises(ConfigError):
            run_fake(tmp_path / "mine", ["rsd"], sums(2), resume=resume)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_folder_whose_run_never_wrote_a_line_is_as_good_as_new(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["target"], [])
    run_fake(tmp_path / "out", ["rsd"], sums(2))
    assert len(rows_of(tmp_path / "out")) == 2


def test_resume_answers_only_what_has_no_line(tmp_path: Path) -> None:
    run_fake(tmp_path / "whole", SPECS, sums(6))
    run_fake(tmp_path / "out", SPECS, sums(6))
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:7]))
    solver = FakeSolver()
    run_fake(tmp_path / "out", SPECS, sums(6), solver, resume=True)
    assert len(solver.asked) == len(lines) - 7
    assert strip(rows_of(tmp_path / "out")) == strip(rows_of(tmp_path / "whole"))
    again = FakeSolver()
    run_fake(tmp_path / "out", SPECS, sums(6), again, resume=True)
    assert again.asked == []


def test_a_folder_takes_further_strategies_and_answers_nothing_again(tmp_path: Path) -> None:
    run_fake(tmp_path / "whole", [*SPECS, "best-of-n"], sums(5))
    run_fake(tmp_path / "out", SPECS, sums(5))
    solver = FakeSolver()
    run_fake(tmp_path / "out", ["best-of-n"], sums(5), solver, resume=True)
    assert {strategy for _, strategy, _ in solver.asked} == {"best-of-n"} and len(solver.asked) == 5
    assert strip(rows_of(tmp_path / "out")) == strip(rows_of(tmp_path / "whole"))
    assert list(json.loads((tmp_path / "out" / "config.json").read_text())["config"]["strategies"]) == [*SPECS, "best-of-n"]
    with pytest.raises(ConfigError, match="another configuration"):
        run_fake(tmp_path / "out", ["majority"], sums(6), resume=True)


def strip(rows: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {key: row | {"config": ""} for key, row in rows.items()}


@pytest.mark.parametrize("cut", [1, 40, "newline", "zeros"])
def test_a_torn_last_line_is_taken_out_and_answered_again(tmp_path: Path, cut: int | str) -> None:
    run_fake(tmp_path / "out", ["rsd"], sums(4))
    whole = rows_of(tmp_path / "out")
    file = tmp_path / "out" / "results.jsonl"
    data = file.read_bytes()
    match cut:
        case int():
            file.write_bytes(data[:-cut])
        case "newline":  # the line is whole, but who knows that of a file without its end
            file.write_bytes(data[:-1])
        case _:  # blocks that the disk gave out but never filled
            file.write_bytes(data + b"\0" * 4096 + b"\n")
    assert len(Results.read(tmp_path / "out")) == (4 if cut == "zeros" else 3)
    run_fake(tmp_path / "out", ["rsd"], sums(4), resume=True)
    assert rows_of(tmp_path / "out") == whole
    assert len(file.read_text().splitlines()) == 4


def test_damage_in_the_middle_is_refused_by_its_line(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["rsd"], sums(4))
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for bad in (b"{\n", b"[1]\n", b'{"id": 1}\n'):
        file.write_bytes(b"".join([lines[0], bad, *lines[2:]]))
        with pytest.raises(ConfigError, match="line 2"):
            run_fake(tmp_path / "out", ["rsd"], sums(4), resume=True)
        assert file.read_bytes().splitlines(keepends=True)[1] == bad, "what is refused is left as it is"


@pytest.mark.parametrize(
    "key", ["limit", "seed", "strategies", "questions", "trio.draft.bytes", "trio.threshold", "versions.llama-cpp-python"]
)
def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path: Path, key: str) -> None:
    run_fake(tmp_path / "out", ["rsd", "target"], sums(3))
    path = tmp_path / "out" / "config.json"
    written = json.loads(path.read_text())
    table = written["config"]
    *above, last = key.split(".")[:2] if key.startswith("versions") else key.split(".")
    for name in above:
        table = table[name]
    table[last] = {"strategies": {"rsd": {}}, "questions": {"number": 9}}.get(key, 12345)
    path.write_text(json.dumps(written))
    with pytest.raises(ConfigError, match=f"another configuration: {key}"):
        run_fake(tmp_path / "out", ["rsd", "target"], sums(3), resume=True)


def bench(folder: Path, solver: Any, *, count: int = 6, cancel: CancelToken | None = None, watch: Any = lambda tally: None) -> None:
    trio = trio_of_files(folder.parent)
    items, plans = sums(count), read_strategies(["rsd", "target"], Params())
    with Results.open(folder, configuration(trio, "sums", None, None, 0, items, plans), False) as results, Grader() as grader:
        run(solver, items, plans, results, grader, seed=0, parallel=3, cancel=cancel or CancelToken(), watch=watch)


def test_an_error_of_one_question_is_its_line_and_no_end(tmp_path: Path) -> None:
    class Failing(FakeSolver):
        def solve(self, question: str, *rest: Any, **more: Any) -> Result:
            if question == "2+2":
                raise ContextFull("too long")
            return super().solve(question, *rest, **more)

    bench(tmp_path / "out", Failing())
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 12
    failed = rows["sum-2", "rsd"]
    assert (failed["error"], failed["correct"], failed["finish_reason"], failed["steps"]) == ("context-full", False, None, [])


@pytest.mark.parametrize("error", [Closed("closed"), ConfigError("no such vocabulary")])
def test_an_error_of_every_question_ends_the_run(tmp_path: Path, error: Exception) -> None:
    class Failing(FakeSolver):
        def solve(self, *_: Any, **more: Any) -> Result:
            raise error

    with pytest.raises(type(error)):
        bench(tmp_path / "out", Failing())
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == b""


def test_cancelling_leaves_whole_lines_and_none_of_what_was_in_flight(tmp_path: Path) -> None:
    cancel, done = CancelToken(), threading.Event()

    class Slow(FakeSolver):
        def solve(self, question: str, *rest: Any, **more: Any) -> Result:
            if int(question.partition("+")[0]) >= 3:
                done.wait(30)
            return super().solve(question, *rest, **more)

    def watch(tally: Tally) -> None:
        if tally.done == 3:
            cancel.cancel()
            done.set()

    with pytest.raises(Cancelled):
        bench(tmp_path / "out", Slow(), cancel=cancel, watch=watch)
    assert set(rows_of(tmp_path / "out")) == {(f"sum-{number}", "rsd") for number in range(3)}


def test_what_the_watcher_is_told_adds_up(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    bench(tmp_path / "out", FakeSolver(), watch=lambda tally: seen.append((tally.plan.label, tally.done, tally.right)))
    assert [(label, done) for label, done, _ in seen] == [(label, done) for label in ("rsd", "target") for done in range(7)]
    rows = rows_of(tmp_path / "out")
    assert seen[6][2] == sum(row["correct"] for row in rows.values() if row["strategy"] == "rsd")
