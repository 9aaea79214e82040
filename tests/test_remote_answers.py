"""Answers that no server should give: a real one's, with one value that cannot be. Each is one line of error, or does no harm."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pooling_support import Pooling
from remote_support import Exchange, LlamaServer, Proxy, llama_server, needs_server
from stand_ins import Sglang, Vllm

from rsd_local import RemoteRole, RoleConfig, Sampling
from rsd_local.errors import BadAnswer, EngineError, RSDError
from rsd_local.fit.measured import measure_server
from rsd_local.prompt import Prompt
from rsd_local.remote import Call, PoolingEngine, ReadingEngine, RemoteEngine, answer_shares, token_states
from rsd_local.remote.api import ReadingServer, Wanted
from rsd_local.remote.step import Language, Written, follow
from rsd_local.remote.texts import TextToken
from rsd_local.runtime import Model
from rsd_local.segments import Segmenter

pytestmark = needs_server
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
PATHS = (
    "/props", "/v1/models", "/tokenize", "/detokenize", "/apply-template", "/completion", "/embedding", "/version", "/pooling",
    "/get_model_info", "/get_server_info", "/generate", "/v1/completions", "/v1/chat/completions",
)  # fmt: skip
DEEP, MISSING = "nested deeply", object()
HOSTILE: list[Any] = [
    10**400, -(10**400), 10**20, 10**11, 999_999_999, -1, 0, 0.5, math.inf, -math.inf, math.nan, "\ud800", "\0[[", "9" * 400, "", None,
    True, [], {}, [[]], [None], DEEP, MISSING,
]  # fmt: skip
Place = tuple[Any, Any]
"""A list or an object, and an index of it."""


class Recorded:
    """The answers of a real server, each asked for once, some of them changed.

    Args:
        port: the server's.

    Attributes:
        url: where they are to be had.
        asked: how many were.
        bodies: of the requests.
        change: makes of an answer what is given in its place, by its number and path.
    """

    def __init__(self, port: int) -> None:
        self._proxy, self._port = Proxy(port), port
        self._proxy.always = dict.fromkeys(PATHS, self._answer)
        self._known: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self.url, self.bodies, self.asked = self._proxy.url, self._proxy.bodies, 0
        self.change: Callable[[int, str, bytes], bytes] = lambda number, path, content: content

    def _answer(self, exchange: Exchange) -> None:
        key, path = (exchange.path, exchange.body), exchange.path.partition("?")[0]
        if key not in self._known:
            with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
                connection.request("POST" if exchange.body else "GET", exchange.path, exchange.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                self._known[key] = response.status, response.read()
        status, content = self._known[key]
        self.asked += 1
        exchange.say(status, self.change(self.asked - 1, path, content) if status == 200 else content)

    def close(self) -> None:
        """Take no further requests."""
        self._proxy.close()


def documents(content: bytes) -> list[Any]:
    """The objects of an answer: of a stream several."""
    if not content.startswith(b"data:"):
        return [json.loads(content)]
    return [json.loads(line[6:]) for line in content.split(b"\n") if line.startswith(b"data: {")]


def places(found: Any) -> Iterator[Place]:
    """All values below one."""
    for key in found if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ():
        yield found, key
        yield from places(found[key])


def changed(content: bytes, choose: Callable[[list[Any]], Place], value: Any) -> bytes:
    """An answer with another value in one place."""
    found = documents(content)
    container, key = choose(found)
    if value is MISSING:
        del container[key]
    else:
        container[key] = value
    texts = [json.dumps(one).replace(json.dumps(DEEP), "[" * 100_000).encode() for one in found]
    return b"".join(b"data: " + one + b"\n\n" for one in texts) if content.startswith(b"data:") else b"".join(texts)


@pytest.fixture(scope="module")
def behind() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf") as found:
        yield found


@pytest.fixture(scope="module")
def here() -> Iterator[Model]:
    """The server's model, whose vocabulary its tokens are looked up in."""
    model = Model(RoleConfig(ABACUS / "abacus-target.gguf", threads=1))
    yield model
    model.close()


@pytest.fixture(scope="module")
def recorded(behind: LlamaServer) -> Iterator[dict[str, Recorded]]:
    """Of each API."""
    with Vllm(behind.url) as vllm, Sglang(behind.url) as sglang, Pooling() as pooling:
        with llama_server(ABACUS / "abacus-draft.gguf", embeddings=True) as states:
            ports = {"auto": behind.port, "openai": behind.port, "vllm": vllm.port, "sglang": sglang.port}
            ports |= {"reward": behind.port, "states": states.port, "pooling": int(pooling.url.rpartition(":")[2])}
            made = {api: Recorded(port) for api, port in ports.items()}
            yield made
            for one in made.values():
                one.close()


