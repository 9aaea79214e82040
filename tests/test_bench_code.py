"""Questions that are graded by running code: what their rows become, what is right, and what is kept of it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from bench_support import FakeSolver, run_fake, sums, trio_of_files

from rsd_local.bench import published
from rsd_local.bench.datasets import has_answers, load_dataset, read_jsonl
from rsd_local.bench.report import read_summary
from rsd_local.bench.results import Results, configuration, describe_questions
from rsd_local.bench.runner import run
from rsd_local.bench.strategies import read_strategies
from rsd_local.bench.tables import remarks
from rsd_local.config import Params
from rsd_local.errors import ConfigError, RSDError
from rsd_local.evaluation.grading import Grader, require_sandbox
from rsd_local.evaluation.items import Item
from rsd_local.events import CancelToken, Result
from rsd_local.programs.examples import read_examples
from rsd_local.sandbox import Bounds, Sandbox

HUMANEVAL = {
    "task_id": "Like/7",
    "prompt": "import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef area(a: float) -> float:\n"
    '    """The area of a square.\n    >>> area(2)\n    4\n    """\n',
    "entry_point": "area",
    "canonical_solution": "    return a * a\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(3) == 9\n    for x in range(5):\n"
    "        assert math.fabs(half(candidate(x)) - x * x / 2) < 1e-6, 'half of it'\n",
}
MBPP = {
    "task_id": 12,
    "text": "Write a function to sort a list of points.",
    "test_setup_code": "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')",
    "test_list": [
        "assert sort_points([Point(2, 1), Point(1, 2)]) == [Point(1, 2), Point(2, 1)]",
        "assert sort_points([]) == []",
        "assert sort_points([Point(1, 1)]) == [(1, 1)]",
    ],
}
Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def made(*rows: dict[str, Any]) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return made


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(sandbox=Sandbox.find(), bounds=Bounds(seconds=20)) as opened:
        yield opened


def block(code: str) -> str:
    return f"Here it is.\n\n```python\n{code}\n```\n"


def test_a_row_like_humanevals_shows_its_examples_and_hides_its_tests(write: Writer) -> None:
    (item,) = load_dataset(str(write(HUMANEVAL)))
    assert (item.id, item.grading, item.answer) == ("Like/7", "python", "")
    assert item.tests is not None and item.tests.entry == "area" and "def half" in item.tests.preamble
    assert "def area(a: float)" in item.question and "candidate" not in item.question and "a * a" not in item.question
    assert [(one.source, one.expected) for one in read_examples(item.question)] == [("area(2)", "4")]
    assert has_answers(str(write(HUMANEVAL)))


def test_the_docstring_of_the_asked_function_stands_in_front_of_its_code(write: Writer) -> None:
    (item,) = load_dataset(str(write(HUMANEVAL)))
    assert "\n\nThe area of a square.\n>>> area(2)\n4\n\n```python\n" in item.question
    assert "-> float:\n```\n\n" in item.question and '"""' not in item.question
    raw = HUMANEVAL | {"prompt": "def area(a):\n    r'''Of \"\\n\".\n\n    >>> area(\"\\n\")\n    1'''\n"}
    (item,) = load_dataset(str(write(raw)))
    assert '\n\nOf "\\n".\n\n>>> area("\\n")\n1\n\n```python\ndef area(a):\n```' in item.question
    (item,) = load_dataset(str(write(HUMANEVAL | {"prompt": "def area(a):\n    import math\n"})))
    assert "```python\ndef area(a):\n    import math\n```" in item.question


