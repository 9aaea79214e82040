"""A step's Python code against the user's own tests, run by pytest."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rsd_local.config import require
from rsd_local.errors import ConfigError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.programs.answers import step_code
from rsd_local.programs.syntax import parsed
from rsd_local.prompt import Prompt
from rsd_local.sandbox import Bounds, Sandbox, python
from rsd_local.text_files import read_text

_RUNNER = "pytest_run.py"
_BYTES = 64 << 20  # of the user's folder
_SKIPPED = {"__pycache__", "node_modules", "venv", "build", "dist"}
_HIDDEN = {".pytest.ini", ".pytest.toml"}  # that pytest reads


@dataclass(frozen=True, slots=True)
class _Counts:
    code: int
    passed: int
    failed: int
    broken: int
    left_out: int


class PytestFile:
    """Writes a step's last Python block to a file of a copy of the user's folder, and runs the user's tests there.

    The folder is the one that holds both the tests and the file. What is hidden (``.env``), ``venv`` and the like are not copied.

    Args:
        sandbox: where it runs.
        path: the tests: a file, or a folder of them.
        code_file: where the code goes; relative to the tests' folder where it is no absolute path.
        bounds: of one run.

    Raises:
        ConfigError: there are no such tests, they are no Python, or the folder is too large.
        VerifierFailed: pytest is not installed.
    """

    def __init__(self, sandbox: Sandbox, path: Path, code_file: Path | str, *, bounds: Bounds | None = None) -> None:
        self._sandbox, self._bounds = sandbox, bounds or Bounds(seconds=60.0)
        path = path.absolute()
        require(path.exists(), f"{path}: no such file or folder of tests")
        if not path.is_dir() and parsed(read_text(path)) is None:
            raise ConfigError(f"{path} is no Python")
        if importlib.util.find_spec("pytest") is None:
            raise VerifierFailed("pytest is not installed", hint="pip install pytest")
        folder = path if path.is_dir() else path.parent
        target = Path(os.path.normpath(folder / code_file))
        root = Path(os.path.commonpath([folder, target.parent]))
        self._tests, self._code_file = path.relative_to(root).as_posix(), target.relative_to(root).as_posix()
        self._folder = _read_folder(root)
        self._sound = not target.exists()  # whether the tests can be read without a step's code; nothing to try without the file

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None) -> float | None:
        """The share of tests that pass, 1.0 only where pytest came to its end and all did; None where the step has no code."""
        code = step_code(steps, step).here
        if not code:
            return None
        block = _definition(code)
        if parsed(block) is None:
            return 0.0
        if not self._sound:
            counts = self._run({}, ["--collect-only"], cancel)
            if counts is None or counts.broken or counts.code:
                raise VerifierFailed(f"pytest cannot collect {self._tests} without a step's code", hint="run pytest on it")
            self._sound = True
        counts = self._run({self._code_file: block.encode()}, [], cancel)
        if counts is None:
            return 0.0  # the code ended the process, or took too long
        if counts.code in (4, 5) and not counts.broken and not counts.left_out:  # the code may skip the whole file
            raise VerifierFailed(f"pytest ran no test of {self._tests} (its exit code is {counts.code})", hint="run pytest on it")
        total = counts.passed + counts.failed
        if counts.code == 0 and not counts.failed and total:
            return 1.0
        return counts.passed / max(1, total + counts.broken + (counts.failed == 0))

    def checks(self, prompt: Prompt) -> bool:
        """The tests are for any answer."""
        return True

    def close(self) -> None:
        """Nothing runs beside this process."""

    def _run(self, changes: Mapping[str, bytes], arguments: list[str], cancel: CancelToken | None) -> _Counts | None:
        secret = secrets.token_hex(16)
        runner = f"{secrets.token_hex(8)}_{_RUNNER}"  # no name of the user's
        outcome = self._sandbox.run(
            python([runner, "{pipe}"], packages=True),
            files={**self._folder, **changes, runner: (files("rsd_local.programs") / _RUNNER).read_bytes()},
            told=f"{secret}\n{json.dumps([*arguments, self._tests])}\n".encode(),
            bounds=self._bounds,
            cancel=cancel,
        )
        for line in outcome.said.decode("utf-8", "replace").split("\n"):
            if line.startswith(f"{secret} "):
                return _Counts(*map(int, line.split()[1:]))
        return None


def _definition(blocks: tuple[str, ...]) -> str:
    """The last block with a function or class, else the last of all."""
    for block in reversed(blocks):
        tree = parsed(block)
        if tree is not None and any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body):
            return block
    return blocks[-1]


def _read_folder(root: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    size = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_file() or name.endswith((".pyc", ".pyo")) or (name.startswith(".") and name not in _HIDDEN):
                continue
            try:
                size += path.stat().st_size
                require(size <= _BYTES, f"{root} holds more than 64 MiB", "keep the tests and the code in a folder of their own")
                found[path.relative_to(root).as_posix()] = path.read_bytes()
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="the tests run in a copy of their folder") from None
    return found
