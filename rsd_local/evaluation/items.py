"""One question with its answer, and the file format of many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsd_local.config import require
from rsd_local.errors import ConfigError
from rsd_local.text_files import read_text

Grading = Literal["number", "math", "choice", "python"]


@dataclass(frozen=True, slots=True)
class HiddenTest:
    """One test that no model and no reward ever sees.

    Attributes:
        source: Python statements that raise where the answer is wrong; they find the function by its name.
        part: the group that it is counted in apart: ``shown`` where the question has it too, else ``hidden``; empty for none.
    """

    source: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class HiddenTests:
    """What an answer in Python is graded by.

    Attributes:
        entry: the function's name.
        tests: all must pass; at least one, or there would be nothing that an answer passes.
        preamble: imports and helpers of the question's code, which an answer need not repeat.
        setup: statements that run before each test.
    """

    entry: str
    tests: tuple[HiddenTest, ...]
    preamble: str = ""
    setup: str = ""

    def __post_init__(self) -> None:
        require(bool(self.tests), f"the question that asks for {self.entry} has no test to grade an answer by")


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a data set.

    Attributes:
        id: unique in the data set.
        question: as the models read it, lettered choices included.
        answer: the right one; the letter where ``grading`` is ``choice``, nothing where it is ``python``.
        grading: ``number`` takes plain numbers only, ``math`` any expression, ``choice`` a letter, ``python`` code.
        level: how hard it is, in the data set's own words.
        subject: what it is about.
        tests: what ``python`` is graded by.
    """

    id: str
    question: str
    answer: str
    grading: Grading = "math"
    level: str | None = None
    subject: str | None = None
    tests: HiddenTests | None = None


def jsonl_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers from 1; blank lines are skipped.

    Raises:
        ConfigError: the file cannot be read, or a line is no JSON object.
    """
    lines = read_text(file).split("\n")  # not splitlines(): a separator of Unicode inside a string ends no line of JSON
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{file}, line {number} is no JSON: {error}") from None
        require(isinstance(row, dict), f"{file}, line {number} is no JSON object")
        yield number, row
