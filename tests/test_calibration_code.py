"""Tuning and training on questions whose answers are code: graded by their tests, where code may run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import refused, rsd
from test_rsd import role
from tiny import chain, write_script

from rsd_local import Params, Reasoner, Trio
from rsd_local.calibration.labels import Labelling
from rsd_local.calibration.rollouts import Rollouts, roll_out
from rsd_local.calibration.tuning import sweep
from rsd_local.config import Search
from rsd_local.errors import ConfigError
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import HiddenTest, HiddenTests, Item
from rsd_local.events import CancelToken
from rsd_local.sandbox import Sandbox

CODE = ["Here:\n\n", "```python\n", "def area(a):\n", "    return a * a\n", "```\n", "\nDone."]
WRONG = ["So:\n\n", "~~~python\n", "def area(a):\n    return a\n", "~~~\n"]
CODE_ITEM = Item("area", "Write area(a).", "", "python", tests=HiddenTests("area", (HiddenTest("assert area(3) == 9"),)))


def unwatched(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def coders(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """A draft whose function is right, and a target whose is not."""
    folder, words = tmp_path_factory.mktemp("coders"), [*CODE, *WRONG]
    draft, target = write_script(folder / "d.gguf", words, chain(*CODE)), write_script(folder / "t.gguf", words, chain(*WRONG))
    return Trio(role(draft), role(target), reward_kind="confidence", system="", width=3, reuse=False)


def test_a_sweep_grades_code_by_its_tests(coders: Trio) -> None:
    given = dict(seed=0, points=2, labelled=True, cancel=CancelToken(), watch=unwatched)
    with Reasoner.open(coders) as reasoner:
        with Grader(sandbox=Sandbox.find()) as grader:
            found = sweep(reasoner, [CODE_ITEM], Params(), grader, **given)  # type: ignore[arg-type]
        assert (found.draft.right, found.target.right, found.points[0].right) == (1, 0, 1)
        with Grader() as grader, pytest.raises(ConfigError) as caught:
            sweep(reasoner, [CODE_ITEM], Params(), grader, **given)  # type: ignore[arg-type]
        assert "--run-code" in caught.value.hint


@pytest.mark.parametrize("labelling", [Labelling(), Labelling("mc", 2)])
def test_rollouts_of_code_are_graded_by_its_tests(coders: Trio, tmp_path: Path, labelling: Labelling) -> None:
    wrong = replace(CODE_ITEM, id="cube", tests=HiddenTests("area", (HiddenTest("assert area(3) == 27"),)))
    params = Params(search=Search(samples=1))
    with Reasoner.open(coders) as reasoner, Grader(sandbox=Sandbox.find()) as grader, Rollouts.open(tmp_path / "r", {}, False) as kept:
        roll_out(reasoner, [CODE_ITEM, wrong], params, labelling, kept, grader, seed=0, cancel=CancelToken(), watch=unwatched)
        rows = {row["id"]: row for row in kept.rows}
    assert {name: (row["correct"], set(row["labels"])) for name, row in rows.items()} == {"area": (True, {1.0}), "cube": (False, {0.0})}
    assert rows["area"]["answer"] == "def area(a):\n    return a * a\n" and len(rows["area"]["steps"]) >= 2


def test_questions_with_tests_need_leave_to_run_code(tmp_path: Path) -> None:
    row = {"task_id": 1, "text": "Write f.", "test_list": ["assert f(1) == 1"]}
    data = tmp_path / "code.jsonl"
    data.write_text(json.dumps(row) + "\n")
    refused(rsd("tune", "--data", data, "--best", "--dry-run"), 2, "graded by running", "--run-code")
    refused(rsd("train-reward", "--data", data, "--out", tmp_path / "h.safetensors"), 2, "graded by running", "--run-code")
