"""The lowest versions that pyproject.toml allows, which scripts/check --lowest tests."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
floors = runpy.run_path(str(ROOT / "scripts" / "lowest.py"))["floors"]


def test_every_dependency_has_one_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = floors(project)
    assert {"llama-cpp-python", "huggingface-hub", "click", "math-verify", "pytest"} <= set(found) and "torch" not in found
    assert len(project["dependencies"]) == len(set(found) & {line.split(">=")[0] for line in project["dependencies"]})


@pytest.mark.parametrize("wrong", [["numpy"], ["numpy>=1.26", "numpy>=2"], ["numpy==1.26"]])
def test_a_dependency_without_a_floor_or_with_two_is_refused(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="has no floor, or another one than elsewhere"):
        floors({"dependencies": wrong})
