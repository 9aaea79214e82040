"""The Python code of an answer: of the step that is checked, of those before it, and the code that is graded."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from rsd_local.programs.asked import defined_names
from rsd_local.programs.blocks import code_blocks, python_code
from rsd_local.programs.syntax import parsed


@dataclass(frozen=True, slots=True)
class StepCode:
    """The Python blocks of an answer up to a step.

    Attributes:
        before: those of the steps before.
        here: those that end in this step, or do not end.
    """

    before: tuple[str, ...]
    here: tuple[str, ...]


def step_code(steps: tuple[str, ...], step: str) -> StepCode:
    """The Python blocks of a step; one that a limit cut in two belongs to the step with its end.

    Args:
        steps: the texts before it.
        step: its text.
    """
    earlier = "".join(steps)
    before: list[str] = []
    here: list[str] = []
    for block in code_blocks(earlier + step):
        code = python_code(block)
        if code is not None:
            (before if block.end <= len(earlier) else here).append(code)
    return StepCode(tuple(before), tuple(here))


def graded_code(text: str, entry: str) -> str | None:
    """The code that an answer is graded by: its last Python block that defines the function, or else its last one.

    An answer without any block is its code where all of it is Python.

    Args:
        text: the answer.
        entry: the function's name.
    """
    found = code_blocks(text)
    blocks = [code for block in found if (code := python_code(block)) is not None]
    for code in reversed(blocks):
        if defines(code, entry):
            return code
    if blocks:
        return blocks[-1]
    return text if not found and defines(text, entry) else None


def defines(code: str, name: str) -> bool:
    """Whether code compiles and binds a name where it stands."""
    tree = parsed(code)
    return tree is not None and name in defined_names(tree.body)


def last_function(blocks: tuple[str, ...]) -> str | None:
    """The name of the last function that blocks define."""
    for code in reversed(blocks):
        tree = parsed(code)
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
        if names:
            return names[-1]
    return None
