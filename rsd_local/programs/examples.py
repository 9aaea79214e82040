"""The examples in a prompt, as checks of the code that answers it.

A reading that is wrong throws away right answers, so what could mean something else is not read: an example calls a function that the
prompt defines or asks for, with arguments that are written out, and has a value that is written out.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable

from rsd_local.programs.asked import BUILTINS, AskedCode, asked_code
from rsd_local.programs.doctests import read_asserts, read_doctests
from rsd_local.programs.doubts import leaves_results_open, without_reports
from rsd_local.programs.example import Example
from rsd_local.programs.literals import evaluated
from rsd_local.programs.statements import read_statements
from rsd_local.programs.syntax import syntax_tree, unparsed

__all__ = ["Example", "read_examples"]

_CALLED = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\(")
_ASKS = re.compile(r"\b(?:write|implement|define|create|code|function|method)\b", re.IGNORECASE)
_MOST = 64  # examples of one prompt


def read_examples(prompt: str, asked: AskedCode | None = None) -> tuple[Example, ...]:
    """The examples in a prompt: doctests, ``assert`` lines, ``f(2) == 4`` and its like, and inputs with outputs.

    Args:
        prompt: the question.
        asked: its code, where that has been read already.
    """
    asked = asked or asked_code(prompt)
    prompt = without_reports(prompt)
    as_python_reads_it = prompt
    written = _read(prompt, asked)
    for value, source in asked.docstrings:
        as_python_reads_it = as_python_reads_it.replace(source, value)
    if as_python_reads_it != prompt:
        # A backslash in a docstring may be meant either way: "\\n" as doctest wants it, or "\n" as people write it.
        other = _read(as_python_reads_it, asked)
        written = other if len(other) >= len(written) else written
    return written


def _read(text: str, asked: AskedCode) -> tuple[Example, ...]:
    asserts, taken = read_asserts(text)
    named = asked.names or _only_call(text)
    names = tuple(dict.fromkeys([*named, *(name for example in asserts for name in example.names)]))
    doctests, sessions = read_doctests(text, names, asked)
    stated = _of_one_type(read_statements(text, taken + sessions, names, asked))
    found = _consistent(dict.fromkeys([*doctests, *asserts, *stated]))
    if leaves_results_open(text):
        found = [one for one in found if one.expected is None or one.printed or not _has_order(evaluated(one.expected))]
    return tuple(found)[:_MOST]


def _only_call(text: str) -> tuple[str, ...]:
    """The one function that a text calls, where it asks for one and calls no other."""
    called = set(_CALLED.findall(text)) - BUILTINS if _ASKS.search(text) else ()
    return tuple(called) if len(called) == 1 else ()


def _consistent(examples: Iterable[Example]) -> list[Example]:
    """The examples without those that contradict each other."""
    kept = list(examples)
    values: dict[tuple[str, str], set[str]] = {}
    for one in kept:
        if one.expected is not None:
            values.setdefault((one.setup, _normal(one.source)), set()).add(one.expected if one.printed else repr(evaluated(one.expected)))
    return [one for one in kept if one.expected is None or len(values[one.setup, _normal(one.source)]) == 1]


def _of_one_type(examples: Iterable[Example]) -> list[Example]:
    """The examples without those whose values are of another type than most, as those of definitions and slips of the pen are."""
    kept = list(examples)
    plain = [one for one in kept if _is_call(one.source)]
    for name in {one.names[0] for one in plain}:
        group = [one for one in plain if one.names[0] == name]
        types = Counter(kind for one in group if (kind := _type(one)) is not None)
        if len(types) <= 1:
            continue
        (usual, most), (_, next_most) = types.most_common(2)
        odd = {one for one in group if one.weak or _type(one) not in ((usual,) if most > next_most else ())}
        kept = [one for one in kept if one not in odd]
    return kept


def _has_order(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 1


def _type(example: Example) -> str | None:
    """What kind of value an example expects; None, which is no kind, goes with all."""
    value = evaluated(example.expected or "None")
    if value is None:
        return None
    return "number" if isinstance(value, int | float) else type(value).__name__


def _is_call(source: str) -> bool:
    tree = syntax_tree(source.strip(), "eval")
    call = tree.body if isinstance(tree, ast.Expression) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id not in BUILTINS


def _normal(source: str) -> str:
    tree = syntax_tree(source.strip())
    return (unparsed(tree) if tree else "") or source
