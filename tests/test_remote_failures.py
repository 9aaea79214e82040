"""A target's server that fails or goes: what of an answer stands then, when it is asked again, and what it may be afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from remote_support import ABACUS, Exchange, LlamaServer, Proxy, llama_server, needs_server, trio_file
from server_support import served, text_of
from test_remote import send_prompts_ahead
from test_remote_faults import NEVER, QUESTION, says, trio

from rsd_local import Reasoner, StepDone
from rsd_local.errors import RemoteError, RemoteRefused
from rsd_local.events import Result

pytestmark = needs_server
TARGET = ABACUS / "abacus-target.gguf"


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(TARGET) as found:
        yield found


@pytest.fixture
def proxy(server: LlamaServer) -> Iterator[Proxy]:
    with Proxy(server.port) as found:
        yield found


class Clock:
    """Of what is left alone for a while."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("rsd_local.remote.engine.monotonic", found)
    return found


def failed(result: Result) -> list[bool]:
    return [step.target_failed for step in result.steps]


def in_closed_form(result: Result) -> bool:
    """Whether each token was evaluated once, and none was written for nothing."""
    made = result.counters["target"]
    once = made.opening_tokens - made.cached_tokens + made.generated_tokens - 1
    return (made.evaluated_tokens, made.discarded_tokens) == (once, 0)


def breaks(exchange: Exchange) -> None:
    exchange.pass_on(most=900)
    exchange.reset()


def writes(exchange: Exchange) -> bool:
    return json.loads(exchange.body)["n_predict"] != 0


def test_a_server_that_failed_is_left_alone_for_15_seconds_and_no_longer(proxy: Proxy, clock: Clock) -> None:
    """Answers in the meantime, which are not asked of it, do not begin that time anew."""
    with Reasoner.open(trio(proxy.url, on_failure="draft")) as reasoner:
        alone = reasoner.solve(QUESTION, strategy="target")
        proxy.always["/completion"] = says(500, "out of memory")
        assert all(failed(reasoner.solve(QUESTION, NEVER)))
        proxy.always.clear()
        asked = proxy.asked.count("/completion")
        for _ in range(2):
            clock.now += 5
            assert all(failed(reasoner.solve(QUESTION, NEVER))) and proxy.asked.count("/completion") == asked
        clock.now += 6
        again = reasoner.solve(QUESTION, NEVER)
        assert again.text == alone.text and not any(failed(again))


def test_a_server_that_is_gone_when_an_answer_begins_leaves_it_to_the_draft(clock: Clock) -> None:
    with llama_server(TARGET) as first, Proxy(first.port) as proxy, Reasoner.open(trio(proxy.url, on_failure="draft")) as reasoner:
        draft, alone = reasoner.solve(QUESTION, strategy="draft"), reasoner.solve(QUESTION, strategy="target")
        first.kill()
        result = reasoner.solve(QUESTION, NEVER)
        assert result.text == draft.text and all(failed(result)) and {step.author for step in result.steps} == {"draft"}
        with pytest.raises(RemoteError):
            reasoner.solve(QUESTION, strategy="target")
        with llama_server(TARGET) as second:
            proxy.port_behind = second.port
            assert all(failed(reasoner.solve(QUESTION, NEVER))), "it is left alone"
            clock.now += 16
            again = reasoner.solve(QUESTION, NEVER)
            assert again.text == alone.text and not any(failed(again))


def test_an_answer_that_began_without_the_server_goes_on_with_it_once_it_is_there(proxy: Proxy, clock: Clock) -> None:
    """Its prompt is asked for then, and is evaluated with the steps of the draft that stand behind it."""
    with Reasoner.open(trio(proxy.url, on_failure="draft")) as reasoner:
        whole = reasoner.solve(QUESTION, strategy="target").counters["target"]
        proxy.always["/apply-template"] = says(500, "out of memory")
        events = list[Any]()
        with reasoner.run(QUESTION, NEVER, text=False) as run:
            for event in run:
                if isinstance(event, StepDone) and not events:
                    proxy.always.clear()
                    clock.now += 16
                events += [event] if isinstance(event, StepDone) else []
            result = run.result()
    assert failed(result) == [True] + [False] * (len(events) - 1) and len(events) > 1
    made = result.counters["target"]
    assert made.opening_tokens == whole.opening_tokens
    assert made.cached_tokens + made.evaluated_tokens == made.opening_tokens + sum(step.tokens for step in result.steps) - 1


