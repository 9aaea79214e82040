"""A file of a user's own tests as checks: ``assert`` lines, ``test_…`` functions, or ``def check(candidate)``."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from rsd_local.errors import ConfigError
from rsd_local.programs.asked import BUILTINS, called_names
from rsd_local.programs.example import Example
from rsd_local.programs.syntax import parsed, unparsed
from rsd_local.text_files import read_text

CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class TestSource:
    """Tests from a file.

    Attributes:
        checks: each with the statements that it needs; one that calls ``check`` has ``{candidate}`` for the function's name.
    """

    __test__ = False  # for pytest: nothing to collect

    checks: tuple[Example, ...]

    def of(self, function: str | None) -> tuple[Example, ...]:
        """The checks of one function.

        Args:
            function: its name, for a ``check(candidate)``; without it there is nothing to call such a check with.
        """
        called = [one for one in self.checks if function or CANDIDATE not in one.names]
        return tuple(
            one
            if CANDIDATE not in one.names
            else Example(one.source.replace(f"{{{CANDIDATE}}}", function or ""), setup=one.setup, names=(function or "",), part=one.part)
            for one in called
        )


def read_test_file(path: Path) -> TestSource:
    """Reads a file of tests, without running it.

    Args:
        path: Python. It may import what it tests ``from solution``.

    Raises:
        ConfigError: it cannot be read, is no Python, or has no test.
    """
    return read_tests(read_text(path), str(path))


def read_tests(source: str, where: str) -> TestSource:
    """The tests of a source.

    Args:
        source: Python.
        where: what errors call it.

    Raises:
        ConfigError: it is no Python, or has no test.
    """
    tree = parsed(source)
    if tree is None:
        raise ConfigError(f"{where} is no Python")
    setup: list[str] = []
    checks: list[Example] = []
    calls: list[tuple[str, tuple[str, ...]]] = []
    for node in tree.body:
        text = ast.get_source_segment(source, node) or unparsed(node)
        if isinstance(node, ast.Assert):
            names = tuple(name for name in called_names(node) if name not in BUILTINS)
            checks.append(Example(text, setup="\n".join(setup), names=names))
            continue
        if isinstance(node, ast.FunctionDef) and (node.name.startswith("test_") or node.name == "check"):
            wanted = len(node.args.args) - len(node.args.defaults)
            if node.name == "check" and wanted == 1:
                calls.append((f"check({{{CANDIDATE}}})", (CANDIDATE,)))
            elif wanted or node.decorator_list:
                raise ConfigError(f"{where}: {node.name} needs pytest", hint="--verifier pytest:PATH runs it")
            else:
                calls.append((f"{node.name}()", ()))
        if not (isinstance(node, ast.If) and "__name__" in unparsed(node.test)):
            setup.append((unparsed(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else "") or text)
    checks += [Example(call, setup="\n".join(setup), names=names) for call, names in calls]
    if not checks:
        raise ConfigError(f"{where} has no test", hint="assert lines, test_… functions, or def check(candidate)")
    return TestSource(tuple(checks))
