"""Answers of ``rsd serve``: OpenAI's form, whole and in chunks, and what may be asked."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from server_support import QUESTION, Server, served, text_of

ANSWER = "37+48=85\n\n85*6=510\n\n510-129=381\n\n\\boxed{381}"
MODELS = ["abacus", "abacus:target", "abacus:draft", "abacus:speculative", "abacus:rsd", "abacus:auto"]
SAYS_X = [{"role": "user", "content": "x"}]


@pytest.fixture(scope="module")
def abacus() -> Iterator[Server]:
    with served("-ctk", "f32", "--parallel", "2") as server:
        yield server


def test_a_chat_completion_has_openais_form(abacus: Server) -> None:
    made = abacus.ask()
    (choice,) = made["choices"]
    assert made["object"] == "chat.completion" and made["model"] == "abacus" and made["id"].startswith("chatcmpl-")
    assert choice["message"] == {"role": "assistant", "content": ANSWER, "refusal": None}
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    usage, timings = made["usage"], made["timings"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    details = usage["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] + details["rejected_prediction_tokens"] == timings["draft_n"]
    assert timings["prompt_n"] + timings["cache_n"] == usage["prompt_tokens"] and timings["predicted_n"] == usage["completion_tokens"]
    assert {"draft_n_accepted", "predicted_per_second", "prompt_ms"} <= set(timings)


def test_the_extension_says_who_wrote_which_step_and_why(abacus: Server) -> None:
    made = abacus.ask(rsd={"rejected": True})["rsd"]
    assert [step["author"] for step in made["steps"]] == ["draft", "target", "draft", "draft"]
    assert "".join(step["text"] for step in made["steps"]) == ANSWER and [step["step"] for step in made["steps"]] == [0, 1, 2, 3]
    assert made["steps"][1]["rejected"]["text"] == "85*6=570\n\n" and made["steps"][1]["reward"] < 0.5 < made["steps"][0]["reward"]
    assert made["answer"] == "381" and made["target_share"] == 0.25 and set(made["roles"]) == {"draft", "target", "reward"}
    assert "rejected" not in abacus.ask()["rsd"]["steps"][1]


GREEDY: list[dict[str, Any]] = [{}, {"stop": ["\n\n85", "=5"]}, {"max_tokens": 11}]
SAMPLED: list[dict[str, Any]] = [{"temperature": 1.0, "seed": 7}]  # what auto chooses depends on how long batches took
ASKED = [(model, more) for model in MODELS for more in GREEDY + SAMPLED * (model != "abacus:auto")]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(("model", "more"), ASKED)
def test_a_stream_adds_up_to_the_whole(abacus: Server, model: str, more: dict[str, Any], path: str) -> None:
    asked = {"prompt": QUESTION} if path == "/v1/completions" else {"messages": [{"role": "user", "content": QUESTION}]}
    whole = abacus.client.post(path, json=asked | {"model": model} | more).json()
    chunks = abacus.chunks(path=path, model=model, stream_options={"include_usage": True}, **more)
    choice = whole["choices"][0]
    assert text_of(chunks) == (choice["text"] if path == "/v1/completions" else choice["message"]["content"]) != ""
    *chunks, last = chunks
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] and "timings" in last
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + [choice["finish_reason"]]
    assert {chunk["id"] for chunk in chunks} == {last["id"]} and {chunk["usage"] for chunk in chunks} == {None}
    assert {chunk["object"] for chunk in chunks} == {"text_completion" if path == "/v1/completions" else "chat.completion.chunk"}


def test_a_stream_begins_with_the_role_and_ends_without_usage_where_nobody_asks(abacus: Server) -> None:
    first, *_, last = abacus.chunks()
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "usage" not in first and "usage" not in last and last["choices"][0]["finish_reason"] == "stop" and "timings" in last
    assert last["rsd"]["answer"] == "381"


def test_what_is_streamed_is_accepted_text_and_drafts_come_apart_where_they_are_asked_for(abacus: Server) -> None:
    plain = abacus.chunks()
    assert not any("draft" in chunk.get("rsd", {}) for chunk in plain)
    chunks = abacus.chunks(rsd={"drafts": True, "rejected": True})
    assert text_of(chunks) == text_of(plain) == ANSWER
    drafted = "".join(chunk["rsd"]["draft"] for chunk in chunks if "draft" in chunk.get("rsd", {}))
    assert drafted == "37+48=85\n\n85*6=570\n\n510-129=381\n\n\\boxed{381}"
    done = [chunk["rsd"] for chunk in chunks if chunk.get("rsd", {}).get("done")]
    assert [one["author"] for one in done] == ["draft", "target", "draft", "draft"] and done[1]["rejected"]["text"] == "85*6=570\n\n"


def test_a_target_alone_streams_token_by_token(abacus: Server) -> None:
    chunks = abacus.chunks(model="abacus:target")
    assert sum(bool(chunk["choices"][0]["delta"].get("content")) for chunk in chunks) > 20


def test_models_are_listed_and_each_can_be_asked(abacus: Server) -> None:
    listed = abacus.client.get("/v1/models").json()
    names = [one["id"] for one in listed["data"]]
    assert listed["object"] == "list" and set(MODELS) == set(names)
    assert abacus.client.get("/v1/models/abacus:target").json()["id"] == "abacus:target"
    made = abacus.ask(model="abacus:target")
    assert made["model"] == "abacus:target" and {step["author"] for step in made["rsd"]["steps"]} == {"target"}
    assert abacus.ask(rsd={"strategy": "draft"})["rsd"]["strategy"] == "draft"
    for wrong in ("gpt-4o", "abacus:beam", "abacus:", "abacus:target:target"):
        response = abacus.post(model=wrong)
        assert response.status_code == 404 and response.json()["error"]["code"] == "model_not_found"
        assert "abacus:target" in response.json()["error"]["message"]
    assert abacus.client.get("/v1/models/gpt-4o").status_code == 404


def test_settings_of_a_request_reach_the_run(abacus: Server) -> None:
    assert abacus.ask(rsd={"threshold": 0.0})["rsd"]["target_share"] == 0
    assert abacus.ask(rsd={"threshold": 0.0, "target_budget": 0.5})["rsd"]["threshold"] == 0
    one = abacus.ask(rsd={"max_steps": 2})
    assert len(one["rsd"]["steps"]) == 2 and one["choices"][0]["finish_reason"] == "length" and one["rsd"]["finish_reason"] == "steps"
    short = abacus.ask(max_completion_tokens=5, max_tokens=50)
    assert short["usage"]["completion_tokens"] == 5 and short["choices"][0]["finish_reason"] == "length"
    assert abacus.ask(stop="=")["choices"][0]["message"]["content"] == "37+48"
    assert abacus.ask(seed=-1)["rsd"]["seed"] == 2**64 - 1
    assert abacus.ask()["rsd"]["seed"] != abacus.ask()["rsd"]["seed"]  # nobody chose one
    assert abacus.ask(top_p=0, top_k=3, min_p=0.1, repeat_penalty=1.0, repeat_last_n=8)["rsd"]["answer"] == "381"


def test_an_answer_from_the_cache_is_the_same(abacus: Server) -> None:
    first, again = (abacus.ask("(12+34)*5-67", model=f"abacus:{name}") for name in ("target", "target"))
    assert first["choices"][0]["message"] == again["choices"][0]["message"]
    assert again["timings"]["cache_n"] == again["usage"]["prompt_tokens"] - 1 and again["timings"]["prompt_n"] == 1
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == again["timings"]["cache_n"]


def test_parts_of_text_and_messages_in_a_row_are_one_message(abacus: Server) -> None:
    parts = [{"type": "text", "text": "(37+48)"}, {"type": "text", "text": "*6-129"}]
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "be"},
        {"role": "system", "content": "brief"},
        {"role": "user", "content": "1+1", "name": "me"},
        {"role": "assistant", "content": "2", "tool_calls": None},
        {"role": "assistant", "content": "really"},
        {"role": "user", "content": parts},
    ]
    response = abacus.client.post("/v1/chat/completions", json={"messages": messages})
    assert response.json()["choices"][0]["message"]["content"] == ANSWER


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": None}, "messages", "missing"),
    ({"messages": "hello"}, "messages", "an array"),
    ({"messages": []}, None, "nobody"),
    ({"messages": [3]}, "messages[0]", "an object"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "a string"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "a string"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "king"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "tool"),
    ({"messages": [*SAYS_X, {"role": "assistant", "content": "y"}]}, None, "no conversation"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content[0].type", "image_url"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "a string"),
    ({"messages": [*SAYS_X, {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[1].tool_calls", "not supported"),
    ({"messages": [{"role": "user", "content": "1\0"}]}, None, "NUL"),
    ({"messages": SAYS_X}, None, "not an arithmetic expression"),
    ({"tools": [{"type": "function"}]}, "tools", "not supported"),
    ({"tool_choice": "auto"}, "tool_choice", "not supported"),
    ({"functions": [{}]}, "functions", "not supported"),
    ({"logprobs": True}, "logprobs", "not supported"),
    ({"logprobs": 0}, "logprobs", "not supported"),
    ({"top_logprobs": 2}, "top_logprobs", "not supported"),
    ({"logit_bias": {"1": 2}}, "logit_bias", "not supported"),
    ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    ({"modalities": ["audio"]}, "modalities", "not supported"),
    ({"audio": {}}, "audio", "not supported"),
    ({"store": True}, "store", "not supported"),
    ({"web_search_options": {}}, "web_search_options", "not supported"),
    ({"n": 2}, "n", "not supported"),
    ({"n": 0}, "n", "outside"),
    ({"n": True}, "n", "a whole number"),
    ({"model": 3}, "model", "a string"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": []}, "stream_options", "an object"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "true or false"),
    ({"max_tokens": "5"}, "max_tokens", "a whole number"),
    ({"max_tokens": 1.5}, "max_tokens", "a whole number"),
    ({"max_tokens": 0}, "max_tokens", "outside"),
    ({"max_completion_tokens": 10**400}, "max_completion_tokens", "outside"),
    ({"temperature": "hot"}, "temperature", "a number"),
    ({"temperature": -1}, "temperature", "outside"),
    ({"temperature": True}, "temperature", "a number"),
    ({"top_p": 1.1}, "top_p", "outside"),
    ({"seed": 0.5}, "seed", "a whole number"),
    ({"stop": 5}, "stop", "a string"),
    ({"stop": ["a", 5]}, "stop[1]", "a string"),
    ({"stop": ""}, None, "stop string"),
    ({"stop": ["x" * 300]}, None, "stop string"),
    ({"stop": ["x"] * 17}, None, "stop strings"),
    ({"presence_penalty": 3}, "presence_penalty", "outside"),
    ({"frequency_penalty": None, "metadata": "x"}, "metadata", "an object"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "none of"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "do not think"),
    ({"chat_template_kwargs": {"a": []}}, "chat_template_kwargs.a", "a string"),
    ({"chat_template_kwargs": {"messages": "x"}}, None, "cannot be set"),
    ({"chat_template_kwargs": {"enable_thinking": True}}, None, "thinks"),
    ({"rsd": 1}, "rsd", "an object"),
    ({"rsd": {"treshold": 1}}, "rsd.treshold", "threshold"),
    ({"rsd": {"threshold": 2}}, "rsd.threshold", "outside"),
    ({"rsd": {"strategy": "best"}}, "rsd.strategy", "none of"),
    ({"rsd": {"strategy": "beam"}}, "rsd.strategy", "not opened"),
    ({"rsd": {"candidates": 3}}, "rsd.candidates", "sequences"),
    ({"model": "abacus:target", "rsd": {"strategy": "draft"}}, "rsd.strategy", "leave one"),
]


@pytest.mark.parametrize(("body", "param", "words"), REFUSED, ids=[str(body)[:60] for body, _, _ in REFUSED])
def test_what_cannot_be_honoured_is_a_400_that_names_it(abacus: Server, body: dict[str, Any], param: str | None, words: str) -> None:
    response = abacus.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}]} | body)
    error = response.json()["error"]
    assert response.status_code == 400 and set(error) == {"message", "type", "param", "code"}, response.text
    assert error["param"] == param and words in error["message"] and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ["1", "2"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1]]}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": ""}, None),
        ({"prompt": "1+1", "echo": True}, "echo"),
        ({"prompt": "1+1", "suffix": "x"}, "suffix"),
        ({"prompt": "1+1", "best_of": 2}, "best_of"),
        ({"prompt": "1+1", "logprobs": 1}, "logprobs"),
        ({"prompt": "hello"}, None),
    ],
)
def test_completions_refuse_by_name_too(abacus: Server, body: dict[str, Any], param: str | None) -> None:
    response = abacus.client.post("/v1/completions", json=body)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"temperature": NaN}', b'{"temperature": 1e999}', b"[" * 100_000, b"1" * 5000]
)
def test_a_body_that_is_no_object_is_a_400(abacus: Server, content: bytes) -> None:
    response = abacus.client.post("/v1/chat/completions", content=content)
    assert response.status_code == 400 and response.json()["error"]["message"]


def test_halves_of_characters_are_refused_or_answered_in_words(abacus: Server) -> None:
    for body, status in (('"model":"\\ud800"', 404), ('"messages":[{"role":"user","content":"\\ud800"}]', 400)):
        content = '{"messages":[{"role":"user","content":"1+1"}],' + body + "}"
        assert abacus.client.post("/v1/chat/completions", content=content).status_code == status


def test_what_openai_does_not_define_is_ignored_and_so_is_what_asks_for_nothing(abacus: Server) -> None:
    fields = {"cache_prompt": True, "id_slot": -1, "samplers": ["top_k"], "user": "me", "metadata": {}, "service_tier": "auto"}
    nothing = {"tools": [], "tool_choice": "none", "n": 1, "logprobs": False, "logit_bias": {}, "response_format": {"type": "text"}}
    nulls = dict.fromkeys(("tools", "stop", "seed", "temperature", "max_tokens", "rsd", "stream_options", "top_logprobs", "audio"))
    for more in (fields, nothing, nulls, {"reasoning_effort": "none"}):
        assert abacus.ask(**more)["choices"][0]["message"]["content"] == ANSWER


def test_nothing_is_found_and_no_method_taken_in_words(abacus: Server) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("DELETE", "/health", 405)):
        response = abacus.client.request(method, path)
        assert response.status_code == status and response.json()["error"]["type"] == "invalid_request_error"
        assert response.headers["x-request-id"].startswith("req_")


def test_health_and_props_tell_what_apps_of_llama_server_read(abacus: Server) -> None:
    assert abacus.client.get("/health").json() == {"status": "ok"}
    props = abacus.client.get("/props").json()
    assert props["total_slots"] == 2 and props["default_generation_settings"]["n_ctx"] == 256 and props["model_alias"] == "abacus"
    assert "m.content" in props["chat_template"] and props["rsd"]["rewards"] == ["tag-logits"] and not props["rsd"]["thinks"]


def test_all_figures_are_finite_and_count_what_was_done(abacus: Server) -> None:
    before = abacus.figure("rsd_rejected_steps_total")
    abacus.ask()
    assert abacus.figure("rsd_rejected_steps_total") == before + 1
    text = abacus.client.get("/metrics").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) > 100 and all(math.isfinite(float(line.rsplit(" ", 1)[1])) for line in lines)
    for name in ("rsd_tokens_total", "rsd_role_seconds_total", "rsd_rewards_bucket", "rsd_errors_total", "rsd_target_share", "rsd_waiting"):
        assert f"\n{name}" in text
    assert re.search(r'rsd_answer_tokens_total\{author="target"\} [1-9]', text)


def test_the_description_names_every_address_and_every_field(abacus: Server) -> None:
    document = abacus.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{name}", "/health", "/props", "/metrics", "/openapi.json"
    }  # fmt: skip
    fields = document["components"]["schemas"]["Chat"]["properties"]
    assert {"messages", "temperature", "max_completion_tokens", "rsd", "reasoning_effort", "seed", "top_k"} <= set(fields)


def test_no_other_command_imports_the_server_or_its_packages() -> None:
    code = (
        "import sys; from rsd_local.cli import main\n"
        "try: main(['solve', '-q', '1+1'])\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('starlette', 'uvicorn', 'prometheus_client', 'anyio')"
        " or name.startswith('rsd_local.server')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_missing_extra_is_one_line() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from rsd_local.cli import main; main(['serve'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr == "rsd: uvicorn not installed; pip install 'rsd-local[server]'\n"
