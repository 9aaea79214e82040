"""Data sets: what a line must have, what a limit takes, and what the hub's rows become."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rsd_local.bench import hub
from rsd_local.bench.datasets import load_dataset
from rsd_local.errors import ConfigError

Writer = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def made(*lines: object) -> str:
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
        return str(path)

    return made


def test_arithmetic_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first = load_dataset("arithmetic", 20, seed=3, level=2)
    assert first == load_dataset("arithmetic", 20, seed=3, level=2)
    assert first[:5] == load_dataset("arithmetic", 5, seed=3, level=2)
    assert first != load_dataset("arithmetic", 20, seed=4, level=2)
    assert {item.level for item in first} == {"2"} and {item.grading for item in first} == {"number"}
    assert {item.level for item in load_dataset("arithmetic", 10)} == {"1", "2", "3", "4", "5"}


def test_arithmetic_without_a_limit_ends() -> None:
    assert len(load_dataset("arithmetic")) == 100


def test_a_line_may_say_problem_and_leave_out_its_id(write: Writer) -> None:
    path = write({"question": "q", "answer": 7}, "", {"problem": "p", "answer": " 1/2 ", "id": 5, "level": 3, "subject": "Algebra"})
    one, other = load_dataset(path)
    assert (one.id, one.question, one.answer, one.level) == ("data-1", "q", "7", None)
    assert (other.id, other.question, other.answer, other.level, other.subject) == ("5", "p", "1/2", "3", "Algebra")


def test_a_separator_of_unicode_inside_a_text_ends_no_line(write: Writer) -> None:
    (item,) = load_dataset(write('{"question": "one\u2028two", "answer": "3"}'))
    assert item.question == "one\u2028two"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2 is no JSON object"),
        ('{"answer": "1"}', "line 2 has no 'question'"),
        ('{"question": "  ", "answer": "1"}', "line 2 has no 'question'"),
        ('{"question": "q"}', "line 2 has no 'answer'"),
        ('{"question": "q", "answer": true}', "line 2 has no 'answer'"),
        ('{"question": "q", "answer": ""}', "line 2 has no 'answer'"),
        ('{"question": "q", "answer": "1", "id": "a"}', "line 2: the id 'a' stands there a second time"),
    ],
)
def test_a_bad_line_is_named_by_its_number(write: Writer, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_dataset(write({"question": "q", "answer": "1", "id": "a"}, line))


def test_a_limit_is_a_seeded_choice_of_which_a_smaller_one_takes_a_part(write: Writer) -> None:
    path = write(*({"question": f"q{number}", "answer": "1"} for number in range(50)))
    ten = [item.id for item in load_dataset(path, 10, seed=1)]
    assert set(load_dataset(path, 4, seed=1)) <= set(load_dataset(path, 10, seed=1))
    assert ten == sorted(ten, key=lambda name: int(name.partition("-")[2])), "in the file's order"
    assert ten != [item.id for item in load_dataset(path)][:10], "a file may be sorted by subject"
    assert ten != [item.id for item in load_dataset(path, 10, seed=2)]
    assert len(load_dataset(path, 500)) == 50


def test_what_is_neither_name_nor_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_dataset("gsm8")
    assert "gsm8k" in caught.value.hint
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no question"):
        load_dataset(str(tmp_path / "empty.jsonl"))
    with pytest.raises(ConfigError, match="limit 0"):
        load_dataset("arithmetic", 0)
    with pytest.raises(ConfigError, match="level"):
        load_dataset("arithmetic", 5, level=6)


ROWS = {
    "gsm8k": ({"question": "How many?", "answer": "3+4=<<3+4=7>>7\n#### 1,007"}, "1,007"),
    "math500": (
        {"problem": "p", "solution": "s", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 5, "unique_id": "x"},
        "\\frac{1}{2}",
    ),
    "olympiadbench": ({"question": "p", "final_answer": ["$2 k$"], "subfield": "Algebra"}, "2 k"),
    "gaokao2023en": ({"question": "p", "answer": "$[1,2)$"}, "[1,2)"),
    "minerva": ({"question": "p", "answer": "4.7e33"}, "4.7e33"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_hub_becomes_a_question(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row, answer = ROWS[name]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    monkeypatch.setattr("rsd_local.catalogue.hub.fetch", lambda *_, **__: file)
    (item,) = hub.fetch(name, seed=0)
    assert (item.id, item.answer, item.grading) == (f"{name}-1", answer, "math")


def test_letters_of_a_choice_stand_in_a_seeded_order_and_the_answer_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"question": "Which?", "choices": ["red", "green", "blue", "red-green"], "answer": 2}
    file.write_text((json.dumps(row) + "\n") * 20)
    monkeypatch.setattr("rsd_local.catalogue.hub.fetch", lambda *_, **__: file)
    items = hub.fetch("mmlu-stem", seed=0)
    assert items == hub.fetch("mmlu-stem", seed=0) != hub.fetch("mmlu-stem", seed=1)
    assert len({item.answer for item in items}) > 1, "the right choice must not always have one letter"
    for item in items:
        assert item.grading == "choice" and f"\n{item.answer}) blue\n" in item.question


def test_gpqa_is_read_from_its_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gpqa.csv"
    file.write_text(
        "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain\n"
        '1,"two\nlines, and a comma?",yes ,no,maybe,never,Physics\n'
    )
    monkeypatch.setattr("rsd_local.catalogue.hub.fetch", lambda *_, **__: file)
    (item,) = hub.fetch("gpqa", seed=0)
    assert item.question.startswith("two\nlines, and a comma?\n\nA) ") and f"{item.answer}) yes\n" in item.question + "\n"
    assert item.subject == "Physics"


def test_a_row_of_the_hub_that_is_not_as_expected_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"problem": "p"}) + "\n")
    monkeypatch.setattr("rsd_local.catalogue.hub.fetch", lambda *_, **__: file)
    with pytest.raises(ConfigError, match="gsm8k: row 1"):
        hub.fetch("gsm8k", seed=0)
