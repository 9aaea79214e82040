"""The fenced code blocks of a text, and which of them are Python."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from rsd_local.programs.syntax import parsed
from rsd_local.segments.markup import CLOSED, Markup

_PREFIX = re.compile(r"[ \t]*(?:(?:[-+*]|[0-9]{1,9}[.)])[ \t]+)*")  # indentation and list markers
_TAG = re.compile(r"\{?\s*\.?([\w+#-]*)")
_PYTHON = {"python", "py", "python3", "py3", "pycon", "python-repl"}
_PROMPT = re.compile(r"(?:>>>|\.\.\.)(?: |$)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block.

    Attributes:
        language: the first word behind the fence, in lower case; empty where there is none.
        code: the lines between the fences, without the indentation of the opening one.
        closed: whether its end is there; false where the text ends before it.
        start: characters of the text before the line that opens it.
        end: characters of the text up to the end of the line that closes it.
    """

    language: str
    code: str
    closed: bool
    start: int = 0
    end: int = 0


def code_blocks(text: str) -> tuple[Block, ...]:
    """The fenced code blocks of a text, read as steps are cut (``segments.markup``): CommonMark fences, in lists too.

    Args:
        text: Markdown. A last block without an end counts.
    """
    blocks: list[Block] = []
    markup, place = Markup(), 0
    opened: tuple[int, int, str] | None = None  # where the block begins, its indentation, its language
    lines: list[str] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        start, place = place, place + len(line)
        flags = 0
        for byte in line.removesuffix("\n").encode("utf-8", "replace") + b"\n":  # a fence on a last line without an end counts
            flags = markup.take(byte)
        if opened is None and markup.in_code:
            prefix = _PREFIX.match(line)
            assert prefix is not None
            opened = start, len(prefix[0].expandtabs(4)), _language(line[prefix.end() :])
            lines = []
        elif opened is not None and not markup.in_code:
            if not flags & CLOSED:
                lines.append(_dedented(line, opened[1]))
            blocks.append(Block(opened[2], "".join(lines), bool(flags & CLOSED), opened[0], place))
            opened = None
        elif opened is not None:
            lines.append(_dedented(line, opened[1]))
    if opened is not None:
        blocks.append(Block(opened[2], "".join(lines), False, opened[0], place))
    return tuple(blocks)


def python_code(block: Block) -> str | None:
    """The Python of a block, None where it is something else.

    Tagged python, py, python3, py3 or pycon, it is Python even where it does not compile. Without a tag it is where it compiles
    and does something: what a program printed (``[1, 2]``, ``True``) is no code. Of a console session only the input is taken.

    Args:
        block: of a text.
    """
    session = block.code.lstrip().startswith(">>>")
    if block.language in _PYTHON:
        return console_input(block.code) if session else block.code
    if block.language:
        return None
    code = console_input(block.code) if session else block.code
    tree = parsed(code)
    if tree is None or all(isinstance(node, ast.Expr) and not _calls(node) for node in tree.body):
        return None
    return code


def console_input(session: str) -> str:
    """The lines behind ``>>>`` and ``...`` of a console session."""
    lines = [line.lstrip() for line in session.split("\n")]
    return "".join(line[4:] + "\n" for line in lines if _PROMPT.match(line))


def _calls(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call | ast.Await | ast.NamedExpr) for part in ast.walk(node))


def _language(line: str) -> str:
    match = _TAG.match(line.lstrip("`~").strip())
    return match[1].lower() if match else ""


def _dedented(line: str, columns: int) -> str:
    """A line without at most so many columns of white space before it."""
    at = column = 0
    while at < len(line) and column < columns and line[at] in " \t":
        column += 1 if line[at] == " " else 4 - column % 4
        at += 1
    return " " * max(0, column - columns) + line[at:]
