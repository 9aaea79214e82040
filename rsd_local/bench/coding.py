"""Questions that ask for a Python function and have tests: rows of HumanEval (arXiv 2107.03374) and MBPP (arXiv 2108.07732)."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from typing import Any

from rsd_local.config import require
from rsd_local.evaluation.items import HiddenTest, HiddenTests, Item
from rsd_local.programs.asked import asked_code, called_names
from rsd_local.programs.syntax import parsed, statements

Fields = Mapping[str, Any]
_HUMANEVAL = {"task_id", "prompt", "entry_point", "test"}
_QUOTES = re.compile(r"^[rRuU]?(?:\"\"\"|'''|[\"'])|(?:\"\"\"|'''|[\"'])$")
_ASK = "Answer with the whole function in one Python code block."


def has_tests(row: Fields) -> bool:
    """Whether a row has the fields of HumanEval, or of MBPP."""
    return row.keys() >= _HUMANEVAL or "test_list" in row


def item(row: Fields, default_id: str, where: str) -> Item:
    """The question of a row, its tests hidden; of MBPP the first one is shown too.

    Args:
        row: that ``has_tests``.
        default_id: where the row has none.
        where: what errors call it.

    Raises:
        ConfigError: a field cannot be used.
    """
    return _humaneval(row, where) if row.keys() >= _HUMANEVAL else _mbpp(row, default_id, where)


def _humaneval(row: Fields, where: str) -> Item:
    name, prompt, entry, test = (row[key] for key in ("task_id", "prompt", "entry_point", "test"))
    require(all(isinstance(text, str) and text.strip() for text in (prompt, entry, test)), f"{where}: a field is no text")
    require(statements(test) is not None and "check" in test, f"{where}: 'test' has no check(candidate)")
    question = _question(prompt, entry)
    tests = HiddenTests(entry, (HiddenTest(f"{test.strip()}\n\ncheck({entry})"),), asked_code(question).preamble)
    return Item(str(name), question, "", "python", tests=tests)


def _question(prompt: str, entry: str) -> str:
    """A prompt of HumanEval with the docstring as text in front of the code, for models repeat a docstring that is in the code."""
    tree = parsed(prompt.rstrip() + "\n    pass\n")
    asked = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry] if tree else []
    if not asked or ast.get_docstring(asked[-1]) is None:
        return f"Complete this Python function.\n\n```python\n{prompt.strip()}\n```\n\n{_ASK}"
    docstring = asked[-1].body[0]
    text = _QUOTES.sub("", ast.get_source_segment(prompt, docstring) or "")
    head = "\n".join(prompt.split("\n")[: docstring.lineno - 1]).strip()
    return f"Write this Python function.\n\n{inspect.cleandoc(text)}\n\n```python\n{head}\n```\n\n{_ASK}"


def _mbpp(row: Fields, default_id: str, where: str) -> Item:
    text, tests = row.get("text", row.get("prompt")), row["test_list"]
    require(isinstance(text, str) and bool(text.strip()), f"{where} has no 'text' that is a text")
    listed = isinstance(tests, list) and bool(tests) and all(isinstance(test, str) for test in tests)
    require(listed, f"{where} has no 'test_list' that is a list of texts")
    trees = [statements(test) for test in tests]
    require(all(tree is not None for tree in trees), f"{where}: a test is no Python")
    called = [name for tree in trees[:1] if tree is not None for name in called_names(tree)]
    require(bool(called), f"{where}: the first test calls no function")
    imports, setup = row.get("test_imports") or [], row.get("test_setup_code") or ""
    require(isinstance(imports, list) and isinstance(setup, str), f"{where}: what is set up for the tests is no text")
    question = f"{str(text).strip()}\n\nYour code should pass this test:\n\n```python\n{tests[0].strip()}\n```\n\n{_ASK}"
    hidden = tuple(HiddenTest(test, "hidden" if place else "shown") for place, test in enumerate(tests))
    name = f"mbpp-{row['task_id']}" if isinstance(row.get("task_id"), int) else str(row.get("task_id") or default_id)
    return Item(name, question, "", "python", tests=HiddenTests(called[0], hidden, setup="\n".join([*map(str, imports), setup]).strip()))
