"""The runner and its folder: nothing is lost, nothing is done twice, and no other bench gets mixed in."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from bench_support import FakeSolver, run_fake, sums, trio_of_files

from rsd_local.bench.results import Results, configuration, digest, same_text
from rsd_local.bench.runner import Tally, question_seed, run
from rsd_local.bench.strategies import read_strategies
from rsd_local.config import Params
from rsd_local.errors import Cancelled, Closed, ConfigError, ContextFull, VerifierFailed
from rsd_local.evaluation.grading import Grade, Grader
from rsd_local.evaluation.items import Item
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


def bench(
    folder: Path, solver: Any, *, count: int = 6, cancel: CancelToken | None = None, watch: Any = lambda tally: None, resume: bool = False,
    **more: Any,
) -> None:  # fmt: skip
    trio = trio_of_files(folder.parent)
    items, plans = more.pop("items", sums(count)), read_strategies(["rsd", "target"], Params())
    grader = more.pop("grader", Grader())
    with Results.open(folder, configuration(trio, "sums", None, None, 0, items, plans), resume) as results, grader:
        run(solver, items, plans, results, grader, seed=0, parallel=3, cancel=cancel or CancelToken(), watch=watch, **more)


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
    assert failed["message"] == "too long" and "message" not in rows["sum-1", "rsd"]


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


def test_lines_have_the_texts_of_questions_solutions_and_steps_or_their_digests(tmp_path: Path) -> None:
    bench(tmp_path / "with", FakeSolver())
    bench(tmp_path / "without", FakeSolver(), texts=False)
    with_texts, without = rows_of(tmp_path / "with"), rows_of(tmp_path / "without")
    for key, row in with_texts.items():
        assert row["question"] == f"{row['id'][4:]}+{row['id'][4:]}" and row["text"] == "…" and row["steps"][0]["text"] == "…\n\n"
        hidden = without[key]
        assert (hidden["question"], hidden["text"]) == (digest(row["question"]), digest(row["text"]))
        assert all(set(step) == {"author", "reward", "tokens"} for step in hidden["steps"])
        assert same_text(row, hidden) and same_text(hidden, row) and same_text(hidden, hidden)  # type: ignore[arg-type]
        assert not same_text(row, hidden | {"text": digest("other")})  # type: ignore[arg-type]
    assert "…" not in (tmp_path / "without" / "results.jsonl").read_text()


def test_a_folder_without_texts_is_gone_on_with(tmp_path: Path) -> None:
    bench(tmp_path / "out", FakeSolver(), texts=False)
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]))
    bench(tmp_path / "out", FakeSolver(), resume=True)
    assert len({len(row["question"]) for row in rows_of(tmp_path / "out").values()}) == 2


def test_whatever_a_question_raises_is_its_line_and_no_end(tmp_path: Path) -> None:
    class Failing(FakeSolver):
        def solve(self, question: str, *rest: Any, **more: Any) -> Result:
            if question in ("1+1", "\ud800"):
                raise {"1+1": RecursionError("too deep"), "\ud800": UnicodeError("no text")}[question]
            return super().solve(question, *rest, **more)

    bench(tmp_path / "out", Failing(), items=[*sums(3), Item("half a character", "\ud800", "\ud800", "number")])
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 8
    assert (rows["sum-1", "rsd"]["error"], rows["sum-1", "rsd"]["message"]) == ("error", "RecursionError: too deep")
    assert rows["half a character", "target"]["question"] == "\ud800" and rows["half a character", "rsd"]["error"] == "error"


def test_a_setting_that_suits_all_questions_but_one_is_that_ones_error(tmp_path: Path) -> None:
    class Failing(FakeSolver):
        def solve(self, question: str, *rest: Any, **more: Any) -> Result:
            if question == "0+0":
                raise ConfigError("no such tests", hint="write some")
            return super().solve(question, *rest, **more)

    bench(tmp_path / "out", Failing())
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 12 and rows["sum-0", "rsd"]["message"] == "no such tests; write some" and rows["sum-0", "rsd"]["error"] == "config"


def test_an_answer_that_could_not_be_graded_is_an_error_and_not_right(tmp_path: Path) -> None:
    class Broken(Grader):
        def grade_solution(self, item: Item, *rest: Any) -> Grade:
            if item.id == "sum-2":
                raise VerifierFailed("Python does not start in the sandbox")
            return Grade(True, "0")

    bench(tmp_path / "out", FakeSolver(), grader=Broken())
    rows = rows_of(tmp_path / "out")
    lost = rows["sum-2", "rsd"]
    assert (lost["correct"], lost["error"], lost["message"]) == (False, "verifier-failed", "Python does not start in the sandbox")
    assert lost["text"] == "…" and len(rows) == 12, "what was written is kept"


def test_another_model_of_the_same_name_and_size_is_another_configuration(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["rsd"], sums(3))
    draft = tmp_path / "out-models" / "draft.gguf"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["config"]["trio"]["draft"]["sha256"]
    model = draft.read_bytes()

    trio = trio_of_files(tmp_path / "out-models")
    draft.write_bytes(model[::-1])
    plans = read_strategies(["rsd"], Params())
    with pytest.raises(ConfigError, match=r"trio\.draft\.sha256 is '?\w+….* so draft\.gguf is another file of the same name and size"):
        Results.open(tmp_path / "out", configuration(trio, "sums", None, None, 0, sums(3), plans), True)
    draft.write_bytes(model)
    Results.open(tmp_path / "out", configuration(trio, "sums", None, None, 0, sums(3), plans), True).close()


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    from dataclasses import replace

    from rsd_local.bench.results import describe_trio
    from rsd_local.config import RoleConfig

    parts = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(part.name.encode())
    trio = replace(trio_of_files(tmp_path), draft=RoleConfig(parts[0]))
    first = describe_trio(trio)["draft"]
    assert first["bytes"] == sum(part.stat().st_size for part in parts)
    parts[1].write_bytes(parts[1].read_bytes()[::-1])
    assert describe_trio(trio)["draft"]["sha256"] != first["sha256"]


def test_what_is_refused_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["rsd"], sums(3))
    before = (tmp_path / "out" / "config.json").read_bytes()
    with pytest.raises(ConfigError, match="another configuration"):
        run_fake(tmp_path / "out", ["rsd", "target"], sums(4), resume=True)
    assert (tmp_path / "out" / "config.json").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"config": {"questions": {"a": "b"}}}))
    (tmp_path / "other" / "rollouts.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="another configuration"):
        run_fake(tmp_path / "other", ["rsd"], sums(3), resume=True)


DIES = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bench_support import FakeSolver, run_fake, sums
class Dying(FakeSolver):
    def solve(self, question, *rest, **more):
        if question == "1+1":
            os._exit(11)
        return super().solve(question, *rest, **more)
run_fake(Path(sys.argv[1]), ["rsd"], sums(3), Dying(), resume=True)
"""


