"""Doctests and ``assert`` lines in running text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rsd_local.programs.asked import BUILTINS, AskedCode, called_names, defined_names
from rsd_local.programs.example import Example, callable_check
from rsd_local.programs.literals import has_ellipsis, literal
from rsd_local.programs.syntax import statements, unparsed

_ASSERT = re.compile(r"^[ \t]*(?:[-*+][ \t]+|[0-9]+[.)][ \t]+)?`?(assert\b)", re.MULTILINE)
_QUOTES = re.compile(r"^[rR]?(?:\"\"\"|''')[ \t]*(?=>>>)")  # a docstring that begins with its first example
_PRINTS = re.compile(r"\bprint(?:s|ed|ing)?\b", re.IGNORECASE)
_LINES = 40  # of one statement

Span = tuple[int, int]


@dataclass(slots=True)
class _Statement:
    source: str
    output: list[str] = field(default_factory=list)


def read_asserts(text: str) -> tuple[list[Example], list[Span]]:
    """The ``assert`` statements that stand on lines of their own, and where they are.

    Args:
        text: the prompt.
    """
    examples, spans = [], []
    for match in _ASSERT.finditer(text):
        found = _assert_at(text, match.start(1))
        if found is None:
            continue
        source, end, tree = found
        spans.append((match.start(), end))
        if any(isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) for node in tree.body):
            continue  # always true, which nobody means
        names = called_names(tree)
        called = callable_check(source, names, ())
        if called and any(isinstance(part, ast.Call) for part in ast.walk(tree)) and not set(called) <= BUILTINS:
            examples.append(Example(source, names=called))
    return examples, spans


def _assert_at(text: str, start: int) -> tuple[str, int, ast.Module] | None:
    """The statement that begins at a place, on one line or on several, and its end."""
    lines = text[start:].split("\n", _LINES)[:_LINES]
    end = start - 1
    for count in range(1, len(lines) + 1):
        end += len(lines[count - 1]) + 1
        source = "\n".join(lines[:count]).strip().rstrip("`")
        tree = statements(source)
        if tree is None:
            if not lines[count - 1].strip():
                return None
            continue
        return (source, end, tree) if len(tree.body) == 1 and isinstance(tree.body[0], ast.Assert) else None
    return None


def read_doctests(text: str, names: tuple[str, ...], asked: AskedCode) -> tuple[list[Example], list[Span]]:
    """The examples of console sessions (``>>>``), and where their input stands.

    A statement without an output checks nothing, but for a comparison; where a session has assignments, its later examples run
    what stands before them.

    Args:
        text: the prompt.
        names: of the functions that are asked for; where there is none, any name that a session calls.
        asked: the prompt's code.
    """
    examples: list[Example] = []
    spans: list[Span] = []
    prints = bool(_PRINTS.search(text))
    for session, lines in _sessions(text):
        spans += lines
        trees = [statements(one.source) for one in session]
        own = {name for tree in trees if tree is not None for name in defined_names(tree.body)}
        wanted = names or tuple(name for tree in trees if tree is not None for name in called_names(tree) if name not in BUILTINS | own)
        keeps = bool(own)
        before: list[str] = []
        for statement, tree in zip(session, trees, strict=True):
            if tree is not None:
                example = _example(statement, tree, wanted, asked.known | own, "\n".join(before) if keeps else "", prints)
                if example is not None:
                    examples.append(example)
                if keeps:
                    before.append(statement.source)
    return examples, spans


def _example(
    statement: _Statement, tree: ast.Module, names: tuple[str, ...], known: frozenset[str], setup: str, prints: bool
) -> Example | None:
    called = callable_check(statement.source, names, known)
    if called is None and setup and (over := callable_check(f"{setup}\n{statement.source}", names, known)):
        called = over
    if called is None or has_ellipsis(tree) or len(tree.body) != 1:
        return None
    node = tree.body[0]
    if isinstance(node, ast.Assert):
        return Example(statement.source, None, setup, names=called)
    if not isinstance(node, ast.Expr):
        return None
    output = "\n".join(statement.output).strip()
    source = ast.get_source_segment(statement.source, node.value) or unparsed(node)
    if not output:
        compared = isinstance(node.value, ast.Compare) and all(isinstance(sign, ast.Eq | ast.NotEq | ast.In) for sign in node.value.ops)
        return Example(f"assert {source}", None, setup, names=called) if compared else None
    value = literal(output) or literal(output.split("#")[0])
    if value is not None:
        return Example(source, value, setup, names=called)
    first, _, rest = output.partition("\n")
    if (value := literal(first)) is not None and all(literal(line) is None for line in rest.split("\n")):
        return Example(source, value, setup, names=called)  # text goes on right behind the output
    if prints and "..." not in output:
        return Example(source, output, setup, printed=True, names=called)
    return None


def _sessions(text: str) -> Iterator[tuple[list[_Statement], list[Span]]]:
    """Statements of each console session, and its lines of input; a session ends with a line of other text, not with a blank one."""
    found: list[_Statement] = []
    spans: list[Span] = []
    place = 0
    margin, waits = "", False  # of the prompt; whether an output may follow
    for line in text.split("\n"):
        here, place = place, place + len(line) + 1
        bare = _QUOTES.sub("", line.lstrip())
        if bare.startswith(">>>"):
            spans.append((here, place))
            margin, waits = line[: len(line) - len(line.lstrip())], True
            found.append(_Statement(bare[4:]))
        elif waits and re.match(r"\.\.\.(?: |$)", bare) and not found[-1].output:
            spans.append((here, place))
            found[-1].source += "\n" + bare[4:]
        elif waits and bare and not bare.startswith(("```", "~~~")):
            content = line.removeprefix(margin)
            ends = re.search(r"(?:\"\"\"|''')\s*$", content)
            content = content[: ends.start()] if ends else content
            if content.strip():
                found[-1].output.append(content.rstrip())
            waits = not ends
        else:
            waits = False
            if bare and found:
                yield found, spans
                found, spans = [], []
    if found:
        yield found, spans
