"""Data sets by name, from the Hugging Face hub at pinned revisions.

Only repositories that publish JSONL or CSV are used: parquet would need a heavy reader for a few hundred kilobytes.
Files, revisions and field names are those of public listings and of scripts that load them; no download has confirmed them.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsd_local.catalogue import hub
from rsd_local.errors import ConfigError
from rsd_local.evaluation.items import Item, jsonl_lines

LETTERS = "ABCDEFGHIJ"
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set is, and how its rows are read.

    Attributes:
        repo: the data set's repository on the hub.
        file: its test questions, JSONL or CSV.
        revision: the commit.
        question: the field with the question.
        answers: the right answer of a row and, of a multiple choice, the wrong ones behind it.
        subject: the field with the subject, if there is one.
        level: the field with the level, if there is one.
    """

    repo: str
    file: str
    revision: str
    question: str
    answers: Callable[[Fields], list[str]]
    subject: str = ""
    level: str = ""


def fetch(name: str, seed: int) -> list[Item]:
    """All questions of a data set, from the hub's cache on this machine where they are there already.

    Args:
        name: a key of ``SOURCES``.
        seed: of the order of a multiple choice's letters.

    Raises:
        ConfigError: a row lacks what the table above says it has, or the data set needs a token.
        RSDError: the file cannot be fetched.
    """
    source = SOURCES[name]
    file = hub.fetch(name, source.repo, source.file, source.revision, kind="dataset", fix="give a JSONL file instead")
    items = []
    for number, row in _rows(file):
        try:
            items.append(_item(source, row, f"{name}-{number}", seed))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{name}: row {number} of {source.file} cannot be read: {error!r}") from None
    return items


def _rows(file: Path) -> Iterator[tuple[int, Fields]]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as text:
            yield from enumerate(csv.DictReader(text), 1)
    else:
        yield from jsonl_lines(file)


def _item(source: Source, row: Fields, name: str, seed: int) -> Item:
    question, answers = str(row[source.question]).strip(), [str(answer).strip() for answer in source.answers(row)]
    if not question or not answers[0]:
        raise ValueError("the question or the answer is empty")
    subject = str(row[source.subject]) if source.subject else None
    level = str(row[source.level]) if source.level else None
    if len(answers) == 1:
        return Item(name, question, answers[0], "math", level, subject)
    order = list(range(len(answers)))
    random.Random(f"{seed} {name}").shuffle(order)
    lines = "\n".join(f"{letter}) {answers[index]}" for letter, index in zip(LETTERS, order, strict=False))
    text = f"{question}\n\n{lines}\n\nAnswer with the letter of the right choice."
    return Item(name, text, LETTERS[order.index(0)], "choice", level, subject)


def _gpqa(row: Fields) -> list[str]:
    return [row["Correct Answer"], *(row[f"Incorrect Answer {number}"] for number in (1, 2, 3))]


def _mmlu(row: Fields) -> list[str]:
    choices, right = list(row["choices"]), int(row["answer"])
    return [choices.pop(right), *choices]


# The test sets of Qwen2.5-Math's evaluation, which is also the paper's.
_TASKS, _TASKS_REVISION = "HuggingFaceTB/math_tasks", "3d34f1076f279000b9315583dcdacfd288898283"

SOURCES = {
    "gsm8k": Source(
        _TASKS,
        "data/gsm8k/test.jsonl",
        _TASKS_REVISION,
        "question",
        lambda row: [row["answer"].rpartition("####")[2]],
    ),
    "math500": Source(
        "HuggingFaceH4/MATH-500",
        "test.jsonl",
        "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        "problem",
        lambda row: [row["answer"]],
        subject="subject",
        level="level",
    ),
    "olympiadbench": Source(
        _TASKS,
        "data/olympiadbench/test.jsonl",
        _TASKS_REVISION,
        "question",
        # The list always has one entry; several answers stand in it with commas between them.
        lambda row: [row["final_answer"][0].strip("$")],
    ),
    "gaokao2023en": Source(
        _TASKS,
        "data/gaokao2023en/test.jsonl",
        _TASKS_REVISION,
        "question",
        lambda row: [row["answer"].replace("$", "")],
    ),
    "minerva": Source(
        "math-ai/minervamath",
        "test.jsonl",
        "ee46ddc498933b1977577953250ca5c66be64f96",
        "question",
        lambda row: [row["answer"]],
    ),
    "gpqa": Source(
        "Idavidrein/gpqa",
        "gpqa_diamond.csv",
        "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        "Question",
        _gpqa,
        subject="High-level domain",
    ),
    "mmlu-stem": Source(_TASKS, "data/mmlu_stem/test.jsonl", _TASKS_REVISION, "question", _mmlu),
}
"""Name → where it is. gpqa is the diamond subset, as in the paper; it is gated."""
