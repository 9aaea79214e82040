"""The examples in a prompt: what is read, and what is better not read."""

from __future__ import annotations

import pytest

from rsd_local.programs.asked import asked_code
from rsd_local.programs.examples import read_examples

STUB = 'def twice(x):\n    """Double a number or a list.\n\n{}\n    """\n'


def pairs(prompt: str) -> list[tuple[str, str | None]]:
    return [(example.source, example.expected) for example in read_examples(prompt)]


def in_docstring(*lines: str) -> str:
    return STUB.format("\n".join(f"    {line}" for line in lines))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("twice(2) == 4", "4"),
        ("twice(2) = 4", "4"),
        ("twice(2) -> 4", "4"),
        ("twice(2) => 4", "4"),
        ("twice(2) ==> 4", "4"),
        ("twice(2) ==>4", "4"),
        ("twice(2) ➞ 4", "4"),
        ("twice(2) → 4", "4"),
        ("twice(2)  # => 4", "4"),
        ("twice(2)   # returns 4", "4"),
        ("twice(2)  # 4", "4"),
        ("twice(2)  # Output: 4", "4"),
        ("twice(2) returns 4", "4"),
        ("twice(2) should return 4.", "4"),
        ("twice(2) should return: 4", "4"),
        ("twice(2) should be 4", "4"),
        ("* twice(2) -> 4", "4"),
        ("1. twice(2) -> 4", "4"),
        ("for twice(2) == 4", "4"),
        ("Example: twice(2) gives 4", "4"),
        ("`twice(2)` returns `4`", "4"),
        ("For instance, `twice(2)` should return `4`.", "4"),
        ("twice(2) == 4  # twice as much", "4"),
        ("twice(2) == 4 (twice as much)", "4"),
        ("twice(2) == 4, because it is twice as much", "4"),
        ("twice(2) => -4", "-4"),
        ("twice(2) => 4.50", "4.50"),
        ("twice(2) => 1e3", "1e3"),
        ("twice(2) => true", "True"),
        ("twice(2) => None", "None"),
        ("twice(2) => (1, None)", "(1, None)"),
        ('twice(2) => {"a": [1, 2]}', '{"a": [1, 2]}'),
        ("twice(2) => 'it\\'s == 3'", "'it\\'s == 3'"),
        ("twice(2) => 7 - 2 - 1 = 4", "7 - 2 - 1"),
        ("twice(2) => set()", "set()"),
    ],
)
def test_a_call_with_its_value_is_read_in_all_the_ways_that_people_write_it(line: str, expected: str) -> None:
    assert pairs(in_docstring(line)) == [("twice(2)", expected)]


@pytest.mark.parametrize(
    ("question", "read"),
    [
        ("Write twice(x). twice(2) == 4", [("twice(2)", "4")]),
        ("Write add(a, b). add(1, 2) == 3 and add(2, 2) == 4.", [("add(1, 2)", "3"), ("add(2, 2)", "4")]),
        ("Implement is_odd(n): is_odd(7) is True, is_odd(8) is False", [("is_odd(7)", "True"), ("is_odd(8)", "False")]),
        ("Write a function double. double(3) should be 6.", [("double(3)", "6")]),
        ("A function to sum a list, please, e.g. total([1, 2]) -> 3", [("total([1, 2])", "3")]),
        ("Write twice so that twice(1) = 2, twice(2) = 4", [("twice(1)", "2"), ("twice(2)", "4")]),
        ("Write the inverse of g(x), for example where g(2) == 4 and h(4) == 2", []),
        ("If twice(2) == 4 then stop.", []),
        ("It holds that 3 * twice(2) == 4.", []),
        ("The object.twice(2) == 4", []),
        ("twice(2) is not 4", []),
        ("twice(2) is 4 times smaller", []),
    ],
)
def test_a_question_on_one_line_may_state_its_examples(question: str, read: list[tuple[str, str]]) -> None:
    assert [(one.source, one.expected) for one in read_examples(question)] == read


