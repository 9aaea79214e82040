"""Conversations, thoughts and raw texts over ``rsd serve``, and OpenAI's own client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_support import QUESTION, Server, endless_flags, read_stream, served, text_of
from test_server import ANSWER
from test_thinking import ANSWER as SAID
from test_thinking import MARKS, THOUGHT, TURNS, WORDS, thinking_script
from tiny import write_model, write_script

from rsd_local.config import RoleConfig
from rsd_local.prompt import Message, Prompt
from rsd_local.runtime import Model, prompt_tokens

FIRST, SECOND = "Name three colours.", "And now three animals, please."


@pytest.fixture(scope="module")
def talker(smollm2: Path) -> Iterator[Server]:
    """A real model in all roles; its target writes what its own reward does not praise enough."""
    flags = ["-md", smollm2, "-m", smollm2, "-mr", smollm2, "--reward-kind", "judge", "-c", "512", "-ctk", "f32", "-fa", "off", "-t", "1"]
    with served(*flags, "--threshold", "1", "-n", "20", "--alias", "talker") as server:
        yield server


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = write_script(
        tmp_path_factory.mktemp("thinker") / "thinker.gguf",
        [*MARKS["qwen"], *WORDS],
        thinking_script("qwen") | {"</think>": SAID[0]},
        template=TURNS + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}",
        control=MARKS["qwen"],
    )
    with served("-md", file, "-m", file, "--reward-kind", "confidence", "-t", "1", "-c", "400", "--alias", "thinker") as server:
        yield server


def talk(server: Server, *said: str, **more: Any) -> dict[str, Any]:
    """The answer to the last of some messages, of user and assistant in turn."""
    messages = [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(said)]
    response = server.client.post("/v1/chat/completions", json={"messages": messages} | more)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("strategy", ["rsd", "target", "speculative"])
def test_a_second_turn_evaluates_only_what_is_new_in_each_model(talker: Server, strategy: str) -> None:
    model = f"talker:{strategy}"
    first = talk(talker, FIRST, model=model)
    answer = first["choices"][0]["message"]["content"]
    second = talk(talker, FIRST, answer, SECOND, model=model)
    # New are the end of the answer, whose last token was never evaluated, what the template puts around the messages, and the question;
    # to a draft also a last step that the target wrote.
    roles, before = second["rsd"]["roles"], first["rsd"]["roles"]
    for role in ("draft", "target") if strategy != "target" else ("target",):
        read_along = role == "target" or strategy == "speculative"
        new = roles[role]["prompt_n"] - roles[role]["cache_n"]
        assert roles[role]["cache_n"] >= before[role]["prompt_n"] + read_along and new < (30 if read_along else 50), (role, roles, before)
    assert (
        second["timings"]["cache_n"]
        == second["rsd"]["roles"]["target"]["cache_n"]
        == second["usage"]["prompt_tokens"] - second["timings"]["prompt_n"]
    )


@pytest.mark.parametrize("strategy", ["rsd", "target", "speculative"])
def test_a_real_models_stream_adds_up_to_the_whole(talker: Server, strategy: str) -> None:
    asked: dict[str, Any] = {"model": f"talker:{strategy}", "temperature": 0.8, "seed": 11}
    whole = talker.ask(FIRST, **asked)["choices"][0]["message"]["content"]
    assert text_of(talker.chunks(FIRST, **asked)) == whole != ""


def test_a_system_message_replaces_the_trios_own(talker: Server, smollm2: Path) -> None:
    model = Model(RoleConfig(smollm2))
    try:
        wanted = len(prompt_tokens(model, Prompt((Message("system", "Be brief."), Message("user", FIRST)))))
    finally:
        model.close()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": FIRST}]
    made = talker.client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 2}).json()
    assert made["usage"]["prompt_tokens"] == wanted != talk(talker, FIRST, max_tokens=2)["usage"]["prompt_tokens"]


def test_a_completion_goes_on_behind_the_text_itself(talker: Server, smollm2: Path) -> None:
    text = "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n"
    model = Model(RoleConfig(smollm2))
    try:
        wanted = len(model.tokenize(text, special=True))
    finally:
        model.close()
    made = talker.client.post("/v1/completions", json={"prompt": text, "model": "talker:target", "max_tokens": 8}).json()
    assert made["usage"]["prompt_tokens"] == wanted and made["choices"][0]["text"].strip()
    assert text_of(talker.chunks(text, "/v1/completions", model="talker:target", max_tokens=8)) == made["choices"][0]["text"]


def test_a_thought_comes_apart_from_the_answer(thinker: Server) -> None:
    made = thinker.ask("2+2", temperature=0)
    message = made["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("".join(THOUGHT), "That is \\boxed{4}.")
    assert 0 < made["usage"]["completion_tokens_details"]["reasoning_tokens"] < made["usage"]["completion_tokens"]
    assert [step["part"] for step in made["rsd"]["steps"]] == ["thought"] * 3 + ["answer"]


@pytest.mark.parametrize("strategy", ["rsd", "target", "draft", "speculative"])
def test_a_streamed_thought_adds_up_too(thinker: Server, strategy: str) -> None:
    chunks = thinker.chunks("2+2", temperature=0, model=f"thinker:{strategy}")
    assert (text_of(chunks, "reasoning_content"), text_of(chunks)) == ("".join(THOUGHT), "That is \\boxed{4}.")


@pytest.mark.parametrize("told", [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}])
def test_a_model_that_thinks_can_be_told_not_to(thinker: Server, told: dict[str, Any]) -> None:
    message = thinker.ask("2+2", temperature=0, **told)["choices"][0]["message"]
    assert message["content"].strip() == "That is \\boxed{4}." and "reasoning_content" not in message
    assert thinker.ask("2+2", temperature=0, reasoning_effort="high")["choices"][0]["message"]["reasoning_content"]


def test_a_thought_that_a_client_sends_back_is_no_part_of_the_conversation(thinker: Server) -> None:
    plain = talk(thinker, "2+2", "4", "3+3", temperature=0)
    back = {"role": "assistant", "content": "4", "reasoning_content": "".join(THOUGHT)}
    messages = [{"role": "user", "content": "2+2"}, back, {"role": "user", "content": "3+3"}]
    made = thinker.client.post("/v1/chat/completions", json={"messages": messages, "temperature": 0}).json()
    assert made["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]


@pytest.mark.parametrize("kind", ["dense", "sliding", "recurrent", "hybrid"])
def test_models_of_every_memory_answer_alike_in_a_stream_and_from_the_cache(kind: str, tmp_path: Path) -> None:
    files = [write_model(tmp_path / f"{seed}.gguf", kind, seed) for seed in range(3)]
    flags = [
        "-md",
        files[0],
        "-m",
        files[1],
        "-mr",
        files[2],
        "--reward-kind",
        "judge",
        "-t",
        "1",
        "-c",
        "400",
        "-ctk",
        "f32",
        "-fa",
        "off",
    ]
    with served(*flags, "--weighting", "constant", "-n", "60", "--trust-file", "--alias", "tiny", "--seed", "5") as server:
        for more in ({}, {"temperature": 1.0}, {"stop": ["a", "ab+"]}):
            whole, again = server.ask("x", **more), server.ask("x", **more)
            assert whole["choices"] == again["choices"] and whole["usage"]["completion_tokens"] == again["usage"]["completion_tokens"]
            assert text_of(server.chunks("x", **more)) == whole["choices"][0]["message"]["content"]


def test_openais_client_chats_streams_counts_and_reads_errors(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    asked: Any = {"model": "abacus", "messages": [{"role": "user", "content": QUESTION}]}
    with served("--api-key-file", keys) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as client:
        made = client.chat.completions.create(**asked)
        assert made.choices[0].message.content == ANSWER and made.usage.total_tokens == made.usage.prompt_tokens + 36
        with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
            chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
        assert chunks[-1].usage.completion_tokens == 36 and chunks[-2].choices[0].finish_reason == "stop"
        made = client.chat.completions.create(**asked, extra_body={"rsd": {"strategy": "target"}})
        assert made.rsd["target_share"] == 1 and made.timings["predicted_n"] == 36
        assert "abacus:target" in {model.id for model in client.models.list()} and client.models.retrieve("abacus").id == "abacus"
        assert client.completions.create(model="abacus", prompt=QUESTION).choices[0].text == ANSWER
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**asked, n=3)
        assert caught.value.param == "n" and caught.value.code == "unsupported_parameter" and caught.value.request_id
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**asked | {"model": "gpt-4o"})
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="guess").models.list()


def test_the_example_with_openais_client_runs() -> None:
    pytest.importorskip("openai")
    example = Path(__file__).parent.parent / "examples" / "openai_client.py"
    with served() as server:
        done = subprocess.run([sys.executable, example, f"{server.url}/v1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "[target, reward 0.000, in place of '85*6=570" in done.stdout, done.stderr
    assert "'code': 'question-refused'" in done.stdout


def test_openais_client_waits_and_asks_again_where_the_queue_is_full(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    asked: Any = {"model": "endless", "messages": [{"role": "user", "content": "x"}], "extra_body": {"rsd": {"max_steps": 1000}}}
    with served(*endless_flags(tmp_path), "--queue", "0", "--alias", "endless") as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            with server.streaming() as lines:
                next(lines)
                with pytest.raises(openai.RateLimitError):
                    client.chat.completions.create(**asked, max_tokens=3)
                with pytest.raises(openai.APITimeoutError):
                    client.with_options(timeout=0.001).chat.completions.create(**asked, max_tokens=3)
            server.eventually(lambda: server.figure("rsd_running") == 0, 2)
            asked["max_tokens"] = 1000
            with server.streaming(max_tokens=1000, rsd={"max_steps": 1000}) as lines:
                next(lines)
                made = client.with_options(max_retries=8).chat.completions.create(**asked | {"max_tokens": 3})
                assert made.usage.completion_tokens == 3
                assert read_stream("\n".join(["", "", *lines]))
