"""The code in a prompt: what an answer may use, and which functions it is asked for."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rsd_local.programs.blocks import code_blocks, python_code
from rsd_local.programs.syntax import parsed, unparsed

BUILTINS = frozenset(name for name in vars(builtins) if not name.startswith("_"))

_DEFINITION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+([A-Za-z_]\w*)[ \t]*\(", re.MULTILINE)
_CODE_LINE = re.compile(r"(?:def|class|from|import|async def|@)\b|@\w")
_NAMED = [
    re.compile(r"\b(?:function|method|class|named|called)[ \t]+(?:named[ \t]+|called[ \t]+)?[`'\"]([A-Za-z_]\w*)(?:\([^`'\"\n]*\))?[`'\"]"),
    re.compile(r"\b(?:function|method|class|named|called|[Ww]rite|[Ii]mplement|[Dd]efine)[ \t]+(?:a[ \t]+|the[ \t]+)?([A-Za-z_]\w*)\("),
    re.compile(r"`([A-Za-z_]\w*)\([^`\n]*\)`"),
]
_AT_RUN_TIME = {"exec", "eval", "globals", "vars", "locals", "setattr", "__import__"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class AskedCode:
    """What the code of a prompt says.

    Attributes:
        preamble: its imports, constants and whole functions, which an answer may use; functions that are to be written are left out.
        names: of the functions and classes that an answer is to define.
        known: all names that code of the prompt defines or imports.
        parameters: of each function in ``names`` the parameters without a default, where all can be given by place.
        docstrings: of its functions, each as Python reads it and as it is written, where the two differ.
    """

    preamble: str = ""
    names: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    parameters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    docstrings: tuple[tuple[str, str], ...] = ()


def asked_code(prompt: str) -> AskedCode:
    """Reads the code of a prompt: its fenced Python blocks or, where it has none, the lines that are Python.

    Args:
        prompt: the question.
    """
    sources = list(_sources(prompt))
    preamble: list[str] = []
    stubs: dict[str, ast.stmt] = {}
    whole: dict[str, ast.stmt] = {}
    known: set[str] = set()
    docstrings: list[tuple[str, str]] = []
    for source, tree in sources:
        for node in tree.body:
            known |= set(defined_names([node]))
            if isinstance(node, _Function | ast.ClassDef):
                (stubs if _is_stub(node) else whole)[node.name] = node
            if _is_kept(node):
                segment = None if getattr(node, "decorator_list", None) else ast.get_source_segment(source, node)
                preamble.append(segment or unparsed(node))  # a segment begins behind the decorators
        docstrings += _docstrings(source, tree)
    asked = stubs or whole
    if not sources:
        return AskedCode(names=tuple(dict.fromkeys(_named(prompt))))
    parameters = {name: shape for name, node in asked.items() if (shape := _parameters(node)) is not None}
    return AskedCode("\n".join(preamble), tuple(asked) or tuple(_named(prompt)), frozenset(known), parameters, tuple(docstrings))


def defined_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that statements bind where they stand, in any order, not those inside of functions and classes."""
    waiting: list[ast.AST] = list(body)  # no recursion: a model that repeats itself nests a thousand operators
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Function | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest
        if isinstance(node, ast.comprehension):
            waiting += [node.iter, *node.ifs]  # its targets are its own
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def binds_unseen(tree: ast.AST) -> bool:
    """Whether code may bind names that cannot be read from it: by ``import *``, or while it runs."""
    return any(
        (isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names))
        or (isinstance(node, ast.Name) and node.id in _AT_RUN_TIME)
        for node in ast.walk(tree)
    )


def called_names(tree: ast.AST) -> list[str]:
    """The names that are called anywhere in a tree, in its order, builtins left out unless nothing else is called."""
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return list(dict.fromkeys([name for name in calls if name not in BUILTINS] or calls))


def _sources(prompt: str) -> Iterator[tuple[str, ast.Module]]:
    blocks = code_blocks(prompt)
    for block in blocks:
        code = python_code(block)
        if code is None or block.code.lstrip().startswith(">>>"):
            continue
        tree = parsed(code) or parsed(code.rstrip() + "\n    pass\n")
        if tree is not None:
            yield code, tree
    if not blocks:
        found = _bare(prompt)
        if found is not None:
            yield found


def _bare(prompt: str) -> tuple[str, ast.Module] | None:
    """The lines that are Python in a prompt without a code block."""
    lines = prompt.split("\n")
    for first, line in enumerate(lines):
        if not _CODE_LINE.match(line):
            continue
        last = len(lines)
        for last in range(len(lines), max(first, len(lines) - 100), -1):
            code = "\n".join(lines[first:last])
            tree = parsed(code) or parsed(code.rstrip() + "\n    pass\n")
            if tree is not None:
                return code, tree
    match = _DEFINITION.search(prompt)
    if match:
        code = prompt[match.start() :].split("\n", 1)[0].strip() + "\n    pass\n"
        tree = parsed(code)
        return (code, tree) if tree is not None else None
    return None


def _named(prompt: str) -> Iterator[str]:
    for pattern in _NAMED:
        for match in pattern.finditer(prompt):
            if match[1] not in BUILTINS:
                yield match[1]


def _is_stub(node: ast.stmt) -> bool:
    """Whether a function has nothing but its docstring, or a class a method that has nothing else."""
    if isinstance(node, ast.ClassDef):
        return all(_is_filler(part) for part in node.body) or any(isinstance(part, _Function) and _is_stub(part) for part in node.body)
    return isinstance(node, _Function) and all(_is_filler(part) for part in node.body)


def _is_filler(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplemented" in unparsed(node)
    return isinstance(node, ast.Pass | ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _is_kept(node: ast.stmt) -> bool:
    if isinstance(node, _Function | ast.ClassDef):
        return not _is_stub(node)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.Try)


def _parameters(node: ast.stmt) -> tuple[str, ...] | None:
    if not isinstance(node, _Function):
        return None
    given = node.args
    if given.vararg or given.kwarg or given.kwonlyargs or given.defaults:
        return None
    return tuple(part.arg for part in (*given.posonlyargs, *given.args))


def _docstrings(source: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, _Function | ast.ClassDef | ast.Module) and node.body and isinstance(node.body[0], ast.Expr):
            text = node.body[0].value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                written = ast.get_source_segment(source, text) or ""
                if "\\" in written:
                    yield text.value, written
