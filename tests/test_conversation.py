"""Conversations: a later turn knows the earlier ones, and evaluates only what is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from tiny import write_model

from rsd_local import Limits, Params, Reasoner, RoleConfig, Search, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.config import Sampling
from rsd_local.errors import Closed, ContextFull, QuestionRefused
from rsd_local.events import CancelToken, Finished, Result, StepDone
from rsd_local.prompt import Message, Prompt
from rsd_local.reasoner import Conversation, collect
from rsd_local.runtime import Engine, prompt_tokens
from rsd_local.runtime.slots import common_prefix

FIRST, SECOND = "Name three colours.", "And now three animals, please."
LIMITS = Limits(tokens=60, step_tokens=20)
Author = Literal["draft", "target"]


def every(author: str) -> Params:
    return Params(weighting=Weighting("constant", probability=float(author == "draft")), limits=LIMITS, search=Search(fallback="off"))


@pytest.fixture(scope="module")
def trio(smollm2: Path) -> Trio:
    real = RoleConfig(smollm2, ctx_size=512, cache_type="f32", flash_attention="off", threads=1)
    return Trio(real, real, real, reward_kind="judge")


@pytest.fixture(scope="module")
def reasoner(trio: Trio) -> Iterator[Reasoner]:
    with Reasoner.open(trio) as opened:
        yield opened


@pytest.fixture(scope="module")
def forgetful(trio: Trio) -> Iterator[Reasoner]:
    """The same without a memory: each turn evaluates all of its prompt."""
    with Reasoner.open(replace(trio, reuse=False)) as opened:
        yield opened


def left_in_cache(engine: Engine) -> list[list[int]]:
    """What closed sequences left behind, by slot."""
    assert engine._opened == 0
    return engine.device.call(lambda: [list(slot.tokens) for slot in engine._slots.all])


@pytest.mark.parametrize("author", ["draft", "target"])
def test_a_second_turn_knows_the_first_and_evaluates_only_what_is_new(reasoner: Reasoner, forgetful: Reasoner, author: Author) -> None:
    params, engine = every(author), reasoner.engines()[author]
    with reasoner.converse(params) as chat:
        first = chat.solve(FIRST)
        (before,) = left_in_cache(engine)
        prompt = prompt_tokens(engine.model, chat.prompt(SECOND))
        second = chat.solve(SECOND)
    # What was there is the first prompt and its answer. New are at most what the template puts between answer and answer with
    # the question, and the answer's last token, whose row was never evaluated.
    cached = common_prefix(before, prompt[:-1])
    shell = prompt_tokens(engine.model, Prompt.of(SECOND).then("", "")) + prompt_tokens(engine.model, Prompt.of("", "-"))
    assert second.counters[author].cached_tokens == cached >= len(prompt) - len(shell) - 1
    assert cached > len(prompt_tokens(engine.model, Prompt.of(FIRST, reasoner.config.system)))
    assert second.counters[author].opening_tokens == len(prompt)
    written = sum(step.tokens for step in second.steps)
    assert second.counters[author].evaluated_tokens == len(prompt) - cached + written - 1
    # Whoever is given all of it at once writes the same second answer.
    fresh = forgetful.converse(params)
    assert [fresh.solve(FIRST).text, fresh.solve(SECOND).text] == [first.text, second.text]
    assert first.text != second.text


def test_the_judge_reads_only_what_is_new(reasoner: Reasoner, forgetful: Reasoner) -> None:
    """Its text of the longer conversation begins with that of the shorter one and its steps."""
    with reasoner.converse(every("draft")) as chat:
        chat.solve(FIRST)
        (before,) = left_in_cache(reasoner.engines()["reward"])
        second = chat.solve(SECOND)
    plain = forgetful.converse(every("draft"))
    plain.solve(FIRST)
    whole = plain.solve(SECOND)
    assert [step.reward for step in second.steps] == pytest.approx([step.reward for step in whole.steps], abs=1e-4)
    read, counters = second.counters["reward"], whole.counters["reward"]
    assert read.cached_tokens + read.evaluated_tokens == counters.evaluated_tokens
    assert read.cached_tokens >= len(before) - 2, "all of the first turn but for its end"


@pytest.mark.parametrize("kind", ["dense", "sliding", "recurrent", "hybrid"])
@pytest.mark.parametrize("strategy", ["rsd", "speculative", "target", "beam", "best-of-n"])
def test_what_earlier_turns_left_changes_no_text(tmp_path: Path, kind: str, strategy: str) -> None:
    paths = [write_model(tmp_path / f"{seed}.gguf", kind, seed) for seed in range(3)]
    settings: dict[str, object] = {"ctx_size": 2048, "flash_attention": "off", "cache_type": "f32", "threads": 1, "trusted": True}
    roles = [RoleConfig(path, **settings) for path in paths]  # type: ignore[arg-type]
    if strategy == "speculative" and kind in ("recurrent", "hybrid"):
        pytest.skip("they cannot forget single tokens")
    warm = Sampling(temperature=0.9, top_k=3, seed=5)  # few words to choose from: rounding then hardly ever changes a draw
    params = Params(warm, Weighting("constant", probability=0.5), Limits(60, step_tokens=9, repeats=0), Search(samples=3, branches=2))
    texts: dict[bool, list[str]] = {}
    cached = 0
    for reuse in (False, True):
        with Reasoner.open(Trio(*roles, width=6, reuse=reuse, strategy=strategy)) as opened:  # type: ignore[arg-type]
            chat = opened.converse(params)
            results = [chat.solve(question) for question in (FIRST, SECOND, FIRST, "Once more.")]
            texts[reuse] = [result.text for result in results]
            cached = sum(counters.cached_tokens for result in results for counters in result.counters.values())
            assert reuse or cached == 0
    assert texts[True] == texts[False] and len(set(texts[True])) == 4
    assert cached > 0 or (kind, strategy) == ("sliding", "beam"), "beside so many, llama.cpp gives every idle slot's window away"


def test_a_prompt_that_was_asked_before_costs_one_token(forgetful: Reasoner, trio: Trio) -> None:
    params = Params(limits=Limits(tokens=1))
    with Reasoner.open(trio) as opened:
        first, again = (opened.solve(FIRST, params, strategy="target") for _ in range(2))
    assert first.counters["target"].cached_tokens == 0
    assert first.counters["target"].evaluated_tokens == first.counters["target"].opening_tokens
    assert again.counters["target"].cached_tokens == first.counters["target"].opening_tokens - 1
    assert again.counters["target"].evaluated_tokens == 1 and again.text == first.text


def test_a_stopped_answer_keeps_the_conversation(reasoner: Reasoner) -> None:
    cancel = CancelToken()
    with reasoner.converse(every("draft")) as chat:
        events = []
        for event in chat.stream(FIRST, cancel=cancel):
            events.append(event)
            if isinstance(event, StepDone):
                cancel.cancel()
        stopped = collect(iter(events))
        assert isinstance(events[-1], Finished) and stopped.finish_reason == "cancelled" and len(stopped.steps) == 1
        assert chat.turns == [(FIRST, stopped.steps[0].text)]
        assert chat.prompt(SECOND).messages[-2:] == (Message("assistant", stopped.steps[0].text), Message("user", SECOND))
        second = chat.solve(SECOND)
        assert second.steps and second.counters["draft"].cached_tokens > len(prompt_tokens(reasoner.trio.draft.model, chat.prompt("x"))) / 4
        # Leaving early is like a cancel.
        stream = chat.stream(FIRST)
        first = next(event for event in stream if isinstance(event, StepDone))
        stream.close()  # type: ignore[attr-defined]
        assert chat.turns[2:] == [(FIRST, first.text)]
        assert chat.solve(SECOND).steps and len(chat.turns) == 4
        # Leaving before there is a step is like never having asked.
        stream = chat.stream(FIRST)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        chat.stream(FIRST)
        assert len(chat.turns) == 4
    assert [engine._opened for engine in reasoner.engines().values()] == [0, 0, 0]
    assert reasoner.solve(FIRST, Params(limits=Limits(tokens=4))).steps, "no place is held"


def test_two_conversations_at_once_do_not_wait_for_each_other(reasoner: Reasoner) -> None:
    """A conversation holds no place between two answers."""
    one, other = reasoner.converse(every("draft")), reasoner.converse(every("draft"))
    alone = reasoner.converse(every("draft"))
    wanted = [alone.solve(FIRST).text, alone.solve(SECOND).text]
    assert [one.solve(FIRST).text, other.solve(SECOND).text != wanted[0], one.solve(SECOND).text] == [wanted[0], True, wanted[1]]


def test_a_question_that_does_not_fit_leaves_the_conversation_as_it_was(reasoner: Reasoner) -> None:
    def talk(chat: Conversation, *, disturbed: bool) -> list[str]:
        answers = [chat.solve(FIRST).text]
        if disturbed:
            with pytest.raises(ContextFull):
                chat.solve("word " * 600)
            with pytest.raises(QuestionRefused):
                chat.solve("nothing\0")
        return [*answers, chat.solve(SECOND).text]

    with reasoner.converse(every("draft")) as chat:
        plain = talk(chat, disturbed=False)
    with reasoner.converse(every("draft")) as chat:
        assert talk(chat, disturbed=True) == plain
        chat.clear()
        assert chat.solve(FIRST).text == plain[0]


def test_a_process_reward_model_sees_each_turn_for_itself(smollm2: Path) -> None:
    """It has one slot, which the next question gets."""
    real = RoleConfig(smollm2, ctx_size=1024, threads=1)
    trio = Trio(real, real, find_trio("abacus").reward, reward_kind="tag-logits", reuse=False)
    with Reasoner.open(trio) as opened, opened.converse(every("draft")) as chat:
        first, second = chat.solve("1+1"), chat.solve("2+3")
        assert all(step.reward is not None for step in (*first.steps, *second.steps))
        openings = [result.counters["reward"].opening_tokens for result in (first, second)]
        assert openings[0] == openings[1] < second.counters["draft"].opening_tokens
        with pytest.raises(ContextFull, match="reward"):
            chat.solve("1+" * 150 + "1")  # too long for the reward model alone
        third = chat.solve("4*5")
        assert third.counters["reward"].prompt_tokens > 0 and third.steps


def test_arithmetic_takes_each_question_for_itself() -> None:
    with Reasoner.open(replace(find_trio("abacus"), parallel=2)) as opened, opened.converse() as chat:
        results: list[Result] = [chat.solve(question) for question in ("(37+48)*6-129", "2+3", "(37+48)*6-129")]
        assert [result.answer for result in results] == ["381", "5", "381"]
        assert results[0].text == results[2].text


def test_a_closed_reasoner_has_no_conversations(tmp_path: Path) -> None:
    opened = Reasoner.open(find_trio("abacus"))
    chat = opened.converse()
    opened.close()
    with pytest.raises(Closed):
        chat.solve("1+1")
    with pytest.raises(Closed):
        opened.converse()
