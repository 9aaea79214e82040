"""The task of abacus: questions by level, their reference solutions, and the check of a single step."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rsd_local.abacus.expression import (
    MAX_FACTOR,
    MAX_LITERAL,
    Expression,
    Operation,
    apply,
    operations,
    out_of_range,
    parse,
    render,
    value,
)

LEVELS = {1: 20, 2: 50, 3: 100, 4: 300, 5: MAX_LITERAL}
"""Level (also its number of operations) → the largest number in its questions."""

STEP_END = "\n\n"
_STEP = re.compile(r"(-?[0-9]{1,6})([-+*])(\(-[0-9]{1,6}\)|[0-9]{1,6})=(-?[0-9]{1,6})")
_BOXED = re.compile(r"\\boxed\{(-?[0-9]{1,6})\}")


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its canonical text, its answer and its level."""

    text: str
    answer: str
    level: int


def questions(seed: int, level: int | None = None) -> Iterator[Question]:
    """Endless seeded questions of one level, or of mixed levels in equal shares.

    Args:
        seed: the same seed gives the same questions on every machine.
        level: 1 to 5, None for all in turn.
    """
    rng = random.Random(seed)
    while True:
        for current in LEVELS if level is None else (level,):
            expression = draw(rng, current, LEVELS[current])
            yield Question(render(expression), str(value(expression)), current)


def draw(rng: random.Random, count: int, largest: int) -> Expression:
    """A random expression inside the trained range, with ``count`` operations over numbers up to ``largest``."""
    while True:
        expression = _tree(rng, count, largest)
        if out_of_range(expression) is None:
            return expression


def solution(expression: Expression) -> list[str]:
    """The reference steps, one operation each, the boxed answer last; without the blank lines between them."""
    steps = [
        f"{left}{sign}{f'({right})' if right < 0 else right}={apply(sign, left, right)}" for sign, left, right in operations(expression)
    ]
    return [*steps, f"\\boxed{{{value(expression)}}}"]


def take_step(expression: Expression, step: str) -> Expression | None:
    """What is left to work after a step, or None where the step is wrong.

    A step is right when it works, without a slip, an operation that can be worked next (of several any), or when it
    boxes the value of an expression that is worked to its end.
    """
    step = step.strip()
    if isinstance(expression, int):
        match = _BOXED.fullmatch(step)
        return expression if match and int(match.group(1)) == expression else None
    match = _STEP.fullmatch(step)
    if match is None:
        return None
    left, sign, right, result = int(match[1]), match[2], int(match[3].strip("()")), int(match[4])
    if apply(sign, left, right) != result:
        return None
    return _replace(expression, Operation(sign, left, right), result)


def right_steps(expression: Expression) -> list[str]:
    """Every step that is right now: each operation that can be worked next, or the boxed value of a number."""
    if isinstance(expression, int):
        return [f"\\boxed{{{expression}}}"]
    if isinstance(expression.left, int) and isinstance(expression.right, int):
        return solution(expression)[:1]
    return [step for side in (expression.left, expression.right) if isinstance(side, Operation) for step in right_steps(side)]


def check(question: str, steps: list[str]) -> list[bool]:
    """Which steps of a solution are right; after the first wrong one none is.

    Args:
        question: the canonical text of a question.
        steps: the solution's steps in order.
    """
    left: Expression | None = parse(question)
    verdicts = []
    for step in steps:
        left = None if left is None else take_step(left, step)
        verdicts.append(left is not None)
    return verdicts


def _replace(expression: Expression, done: Operation, result: int) -> Expression | None:
    """The expression with the leftmost occurrence of ``done`` worked, or None where there is none."""
    if isinstance(expression, int):
        return None
    if expression == done:
        return result
    left = _replace(expression.left, done, result)
    if left is not None:
        return Operation(expression.sign, left, expression.right)
    right = _replace(expression.right, done, result)
    return None if right is None else Operation(expression.sign, expression.left, right)


def _tree(rng: random.Random, count: int, largest: int) -> Expression:
    if count == 0:
        number = rng.randint(0, largest if rng.random() < 0.7 else min(largest, MAX_FACTOR))
        return -number if rng.random() < 0.03 else number
    sign = rng.choices("+-*", weights=(4, 4, 3))[0]
    if sign == "*" and rng.random() < 0.9:
        factor, other = rng.randint(2, MAX_FACTOR), _tree(rng, count - 1, largest)
        return Operation("*", other, factor) if rng.random() < 0.5 else Operation("*", factor, other)
    on_left = rng.randint(0, count - 1)
    return Operation(sign, _tree(rng, on_left, largest), _tree(rng, count - 1 - on_left, largest))
