"""What tests of the sandbox look up on the machine, from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rsd_local.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
NOBODY = 65534


def holds(box: Sandbox, name: str) -> bool:
    """Whether a protection is said to hold; all do but those of limits alone."""
    (found,) = [protection for protection in box.protections if protection.name == name]
    assert found.holds or box.backend == "limits", found
    return found.holds


def processes_with(word: str, parent: int | None = None) -> list[int]:
    """Processes whose command line has a word, this one left out; zombies have no command line."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                command = Path("/proc", name, "cmdline").read_bytes()
                above = int(Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            if word.encode() in command and parent in (None, above):
                found.append(int(name))
    return found


def run_by(user: int, code: str) -> list[str]:
    """The lines that a Python text prints, run by another user, or by root with a Python that other users can start too.

    As root it is a copy of the package that runs, for the package itself may lie where nobody else comes to.
    """
    if os.getuid() != 0:
        return _lines([sys.executable, "-c", code], ROOT)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(ROOT / "rsd_local", Path(folder, "rsd_local"), ignore=shutil.ignore_patterns("__pycache__", "models", "*.gguf"))
        for python in (sys.executable, "/usr/bin/python3"):
            if _starts(python):
                return _lines([python, "-c", code], Path(folder), user=user, group=user, extra_groups=[])
    pytest.skip("nobody can start no Python of 3.11 or later")


def _starts(python: str) -> bool:
    """Whether a user without rights can start it."""
    try:
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        return subprocess.run(check, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True).returncode == 0
    except OSError:
        return False


def _lines(command: list[str], folder: Path, **user: object) -> list[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, **user)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return list(done.stdout.splitlines())