def test_a_stream_gives_no_text_that_the_answer_does_not_have(server: LlamaServer, proxy: Proxy, tmp_path: Path) -> None:
    """The server breaks off in the middle of a step, and the draft's step, which begins otherwise, stands in its place."""
    tokens = httpx.post(f"{server.url}/tokenize", json={"content": "999"}, timeout=60).json()["tokens"]
    event = {"content": "999", "tokens": tokens, "tokens_predicted": len(tokens), "stop": False}

    def begins(exchange: Exchange) -> None:
        if writes(exchange):
            exchange.say(200, f"data: {json.dumps(event)}\n\n".encode(), length=5000)
        else:
            exchange.pass_on()

    file = trio_file(tmp_path, proxy.url, on_failure="draft", threshold=1.0)
    with served("--trio", file) as ours:
        proxy.always["/completion"] = begins
        chunks = ours.chunks(QUESTION)
        whole = ours.ask(QUESTION)
    done = [chunk["rsd"] for chunk in chunks if chunk.get("rsd", {}).get("done")]
    assert any(step["target_failed"] for step in done)
    assert text_of(chunks) == whole["choices"][0]["message"]["content"], "the server is left alone, so this is the draft's too"
    assert any(step["target_failed"] for step in whole["rsd"]["steps"])


def test_a_server_that_was_started_again_with_another_model_is_refused(tiny: dict[str, Path]) -> None:
    with llama_server(TARGET) as first, Proxy(first.port) as proxy, Reasoner.open(trio(proxy.url)) as reasoner:
        alone = reasoner.solve(QUESTION, strategy="target")
        first.kill()
        with pytest.raises(RemoteError):
            reasoner.solve(QUESTION, NEVER)
        with llama_server(tiny["dense"]) as other:
            proxy.port_behind = other.port
            for _ in range(2):
                with pytest.raises(RemoteRefused, match=r"had .+ and has .+ now") as caught:
                    reasoner.solve(QUESTION, NEVER)
                assert caught.value.hint and "\n" not in str(caught.value)
        with llama_server(TARGET, slots=1) as same:
            proxy.port_behind = same.port
            assert reasoner.solve(QUESTION, NEVER).text == alone.text
            assert reasoner.trio.servers()["target"]._slots == [0]  # type: ignore[union-attr]


def test_what_fails_ahead_of_a_step_is_evaluated_with_it(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    send_prompts_ahead(monkeypatch, sent=True)
    with Reasoner.open(trio(proxy.url)) as reasoner:
        alone = reasoner.solve(QUESTION, strategy="target")
        proxy.always["/completion"] = lambda exchange: exchange.pass_on() if writes(exchange) else says(500, "x")(exchange)
        result = reasoner.solve(QUESTION, NEVER)
        assert result.text == alone.text and in_closed_form(result)
        assert any(body.get("n_predict") == 0 for body in proxy.bodies)


@pytest.mark.parametrize(
    "fault",
    [
        breaks,
        lambda exchange: exchange.pass_on(pause=0.01),
        lambda exchange: exchange.say(200, b'data: {"content": "1", "tok'),
        says(429, "slow down"),
        says(503, "busy"),
        None,
    ],
    ids=["reset", "slow", "truncated", "429", "503", "refused"],
)
def test_after_each_fault_the_next_answer_is_right_and_so_are_its_counters(
    proxy: Proxy, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_prompts_ahead(monkeypatch, sent=True)
    with Reasoner.open(trio(proxy.url)) as reasoner:
        alone = reasoner.solve(QUESTION, strategy="target")
        if fault is None:
            proxy.close()
        else:
            proxy.always["/completion"] = fault
        try:
            assert reasoner.solve(QUESTION, NEVER).text == alone.text, "only a slow server gives an answer"
        except RemoteError as error:
            assert "\n" not in str(error)
        if fault is None:
            proxy.listen()
        proxy.always.clear()
        again = reasoner.solve(QUESTION, NEVER)
        assert again.text == alone.text and in_closed_form(again)
        assert sorted(reasoner.trio.servers()["target"]._slots) == [0, 1]  # type: ignore[union-attr]