@pytest.mark.parametrize(
    "line",
    [
        "twice(n) == 4",
        "twice(a) => 'aa'",
        "twice(n) = twice(n - 1) + 2",
        "twice(...) == 4",
        "twice([1, ...]) == [2]",
        "twice(2) == [1, 2, ...]",
        "twice(2) == n",
        "twice(2) == four",
        "twice(2) == twice(1) + 2",
        "twice(2) == 4 or 5",
        "twice(2) returns 1 and 2",
        "twice(2) returns 1, 2",
        "twice(2) == 4 apples",
        "twice(3) = 3! = 6",
        "twice(2) = 4 as a string",
        "twice(2) = 12.57 (rounded)",
        "twice(2) = 4 (approximately)",
        "Old behaviour: twice(2) == 5.",
        'twice(2) == ""four"',
        "twice(2) == 'four",
        "twice(2) => 7 - 2 = 4",
        "twice(2) == 4x",
        "twice(2) should not return 4",
        "twice(2) does not return 5",
        "It is wrong that twice(2) == 5",
        "twice(2) currently returns 5",
        "Currently twice(2) returns 5",
        "twice(2) returns 5 but should return 4",
        "twice(2) returns 5 instead of 4",
        "twice(2) != 5",
        "twice(2) > 3",
        "twice(2) raises ValueError",
        "twice(2) is 4",
        "if twice(2) == 4: pass",
        "x = twice(2) == 4",
        "not twice(2) == 5",
        "twice(1) + twice(2) == 6",
        "other.twice(2) == 4",
        "half(2) == 1",
        "notwice(2) == 5",
        "twice(2)",
        "twice(2 == 4",
        "twice(2) ~ 4",
        "print(twice(2)) == 4",
    ],
)
def test_what_could_mean_something_else_is_not_read(line: str) -> None:
    assert pairs(in_docstring(line)) == []


def test_calls_may_be_wrapped_in_builtins_and_go_over_several_lines() -> None:
    assert pairs(in_docstring("round(twice(0.333), 2) == 0.67")) == [("round(twice(0.333), 2)", "0.67")]
    assert pairs(in_docstring("twice([", "  1,", "  2", "]) == [2, 4]")) == [("twice([ 1, 2 ])", "[2, 4]")]
    assert pairs(in_docstring("twice(2) should", "return 4 and twice(3) should return 6.")) == [("twice(2)", "4"), ("twice(3)", "6")]


def test_doctests_are_read_with_what_they_print() -> None:
    lines = [
        ">>> twice([1,",
        "...        2])",
        "[2,",
        " 4]",
        ">>> twice(2) # two",
        "4",
        ">>> twice('a') == 'aa'",
        ">>> twice(0) == 1",
        "False",
    ]
    assert pairs(in_docstring(*lines)) == [
        ("twice([1,\n       2])", "[2,\n 4]"),
        ("twice(2)", "4"),
        ("assert twice('a') == 'aa'", None),
        ("twice(0) == 1", "False"),
    ]
    assert pairs('def twice(x):\n    """>>> twice(2)\n    4"""\n') == [("twice(2)", "4")]


@pytest.mark.parametrize(
    "lines",
    [
        [">>> twice(2)"],
        [">>> twice(2)", "", "4"],
        [">>> twice(2) 4"],
        [">>> twice(n)", "4"],
        [">>> other(2)", "4"],
        [">>> twice(2)", "..."],
        [">>> twice(2)", "[2, ...]"],
        [">>> twice(2)", "four"],
        [">>> twice(2)", "Traceback (most recent call last):", "ValueError: no"],
        [">>> twice(2)", "1", "2"],
        [">>> x = twice(2)"],
        [">>> 1 + 1", "2"],
    ],
)
def test_a_doctest_that_says_too_little_is_not_read(lines: list[str]) -> None:
    assert pairs(in_docstring(*lines)) == []


def test_text_behind_a_doctests_output_is_no_part_of_it() -> None:
    assert pairs(in_docstring(">>> twice(2)", "4", "That is all.")) == [("twice(2)", "4")]


def test_a_sessions_assignments_run_before_its_later_examples() -> None:
    prompt = (
        'class Stack:\n    """A stack.\n\n    >>> s = Stack()\n    >>> s.push(3)\n    >>> s.pop()\n    3\n    """\n'
        "    def push(self, x): pass\n    def pop(self): pass\n"
    )
    (example,) = read_examples(prompt)
    assert (example.source, example.expected, example.setup, example.names) == ("s.pop()", "3", "s = Stack()\ns.push(3)", ("Stack",))


def test_printed_text_is_compared_only_where_the_prompt_is_about_printing() -> None:
    lines = [">>> twice(2)", "one", "two"]
    (example,) = read_examples(in_docstring("Prints each number.", *lines))
    assert example.printed and example.expected == "one\ntwo"
    assert read_examples(in_docstring(*lines)) == ()