def step_of(engine: RemoteEngine, reader: Model, limit: int = 12) -> Written:
    """A step, written as strategies have it written."""
    server = engine.server
    tokens = server.tokenize(server.chat(Prompt.of("12+34"), {}), special=True, opening=True)
    language = Language() if engine.facts.texts else Language(reader.spelling.reader)
    written = Written(server, language, Segmenter("paragraph").start(), limit, lambda data: None, engine.marks)
    follow(server, Wanted(tokens, limit, None if engine.facts.texts else ("\n\n",), Sampling(), 0, -1), written, Call(), lambda *_: None)
    written.step("length").raw.decode("utf-8", "replace")
    return written


def use(kind: str, url: str, reader: Model) -> None:
    """All that is asked of a server."""
    role = RemoteRole(url, api=kind if kind in ("vllm", "sglang", "openai") else "auto", read_timeout=20, connect_timeout=1)  # type: ignore[arg-type]
    if kind == "pooling":
        with closing(PoolingEngine(role, "reward")) as pooled:
            pooled.about()
            pooled.rows([{"role": "user", "content": "1+1"}, {"role": "assistant", "content": f"2{pooled.tag}"}], 1, Call())
        return
    if kind in ("reward", "states"):
        with closing(ReadingEngine(role, "reward", states=kind == "states")) as reading:
            found = [token for token, _ in reading.pieces("12+34", special=True)]
            if kind == "states":
                token_states(reading.llama, found, Call())
            else:
                answer_shares(reading.llama, found, found[:2], -1, Call())
        return
    with closing(RemoteEngine(role, "target")) as engine:
        engine.about()
        server = engine.server
        written = step_of(engine, reader)
        tokens = server.tokenize("12+34</s><b>\n", opening=True)
        for token in tokens[:2]:
            server.piece(token).encode()
        engine.latency.note(server.evaluate(tokens, -1, Call(), reuse=False))
        assert len(written.tokens) <= 12
        if isinstance(server, ReadingServer):
            likely = server.likelihood(tokens, 2, Call())
            assert all(-9999 <= one <= 0 for one in likely.log_probabilities)


