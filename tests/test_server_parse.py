"""Requests as they are read: whatever a client sends is understood or refused, and never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsd_local import errors
from rsd_local.config import Params, Sampling
from rsd_local.errors import ConfigError, QuestionRefused, RSDError
from rsd_local.prompt import Message, Prompt
from rsd_local.server import errors as own
from rsd_local.server.answers import Shown
from rsd_local.server.errors import TABLE, body_of, row_of
from rsd_local.server.fields import CHAT, COMPLETION, EXTENSION, HARMLESS, REFUSED
from rsd_local.server.parse import Asked, read_chat, read_completion, read_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)
NAMES = sorted({*CHAT, *COMPLETION, *HARMLESS, *REFUSED})
TALK = [{"role": "user", "content": "x"}]
EXTENSIONS = st.dictionaries(st.sampled_from(sorted(EXTENSION)), VALUES, max_size=3)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES | EXTENSIONS | st.just(TALK), max_size=6), st.sampled_from([read_chat, read_completion])
)
def test_any_object_is_a_request_or_refused(body: dict[str, Any], read: Callable[[dict[str, Any]], Asked]) -> None:
    try:
        asked = read({"messages": TALK, "prompt": "x"} | body)
        asked.params(Params(), "rsd", 0)
    except (ConfigError, QuestionRefused) as error:
        assert row_of(error).status in (400, 404) and json.dumps(body_of(error))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(read_json(body), dict)
    except ConfigError as error:
        assert row_of(error).status == 400


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("ab\n", max_size=4), max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_what_is_given_early_is_always_the_beginning_of_what_stays(pieces: list[str], stops: list[str]) -> None:
    """A stop string cuts the text off where it first is complete, in the piece that completes it."""
    shown, whole, given = Shown(), "", ""
    for piece in pieces:
        whole += piece
        ends = [whole.index(stop) for stop in stops if stop in whole]
        if ends:
            whole = whole[: min(ends)]
            break
        given += shown.take(piece, tuple(stops))
        assert whole.startswith(given)
    assert given + shown.rest(whole) == whole


def every_error(kind: type[RSDError] = RSDError) -> list[type[RSDError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in every_error(below))]


def test_every_error_has_a_status_and_those_of_a_request_are_its_own_fault() -> None:
    assert set(TABLE) <= set(every_error()) and RSDError in TABLE
    for kind in (errors.ConfigError, errors.QuestionRefused, errors.ContextFull, own.Unsupported):
        assert row_of(kind("x")).status == 400
    assert row_of(errors.DecodeFailed("x")).status == row_of(errors.NotAModel("x")).status == 500
    assert body_of(own.BadField("no", "field", hint="yes"))["error"] == {
        "message": "no; yes", "type": "invalid_request_error", "param": "field", "code": "invalid_value"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "wanted"),
    [({}, Sampling(0.3, seed=5)), ({"seed": 9, "temperature": 0}, Sampling(0, seed=9)), ({"top_k": 4.0}, Sampling(0.3, top_k=4, seed=5))],
)
def test_what_a_request_does_not_say_is_the_servers_own(body: dict[str, Any], wanted: Sampling) -> None:
    assert read_chat({"messages": TALK} | body).params(Params(Sampling(0.3)), "rsd", 5).sampling == wanted


def test_strategies_that_sample_do_so_unless_they_are_told_not_to() -> None:
    assert read_chat({"messages": TALK}).params(Params(), "majority", 0).sampling.temperature == 0.7
    with pytest.raises(ConfigError, match="every try is the same"):
        read_chat({"messages": TALK, "temperature": 0}).params(Params(), "majority", 0)


def test_a_raw_prompt_is_one_text_that_takes_no_system_message() -> None:
    raw = read_completion({"prompt": ["<s>x"]}).prompt
    assert raw == Prompt((Message("user", "<s>x"),), raw=True) == raw.with_system("Be brief.")
    for messages in ((Message("user", ""),), (Message("system", "y"), Message("user", "x"))):
        with pytest.raises(QuestionRefused, match="no text to go on behind"):
            Prompt(messages, raw=True)