def test_a_row_like_mbpps_shows_its_first_test_and_no_other(write: Writer) -> None:
    (item,) = load_dataset(str(write(MBPP)))
    assert item.id == "mbpp-12" and item.tests is not None and item.tests.entry == "sort_points"
    assert [test.part for test in item.tests.tests] == ["shown", "hidden", "hidden"]
    assert MBPP["test_list"][0] in item.question
    assert not any(test in item.question for test in MBPP["test_list"][1:])
    (item,) = load_dataset(
        str(write({"task_id": 3, "prompt": "Write f.", "test_imports": ["import math"], "test_list": ["assert f(1) == 1"]}))
    )
    assert item.tests is not None and item.tests.setup == "import math" and len(read_examples(item.question)) == 1


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (HUMANEVAL | {"test": "def check(candidate:"}, r"'test' has no check\(candidate\)"),
        (HUMANEVAL | {"prompt": ""}, "a field is no text"),
        (MBPP | {"test_list": []}, "no 'test_list'"),
        (MBPP | {"test_list": ["assert f("]}, "a test is no Python"),
        (MBPP | {"test_list": ["assert 1 == 1"]}, "calls no function"),
        (MBPP | {"text": None}, "has no 'text'"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(write: Writer, row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"line 1.*{words}"):
        load_dataset(str(write(row)))


@pytest.mark.parametrize(
    ("solution", "right"),
    [
        (block("def area(a):\n    return a * a"), True),
        (block("def area(a):\n    return 2 * half(a * a)"), True),
        ("def area(a):\n    return a ** 2\n", True),
        (block("def area(a):\n    return a * a") + "Used like this:\n" + block("print(area(input()))"), True),
        (block("def area(a):\n    return 0") + "No, better:\n" + block("def area(a):\n    return a * a"), True),
        (block("def area(a):\n    return a * a") + "No, better:\n" + block("def area(a):\n    return 0"), False),
        (block("def area(a):\n    return a + a"), False),
        (block("def surface(a):\n    return a * a"), False),
        (block("def area(a):\n    return a * a\nraise ValueError"), False),
        (block("def area(a:"), False),
        (block("def half(x): return x / 2 if x < 0 else 0\ndef area(a): return 9"), False),
        (block("import os\nos._exit(0)"), False),
        (block("class Any(float):\n    def __eq__(self, other): return True\ndef area(a): return Any()"), False),
        (block("def area(a):\n    return a * a" + " + 0" * 100_000), False),
        (block("def area(a):\n    return 4\nx = 1" + " + 1" * 1_500), False),
        (block("def area(a):\n    return " + "[" * 5_000), False),
        ("It is \\boxed{4}.", False),
        ("", False),
    ],
)
def test_code_is_right_where_all_hidden_tests_pass(write: Writer, grader: Grader, solution: str, right: bool) -> None:
    (item,) = load_dataset(str(write(HUMANEVAL)))
    assert grader.grade(item, solution) is right
    grade = grader.grade_solution(item, solution, None)
    assert grade.right is right and grade.checks == {}
    assert grade.answer is None or grade.answer in solution


def test_shown_and_hidden_tests_are_counted_apart(write: Writer, grader: Grader) -> None:
    (item,) = load_dataset(str(write(MBPP)))
    right = grader.grade_solution(item, block("def sort_points(points):\n    return sorted(points)"), None)
    assert (right.right, right.checks) == (True, {"shown": True, "hidden": True})
    fitted = grader.grade_solution(item, block("def sort_points(points):\n    return points[::-1] if points else None"), None)
    assert (fitted.right, fitted.checks) == (False, {"shown": True, "hidden": False})
    none = grader.grade_solution(item, "I cannot.", None)
    assert (none.right, none.answer, none.checks) == (False, None, {"shown": False, "hidden": False})


def test_code_is_not_run_where_nobody_allowed_it(write: Writer) -> None:
    (item,) = load_dataset(str(write(HUMANEVAL)))
    with pytest.raises(ConfigError) as caught:
        Grader().grade(item, block("def area(a): return a * a"))
    assert "--run-code" in caught.value.hint
    with pytest.raises(ConfigError):
        require_sandbox([item], None)
    require_sandbox(sums(2), None)


class Coder(FakeSolver):
    """Answers each question with the same block."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code

    def solve(self, prompt: str, *rest: Any, **more: Any) -> Result:
        return replace(super().solve("1+1", *rest, **more), text=block(self.code), answer=None)


def test_a_bench_keeps_the_code_and_its_parts_and_says_how_many_passed_each(write: Writer, grader: Grader, tmp_path: Path) -> None:
    items = [*read_jsonl(write(MBPP, MBPP | {"task_id": 13}))]
    plans, trio = read_strategies(["draft"], Params()), trio_of_files(tmp_path)
    code = "def sort_points(points):\n    return points[::-1] if points else None\n"
    folder = tmp_path / "out"
    with Results.open(folder, configuration(trio, "code", None, None, 0, items, plans), False) as results:
        run(Coder(code), items, plans, results, grader, seed=0, parallel=2, cancel=CancelToken(), watch=lambda tally: None)
    rows = Results.read(folder)
    assert [(row["answer"], row["correct"], row["checks"]) for row in rows] == [(code + "\n", False, {"shown": True, "hidden": False})] * 2
    (figures,) = read_summary(folder).strategies
    assert [(part.part, part.passed, part.questions) for part in figures.parts] == [("shown", 2, 2), ("hidden", 0, 2)]
    assert any("all hidden tests passed on 0 of 2 questions" in line for line in remarks(read_summary(folder)))


def test_rows_without_parts_are_as_they_were_and_so_is_what_is_said_of_the_questions(tmp_path: Path) -> None:
    run_fake(tmp_path / "out", ["draft"], sums(3))
    assert not any("checks" in row for row in Results.read(tmp_path / "out"))
    before = json.dumps([[item.id, item.question, item.answer, item.grading, item.level, item.subject] for item in sums(3)])
    assert describe_questions(sums(3))["sha256"] == hashlib.sha256(before.encode()).hexdigest()


def test_other_tests_are_other_questions(write: Writer) -> None:
    one: list[Item] = load_dataset(str(write(HUMANEVAL)))
    other = load_dataset(str(write(HUMANEVAL | {"test": HUMANEVAL["test"] + "    assert candidate(0) == 0\n"})))
    assert describe_questions(one) != describe_questions(other)


class _Site(BaseHTTPRequestHandler):
    files: dict[str, bytes] = {}
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        data = self.files.get(self.path)
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _Site.files, _Site.asked = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(published, "SITE", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def test_a_published_data_set_is_fetched_once_and_checked(site: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(json.dumps(HUMANEVAL).encode())
    source = published.SOURCES["humaneval"]
    address = f"/{source.repo}/{source.commit}/{source.file}"
    _Site.files[address] = data
    with pytest.raises(RSDError, match="not the file of that commit"):
        load_dataset("humaneval")
    monkeypatch.setitem(published.SOURCES, "humaneval", replace(source, sha256=hashlib.sha256(data).hexdigest()))
    assert [item.id for item in load_dataset("humaneval")] == ["Like/7"]
    _Site.files.clear()
    assert [item.id for item in load_dataset("humaneval")] == ["Like/7"]
    assert _Site.asked == [address] * 2, "the second time it is in the cache"


def test_of_mbpp_only_the_test_part_is_asked_and_what_fails_is_said(site: None) -> None:
    source = published.SOURCES["mbpp"]
    with pytest.raises(RSDError, match="mbpp cannot be fetched") as caught:
        load_dataset("mbpp")
    assert "JSONL file" in caught.value.hint
    rows = [MBPP | {"task_id": number} for number in (10, 11, 510, 511)]
    _Site.files[f"/{source.repo}/{source.commit}/{source.file}"] = "\n".join(map(json.dumps, rows)).encode()
    assert [item.id for item in load_dataset("mbpp")] == ["mbpp-11", "mbpp-510"]
    with pytest.raises(ConfigError) as near:
        load_dataset("humanevl")
    assert "humaneval" in near.value.hint
