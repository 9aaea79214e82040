"""Integer expressions with + − × and parentheses: reading, writing and their value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rsd_local.errors import QuestionRefused

MAX_OPERATIONS = 5
MAX_LITERAL = 999
MAX_RESULT = 9_999
MAX_FACTOR = 12  # of every product, the smaller factor

ABILITY = "abacus solves + − × over integers"
RANGE = f"at most {MAX_OPERATIONS} operations, numbers up to {MAX_LITERAL}, results up to {MAX_RESULT}, a factor up to {MAX_FACTOR}"
ELSE = "for all else: rsd pull small, then --trio small"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation over two operands, each a number or an operation itself."""

    sign: str
    left: Expression
    right: Expression


Expression = int | Operation

_PRECEDENCE = {"+": 1, "-": 1, "*": 2}
_SPELLINGS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "x": "*", "X": "*"})
_TOKEN = re.compile(r"\s*([0-9]+|[-+*()])")
_PARTS = re.compile(r"[0-9(-][0-9+*() -]*[0-9)]")
_MORE = re.compile(r"[0-9+*/^%×÷√\[\]{}]|[−–-]\s*$|^\s*[−–-]")  # arithmetic beside a part of a text
_DIGITS_SHOWN = 20
_LONGEST_QUESTION = 1_000  # characters; also bounds the parser's recursion


def apply(sign: str, left: int, right: int) -> int:
    """The value of one operation over two integers."""
    if sign == "+":
        return left + right
    return left - right if sign == "-" else left * right


def parse(text: str) -> Expression:
    """Reads an expression in any of the usual spellings, a trailing ``=`` or ``= ?`` included.

    Raises:
        QuestionRefused: the text is no such expression, or lies outside what abacus was trained on.
    """
    if len(text) > _LONGEST_QUESTION:
        raise QuestionRefused(f"not an arithmetic expression: {len(text)} characters ({ABILITY})", hint=ELSE)
    expression = _Parser(re.sub(r"\s*=\s*\??\s*$", "", text).translate(_SPELLINGS), text).read()
    _check_range(expression)
    return expression


def find_expression(text: str) -> str | None:
    """The arithmetic of a text, as ``2+2`` of ``What is 2+2?``; None where abacus cannot solve all that there is of it."""
    for part in _PARTS.finditer(text.translate(_SPELLINGS)[:_LONGEST_QUESTION]):
        before, after = text[: part.start()], text[part.end() :]
        try:
            parse(part.group())
        except QuestionRefused:
            continue
        return None if _MORE.search(before) or _MORE.search(after) else part.group().strip()
    return None


def render(expression: Expression) -> str:
    """The expression without spaces and with no parentheses but those that it needs."""
    if isinstance(expression, int):
        return str(expression)
    left, right = render(expression.left), render(expression.right)
    own = _PRECEDENCE[expression.sign]
    if isinstance(expression.left, Operation) and _PRECEDENCE[expression.left.sign] < own:
        left = f"({left})"
    if isinstance(expression.right, Operation):
        if _PRECEDENCE[expression.right.sign] <= own:
            right = f"({right})"
    elif expression.right < 0:
        right = f"({right})"
    return left + expression.sign + right


def value(expression: Expression) -> int:
    """The integer that the expression comes to."""
    if isinstance(expression, int):
        return expression
    return apply(expression.sign, value(expression.left), value(expression.right))


def operations(expression: Expression) -> Iterator[tuple[str, int, int]]:
    """The operations in the order in which they are worked, left to right and inside out, as (sign, left, right)."""
    if isinstance(expression, Operation):
        yield from operations(expression.left)
        yield from operations(expression.right)
        yield expression.sign, value(expression.left), value(expression.right)


def literals(expression: Expression) -> Iterator[int]:
    """The numbers of the expression from left to right."""
    if isinstance(expression, int):
        yield expression
    else:
        yield from literals(expression.left)
        yield from literals(expression.right)


def out_of_range(expression: Expression) -> str | None:
    """Why the expression lies outside the trained range, or None where it lies inside."""
    worked = list(operations(expression))
    if not 1 <= len(worked) <= MAX_OPERATIONS:
        return f"it has {len(worked)} operations"
    for number in literals(expression):
        if abs(number) > MAX_LITERAL:
            return f"{_shown(number)} is too large"
    for sign, left, right in worked:
        if sign == "*" and min(abs(left), abs(right)) > MAX_FACTOR:
            return f"both factors of {left}*{right} are too large"
        if abs(apply(sign, left, right)) > MAX_RESULT:
            return f"the result of {left}{sign}{right} is too large"
    return None


def _shown(number: int) -> str:
    digits = str(number)
    return digits if len(digits) <= _DIGITS_SHOWN else f"a number of {len(digits.lstrip('-'))} digits"


def _check_range(expression: Expression) -> None:
    if reason := out_of_range(expression):
        raise QuestionRefused(f"outside the range of abacus, {reason} ({ABILITY}: {RANGE})", hint=ELSE)


class _Parser:
    """Recursive descent; a minus before a literal belongs to it, before anything else it is ``0-…``."""

    def __init__(self, text: str, asked: str) -> None:
        self._asked = asked
        self._tokens: list[str] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._refusal()
            self._tokens.append(match.group(1))
            position = match.end()
        self._next = 0

    def read(self) -> Expression:
        expression = self._sum(0)
        if self._peek() is not None:
            raise self._refusal()
        return expression

    def _refusal(self) -> QuestionRefused:
        shown = self._asked if len(self._asked) <= 60 else self._asked[:57] + "..."
        return QuestionRefused(f"not an arithmetic expression: {shown!r} ({ABILITY})", hint=ELSE)

    def _peek(self) -> str | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self) -> str:
        token = self._peek()
        if token is None:
            raise self._refusal()
        self._next += 1
        return token

    def _sum(self, depth: int) -> Expression:
        left = self._product(depth)
        while self._peek() in ("+", "-"):
            left = Operation(self._take(), left, self._product(depth))
        return left

    def _product(self, depth: int) -> Expression:
        left = self._factor(depth)
        while self._peek() == "*":
            left = Operation(self._take(), left, self._factor(depth))
        return left

    def _factor(self, depth: int) -> Expression:
        if depth > 50:
            raise self._refusal()
        token = self._take()
        if token == "-":
            after = self._factor(depth + 1)
            return -after if isinstance(after, int) else Operation("-", 0, after)
        if token == "(":
            inside = self._sum(depth + 1)
            if self._take() != ")":
                raise self._refusal()
            return inside
        if not token.isdigit():
            raise self._refusal()
        return int(token)
