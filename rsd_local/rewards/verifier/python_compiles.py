"""Whether a step's Python code compiles, without running any of it."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import symtable
import sys
from collections.abc import Iterable, Iterator

from rsd_local.events import CancelToken
from rsd_local.programs.answers import step_code
from rsd_local.programs.asked import asked_code, defined_names
from rsd_local.programs.blocks import code_blocks
from rsd_local.programs.syntax import parsed, statements
from rsd_local.prompt import Prompt

_ALWAYS = set(vars(builtins)) | {"__file__", "__annotations__", "__builtins__", "__path__", "__class__", "__module__", "__qualname__"}
_AT_RUN_TIME = {"exec", "eval", "globals", "vars", "locals", "setattr", "__import__"}  # what may bind names that nobody sees
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
        if not all(_exists(name) for tree in here for name in _imports(tree)):
            return 0.0
        if len(earlier) < len(code.before) or any(_binds_unseen(tree) for tree in (*earlier, *here)):
            return 1.0
        known = _ALWAYS | _known(prompt.question)
        for tree in (*earlier, *here):
            known |= set(defined_names(tree.body)) | set(_globals(tree))
        return 0.0 if any(unbound_names(tree) - known for tree in here) else 1.0

    def checks(self, prompt: Prompt) -> bool:
        """Any answer may have code."""
        return True

    def close(self) -> None:
        """Nothing runs beside this process."""


def unbound_names(tree: ast.Module) -> set[str]:
    """The names that code reads as globals and does not bind at its top level.

    Args:
        tree: that compiles.
    """
    if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body):
        tree = _WithoutAnnotations().visit(statements(ast.unparse(tree)) or tree)  # they are not evaluated
    top = symtable.symtable(ast.unparse(ast.fix_missing_locations(tree)), "<code>", "exec")
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()}
    used: set[str] = set()
    waiting = [top]
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        outermost = scope.get_type() == "module"
        used |= {one.get_name() for one in scope.get_symbols() if one.is_referenced() and (outermost or one.is_global())}
    return used - bound


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _globals(tree: ast.Module) -> Iterator[str]:
    """The names that functions declare as global."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names


def _binds_unseen(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names))
        or (isinstance(node, ast.Name) and node.id in _AT_RUN_TIME)
        for node in ast.walk(tree)
    )


def _known(question: str) -> set[str]:
    """What the prompt's code binds, and all names that it has in code or in backticks: an answer may count on them."""
    texts: Iterable[str] = [block.code for block in code_blocks(question)] + _QUOTED.findall(question)
    asked = asked_code(question)
    return set(asked.known) | set(asked.names) | {word for text in texts for word in _WORD.findall(text)}


def _imports(tree: ast.AST) -> Iterator[str]:
    """The packages that code imports, but for those that it tries to."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Try | ast.TryStar) and node.handlers:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        else:
            yield from _imports(node)


def _exists(package: str) -> bool:
    if package in sys.stdlib_module_names or package in sys.modules:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError, AttributeError):
        return True  # it is there, and cannot say what it is