@pytest.mark.parametrize("kind", ["auto", "vllm", "sglang", "openai", "reward", "states", "pooling"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(number=st.integers(0, 10**6), place=st.integers(0, 10**6), value=st.sampled_from(HOSTILE))
def test_whatever_value_an_answer_has_nothing_but_a_line_of_error_comes_of_it(
    recorded: dict[str, Recorded], here: Model, kind: str, number: int, place: int, value: Any
) -> None:
    server = recorded[kind]
    server.change, server.asked = lambda number, path, content: content, 0
    use(kind, server.url, here)
    number %= server.asked

    def pick(found: list[Any]) -> Place:
        every = list(places(found))
        return every[place % len(every)]

    server.change = lambda count, path, content: changed(content, pick, value) if count == number else content
    server.asked = 0
    try:
        use(kind, server.url, here)
    except RSDError as error:
        line = f"{error} {error.hint}"
        assert line.isprintable() and len(line) < 600


def spoil(server: Recorded, path: str, keys: tuple[Any, ...], value: Any) -> None:
    """Change one value of each answer of a path that has it."""

    def choose(found: list[Any]) -> Place:
        container: Any = found[0]
        for key in keys[:-1]:
            container = container[key]
        return container, keys[-1]

    def change(number: int, asked: str, content: bytes) -> bytes:
        try:
            return changed(content, choose, value) if asked == path else content
        except (KeyError, IndexError, TypeError):
            return content

    server.change = change


@pytest.mark.parametrize(
    ("kind", "path", "keys", "value", "told"),
    [
        ("auto", "/completion", ("tokens",), [999_999_999], "token 999999999 is outside the vocabulary of 2"),
        ("vllm", "/v1/completions", ("choices", 0, "token_ids"), [999_999_999], "token 999999999 is outside the vocabulary of 2"),
        ("sglang", "/generate", ("output_ids",), [999_999_999], "token 999999999 is outside the vocabulary of 2"),
        ("auto", "/completion", ("tokens",), [2**40], "tokens that are no numbers"),
        ("auto", "/props", ("total_slots",), 10**20, "total_slots is 1000"),
        ("auto", "/props", ("total_slots",), 10**11, "total_slots is 1000"),
        ("auto", "/props", ("default_generation_settings", "n_ctx"), "x" * 10**6, "n_ctx is 'xxx"),
        ("auto", "/v1/models", ("data", 0, "meta", "n_params"), 10**400, "n_params is 1000"),
        ("openai", "/v1/models", ("data", 0, "meta", "n_params"), 10**400, ""),
        ("auto", "/v1/models", ("data", 0, "aliases"), 5, ""),
        ("auto", "/completion", ("timings", "cache_n"), math.inf, "cache_n is inf"),
        ("auto", "/completion", ("timings", "cache_n"), -1, "cache_n is -1"),
        ("auto", "/completion", ("timings", "prompt_ms"), 10**400, "prompt_ms is 1000"),
        ("auto", "/completion", ("timings", "prompt_ms"), math.inf, "prompt_ms is inf"),
        ("auto", "/detokenize", ("content",), "\ud800", ""),
        ("auto", "/tokenize", ("tokens",), DEEP, "no JSON"),
        ("auto", "/completion", ("content",), DEEP, "no JSON"),
        ("reward", "/tokenize", ("tokens", 0, "id"), math.inf, "a token is inf"),
        ("reward", "/tokenize", ("tokens", 0, "piece"), 10**11, "tokens without their pieces"),
        ("reward", "/completion", ("completion_probabilities", 0, "top_probs", 0, "prob"), 10**400, "prob is 1000"),
        ("reward", "/completion", ("completion_probabilities", 0, "top_probs", 0, "prob"), "0.5", "prob is '0.5'"),
        ("states", "/embedding", (0, "embedding", 0, 0), 10**400, "gives no states"),
        ("states", "/embedding", (0, "embedding", 0, 0), "1", "gives no states"),
        ("states", "/embedding", (0, "embedding", 0, 0), 1e300, "gives no states"),
        ("pooling", "/pooling", ("data", 0, "data", 0, 0), 10**400, "a number of a step is 1000"),
        ("pooling", "/pooling", ("data", 0, "data", 0, 0), "1", "a number of a step is '1'"),
        ("pooling", "/pooling", ("usage", "prompt_tokens"), math.inf, "prompt_tokens is inf"),
        ("vllm", "/v1/completions", ("choices", 0, "prompt_logprobs", 3), {"5": {"logprob": math.nan, "rank": 1}}, "logprob is nan"),
        ("vllm", "/v1/completions", ("choices", 0, "prompt_logprobs", 3), {"9" * 400: {"logprob": -1, "rank": 1}}, "a token is '999"),
        ("sglang", "/generate", ("meta_info", "input_token_logprobs", 1, 0), 10**400, "a log-probability is 1000"),
        ("sglang", "/generate", ("meta_info", "input_top_logprobs", 1, 0, 1), math.inf, "a token is inf"),
        ("sglang", "/generate", ("meta_info", "e2e_latency"), math.inf, "e2e_latency is inf"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    recorded: dict[str, Recorded], here: Model, kind: str, path: str, keys: tuple[Any, ...], value: Any, told: str
) -> None:
    spoil(recorded[kind], path, keys, value)
    if not told:
        use(kind, recorded[kind].url, here)
        return
    with pytest.raises(BadAnswer, match=told) as caught:
        use(kind, recorded[kind].url, here)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_a_token_that_is_none_of_the_vocabulary_is_an_error_and_not_the_end_of_the_process(here: Model) -> None:
    for token in (-1, here.n_vocab, 999_999_999, 2**31):
        with pytest.raises(EngineError, match="outside the vocabulary"):
            here.piece(token)


def test_what_a_server_wrote_is_no_conversation_whatever_it_begins_with() -> None:
    for text in ("\0", "\0[[", "\0[[], {}]", "\0" + "[" * 100_000):
        token = TextToken(text, 1)
        assert token.chat is None and token.text == text
    assert TextToken("\0[[").chat is None


@pytest.mark.parametrize(
    ("path", "keys", "value", "told"),
    [
        ("/completion", ("timings", "prompt_ms"), 0, "its work takes no time"),
        ("/completion", ("timings", "predicted_n"), 1, "wrote 1 of 12 tokens: too few to time"),
    ],
)
def test_a_speed_that_nobody_measured_is_one_line(
    recorded: dict[str, Recorded], path: str, keys: tuple[Any, ...], value: Any, told: str
) -> None:
    server = recorded["auto"]
    server.change = lambda number, path, content: content
    with closing(RemoteEngine(RemoteRole(server.url), "target")) as engine:

        def last(number: int, asked: str, content: bytes) -> bytes:
            return changed(content, lambda found: (found[-1][keys[0]], keys[1]), value) if asked == path else content

        server.change = last
        with pytest.raises(BadAnswer, match=told):
            measure_server(engine, 8)


def test_a_model_that_would_end_at_once_is_timed_all_the_same_and_so_is_a_vocabulary_of_three(recorded: dict[str, Recorded]) -> None:
    server = recorded["auto"]
    server.change = lambda number, path, content: content
    with closing(RemoteEngine(RemoteRole(server.url), "target")) as engine:
        server.bodies.clear()
        assert measure_server(engine, 8).decode > 0
        assert [body.get("ignore_eos") for body in server.bodies if body.get("stream")] == [True]
    spoil(server, "/v1/models", ("data", 0, "meta", "n_vocab"), 3)
    with closing(RemoteEngine(RemoteRole(server.url), "target")) as small:
        assert small.facts.vocabulary == 3 and measure_server(small, 8).prefill > 0
