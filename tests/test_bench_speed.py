"""scripts/bench_speed.py on tiny models: that every row runs and says what it should; the figures themselves mean nothing here."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import VOCABULARY, write_model

SCRIPTS = Path(__file__).parent.parent / "scripts"
DIGITS = [*VOCABULARY, *"0123456789"]
needs_server = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="pip install xllamacpp")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a draft and a target of one vocabulary."""
    folder = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("draft", "target")):
        write_model(folder / f"{name}.gguf", seed=seed, vocabulary=DIGITS)
    return folder


def bench(pair: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    models = ["--draft", str(pair / "draft.gguf"), "--target", str(pair / "target.gguf"), "--work", str(pair)]
    call = [sys.executable, str(SCRIPTS / "bench_speed.py"), "--json", str(out), "--quick", "--threads", "1", *models, *more]
    here = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}  # this checkout, not the one that is installed
    return subprocess.run(call, capture_output=True, text=True, timeout=300, env=here)


def cases(out: Path) -> dict[str, dict[str, Any]]:
    return {made["row"]: made for made in json.loads(out.read_text())["cases"]}


def figures(made: dict[str, Any]) -> dict[str, float]:
    return {one["label"]: one["median"] for one in made["figures"]}


def test_the_rows_without_a_server_say_what_they_measured(pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    done = bench(pair, out, "--only", "engine,step40,memory", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    told = cases(out)
    assert figures(told["engine"])["rsd_local, of bare loop"] > 0
    assert told["step40"]["rounds"][0]["rsd_local"]["tokens"] == 45 * 4
    if sys.platform == "linux":
        assert 0 < figures(told["memory"])["beyond"] < 150
    versions = json.loads(out.read_text())["machine"]["versions"]
    assert versions["llama-cpp-python"] and "| rsd_local, of bare loop " in done.stdout


def test_shapes_are_written_once_and_follow_the_schedule(pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    done = bench(pair, out, "--only", "shapes", "--rounds", "1", "--accepted", "0.7", "--plot", str(tmp_path / "speed.png"))
    assert done.returncode == 0, done.stderr
    [made] = cases(out)["shapes"]["rounds"]
    for name in ("no reward", "reward of the draft's size", "reading ahead"):
        told = made[f"RSD at 0.7, {name}"]
        assert told["share"] == pytest.approx(0.3) and told["tokens"] == 40
        assert told["prompt_evaluated"] <= 3  # of each model the last token
        assert told["said"] > 0 and (told["parts"]["reward"] > 0) == (name == "reward of the draft's size")
    assert (tmp_path / "speed.png").stat().st_size > 1000
    shape = pair / "quick-like-target.gguf"
    written = shape.stat().st_mtime_ns
    assert bench(pair, out, "--only", "shapes", "--rounds", "1", "--accepted", "0.7").returncode == 0
    assert shape.stat().st_mtime_ns == written


def test_a_stopped_bench_goes_on_with_the_rounds_that_are_missing(pair: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "speed.json", tmp_path / "speed.rounds.jsonl"
    assert bench(pair, out, "--only", "step40", "--rounds", "1").returncode == 0
    [first] = journal.read_text().splitlines()
    with journal.open("a") as file:
        file.write('{"row": "step40", "torn by a ki\n')
    done = bench(pair, out, "--only", "step40", "--rounds", "2")
    assert done.returncode == 0 and "1 rounds of 2 are there" in done.stderr
    assert len(journal.read_text().splitlines()) == 3
    assert cases(out)["step40"]["rounds"][0] == json.loads(first)["results"]
    other = bench(pair, out, "--only", "step40", "--rounds", "1", "--threads", "2")  # a later --threads counts
    assert other.returncode == 0 and "are there" not in other.stderr


@needs_server
def test_the_rows_with_a_server_compare_with_it(pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    done = bench(pair, out, "--only", "stream,eight,reprompt", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    told = cases(out)
    assert {row: {one["tokens"] for one in told[row]["rounds"][0].values()} for row in told} == {
        "stream": {8}, "eight": {64}, "reprompt": {40},
    }  # fmt: skip
    assert all(value > 0 for made in told.values() for value in figures(made).values())
    assert "llama-server (xllamacpp" in done.stdout


def test_a_server_that_is_not_there_is_said_before_anything_runs(pair: Path, tmp_path: Path) -> None:
    done = bench(pair, tmp_path / "speed.json", "--only", "stream", "--server", str(tmp_path / "llama-server"))
    assert done.returncode == 2 and "there is no program" in done.stderr


@pytest.mark.parametrize(("accepted", "rejected"), [(0.8, [4, 9]), (0.6, [2, 4, 7, 9]), (0.9, [9]), (1.0, [])])
def test_the_schedule_rejects_evenly(accepted: float, rejected: list[int]) -> None:
    rejects = runpy.run_path(str(SCRIPTS / "speed" / "turn.py"), run_name="turn")["rejects"]
    assert [step for step in range(10) if rejects(step, accepted)] == rejected
