"""Python's own parser, without its warnings."""

from __future__ import annotations

import ast
import symtable
import threading
import warnings
from typing import Literal

_lock = threading.Lock()  # the filters of warnings are of the whole process
_DEEP = 100  # levels; Python's limit of 1,000 frames is reached at some 300
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


def symbols(code: str) -> symtable.SymbolTable | None:
    """The names of code by their scopes, None for code that does not compile."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return symtable.symtable(code, "<code>", "exec")
        except _ERRORS:
            return None


def unparsed(tree: ast.AST) -> str:
    """The source of a tree; empty where it is nested too deeply for that, or has a number of too many digits."""
    try:
        return ast.unparse(tree)
    except (RecursionError, ValueError):
        return ""


def is_deep(tree: ast.AST) -> bool:
    """Whether a tree is nested too deeply for what walks it step by step into its depth, here and in the sandbox."""
    level: list[ast.AST] = [tree]
    for _ in range(_DEEP):
        level = [part for node in level for part in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


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
