"""``rsd bench``, ``rsd report`` and ``rsd estimate`` as their users meet them, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RSD = [sys.executable, "-c", "from rsd_local.cli import main; main()"]
# Without a fallback that evaluates ahead: whether that pays changes with the machine's pace, and with it the counters.
SPECS = ["rsd:fallback=off", "rsd:weighting=constant,probability=0.5,fallback=off"]


def rsd(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RSD, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trio() -> list[str]:
    return ["--trio", "abacus", "-c", "400"]


@pytest.fixture(scope="module")
def done(trio: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A finished bench and what the command said."""
    out = tmp_path_factory.mktemp("bench") / "out"
    return out, rsd("bench", *arguments(out, trio))


def arguments(out: Path, trio: list[str], limit: int = 12) -> list[str]:
    strategies = [word for spec in SPECS for word in ("--strategy", spec)]
    return ["arithmetic", *strategies, "--limit", str(limit), "--level", "2", "-n", "200", "--out", str(out), *trio]


def refused(run: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert run.returncode == code and run.stdout == "", run.stderr
    assert run.stderr.startswith("rsd: ") and run.stderr.count("\n") == 1, run.stderr
    for word in words:
        assert word in run.stderr


def lines_of(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a folder without their seconds."""
    rows = {}
    for text in (out / "results.jsonl").read_text().splitlines():
        row = json.loads(text)
        counters = {role: counted | {"seconds": 0, "waiting_seconds": 0} for role, counted in row["counters"].items()}
        key = row["id"], row["strategy"]
        assert key not in rows, "a question was answered twice"
        rows[key] = row | {"seconds": 0, "counters": counters}
    return rows


def test_the_table_goes_to_standard_output_and_the_rest_to_standard_error(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, run = done
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("| strategy ") and all(f"| {spec} " in run.stdout for spec in SPECS)
    assert f"{SPECS[1]}: 12/12 accuracy" in run.stderr and "rsd report" in run.stderr and "| strategy" not in run.stderr
    assert len(lines_of(out)) == 24


def test_json_is_one_object(done: tuple[Path, subprocess.CompletedProcess[str]], trio: list[str]) -> None:
    out, _ = done
    again = rsd("bench", *arguments(out, trio), "--resume", "--json")
    reported = rsd("report", out, "--json")
    assert json.loads(again.stdout) == json.loads(reported.stdout)
    assert [one["label"] for one in json.loads(again.stdout)["strategies"]] == SPECS


def test_a_report_is_written_and_its_tables_printed(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = done
    run = rsd("report", out)
    assert run.returncode == 0 and "report.html" in run.stderr, run.stderr
    assert "| strategy " in run.stdout and "| pair " in run.stdout
    assert (out / "report.html").is_file() and (out / "report.md").is_file()


def test_what_cannot_be_done_is_one_line_on_standard_error(
    done: tuple[Path, subprocess.CompletedProcess[str]], trio: list[str], tmp_path: Path
) -> None:
    out, _ = done
    refused(rsd("bench", *arguments(out, trio)), 2, "not empty", "--resume")
    refused(rsd("bench", *arguments(out, trio, limit=13), "--resume"), 2, "another configuration: limit is 12 there and 13 here")
    refused(rsd("bench", "arithmetic", "--out", out.parent / "none", *trio), 2, "--strategy")
    refused(rsd("bench", "gsm9k", "--strategy", "rsd", "--out", out.parent / "none", *trio), 2, "gsm8k")
    refused(rsd("bench", "arithmetic", "--strategy", "rsd", "--out", out.parent / "none", *trio[:-2], "--target", "no.gguf"), 1, "no.gguf")
    refused(rsd("report", out.parent), 2, "config.json", "rsd bench or rsd serve --run-log wrote")
    (tmp_path / "manifest.json").write_text("{}")
    daily = ("--questions-per-day", "10", "--price-per-hour", "1")
    refused(rsd("estimate", tmp_path, *daily), 2, "is a folder of rsd serve --run-log")
    for command in (["report"], ["estimate", *daily]):
        refused(rsd(*command, tmp_path / "none"), 2, "none' does not exist")
        refused(rsd(*command, out / "results.jsonl"), 2, "results.jsonl' is a file")
    refused(rsd("bench", *arguments(out / "results.jsonl", trio)), 2, "results.jsonl is a file, and no folder")
    refused(rsd("estimate", out, "--questions-per-day", "10", "--price-per-hour", "1"), 2, "target")
    assert not (out.parent / "none").exists(), "a refused call leaves no folder"


def test_help_of_the_bench_loads_nothing_heavy() -> None:
    code = (
        "import sys; from rsd_local.cli import main\n"
        "for command in ('bench', 'report', 'estimate'):\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--questions-per-day" in run.stdout and "--strategy" in run.stdout
    for heavy in ("numpy", "llama_cpp", "rich", "matplotlib", "sympy", "huggingface_hub", "multiprocessing"):
        assert f"'{heavy}'" not in run.stderr


def test_a_run_killed_at_any_moment_goes_on_to_the_same_result(trio: list[str], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = rsd("bench", *arguments(whole, trio, 60))
    assert unbroken.returncode == 0, unbroken.stderr
    kills = 0
    for wanted in (5, 70):
        process = subprocess.Popen(
            [*RSD, "bench", *arguments(broken, trio, 60), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and count(broken) < wanted:
            time.sleep(0.002)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2, "the run was over before the kill: ask more questions"
    left = count(broken)
    assert left < 120
    # A kill inside a write: the worst that it can leave.
    with (broken / "results.jsonl").open("ab") as file:
        file.write(b'{"id": "arithmetic-0-2-1", "strategy": "rs')
    resumed = rsd("bench", *arguments(broken, trio, 60), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert lines_of(broken) == lines_of(whole)


def count(out: Path) -> int:
    try:
        return (out / "results.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on(trio: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*arguments(out, trio, 400), "--parallel", "3"]
    process = subprocess.Popen([*RSD, "bench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and count(out) < 4:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and output == "" and errors.splitlines()[-1] == "rsd: stopped; --resume goes on from here"
    assert "Traceback" not in errors
    assert 4 <= len(lines_of(out)) < 800 and (out / "results.jsonl").read_bytes().endswith(b"\n")


def test_a_bench_that_errs_says_why_and_one_that_answers_nothing_ends_with_1(tmp_path: Path) -> None:
    for name, questions, code in (("some", ["1+1", "hello", "1+\0", "who?"], 0), ("none", ["hello", "who are you?", "3 apples"], 1)):
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps({"question": question, "answer": "2"}) + "\n" for question in questions))
        run = rsd("bench", data, "--strategy", "rsd", "--out", tmp_path / name)
        assert run.returncode == code, run.stderr
        assert "3 questions ended in an error" in run.stdout and ("none could be answered" in run.stdout) == (name == "none")
        (refused, *others) = [line for line in run.stderr.splitlines() if " × " in line]
        assert refused.startswith(f"rsd: {2 if others else 3} × question-refused: not an arithmetic expression: 'hello'")
        assert len(others) == (name == "some") and all("NUL character" in line for line in others)
        report = rsd("report", tmp_path / name)
        assert (
            report.returncode == 0 and refused in report.stdout and " × question-refused: " in (tmp_path / name / "report.md").read_text()
        )
        again = rsd("bench", data, "--strategy", "rsd", "--out", tmp_path / name, "--resume")
        assert again.returncode == code and len((tmp_path / name / "results.jsonl").read_text().splitlines()) == len(questions)


def test_results_have_texts_unless_told_otherwise(
    done: tuple[Path, subprocess.CompletedProcess[str]], trio: list[str], tmp_path: Path
) -> None:
    out, _ = done
    for row in lines_of(out).values():
        assert re.search(r"\d[-+*]\d", row["question"].replace(" ", "")), row["question"]
        assert row["text"] == "".join(step["text"] for step in row["steps"])
    hidden = rsd("bench", *arguments(tmp_path / "out", trio, 2), "--no-text")
    assert hidden.returncode == 0
    assert "boxed" in (out / "results.jsonl").read_text() and "boxed" not in (tmp_path / "out" / "results.jsonl").read_text()
    assert all(re.fullmatch("[0-9a-f]{16}", row["question"]) for row in lines_of(tmp_path / "out").values())


def test_a_run_notes_its_machine_once_and_only_where_it_answers_something(
    done: tuple[Path, subprocess.CompletedProcess[str]], trio: list[str]
) -> None:
    out, _ = done
    assert rsd("bench", *arguments(out, trio), "--resume").returncode == 0
    (run,) = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert run["cpu"] and run["cores"]["allowed"] >= 1 and set(run["threads"]) == {"draft", "target", "reward"}
    assert run["versions"]["llama-cpp-python"] and run["begun"].endswith("+00:00")
    told = rsd("report", out).stdout
    for word in (run["cpu"], run["system"], run["versions"]["llama-cpp-python"], run["begun"][:10]):
        assert word in told


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_name_of_a_strategy_is_broken_in_the_help(columns: int) -> None:
    import click

    from rsd_local.cli.bench import bench

    said = bench.get_help(click.Context(bench, info_name="rsd bench", terminal_width=columns))
    assert "best-of-n:samples=8,aggregate=min" in said and "step-best-of-n or beam" in said and not re.search(r"best-\s|of-\s", said)


def test_lines_of_progress_become_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    from rsd_local.cli import progress

    clock = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    pace, said = progress._Pace(), 0
    for _ in range(10 * 3600):
        said += pace.due()
        clock[0] += 1
    assert 100 < said < 200, "in ten hours"
