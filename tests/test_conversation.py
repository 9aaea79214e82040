"""Conversations: a later turn knows the earlier ones, and evaluates only what is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rsd_local.decoding.conversation import Conversation

from rsd_local import Limits, Params, Reasoner, RoleConfig, Search, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.errors import ContextFull
from rsd_local.events import CancelToken, Finished, StepDone
from rsd_local.reasoner import Chat, collect
from rsd_local.runtime import Sampler, next_turn_tokens

FIRST, SECOND = "Name three colours.", "And now three animals, please."
LIMITS = Limits(tokens=60, step_tokens=20)


def every(author: str) -> Params:
    return Params(weighting=Weighting("constant", probability=float(author == "draft")), limits=LIMITS, search=Search(fallback="off"))


@pytest.fixture(scope="module")
def reasoner(smollm2: Path) -> Iterator[Reasoner]:
    real = RoleConfig(smollm2, ctx_size=512, cache_type="f32", flash_attention="off")
    with Reasoner.open(Trio(real, real, real, reward_kind="judge")) as opened:
        yield opened


@pytest.mark.parametrize("author", ["draft", "target"])
def test_a_second_turn_knows_the_first_and_evaluates_only_what_is_new(reasoner: Reasoner, author: str) -> None:
    params = every(author)
    (engine,) = reasoner.engines()[author].engines  # type: ignore[index]
    with reasoner.converse(params) as chat:
        first, second = chat.solve(FIRST), chat.solve(SECOND)
        conversation: Conversation = chat._conversation
        assert conversation._now is not None
        writer = conversation._now.writer if author == "draft" else conversation._now.expert
        begins, tokens = conversation._now.begins[author], list(writer.sequence.tokens)  # type: ignore[index]
        # The cache holds the whole conversation but for the token that was drawn last.
        last = engine.positions(writer.sequence)[1]
        assert last in (len(tokens) - 1, len(tokens) - 2) and engine.positions(writer.sequence)[0] == 0
    between = next_turn_tokens(engine.model, reasoner.config.messages(FIRST), SECOND)
    assert tokens[begins - len(between) : begins] == between
    # A sequence that is given all of it at once writes the same second answer.
    fresh = engine.sequence()
    fresh.append(tokens[:begins])
    text, limit = b"", LIMITS.tokens
    while limit > 0:
        made = fresh.generate(Sampler(params.sampling), min(limit, LIMITS.step_tokens), until=b"\n\n").result()
        text, limit = text + made.text, limit - len(made.tokens)
        if made.ended == "end":
            break
    fresh.close()
    assert text.decode() == second.text and first.text != second.text
    counters = second.counters[author]  # type: ignore[index]
    ended = first.finish_reason == "stop"
    # New are the text between the answers, the answer, and the first answer's last token where it was no end of text.
    written = sum(step.tokens for step in second.steps)
    assert counters.evaluated_tokens == len(between) + (not ended) + written - 1
    assert engine.model.is_end(tokens[begins - len(between) - 1]) is False


def test_the_judge_reads_only_what_is_new(reasoner: Reasoner) -> None:
    with reasoner.converse(every("draft")) as chat:
        first, second = chat.solve(FIRST), chat.solve(SECOND)
    # It reads the whole second turn: the question, its steps, and the query behind each; nothing of the first.
    read = second.counters["reward"].evaluated_tokens
    engine = reasoner.engines()["reward"]
    queries = len(engine.model.tokenize("Is the last step above correct, in its reasoning and in its arithmetic?")) * len(second.steps)
    assert 0 < read < queries * 3 + 2 * len(engine.model.tokenize(second.text)) + 60
    assert first.counters["reward"].evaluated_tokens > 0


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
        assert chat.solve(SECOND).steps
        now = chat._conversation._now
        assert now is not None
        text = b"".join(map(reasoner.engines()["draft"].model.piece, now.writer.sequence.tokens)).decode()
        assert stopped.text.strip() in text and text.index(stopped.text.strip()) < text.index(SECOND)
        # Leaving early is like a cancel.
        stream = chat.stream(FIRST)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert chat.solve(SECOND).steps
    assert [[len(engine._free) for engine in pool.engines] for pool in reasoner.engines().values()] == [[1], [1], [1]]


def test_a_question_that_does_not_fit_leaves_the_conversation_as_it_was(reasoner: Reasoner) -> None:
    def talk(chat: Chat, *, disturbed: bool) -> list[str]:
        answers = [chat.solve(FIRST).text]
        if disturbed:
            with pytest.raises(ContextFull):
                chat.solve("word " * 600)
        return [*answers, chat.solve(SECOND).text]

    with reasoner.converse(every("draft")) as chat:
        plain = talk(chat, disturbed=False)
    with reasoner.converse(every("draft")) as chat:
        assert talk(chat, disturbed=True) == plain
        chat.clear()
        assert chat.solve(FIRST).text == plain[0]


def test_a_process_reward_model_sees_each_turn_for_itself(smollm2: Path) -> None:
    """It has one sequence, which the next question gets."""
    real = RoleConfig(smollm2, ctx_size=1024)
    trio = Trio(real, real, find_trio("abacus").reward, reward_kind="tag-logits")
    with Reasoner.open(trio) as opened, opened.converse(every("draft")) as chat:
        first, second = chat.solve("1+1"), chat.solve("2+3")
        assert all(step.reward is not None for step in (*first.steps, *second.steps))
        with pytest.raises(ContextFull):
            chat.solve("1+" * 150 + "1")  # too long for the reward model alone
        third = chat.solve("4*5")
        assert third.counters["reward"].prompt_tokens > 0 and third.steps


def test_arithmetic_takes_each_question_for_itself() -> None:
    with Reasoner.open(replace(find_trio("abacus"), parallel=2)) as opened, opened.converse() as chat:
        assert [chat.solve(question).answer for question in ("(37+48)*6-129", "2+3", "(37+48)*6-129")] == ["381", "5", "381"]
