"""Whether a step's Python code compiles, without running any of it."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator

from rsd_local.events import CancelToken
from rsd_local.programs.answers import step_code
from rsd_local.programs.asked import asked_code, binds_unseen, defined_names
from rsd_local.programs.blocks import code_blocks
from rsd_local.programs.imports import imports_exist
from rsd_local.programs.syntax import parsed, symbols
from rsd_local.prompt import Prompt

_ALWAYS = set(vars(builtins)) | {"__file__", "__annotations__", "__builtins__", "__path__", "__class__", "__module__", "__qualname__"}
_QUOTED = re.compile(r"`([^`\n]+)`")
_WORD = re.compile(r"[A-Za-z_]\w*")


class PythonCompiles:
    """Gives 1.0 to code whose syntax, names and imports are in order, 0.0 to other code, and nothing to steps without code."""

    immediate = True

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None) -> float | None:
        """Whether the step's Python blocks compile, use no name that is bound nowhere, and import what is installed."""
        code = step_code(steps, step)
        if not code.here:
            return None
        trees = [parsed(block) for block in code.here]
        if any(tree is None for tree in trees):
            return 0.0
        here = [tree for tree in trees if tree is not None]
        earlier = [tree for block in code.before if (tree := parsed(block)) is not None]
        if not all(imports_exist(tree) for tree in here):
            return 0.0
        if len(earlier) < len(code.before) or any(binds_unseen(tree) for tree in (*earlier, *here)):
            return 1.0
        known = _ALWAYS | _known(prompt.question)
        for tree in (*earlier, *here):
            known |= set(defined_names(tree.body)) | set(_globals(tree))
        unbound = [unbound_names(block) for block in code.here]
        return 1.0 if all(names is not None and names <= known for names in unbound) else 0.0

    def checks(self, prompt: Prompt) -> bool:
        """Any answer may have code."""
        return True

    def close(self) -> None:
        """Nothing runs beside this process."""


def unbound_names(code: str) -> set[str] | None:
    """The names that code reads as globals and does not bind at its top level; None for code that does not compile.

    Args:
        code: of Python. Annotations count only where they are evaluated.
    """
    top = symbols(code)
    if top is None:
        return None
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()}
    used: set[str] = set()
    waiting = [top]
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        outermost = scope.get_type() == "module"
        used |= {one.get_name() for one in scope.get_symbols() if one.is_referenced() and (outermost or one.is_global())}
    return used - bound


def _globals(tree: ast.Module) -> Iterator[str]:
    """The names that functions declare as global."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names


def _known(question: str) -> set[str]:
    """What the prompt's code binds, and all names that it has in code or in backticks: an answer may count on them."""
    texts: Iterable[str] = [block.code for block in code_blocks(question)] + _QUOTED.findall(question)
    asked = asked_code(question)
    return set(asked.known) | set(asked.names) | {word for text in texts for word in _WORD.findall(text)}
