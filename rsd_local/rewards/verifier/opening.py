"""Which verifier a setting names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsd_local.config import RewardConfig, Trio, require
from rsd_local.rewards.verifier.base import Verifier


def open_verifier(config: RewardConfig, trio: Trio) -> Verifier | None:
    """The verifier of a reward, None where it is of another kind.

    Raises:
        ConfigError: it starts a program and ``trio.run_code`` is not set, or a file that it needs cannot be used.
        SandboxTooWeak: programs cannot be confined as far as the trio asks.
    """
    if config.kind != "verifier":
        return None
    require(
        trio.run_code or not config.runs_code,
        f"verifier {config.name} runs {'a program of yours' if config.name == 'command' else 'code that a model wrote'}",
        "give --run-code (in Python Trio(run_code=True)) if that is your wish",
    )
    given: Any = config.verifier
    if not isinstance(given, str):
        return _own(given, config.name)
    _, _, rest = given.partition(":")
    match config.name:
        case "python-tests" | "pytest":
            return _running(config, trio, rest)
        case "python-compiles":
            from rsd_local.rewards.verifier.python_compiles import PythonCompiles

            return PythonCompiles()
        case "arithmetic":
            from rsd_local.rewards.verifier.arithmetic import Arithmetic

            return Arithmetic()
        case "json-schema":
            from rsd_local.rewards.verifier.json_schema import JsonSchema

            assert config.schema is not None  # RewardConfig sees to that
            return JsonSchema(config.schema)
        case "regex":
            from rsd_local.rewards.verifier.regex import Pattern

            return Pattern(rest)
        case _:
            from rsd_local.rewards.verifier.command import Command

            return Command(rest)


def _own(given: Any, name: str) -> Verifier:
    """One that was given as an object or a callable; those of this package have limits of their own."""
    from rsd_local.rewards.verifier.calls import Called, Limited

    if not hasattr(given, "check"):
        return Called(given, name)
    ours: Verifier = given
    return ours if type(given).__module__.startswith("rsd_local.rewards.verifier.") else Limited(given, name)


def _running(config: RewardConfig, trio: Trio, path: str) -> Verifier:
    """One that runs code in a sandbox."""
    from rsd_local.sandbox import Sandbox

    sandbox = Sandbox.find(trio.sandbox)
    if config.name == "pytest":
        from rsd_local.rewards.verifier.pytest_file import PytestFile

        return PytestFile(sandbox, Path(path), Path(config.code_file))
    from rsd_local.rewards.verifier.python_tests import PythonTests

    return PythonTests(sandbox, config.tests)
