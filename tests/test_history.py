"""Conversations that outgrow the context: the oldest whole turns go, or the question is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import chain, write_model, write_script

from rsd_local import Limits, Params, Reasoner, RoleConfig, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.config import Search
from rsd_local.errors import ConfigError, ContextFull
from rsd_local.events import Result, StepDone
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Conversation
from rsd_local.runtime import prompt_tokens

CONTEXT, SYSTEM = 320, "Be brief."
QUESTIONS = ["Name three colours.", "And three animals, please.", "What is 2 + 3?", "Say it again.", "Who are you?", "And whose?", "So?"]
HALF = Params(weighting=Weighting("constant", probability=0.5), limits=Limits(tokens=40, step_tokens=9, repeats=0), search=Search())
SETTINGS: dict[str, Any] = {"flash_attention": "off", "cache_type": "f32", "threads": 1, "trusted": True}


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    folder = tmp_path_factory.mktemp("history")
    roles = [RoleConfig(write_model(folder / f"{seed}.gguf", seed=seed), ctx_size=CONTEXT, **SETTINGS) for seed in range(2)]
    return Trio(*roles, reward_kind="confidence", system=SYSTEM, reuse=False)


@pytest.fixture(scope="module")
def reasoner(trio: Trio) -> Iterator[Reasoner]:
    with Reasoner.open(trio) as opened:
        yield opened


def steps(result: Result) -> list[tuple[str, str, int]]:
    return [(step.author, step.text, step.tokens) for step in result.steps]


def size(reasoner: Reasoner, prompt: Prompt) -> int:
    """How many tokens a prompt has."""
    return len(prompt_tokens(reasoner.trio.draft.model, prompt))


def grown(reasoner: Reasoner, params: Params = HALF, **settings: Any) -> tuple[Conversation, str]:
    """A conversation, and the first question of QUESTIONS with which it no longer fits."""
    chat = reasoner.converse(params, **settings)
    for question in QUESTIONS:
        whole = chat._after(0, question)
        if size(reasoner, whole) + params.limits.tokens > CONTEXT:
            return chat, question
        chat.solve(question)
    raise AssertionError("it never filled its context")


def test_after_a_drop_the_answer_is_that_of_a_fresh_conversation_with_the_turns_that_stay(reasoner: Reasoner) -> None:
    chat, question = grown(reasoner)
    before = list(chat.turns)
    asked = chat.prompt(question)
    dropped = len(before) - asked.turn
    assert 0 < dropped < len(before), "some of it goes, and some stays"
    answer = chat.solve(question)
    assert chat.turns == [*before[dropped:], (question, answer.text)]

    fresh = reasoner.converse(HALF, history="error")
    fresh.turns = before[dropped:]
    assert steps(fresh.solve(question)) == steps(answer) and len(answer.steps) > 2
    forgetful = reasoner.converse(HALF)
    assert steps(forgetful.solve(question)) != steps(answer), "the turns that stay count"


def test_with_what_earlier_turns_left_in_the_caches_the_answers_are_the_same(trio: Trio, reasoner: Reasoner) -> None:
    texts = []
    with Reasoner.open(replace(trio, reuse=True)) as reusing:
        for opened in (reasoner, reusing):
            chat = opened.converse(HALF)
            results = [chat.solve(question) for question in QUESTIONS]
            texts.append([result.text for result in results])
        assert len(chat.turns) < len(QUESTIONS), "nothing was dropped"
        assert any(result.counters["draft"].cached_tokens for result in results)
    assert texts[0] == texts[1]


def test_whole_turns_go_and_the_system_message_stays(reasoner: Reasoner) -> None:
    chat, question = grown(reasoner)
    prompt = chat.prompt(question)
    assert [message.role for message in prompt.messages] == ["system", *["user", "assistant"] * prompt.turn, "user"]
    assert prompt.messages[0].content == SYSTEM
    said = [text for turn in chat.turns for text in turn]
    assert [message.content for message in prompt.messages[1:-1]] == said[len(said) - 2 * prompt.turn :]


def test_a_drop_leaves_half_of_the_context_for_answers(reasoner: Reasoner) -> None:
    """So not every question from then on makes the models read all of it again."""
    params = Params(HALF.sampling, HALF.weighting, Limits(tokens=400, step_tokens=9, steps=3, repeats=0))
    chat = reasoner.converse(params)
    dropped = []
    for question in QUESTIONS * 3:
        asked = chat.prompt(question)
        assert size(reasoner, asked) + CONTEXT // 4 <= CONTEXT
        if asked.turn < len(chat.turns):
            assert size(reasoner, asked) <= CONTEXT // 2
            dropped.append(len(chat.turns) - asked.turn)
        chat.solve(question)
    assert max(dropped) >= 2 and len(dropped) >= 2


def test_a_long_question_keeps_the_newest_turn_where_that_fits(reasoner: Reasoner) -> None:
    chat, _ = grown(reasoner)
    newest = size(reasoner, chat._after(len(chat.turns) - 1, ""))
    question = "x" * (CONTEXT - newest - HALF.limits.tokens - 2)
    assert chat.prompt(question).turn == 1
    assert chat.prompt(question + "x" * 10).turn == 0


def test_error_refuses_the_question_and_keeps_every_turn(reasoner: Reasoner) -> None:
    chat, question = grown(reasoner, history="error")
    before = list(chat.turns)
    with pytest.raises(ContextFull, match="no longer fits") as refused:
        chat.solve(question)
    assert "--history drop" in refused.value.hint and chat.turns == before
    chat.clear()
    assert chat.solve(question).steps
    with pytest.raises(ConfigError, match="forget"):
        reasoner.converse(history="forget")  # type: ignore[arg-type]


def test_a_question_that_does_not_fit_by_itself_drops_nothing(reasoner: Reasoner) -> None:
    chat, question = grown(reasoner)
    before = list(chat.turns)
    for long in ("x" * (CONTEXT + 1), "word " * 100_000):
        with pytest.raises(ContextFull):
            chat.solve(long)
        assert chat.turns == before
    assert chat.solve(question).steps


def test_leaving_before_there_is_a_step_drops_nothing(reasoner: Reasoner) -> None:
    chat, question = grown(reasoner)
    before = list(chat.turns)
    stream = chat.stream(question)
    assert not isinstance(next(stream), StepDone)
    stream.close()  # type: ignore[attr-defined]
    assert chat.turns == before
    stream = chat.stream(question)
    first = next(event for event in stream if isinstance(event, StepDone))
    stream.close()  # type: ignore[attr-defined]
    assert chat.turns[-1] == (question, first.text) and len(chat.turns) <= len(before)


def test_the_context_of_the_judge_counts_too(tmp_path: Path) -> None:
    words = ["One is red.\n\n", "Two is blue.\n\n"]
    model = write_script(tmp_path / "m.gguf", words, chain(*words))
    writer, judge = RoleConfig(model, ctx_size=512, **SETTINGS), RoleConfig(model, ctx_size=420, **SETTINGS)
    params = Params(weighting=Weighting("constant", probability=1.0), limits=Limits(tokens=20))
    turns = []
    for reward in (judge, RoleConfig(model, ctx_size=512, **SETTINGS)):
        with Reasoner.open(Trio(writer, writer, reward, reward_kind="judge", system="")) as opened:
            chat = opened.converse(params)
            results = [chat.solve(question) for question in ("Colours?", "More?", "And?", "Others?")]
            assert [result.text for result in results] == ["".join(words)] * 4
            turns.append(len(chat.turns))
    assert turns[0] < turns[1]


def test_where_each_question_stands_for_itself_nothing_is_ever_dropped() -> None:
    with Reasoner.open(find_trio("abacus")) as opened, opened.converse(history="error") as chat:
        for number in range(30):
            assert chat.solve(f"(37+48)*6-{number}").answer == str(510 - number)
        assert len(chat.turns) == 30