def test_a_process_does_not_die_of_the_same_question_for_ever(tmp_path: Path) -> None:
    ends = []
    for _ in range(4):
        call = [sys.executable, "-c", DIES, str(tmp_path / "out"), str(Path(__file__).parent)]
        ends.append(subprocess.run(call, check=False, timeout=120).returncode)
    assert ends == [11, 11, 11, 0]
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 3 and rows["sum-1", "rsd"]["error"] == "process-died" and "3 times" in rows["sum-1", "rsd"]["message"]
    assert rows["sum-0", "rsd"]["error"] is None and rows["sum-2", "rsd"]["error"] is None
    assert not (tmp_path / "out" / "running.jsonl").exists()


def test_a_run_that_was_stopped_is_no_death_of_its_questions(tmp_path: Path) -> None:
    class Stopped(FakeSolver):
        def solve(self, question: str, *rest: Any, cancel: CancelToken | None = None, **more: Any) -> Result:
            assert cancel is not None
            cancel.cancel()
            return super().solve(question, *rest, cancel=cancel, **more)

    for _ in range(4):
        with pytest.raises(Cancelled):
            bench(tmp_path / "out", Stopped(), resume=True)
    bench(tmp_path / "out", FakeSolver(), resume=True)
    assert all(row["error"] is None for row in rows_of(tmp_path / "out").values())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_error_and_says_that_nothing_is_lost(tmp_path: Path) -> None:
    from rsd_local.errors import RSDError

    bench(tmp_path / "out", FakeSolver(), count=1)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["config"]
    with open("/dev/full", "wb", buffering=0) as full:
        results = Results(full, config, [])
        with pytest.raises(RSDError, match="No space left") as caught:
            results.append(next(iter(rows_of(tmp_path / "out").values())))  # type: ignore[arg-type]
    assert "--resume" in caught.value.hint
