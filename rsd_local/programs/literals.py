"""Python values in running text: where they end, and whether what stands there is one."""

from __future__ import annotations

import ast
import re

from rsd_local.programs.syntax import is_deep, syntax_tree

_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w])")
_WORD = re.compile(r"(?:True|False|None|true|false|set\(\))(?!\w)")
_STRING = re.compile(r"[rRbB]?(?:'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")(?![\w'\"])")
_LONG_STRING = re.compile(r"'''.*?'''|\"\"\".*?\"\"\"", re.DOTALL)
_OPERATOR = re.compile(r"[ \t]*(?://|[-+*/%])[ \t]*")
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_LIMIT = 20_000  # characters of a value or call: no example that anyone wrote is longer


def bracket_end(text: str, start: int) -> int | None:
    """Where the bracket that opens at a place is closed: the place behind it, None where it is not.

    Args:
        text: any.
        start: the place of ``(``, ``[`` or ``{``.
    """
    open_brackets: list[str] = []
    at, limit = start, min(len(text), start + _LIMIT)
    while at < limit:
        character = text[at]
        if character in "'\"":
            match = _LONG_STRING.match(text, at) or _STRING.match(text, at)
            if match is None:
                return None
            at = match.end()
            continue
        if character in _PAIRS:
            open_brackets.append(_PAIRS[character])
        elif character in ")]}":
            if not open_brackets or open_brackets.pop() != character:
                return None
            if not open_brackets:
                return at + 1
        at += 1
    return None


def value_at(text: str, start: int) -> tuple[str, int] | None:
    """The value that a text has at a place, and the place behind it; None where there is none.

    Several values with arithmetic between them are one. A result behind another equals sign must be the same value:
    ``19 - 5 - 6 = 8``.

    Args:
        text: any.
        start: where the value would begin.
    """
    end = _sum_end(text, start)
    if end is None or (found := literal(text[start:end])) is None:
        return None
    match = re.compile(r"[ \t]*==?[ \t]*").match(text, end)
    if match:
        last = _sum_end(text, match.end())
        other = literal(text[match.end() : last]) if last is not None else None
        if last is None or other is None or evaluated(other) != evaluated(found):
            return None
        end = last
    return found, end


def literal(source: str) -> str | None:
    """The source of a value that is written out, None where it is anything else, or is nested or long beyond reason.

    Numbers with arithmetic between them are a value; lower-case ``true`` and ``false`` are read as Python's.

    Args:
        source: as written, white space around it allowed.
    """
    source = {"true": "True", "false": "False"}.get(source.strip(), source.strip())
    tree = syntax_tree(source, "eval")
    if tree is None or is_deep(tree) or has_ellipsis(tree):
        return None
    try:
        repr(evaluated(source))  # a whole number of thousands of digits has no text
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None
    return source


def evaluated(source: str) -> object:
    """The value of a source.

    Args:
        source: as ``literal`` takes it.

    Raises:
        ValueError, TypeError, ZeroDivisionError: it is none.
    """
    tree = syntax_tree(source.strip(), "eval")
    if not isinstance(tree, ast.Expression):
        raise ValueError("no expression")
    return _value(tree.body)


def has_ellipsis(tree: ast.AST) -> bool:
    """Whether something is left out in a tree: ``...`` stands where a value would."""
    return any(
        isinstance(node, ast.Constant) and (node.value is ... or (isinstance(node.value, str) and node.value.strip() in ("...", "…")))
        for node in ast.walk(tree)
    )


def _sum_end(text: str, start: int) -> int | None:
    end = _atom_end(text, start)
    while end is not None and (match := _OPERATOR.match(text, end)):
        further = _atom_end(text, match.end())
        if further is None:
            break
        end = further
    return end


def _atom_end(text: str, start: int) -> int | None:
    if start < len(text) and text[start] in _PAIRS:
        return bracket_end(text, start)
    match = _WORD.match(text, start) or _NUMBER.match(text, start) or _STRING.match(text, start)
    return match.end() if match else None


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left), _number(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
            case ast.FloorDiv():
                return left // right
            case ast.Mod():
                return left % right
        raise ValueError("no arithmetic that is read")
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def _number(node: ast.expr) -> float:
    value = _value(node)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        raise ValueError("no number")
    return value
