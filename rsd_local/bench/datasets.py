"""Questions with answers: the built-in arithmetic, JSONL files, and data sets by name."""

from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from rsd_local.bench import coding, hub, published
from rsd_local.config import require
from rsd_local.errors import ConfigError
from rsd_local.evaluation.items import Item, jsonl_lines

T = TypeVar("T")
ARITHMETIC = "arithmetic"
_ARITHMETIC_QUESTIONS = 100  # where no limit is given: its generator never ends


def load_dataset(spec: str, limit: int | None = None, seed: int = 0, level: int | None = None, *, labelled: bool = True) -> list[Item]:
    """The questions of a data set, in the data set's order.

    Args:
        spec: ``arithmetic``, the name of a published data set, or the path of a JSONL file.
        limit: how many: a seeded choice, of which a smaller limit takes a part; None for all (100 of ``arithmetic``).
        seed: of that choice, of arithmetic's questions, and of the order of choices.
        level: 1 to 5 for ``arithmetic``, None for all in turn.
        labelled: whether each line of a file must have an answer; it is empty where one has none.

    Raises:
        ConfigError: there is no such data set, or a line of it cannot be used.
        RSDError: the hub cannot be reached.
    """
    require(limit is None or limit >= 1, f"limit {limit} is below 1")
    if spec == ARITHMETIC:
        return list(itertools.islice(_arithmetic(seed, level), limit or _ARITHMETIC_QUESTIONS))
    require(level is None, "level is for arithmetic alone")
    if spec in hub.SOURCES:
        items = hub.fetch(spec, seed)
    elif spec in published.SOURCES:
        items = published.fetch(spec)
    elif spec and Path(spec).exists():
        items = read_jsonl(Path(spec), labelled=labelled)
    else:
        known = [ARITHMETIC, *hub.SOURCES, *published.SOURCES]
        near = difflib.get_close_matches(spec, known, 1)
        raise ConfigError(f"no data set and no file {spec!r}", hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
    return choose(items, limit, seed)


def has_answers(spec: str) -> bool:
    """Whether a data set has answers: false only for a file without a single one."""
    return not Path(spec).is_file() or any("answer" in row or coding.has_tests(row) for _, row in jsonl_lines(Path(spec)))


def read_jsonl(file: Path, *, labelled: bool = True) -> list[Item]:
    """The questions of a JSONL file: ``question`` or ``problem``, ``answer``, and if there is one ``id``.

    Rows with the fields of HumanEval or MBPP are questions with hidden tests.

    Raises:
        ConfigError: a line cannot be used; the message has its number.
    """
    items: dict[str, Item] = {}
    for number, line in jsonl_lines(file):
        where = f"{file}, line {number}"
        name = f"{file.stem}-{number}"
        item = coding.item(line, name, where) if coding.has_tests(line) else _item(line, name, where, labelled)
        require(item.id not in items, f"{where}: the id {item.id!r} stands there a second time")
        items[item.id] = item
    require(bool(items), f"{file} has no question")
    return list(items.values())


def _item(row: dict[str, Any], default_id: str, where: str, labelled: bool) -> Item:
    question = row.get("question", row.get("problem"))
    require(isinstance(question, str) and bool(question.strip()), f"{where} has no 'question' or 'problem' that is a text")
    answer = row.get("answer", "" if not labelled else None)
    written = isinstance(answer, str | int | float) and not isinstance(answer, bool) and str(answer).strip()
    require(bool(written) or not labelled, f"{where} has no 'answer' that is a text or a number")
    name, level, subject = (None if row.get(key) is None else str(row[key]) for key in ("id", "level", "subject"))
    return Item(name or default_id, str(question), str(answer).strip(), level=level, subject=subject)


def _arithmetic(seed: int, level: int | None) -> Iterator[Item]:
    from rsd_local.abacus.task import LEVELS, questions

    require(level is None or level in LEVELS, f"level {level} is outside 1 to {max(LEVELS)}")
    for number, made in enumerate(questions(seed, level)):
        name = f"{ARITHMETIC}-{seed}-{level or 'all'}-{number}"
        yield Item(name, made.text, made.answer, "number", str(made.level), ARITHMETIC)


def choose(items: list[T], limit: int | None, seed: int) -> list[T]:
    """A seeded choice, of which a smaller limit takes a part, in the order in which they stand; all where there is no limit."""
    if limit is None or limit >= len(items):
        return items
    # A file may be sorted by subject, so its first lines are no fair part of it.
    order = list(range(len(items)))
    random.Random(f"{seed} questions").shuffle(order)
    return [items[place] for place in sorted(order[:limit])]
