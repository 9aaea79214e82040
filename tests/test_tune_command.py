"""``rsd tune`` as its users meet it: what is written and when, what is printed, and what is said where nothing can be chosen."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import RSD, refused, rsd
from tiny import chain, write_script

from rsd_local.catalogue import find_trio

FEW = ("--limit", "9", "--seed", "3", "-n", "150", "--points", "9")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The built-in trio as a file of one's own."""
    abacus, file = find_trio("abacus"), tmp_path / "mine.toml"
    assert abacus.reward is not None
    models = {"draft": abacus.draft, "target": abacus.target, "reward": abacus.reward}
    lines = [f'{name}.path = "{role.path}"\n{name}.threads = 1\n' for name, role in models.items()]
    file.write_text('task = "arithmetic"\nsystem = ""\nthreshold = 0.25\nreward_kind = "tag-logits"\n' + "".join(lines))
    return file


def threshold_in(file: Path) -> float:
    return float(tomllib.loads(file.read_text())["threshold"])


def test_the_answer_is_one_line_below_a_short_table(mine: Path) -> None:
    done = rsd("tune", "--trio", mine, "--data", "arithmetic", *FEW, "--no-worse-than-target", "--margin", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert 7 <= len(table) <= 11 and max(map(len, table)) <= 80 and sum("←" in line for line in table) == 1
    threshold = threshold_in(mine)
    assert lines[-1].startswith(f"δ = {threshold:g}: ") and lines[-1].endswith(f"; threshold written to {mine}")
    assert "FLOPs than the target alone (" in lines[-1] and "Against the target: " in done.stdout
    assert "on the same 9 questions." in done.stdout
    assert "Not shown: no worse than the target by more than 1 point.\nIt may be " in done.stdout, "nine questions show little"
    origin = tomllib.loads(mine.read_text())["threshold_from"]
    assert origin == "rsd tune --data arithmetic --limit 9 --seed 3 -n 150 --points 9 --no-worse-than-target"


def test_all_and_json_have_every_threshold(mine: Path, tmp_path: Path) -> None:
    given = ("tune", "--trio", mine, "--data", "arithmetic", *FEW, "--best", "--dry-run")
    done, plot = rsd(*given, "--json"), tmp_path / "plot.png"
    made = json.loads(done.stdout)
    whole = rsd(*given, "--all", "--plot", plot)
    assert whole.returncode == 0 and threshold_in(mine) == 0.25 and made["written"] is None
    rows = [line for line in whole.stdout.splitlines() if line.startswith("|")]
    assert len(rows) > 2 + 9 and len(made["points"]) > 7 and plot.read_bytes()[:4] == b"\x89PNG"
    assert whole.stdout.endswith("; nothing written\n") and "no worse" not in whole.stdout
    chosen = made["chosen"]
    assert chosen["threshold"] in [point["threshold"] for point in made["points"]] and chosen["questions"] == 9
    assert len(chosen["thresholds"]) == made["comparison"]["questions"] == chosen["folds"] == 9
    assert made["comparison"]["difference"] == pytest.approx(chosen["accuracy"] - made["target"]["accuracy"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_standard_output_does_is_of_no_matter_to_the_threshold(mine: Path) -> None:
    call = [*RSD, "tune", "--trio", str(mine), "--data", "arithmetic", *FEW, "--best", "--limit", "4", "--points", "3"]
    text = mine.read_text()
    for name, target in (("full", "/dev/full"), ("closed", None), ("ascii", os.devnull)):
        mine.write_text(text)
        environment = os.environ | ({"PYTHONIOENCODING": "ascii"} if name == "ascii" else {})
        redirect = ">&-" if target is None else f"> {target}"
        command = ["sh", "-c", f'"$@" {redirect}', "sh", *call]
        subprocess.run(command, env=environment, capture_output=True, timeout=240, check=False)
        assert threshold_in(mine) != 0.25, name


def test_figures_of_a_long_run_are_shown_though_the_file_cannot_be_written(mine: Path) -> None:
    mine.with_name("mine.toml.part").mkdir()
    done = rsd("tune", "--trio", mine, "--data", "arithmetic", *FEW, "--best")
    assert done.returncode == 2 and "by hand" in done.stderr.splitlines()[-1]
    assert done.stdout.splitlines()[-1].startswith("δ = ") and done.stdout.endswith("; nothing written\n")
    assert threshold_in(mine) == 0.25


def test_wishes_and_margins_that_make_no_sense_are_refused() -> None:
    given = ("tune", "--data", "arithmetic", "--limit")
    refused(rsd(*given, "1", "--best"), 2, "1 question is too few", "at least 2")
    refused(rsd(*given, "9", "--no-worse-than-target", "--margin", "0"), 2, "--margin 0.0 is outside 0 to 100")
    refused(rsd(*given, "9", "--at-most-target-share", "1.5"), 2, "target share 1.5 is outside 0 to 1")
    refused(rsd(*given, "9", "--best", "--no-worse-than-target"), 2, "one wish")


def test_a_plot_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    given = ("tune", "--data", "arithmetic", "--limit", "1000000", "--best", "--dry-run", "--plot")  # would take hours
    refused(rsd(*given, tmp_path / "none" / "plot.png"), 2, "none is no directory", "make it first")
    refused(rsd(*given, tmp_path), 2, "is a directory", "--plot")
    assert list(tmp_path.iterdir()) == []


# Models of given words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[object]]:
    """A draft and a target that say the same whatever they are asked, and an answer that is 7."""
    folder, text = tmp_path_factory.mktemp("words"), ["First.\n\n", "Then.\n\n", "\\boxed{7}"]
    model = write_script(folder / "m.gguf", text, chain(*text))
    yield ["--draft", model, "--target", model, "--system", "", "-n", "60", "-t", "1", "--dry-run"]


def asked(file: Path, answer: str, question: str = "What is it?", count: int = 6) -> Path:
    rows = ({"question": f"{question} {number}", "answer": answer} for number in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_verifier_that_checks_nothing_leaves_the_threshold(words: list[object], tmp_path: Path) -> None:
    data = asked(tmp_path / "q.jsonl", "7")
    done = rsd("tune", "--data", data, "--best", *words, "--verifier", "arithmetic")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("rsd: the verifier found nothing to check in all "), done.stderr
    assert "the threshold stays 1;" in last and "δ = " not in done.stdout and "target alone" in done.stdout


def test_rewards_that_are_all_equal_leave_the_threshold(words: list[object], tmp_path: Path) -> None:
    data = asked(tmp_path / "q.jsonl", "7")
    done = rsd("tune", "--data", data, "--best", *words, "--verifier", "regex:.")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("rsd: the rewards of all "), done.stderr
    assert "are 1, and no threshold tells steps apart" in last and "written" not in done.stdout
    made = json.loads(rsd("tune", "--data", data, "--best", *words, "--verifier", "regex:.", "--json").stdout)
    assert made["chosen"] is None and made["target"]["right"] == 6


def test_a_target_that_is_never_right_is_nothing_to_be_measured_against(words: list[object], tmp_path: Path) -> None:
    data = asked(tmp_path / "q.jsonl", "8")
    given = ("tune", "--data", data, *words, "--verifier", "regex:First", "--no-worse-than-target")
    done = rsd(*given)
    assert done.returncode == 1 and "the target answered none of the 6 questions right" in done.stderr.splitlines()[-1], done.stderr
    assert rsd("tune", "--data", asked(data, "7"), *given[3:]).returncode == 0, "one that is always right is"


def test_where_every_question_ends_in_an_error_its_cause_is_named(words: list[object], tmp_path: Path) -> None:
    data = asked(tmp_path / "q.jsonl", "7", "What is it? " * 200)
    done = rsd("tune", "--data", data, "--best", *words, "--reward-kind", "confidence", "-c", "128")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("rsd: the target alone could answer none of the 6 questions: "), done.stderr
    assert "context" in last and done.stdout == ""