def test_a_backslash_in_a_docstring_is_read_as_it_makes_sense() -> None:
    as_doctest_wants = 'def twice(x):\n    """Double.\n\n    >>> twice("a\\\\n")\n    \'a\\\\na\\\\n\'\n    """\n'
    as_people_write = as_doctest_wants.replace("\\\\", "\\")
    assert pairs(as_doctest_wants) == pairs(as_people_write) == [('twice("a\\n")', "'a\\na\\n'")]


def test_assert_lines_name_the_function_where_no_code_does() -> None:
    prompt = "Double a number.\n\nYour code should pass these tests:\n\nassert twice(2) == 4\nassert twice(\n    [1]) == [2], 'a list'\n"
    assert pairs(prompt) == [("assert twice(2) == 4", None), ("assert twice(\n    [1]) == [2], 'a list'", None)]
    assert [example.names for example in read_examples(prompt)] == [("twice",), ("twice",)]
    for line in ("assert twice(x) == 4", "assert twice(2) => 4", "assert twice(2) = 4", "assert x", "asserting twice(2) == 4"):
        assert pairs(f"Double a number.\n{line}\n") == [], line
    assert pairs("Write a function `twice(x)`.\n- `twice(2)` returns 4") == [("twice(2)", "4")]
    assert pairs("Write a function twice(x) that doubles: twice(2) == 4") == [("twice(2)", "4")]
    assert pairs(">>> twice(2)\n4\n") == [("twice(2)", "4")]


def test_an_assertion_that_is_always_true_is_not_read() -> None:
    assert pairs("Write it.\n\nassert (f(3) == 9, 'three')\nassert f(4) == 16") == [("assert f(4) == 16", None)]


def test_what_the_prompt_defines_keeps_its_decorators() -> None:
    code = "from dataclasses import dataclass\n\n@dataclass\nclass Point:\n    x: int\n\ndef mirror(p):\n    pass\n"
    assert "@dataclass\nclass Point" in asked_code(f"Complete this.\n\n```python\n{code}```\n").preamble


@pytest.mark.parametrize(
    ("report", "read"),
    [
        ("Steps to reproduce:\n\n```python\n>>> f(2)\n5\n```\n\nExpected: `4`. Please fix `f(x)`.", []),
        ("`f(x)` gives wrong answers:\n\n```\nf(2) == 5\n```\n\nWrite the correct one.", []),
        ("Currently:\n\n    >>> f(2)\n    5\n\nIt should be:\n\n    >>> f(2)\n    4\n\nFix `f(x)`.", [("f(2)", "4")]),
        ("Write `f(x)`.\n\nActual result:\n\nf(2) == 5\n\nExpected result:\n\nf(2) == 4", [("f(2)", "4")]),
        ("This is wrong:\n\n```python\ndef f(x):\n    '''Double.\n    >>> f(2)\n    4\n    '''\n    return 5\n```", [("f(2)", "4")]),
        ("`f(x)` is wrong, these must pass:\n\n```python\nassert f(2) == 4\n```", [("assert f(2) == 4", None)]),
    ],
)
def test_what_a_bug_report_says_it_got_is_no_example(report: str, read: list[tuple[str, str | None]]) -> None:
    assert pairs(report) == read


@pytest.mark.parametrize("remark", ["You can return the answer in any order.", "Change the list in place.", "It shuffles randomly."])
def test_one_order_of_several_is_no_example(remark: str) -> None:
    prompt = f"Write `pick(xs)`. {remark}\n\n>>> pick([1, 2])\n[2, 1]\n>>> pick([])\n[]\n\npick([1, 2, 3]) == (3, 2)"
    assert pairs(prompt) == [("pick([])", "[]")]
    assert len(pairs(prompt.replace(remark, ""))) == 3


def test_inputs_with_outputs_are_read_where_they_name_all_parameters() -> None:
    head = 'def add(a, b):\n    """Add.\n    '
    assert pairs(f'{head}For a = 1, b = -2 the output should be -1.\n    """\n') == [("add(1, -2)", "-1")]
    assert pairs(f'{head}For b = 1, a = 2, the result should be 3\n    """\n') == [("add(2, 1)", "3")]
    assert pairs(f'{head}Example 1:\n        Input: a = [1], b = [2]\n        Output: [1, 2]\n    """\n') == [("add([1], [2])", "[1, 2]")]
    assert pairs('def neg(a):\n    """\n    Input: 3\n    Output: -3\n\n    Input: 4\n    Output: -4 # each\n    """\n')[0] == (
        "neg(3)",
        "-3",
    )
    for text in (
        "For a = 1 the output should be 1",
        "Input: 1, 2\n    Output: 3",
        "Input: a = 1, c = 2\n    Output: 3",
        "Input: a = x\n    Output: 3",
    ):
        assert pairs(f'{head}{text}\n    """\n') == [], text
    assert pairs('def f(a=1):\n    """\n    Input: 3\n    Output: 4\n    """\n') == [], "a default may be meant"
    assert pairs("Input: 3\nOutput: 9\n") == []


