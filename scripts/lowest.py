"""Print the lowest version of every dependency that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

LEFT_OUT = {"torch", "mypy", "ruff"}
"""torch trains abacus and is in no test; scripts/check runs the other two in versions that agree with each other."""


def floors(project: dict[str, object]) -> dict[str, str]:
    """The floor of each dependency of a project, extras included.

    Args:
        project: the table ``[project]``.

    Raises:
        ValueError: a dependency has no floor, or two.
    """
    extras = project.get("optional-dependencies", {})
    assert isinstance(extras, dict)
    found: dict[str, str] = {}
    for line in [*project["dependencies"], *(line for lines in extras.values() for line in lines)]:  # type: ignore[misc]
        parsed = re.match(r"([\w.-]+)>=([\d.]+)", line)
        if parsed is None or found.setdefault(parsed[1], parsed[2]) != parsed[2]:
            raise ValueError(f"{line} has no floor, or another one than elsewhere")
    return {name: floor for name, floor in found.items() if name not in LEFT_OUT}


if __name__ == "__main__":
    file = Path(__file__).parent.parent / "pyproject.toml"
    for name, floor in floors(tomllib.loads(file.read_text(encoding="utf-8"))["project"]).items():
        print(f"{name}=={floor}")
