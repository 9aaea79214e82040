"""Python's own parser, without its warnings."""

from __future__ import annotations

import ast
import threading
import warnings
from typing import Literal

_lock = threading.Lock()  # the filters of warnings are of the whole process
_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)


def syntax_tree(source: str, mode: Literal["exec", "eval"] = "exec") -> ast.Module | ast.Expression | None:
    """The tree of a source, None where it is no Python.

    Args:
        source: any text.
        mode: ``exec`` for statements, ``eval`` for one expression.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = ast.parse(source, mode=mode)
        except _ERRORS:
            return None
    assert isinstance(made, ast.Module | ast.Expression)
    return made


def statements(source: str) -> ast.Module | None:
    """The tree of statements, None where they are no Python."""
    made = syntax_tree(source)
    return made if isinstance(made, ast.Module) else None


def parsed(code: str) -> ast.Module | None:
    """The tree of code that also compiles: a ``return`` outside of a function does not; None for other code."""
    tree = statements(code)
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(code, "<code>", "exec", dont_inherit=True)
        except _ERRORS:
            return None
    return tree
