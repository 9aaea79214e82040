"""Verifiers that run nothing: ``json-schema``, ``regex``, and a user's own callable."""

from __future__ import annotations

import json
import math
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsd_local.config import RewardConfig, RoleConfig, Trio
from rsd_local.errors import Cancelled, ConfigError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.verifier.arithmetic import Arithmetic
from rsd_local.rewards.verifier.calls import Called, Limited
from rsd_local.rewards.verifier.json_schema import JsonSchema
from rsd_local.rewards.verifier.opening import open_verifier
from rsd_local.rewards.verifier.regex import Pattern

PROMPT = Prompt.of("Who?")
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": True}


def judged(step: str, schema: Any = SCHEMA) -> float | None:
    return JsonSchema(schema).check(PROMPT, (), step, None)


@pytest.mark.parametrize(
    ("step", "reward"),
    [
        ('{"age": 3}', 1.0),
        ('{"age": "3"}', 0.0),
        ("Here:\n```json\n{\"age\": 3}\n```\nDone.", 1.0),
        ("Here:\n```json\n{\"age\": 3,}\n```", 0.0),
        ("```json\n{\"age\": 3}\n```\n```json\n{}\n```", 0.0),
        ("```\n{\"age\": 3}\n```", 1.0),
        ("```json\n{\"age\": 3}", 1.0),
        ("```python\nx = 1\n```", None),
        ('The record is {"age": 3, "of": [{}]} as asked.', 1.0),
        ('The record is {"age": 3, "of": [', 0.0),
        ("{'age': 3}", 0.0),
        ("There is nothing here.", None),
        ("", None),
        (r"So it is \boxed{5}, see [1].", None),
        ("[1, 2]", 0.0),
        ("42", 0.0),
        ('{"age": 3, "age": 4}', 0.0),
        ('{"age": 3, "x": NaN}', 0.0),
        ('{"age": 3, "x": 1e999}', 0.0),
        ('{"age": 3, "x": ' + "[" * 99 + "]" * 99 + "}", 1.0),
        ('{"age": 3, "x": ' + "[" * 100 + "]" * 100 + "}", 0.0),
        ('{"age": ' + "[" * 100_000, 0.0),
        ('{"age": ' + "9" * 5_000 + "}", 0.0),
        ('{"age": ' + "9" * 400 + "}", 0.0),
        ('{"age": ' + "9" * 300 + "}", 1.0),
        ('{"age": 3, "x": "' + "x" * 1_000_000 + '"}', 0.0),
        ("x" * 1_000_001, None),
    ],
)  # fmt: skip
def test_the_json_of_a_step_is_found_and_checked(step: str, reward: float | None) -> None:
    assert judged(step) == reward


def test_a_whole_step_may_be_any_json() -> None:
    assert judged(" true ", {"type": "boolean"}) == 1.0 and judged('["a"]', {"type": "array"}) == 1.0


def test_many_brackets_do_not_take_long() -> None:
    began = time.perf_counter()
    for step in ('{"' * 400_000, "[{" * 400_000, "```\n" * 200_000, "{ " * 400_000):
        judged(step)
    assert time.perf_counter() - began < 20


