"""A program that PyInstaller made: one folder that runs where there is no Python."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rsd_local import _pyinstaller

ROOT = Path(__file__).parents[1]
PROGRAM = """
import multiprocessing, sys

def isolated():
    from rsd_local import Reasoner
    with Reasoner.open("abacus", isolated=True) as reasoner:
        print(reasoner.solve("(37+48)*6-129").answer)

if __name__ == "__main__":
    multiprocessing.freeze_support()
    if sys.argv[1:] == ["isolated"]:
        isolated()
    else:
        from rsd_local.cli import main
        main()
"""
NOT_NEEDED = ("matplotlib", "pytest", "tkinter", "hypothesis", "sympy", "math_verify", "IPython", "gguf", "openai", "mypy")


def test_pyinstaller_is_told_where_the_hooks_are() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["entry-points"]["pyinstaller40"] == {"hook-dirs": "rsd_local._pyinstaller:get_hook_dirs"}
    (folder,) = _pyinstaller.get_hook_dirs()
    assert {path.name for path in Path(folder).glob("hook-*.py")} == {"hook-rsd_local.py", "hook-llama_cpp.py"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("PyInstaller") is None, reason="PyInstaller is not installed")
def test_one_folder_answers_without_python_and_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "rsd.py").write_text(PROGRAM)
    words = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN", "--onedir", "--name", "rsd", "rsd.py"]
    words += ["--additional-hooks-dir", *_pyinstaller.get_hook_dirs()]  # an editable install may be older than the entry point
    words += [word for name in NOT_NEEDED for word in ("--exclude-module", name)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYINSTALLER_CONFIG_DIR": str(tmp_path / "cache")}
    built = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500)
    assert built.returncode == 0, built.stderr[-3000:]
    program = tmp_path / "dist" / "rsd" / ("rsd.exe" if sys.platform == "win32" else "rsd")
    bare = {"SystemRoot": os.environ["SystemRoot"]} if sys.platform == "win32" else {}
    for arguments in (["solve", "(37+48)*6-129"], ["isolated"]):
        done = subprocess.run([program, *arguments], cwd=tmp_path / "dist", env=bare, capture_output=True, text=True, timeout=300)
        assert (done.stdout, done.returncode) == ("381\n", 0), done.stderr
    version = subprocess.run([program, "--version"], env=bare, capture_output=True, text=True, timeout=120)
    assert version.stdout.startswith("rsd, version "), version.stderr