def test_examples_that_contradict_each_other_are_left_out() -> None:
    assert pairs(in_docstring("twice(2) == 4", "twice(2) == 5", "twice(3) == 6")) == [("twice(3)", "6")]
    mixed = in_docstring("twice(1) = 3", "twice(2) = 2", "twice(3) = [1, 3, 2]")
    assert pairs(mixed) == [], "definitions by a single equals sign beside examples of another type"
    slip = in_docstring('twice(1) ==> ("a", "b")', 'twice(2) ==> ("a")', 'twice(3) ==> ("c", "d")')
    assert [source for source, _ in pairs(slip)] == ["twice(1)", "twice(3)"]
    assert len(pairs(in_docstring("twice(1) == None", "twice(2) == 4", "twice(3) == 6.0", "twice(4) == True"))) == 4


def test_examples_of_whole_functions_do_not_count_beside_one_that_is_to_be_written() -> None:
    prompt = 'def half(x):\n    """half(2) == 1"""\n    return x / 2\n\n' + in_docstring("twice(2) == 4", "half(4) == 2")
    assert pairs(prompt) == [("twice(2)", "4")]
    assert asked_code(prompt).names == ("twice",) and "def half" in asked_code(prompt).preamble
    assert pairs("Mend this function, so that half(2) == 1:\n\n```python\ndef half(x):\n    return x\n```") == [("half(2)", "1")]


def test_the_same_is_read_in_a_block_and_without_one() -> None:
    code = "from typing import List\nimport math\nLIMIT = 3\n\n" + in_docstring(">>> twice(2)", "4", "twice(3) == 6")
    assert pairs(f"Complete it.\n\n```python\n{code}```\n\nThank you.") == pairs(code) == [("twice(2)", "4"), ("twice(3)", "6")]
    assert pairs(f"Complete it.\n{code}\nThank you, dear model.") == pairs(code)
    asked = asked_code(code + "\nassert twice(2) == 4\nprint(twice(3))\n")
    assert asked.preamble == "from typing import List\nimport math\nLIMIT = 3" and asked.names == ("twice",)
    assert asked.parameters == {"twice": ("x",)}


@pytest.mark.parametrize(
    "text", ["", "What is 2 + 2?", "twice(2) == 4", "```\n```", "def", "```python\ndef f(\n```", "((((", "f(" * 5000, "'" * 5000, "\\" * 99]
)
def test_a_prompt_that_asks_for_no_function_has_no_example(text: str) -> None:
    assert read_examples(text) == ()


@pytest.mark.parametrize("terms", [200, 400, 1_500, 6_000])
def test_what_is_nested_or_long_beyond_reason_is_no_example(terms: int) -> None:
    long, deep, digits = " + 1" * terms, "[" * min(terms, 190), "f" * (5 * terms)
    lines = (f"twice(1{long}) == 4", f"twice(2) == 1{long}", f"assert twice(1{long}) == 4", f"twice({deep}{']' * len(deep)}) == 3",
             f"twice(0x{digits}) == [0x{digits}]", f"twice([0x{digits}]) == 3", f">>> twice(1{long})", "4", ">>> twice(5)", f"0x{digits}",
             "twice(7) == 14")  # fmt: skip
    found = pairs(in_docstring(*lines))
    assert ("twice(7)", "14") in found and not any("+ 1" in f"{source}{expected}" or "[[" in source for source, expected in found)
    code = f"```python\n@decorated(1{long})\ndef given():\n    return 3\n\ndef twice(x):\n    raise NotImplementedError(1{long})\n```\n"
    assert pairs(code + "twice(7) == 14\n") in ([("twice(7)", "14")], [])


def test_values_of_hostile_size_are_not_computed() -> None:
    assert pairs(in_docstring("twice(2) == 9 ** 9 ** 9", "twice(3) == 'a' * 9999999999")) == []