def test_a_schema_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    assert judged('{"age": 3}', file) == 1.0


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 100_000, '{"type": "objekt"}', '{"$ref": "https://example.org/s.json"}', '{"$ref": "other.json#/a"}']
)
def test_a_bad_schema_is_refused_before_anything_is_checked(tmp_path: Path, content: str) -> None:
    file = tmp_path / "schema.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=re.escape("schema.json")):
        JsonSchema(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        JsonSchema(tmp_path / "none.json")


def test_references_within_a_schema_work_and_nothing_else_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", refuse)
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    schema = {"$id": "https://example.org/list", "$ref": "#/$defs/node", "$defs": {"node": node}}
    assert judged('{"next": {"next": {}}}', schema) == 1.0 and judged('{"next": {"last": {}}}', schema) == 0.0
    with pytest.raises(VerifierFailed, match="cannot be used"):
        judged("{}", {"$ref": "#/$defs/none"})
    with pytest.raises(VerifierFailed, match="cannot be used"):
        judged('{"a": 1}', {"$ref": "#"})


def test_what_is_nested_too_deeply_for_a_schema_that_refers_to_itself_does_not_fit() -> None:
    ways: Any = {"$ref": "#/$defs/node"}
    for _ in range(12):
        ways = {"allOf": [ways]}
    schema = {"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [{"type": "integer"}, {"type": "array", "items": ways}]}}}
    assert judged("[[[1]]]", schema) == 1.0 and judged("[[[true]]]", schema) == 0.0
    assert judged("[" * 99 + "1" + "]" * 99, schema) == 0.0


def test_a_number_beyond_a_float_fails_its_check_and_not_the_verifier() -> None:
    assert judged("[" + "9" * 400 + "]", {"items": {"multipleOf": 0.01}}) == 0.0


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ConfigError) as caught:
        JsonSchema(SCHEMA)
    assert caught.value.hint == "pip install 'rsd-local[verify]'"


def test_one_schema_checks_from_many_threads() -> None:
    verifier = JsonSchema(SCHEMA)
    with ThreadPoolExecutor(8) as pool:
        rewards = list(pool.map(lambda n: verifier.check(PROMPT, (), '{"age": %s}' % ("1" if n % 2 else '"1"'), None), range(200)))
    assert rewards == [float(n % 2) for n in range(200)]


@pytest.mark.parametrize(
    ("pattern", "step", "reward"),
    [
        ("boxed", r"so \boxed{5}", 1.0),
        ("boxed", "so 5", 0.0),
        ("!TODO", "done", 1.0),
        ("!TODO", "# TODO", 0.0),
        (r"\!", "Stop!", 1.0),
        ("(?i)answer", "The ANSWER", 1.0),
        (r"^#+ \w", "text\n## Title", 1.0),
        (r"\d$", "line 1\nx", 1.0),
        (r"\d$", "1" * 1_000 + "x", 0.0),
        (r"\w{8,}", "x" * 5_000, 1.0),
        ("needle", "x" * 100_000 + "needle", 1.0),
        ("x+y", "x" * 100_000, 0.0),
        ("a", "", 0.0),
        ("!a", "", 1.0),
    ],
)
def test_a_pattern_must_or_must_not_occur(pattern: str, step: str, reward: float) -> None:
    assert Pattern(pattern).check(PROMPT, (), step, None) == reward


@pytest.mark.parametrize("pattern", ["", "!", "(", "(a+)+b", "(a|a)*b", "x*", "a" * 300])
def test_a_pattern_that_is_none_or_could_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pattern(pattern)
    assert "delimiter" not in str(caught.value)


def test_a_match_at_every_place_of_the_text_is_found() -> None:
    verifier = Pattern("<[a-z]{1,20}>")
    assert all(verifier.check(PROMPT, (), "." * place + "<abcdefghij>", None) == 1.0 for place in range(400))


def test_a_search_can_be_cancelled() -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        Pattern("needle").check(PROMPT, (), "x" * 1_000, token)


@pytest.mark.parametrize(
    ("value", "reward"),
    [(0, 0.0), (1, 1.0), (0.5, 0.5), (True, 1.0), (False, 0.0), (None, None), (np.float32(0.25), 0.25), (np.float64(1.0), 1.0),
     (np.bool_(True), 1.0), (np.int64(1), 1.0)],
)  # fmt: skip
def test_a_callable_returns_a_number_a_truth_value_or_nothing(value: Any, reward: float | None) -> None:
    assert Called(lambda *_: value, "mine", 10).check(PROMPT, (), "x", None) == reward


@pytest.mark.parametrize(
    "value", [1.01, -0.01, math.nan, math.inf, "1", [1], 1j, 10**400, pytest.param(10**5000, id="huge"), np.array([1.0]), np.float64("nan")]
)
def test_anything_else_is_no_reward(value: Any) -> None:
    with pytest.raises(VerifierFailed, match="verifier mine answered .*no reward"):
        Called(lambda *_: value, "mine", 10).check(PROMPT, (), "x", None)


def test_a_callable_is_given_the_prompt_the_steps_and_the_step() -> None:
    seen = []
    assert Called(lambda *given: seen.append(given), "mine", 10).check(PROMPT, ("a", "b"), "c", None) is None
    assert seen == [(PROMPT, ("a", "b"), "c")]


class Mute(Exception):
    """An error whose text raises one."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("error", [ValueError("two\nlines"), KeyError("k"), SystemExit(3), KeyboardInterrupt(), MemoryError(), Mute()])
def test_a_callable_that_raises_is_a_clear_line_and_ends_nothing(error: BaseException) -> None:
    def check(*_: object) -> float:
        raise error

    with pytest.raises(VerifierFailed, match=f"verifier mine raised {type(error).__name__}") as caught:
        Called(check, "mine", 10).check(PROMPT, (), "x", None)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error


def test_a_callable_that_hangs_is_left_behind() -> None:
    done = threading.Event()
    with pytest.raises(VerifierFailed, match="longer than 0.2 seconds"):
        Called(lambda *_: float(done.wait(60)), "mine", 0.2).check(PROMPT, (), "x", None)
    done.set()


def test_a_cancel_wakes_who_waits_for_a_callable() -> None:
    done, token = threading.Event(), CancelToken()
    threading.Timer(0.2, token.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        Called(lambda *_: float(done.wait(60)), "mine", 60).check(PROMPT, (), "x", token)
    assert time.monotonic() - began < 10
    done.set()


def test_a_callable_runs_in_many_threads_at_once() -> None:
    meet = threading.Barrier(4)
    verifier = Called(lambda *_: float(meet.wait(20) >= 0), "mine", 30)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: verifier.check(PROMPT, (), "x", None), range(4))) == [1.0] * 4


class Hangs:
    """A verifier of the user's own that waits for ever in one of its calls, or has nothing but its check."""

    immediate = True

    def __init__(self, where: str, done: threading.Event) -> None:
        def waits(*_: object) -> float:
            done.wait(60)
            return 1.0

        for name in ("check", "checks", "close") if where else ("check",):
            setattr(self, name, waits if name == where else lambda *_: 0.5)


@pytest.mark.parametrize("where", ["check", "checks", "close"])
def test_an_object_that_hangs_is_left_behind_as_a_callable_is(where: str) -> None:
    done = threading.Event()
    calls = {
        "check": lambda limited: limited.check(PROMPT, (), "x", None),
        "checks": lambda limited: limited.checks(PROMPT),
        "close": lambda limited: limited.close(),
    }
    verifier = Limited(Hangs(where, done), "mine", 0.2)
    with pytest.raises(VerifierFailed, match="mine took longer than 0.2 seconds"):
        calls[where](verifier)
    done.set()
    assert verifier.immediate and [call(verifier) for name, call in calls.items() if name != where] == {
        "check": [True, None], "checks": [0.5, None], "close": [0.5, True],
    }[where]  # fmt: skip


def test_an_object_with_nothing_but_its_check_is_enough() -> None:
    verifier = Limited(Hangs("", threading.Event()))
    assert verifier.check(PROMPT, (), "x", None) == 0.5 and verifier.checks(PROMPT)
    verifier.close()


def test_the_users_objects_are_limited_and_ours_are_not_slowed() -> None:
    trio = Trio(RoleConfig(Path("d.gguf")), RoleConfig(Path("t.gguf")), reward_kind="verifier", verifier="arithmetic")

    def opened(verifier: Any) -> object:
        return open_verifier(RewardConfig("verifier", verifier=verifier), trio)

    arithmetic, limited = Arithmetic(), Limited(Hangs("", threading.Event()), seconds=90)
    assert opened(arithmetic) is arithmetic and opened(limited) is limited
    assert isinstance(opened(Hangs("", threading.Event())), Limited) and isinstance(opened(lambda *_: 1.0), Called)
    assert isinstance(opened(type("Mine", (Arithmetic,), {})()), Limited)


@pytest.mark.parametrize("kind", [Called, Limited])
def test_a_call_of_another_shape_is_a_clear_line(kind: type[Called] | type[Limited]) -> None:
    given: Any = (lambda step: 1.0) if kind is Called else type("One", (), {"check": lambda self, step: 1.0})()
    with pytest.raises(VerifierFailed, match="verifier mine raised TypeError: .*positional argument"):
        kind(given, "mine").check(PROMPT, (), "x", None)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError):
        Called("check", "mine", 10)  # type: ignore[arg-type]
