"""One check of code, and whether a piece of Python can be one."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from rsd_local.programs.asked import BUILTINS, called_names
from rsd_local.programs.literals import has_ellipsis
from rsd_local.programs.syntax import is_deep, statements


@dataclass(frozen=True, slots=True)
class Example:
    """One check.

    Attributes:
        source: an expression where there is an ``expected``, else statements that raise where the code is wrong.
        expected: the source of its value; None where the statements say themselves what is right. A float may differ by 1e-6 of
            itself, and text that is printed by white space at its ends.
        setup: statements that run before it.
        printed: whether ``expected`` is text that is printed, not the source of a value.
        names: the functions that it calls.
        weak: whether it is written with a single equals sign, as definitions are too.
        part: a name for the group that it is counted in.
    """

    source: str
    expected: str | None = None
    setup: str = ""
    printed: bool = False
    names: tuple[str, ...] = ()
    weak: bool = False
    part: str = ""


def callable_check(source: str, names: Iterable[str], known: Iterable[str]) -> tuple[str, ...] | None:
    """The functions of ``names`` that an expression or statements call, None where it cannot be run as it stands, or is nested too deeply.

    Args:
        source: of Python.
        names: one of them must be called.
        known: names that it may use besides builtins.
    """
    tree = statements(source)
    if tree is None or is_deep(tree):
        return None
    wanted = set(names)
    called = tuple(name for name in called_names(tree) if name in wanted)
    parts = list(ast.walk(tree))
    used = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
    bound = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    bound |= {part.arg for part in parts if isinstance(part, ast.arg)}
    if not called or has_ellipsis(tree) or used - bound - wanted - BUILTINS - set(known):
        return None
    return called
