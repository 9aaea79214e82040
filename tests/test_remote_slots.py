"""Slots of one server: what shares them, and that what is in their caches is found again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from remote_support import ABACUS, LlamaServer, llama_server, needs_server
from test_remote import NEVER, QUESTION, Watched, questions, remote_abacus, send_prompts_ahead

from rsd_local import Limits, Params, Prompt, Reasoner, RemoteRole, RoleConfig, StepDone, Trio, Weighting
from rsd_local.config import Search
from rsd_local.remote import RemoteWriter

pytestmark = needs_server


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent ahead is there before a step is asked for: a busy server may take the two in the other order."""
    send_prompts_ahead(monkeypatch, sent=True)


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf") as found:
        yield found


def accepting(probability: float) -> Params:
    return Params(weighting=Weighting("constant", probability=probability))


def assert_nothing_is_evaluated_again(watched: Watched) -> int:
    """Each request finds all that was evaluated before, to the token; how many tokens the last one leaves in the cache."""
    known = 0
    for place, (tokens, timing) in enumerate(watched.requests):
        assert timing.cached + timing.read == len(tokens)
        assert place == 0 or timing.cached == known
        known = len(tokens) + max(0, timing.written - 1)
    return known


def test_draft_and_target_of_one_model_on_one_server_take_different_slots(server: LlamaServer) -> None:
    """Each finds in its slot what it has evaluated itself, no more and no less."""
    trio = dataclasses.replace(remote_abacus(server.url), draft=RemoteRole(server.url))
    with Reasoner.open(trio) as reasoner:
        prompt = Prompt.of("1+1")
        with closing(reasoner.trio.writer("draft", prompt)) as draft, closing(reasoner.trio.writer("target", prompt)) as target:
            assert {draft._place.slot, target._place.slot} == {0, 1}  # type: ignore[union-attr]
        engines = reasoner.trio.servers()
        assert sorted(engines["draft"]._slots) == [0, 1] and engines["draft"]._slots is engines["target"]._slots  # type: ignore[union-attr]
        watched = {role: Watched(engine.server) for role, engine in engines.items()}  # type: ignore[union-attr]
        for role, engine in engines.items():
            engine.server = watched[role]  # type: ignore[union-attr, assignment]
        for question in questions(3):
            for one in watched.values():
                one.requests.clear()
            result = reasoner.solve(question, accepting(1.0))
            assert all(step.author == "draft" for step in result.steps)
            for role, one in watched.items():
                made = result.counters[role]  # type: ignore[index]
                assert made.cached_tokens + made.evaluated_tokens == assert_nothing_is_evaluated_again(one)
        assert reasoner.solve(QUESTION, accepting(0.5)).answer == "381"


def test_two_clients_that_use_one_slot_get_right_texts_and_count_what_was_evaluated_again(server: LlamaServer) -> None:
    mine, theirs = questions(2)
    with Reasoner.open(remote_abacus(server.url)) as one, Reasoner.open(remote_abacus(server.url)) as other:
        alone = {question: one.solve(question, strategy="target").text for question in (mine, theirs)}
        with one.run(mine, Params(weighting=NEVER)) as run:
            for event in run:
                if isinstance(event, StepDone) and event.index == 0:
                    between = other.solve(theirs, Params(weighting=NEVER))  # in the same slot, in the middle of an answer
            result = run.result()
        assert result.text == alone[mine] and between.text == alone[theirs]
        again = [
            made.evaluated_tokens - (made.opening_tokens - made.cached_tokens + made.generated_tokens - 1)
            for made in (between.counters["target"], result.counters["target"])
        ]
        assert again[0] == 0 < again[1]


def test_auto_does_not_wait_for_what_the_server_reads_before_it_writes(server: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does where an answer's first step is measured, for the prompt is no part of that."""
    settled, settle = list[int](), RemoteWriter.settle

    def noted(writer: RemoteWriter) -> None:
        settled.append(len(settled))
        settle(writer)

    monkeypatch.setattr(RemoteWriter, "settle", noted)
    with Reasoner.open(remote_abacus(server.url)) as reasoner:
        for ways, times in ((("draft", "target", "draft", "target"), 0), (("target", "draft", "target"), 1)):
            settled.clear()
            result = reasoner.solve(QUESTION, Params(search=Search(ways=ways)), strategy="auto")  # type: ignore[arg-type]
            assert result.ways[: len(ways)] == ways and len(settled) == times


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.8])
def test_a_real_model_evaluates_nothing_twice_where_accepted_steps_are_sent_ahead(smollm2: Path, probability: float) -> None:
    limits = Limits(tokens=60, step_tokens=12)
    with llama_server(smollm2) as server:
        trio = Trio(
            RoleConfig(smollm2, ctx_size=512, threads=1), RemoteRole(server.url), reward_kind="confidence", system="", fit_check=False
        )
        with Reasoner.open(trio) as reasoner:
            engine = reasoner.trio.servers()["target"]
            engine.server = watched = Watched(engine.server)  # type: ignore[union-attr, assignment]
            for question in ("What is 2+3?", "Name a colour.", "Why is the sky blue?"):
                watched.requests.clear()
                result = reasoner.solve(question, dataclasses.replace(accepting(probability), limits=limits))
                known = assert_nothing_is_evaluated_again(watched)
                made = result.counters["target"]
                assert made.cached_tokens + made.evaluated_tokens == known and made.rounds == len(watched.requests)
