"""Grading: numbers and letters at once, expressions in a process that may hang or die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rsd_local.answers import number
from rsd_local.errors import ConfigError
from rsd_local.evaluation import grading
from rsd_local.evaluation.grading import Grader, letter
from rsd_local.evaluation.items import Grading, Item


def item(answer: str, kind: Grading = "math") -> Item:
    return Item("q", "?", answer, kind)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(seconds=4.0) as opened:
        yield opened


@pytest.mark.parametrize(
    ("right", "given", "verdict"),
    [
        ("18", "18", True),
        ("18", "18.0", True),
        ("18", " 18. ", True),
        ("18", "$18$", True),
        ("18", "\\$18", True),
        ("18", "19", False),
        ("1,234", "1234", True),
        ("1234", "1{,}234", True),
        ("1234", "1,\\!234", True),
        ("0.5", ".50", True),
        ("-3", "+3", False),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("50", "50\\%", True),
        ("50", "0.5", False),
        ("12", "1,2", False),
    ],
)
def test_plain_numbers_need_no_process(right: str, given: str, verdict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grader, "_opened", lambda self: pytest.fail("the process was started"))
    assert Grader().grade(item(right, "number"), given) is verdict


@pytest.mark.parametrize("given", ["B", "b", "(B)", "B.", "B) blue", "\\text{B}", "\\textbf{(B)}", "$B$"])
def test_a_letter_is_read_in_the_ways_that_models_write_it(given: str) -> None:
    assert letter(given) == "B"
    assert Grader().grade(item("B", "choice"), given) and not Grader().grade(item("A", "choice"), given)


@pytest.mark.parametrize("given", ["", "blue", "A or B", "\\frac{1}{2}", "7", "🙂"])
def test_what_is_no_letter_is_wrong(given: str) -> None:
    assert not Grader().grade(item("B", "choice"), given)


def test_no_answer_is_wrong(grader: Grader) -> None:
    for kind in ("number", "math", "choice"):
        assert not grader.grade(item("A", kind), None) and not grader.grade(item("A", kind), "  ")


@pytest.mark.parametrize(
    ("right", "given", "verdict"),
    [
        ("\\frac{14}{3}", "14/3", True),
        ("18", "\\frac{36}{2}", True),
        ("18", "18 \\text{ dollars}", True),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)", True),
        ("\\text{Evelyn}", "Evelyn", True),
        ("p - q", "q - p", False),
        ("x^2+1", "1+x^{2}", True),
        ("[1,2)", "[1,2]", False),
    ],
)
def test_expressions_are_compared_by_what_they_mean(grader: Grader, right: str, given: str, verdict: bool) -> None:
    assert grader.grade(item(right), given) is verdict


@pytest.mark.parametrize(
    "given", ["}{", "\\frac{", "\\boxed{", "\x00\x1b[2J", "$" * 999, "{" * 5000, "🙂" * 50, "1" * 5000, "\\text{", "\ud800"]
)
def test_what_cannot_be_read_is_wrong_and_no_crash(grader: Grader, given: str) -> None:
    assert grader.grade(item("7"), given) is False
    assert grader.grade(item("7"), "\\frac{14}{2}") is True


def test_an_answer_that_hangs_is_wrong_and_the_next_one_is_graded() -> None:
    with Grader(seconds=2.0) as grader:
        assert grader.grade(item("\\frac{1}{2}"), "\\frac{2}{4}")
        begun = time.monotonic()
        assert grader.grade(item("7"), "9^{9^{9^{9^{9}}}} - 9^{9^{9^{9^{8}}}}") is False
        assert time.monotonic() - begun < 30
        assert grader.grade(item("\\frac{1}{2}"), "\\frac{3}{6}")


def test_a_process_that_was_killed_is_started_again() -> None:
    with Grader() as grader:
        assert grader.grade(item("\\frac{1}{2}"), "\\frac{2}{4}")
        assert grader._process is not None and grader._process.pid is not None
        os.kill(grader._process.pid, signal.SIGKILL)
        grader._process.join()
        assert grader.grade(item("\\frac{1}{2}"), "\\frac{2}{4}")


def test_a_process_that_dies_of_an_answer_leaves_it_wrong() -> None:
    with Grader(seconds=60) as grader:
        assert grader.grade(item("\\frac{1}{2}"), "\\frac{2}{4}")
        process = grader._process
        assert process is not None and process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)  # so that the answer is under way when it dies
        killer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        assert grader.grade(item("\\frac{1}{2}"), "\\frac{2}{4}") is False
        killer.join()
        assert grader.grade(item("\\frac{1}{2}"), "\\frac{2}{4}")


def test_many_threads_get_each_their_own_verdict(grader: Grader) -> None:
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda n: grader.grade(item(f"\\frac{{{n}}}{{7}}"), f"\\frac{{{2 * n}}}{{{14 + n % 2}}}"), range(1, 33)))
    assert verdicts == [n % 2 == 0 for n in range(1, 33)]


def test_a_missing_math_verify_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading.importlib.util, "find_spec", lambda name: None)
    grading.require_math_verify([item("7", "number"), item("A", "choice")])
    with pytest.raises(ConfigError, match="math-verify"):
        grading.require_math_verify([item("7")])


def test_a_number_of_a_million_digits_is_none() -> None:
    assert number("1" * 1_000_000) is None
