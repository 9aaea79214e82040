"""What networks and servers do wrong, through a proxy in front of a real llama-server: one clear line each, and nothing is lost."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_support import Exchange, LlamaServer, Proxy, llama_server, needs_server

from rsd_local import Params, Reasoner, RemoteRole, StepDone, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.config import Sampling
from rsd_local.errors import (
    BadAnswer,
    Cancelled,
    ConfigError,
    ContextFull,
    RemoteBusy,
    RemoteError,
    RemoteRefused,
    RSDError,
    Unauthorized,
    Unreachable,
)
from rsd_local.remote.api import Ended, Piece, Wanted
from rsd_local.remote.llama_server import LlamaServer as Api
from rsd_local.remote.transport import Call, Transport

pytestmark = needs_server
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
QUESTION, ANSWER = "(37+48)*6-129", "381"
NEVER = Params(weighting=Weighting("constant", probability=0.0))
KEY = "s3cret-k3y"


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf") as found:
        yield found


@pytest.fixture
def proxy(server: LlamaServer) -> Iterator[Proxy]:
    with Proxy(server.port) as found:
        yield found


def api(url: str, *, read: float = 60.0, connect: float = 2.0, **settings: Any) -> Api:
    return Api(Transport(RemoteRole(url, connect_timeout=connect, read_timeout=read, **settings)))


def written(server: Api, call: Call | None = None, limit: int = 12) -> list[Piece | Ended]:
    tokens = server.tokenize("12+34\n\n", opening=True)
    return list(server.write(Wanted(tokens, limit, ("\n\n",), Sampling(), 0, 0), call or Call()))


def says(status: int, message: str, **headers: str) -> Any:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return lambda exchange: exchange.say(status, json.dumps({"error": {"code": status, "message": message}}).encode(), headers=lines)


def stalls(exchange: Exchange) -> None:
    """Nothing comes, until the other side gives up."""
    exchange.client.settimeout(60)
    exchange.client.recv(1)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with Proxy(9) as proxy:
        proxy.close()
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:\d+ refuses connections") as caught:
        api(proxy.url).facts()
    assert time.monotonic() - began < 10 and caught.value.hint and "\n" not in str(caught.value)
    with pytest.raises(Unreachable, match="cannot be reached"):
        api("http://there-is-no-such-host.invalid:8080").facts()


@pytest.mark.parametrize(
    ("status", "message", "kind", "told"),
    [
        (401, "Invalid API Key", Unauthorized, r"wants a key \(401\)"),
        (403, "no", Unauthorized, r"wants a key \(403\)"),
        (404, "File Not Found", RemoteRefused, r"has no /props \(404\)"),
        (307, "elsewhere", RemoteRefused, r"sends on to another address \(307\)"),
        (429, "slow down", RemoteBusy, r"has too much to do \(429\)"),
        (503, "Loading model", RemoteBusy, r"is still loading its model \(503\)"),
        (500, "out of\nmemory", BadAnswer, r"failed \(500\): out of memory"),
        (400, "bad field", RemoteRefused, r"refuses /props \(400\): bad field"),
        (400, "request (300 tokens) exceeds the available context size (256 tokens)", ContextFull, "exceeds the available context size"),
    ],
)
def test_each_refusal_is_one_line(proxy: Proxy, status: int, message: str, kind: type[RSDError], told: str) -> None:
    proxy.always["/props"] = says(status, message)
    began = time.monotonic()
    with pytest.raises(kind, match=told) as caught:
        api(proxy.url, connect=1.0).facts()
    assert type(caught.value) is kind and "\n" not in str(caught.value) and time.monotonic() - began < 15


def test_what_passes_by_itself_is_waited_for_and_asked_again(proxy: Proxy) -> None:
    """A server that loads, is full, or crashed before it wrote anything: the answer comes, and nobody notices."""
    proxy.faults["/props"] = [says(503, "Loading model"), says(429, "slow down", Retry_After="1")]
    assert api(proxy.url, connect=20).facts().context == 256
    assert proxy.asked.count("/props") == 3
    proxy.faults["/completion"] = [Exchange.reset]
    assert isinstance(written(api(proxy.url))[-1], Ended)


def test_garbage_and_truncated_json_are_one_line(proxy: Proxy) -> None:
    for answer in (b"<html>hello</html>", b"\xff\xfe\x00", b'{"default_generation_settings": {', b"[]", b'"text"', b"{}", b"9" * 5000):
        proxy.always["/props"] = lambda exchange, answer=answer: exchange.say(200, answer)  # type: ignore[misc]
        with pytest.raises(BadAnswer) as caught:
            api(proxy.url).facts()
        assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
    proxy.always["/props"] = lambda exchange: exchange.say(200, b'{"default_gen', length=5000)
    with pytest.raises(Unreachable, match="broke the connection off"):
        api(proxy.url).facts()
    proxy.always["/props"] = lambda exchange: exchange.client.sendall(b"220 mail.example ESMTP\r\n\r\n")
    with pytest.raises(BadAnswer, match="does not answer as an HTTP server"):
        api(proxy.url).facts()


@pytest.mark.parametrize(
    ("stream", "kind", "told"),
    [
        (b'data: {"content": "1", "tok', BadAnswer, "is no JSON"),
        (b"hello\n\n", BadAnswer, "are no events"),
        (b"data: 5\n\n", BadAnswer, "is no object"),
        (b'data: {"content": "1", "tokens": ["x"], "stop": false}\n\n', BadAnswer, "tokens that are no numbers"),
        (b'data: {"content": "1", "tokens": [5], "stop": false}\n\n', Unreachable, "broke the connection off"),
        (b'data: {"content": "", "stop": true, "stop_type": "limit"}\n\n', BadAnswer, "llama-server's"),
        (b'data: {"content": "", "stop": true, "stop_type": "tired"}\n\n', BadAnswer, "ended by 'tired'"),
        (b'data: {"error": {"code": 500, "message": "Compute error."}}\n\n', BadAnswer, r"failed \(500\): Compute error"),
    ],
)
def test_a_stream_that_is_none_is_one_line(proxy: Proxy, stream: bytes, kind: type[RSDError], told: str) -> None:
    proxy.always["/completion"] = lambda exchange: exchange.say(200, stream)
    with pytest.raises(kind, match=told):
        written(api(proxy.url))


def test_a_reset_in_mid_answer_is_an_error_and_what_is_written_is_not_asked_again(proxy: Proxy) -> None:
    def breaks(exchange: Exchange) -> None:
        exchange.pass_on(most=500)
        exchange.reset()

    proxy.always["/completion"] = breaks
    with pytest.raises(Unreachable, match="broke the connection off"):
        written(api(proxy.url))
    assert proxy.asked.count("/completion") == 1


def test_a_stalled_server_is_given_up_after_the_limit_and_a_slow_one_is_not(proxy: Proxy) -> None:
    client = api(proxy.url, read=1.0)
    proxy.faults["/completion"] = [stalls]
    began = time.monotonic()
    with pytest.raises(Unreachable, match="has sent nothing for 1 s"):
        written(client)
    assert time.monotonic() - began < 10
    proxy.always["/completion"] = lambda exchange: exchange.pass_on(pause=0.05)
    assert isinstance(written(api(proxy.url, read=30))[-1], Ended)


def test_a_cancel_ends_a_request_wherever_it_is_and_closes_the_connection(proxy: Proxy) -> None:
    gone = threading.Event()

    def waits(exchange: Exchange) -> None:
        exchange.client.settimeout(60)
        if not exchange.client.recv(1):
            gone.set()

    proxy.always["/completion"] = waits
    client, call = api(proxy.url), Call()
    client.tokenize("1")  # the connection stands already, and is used again
    threading.Timer(0.5, call.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        written(client, call)
    assert time.monotonic() - began < 10 and gone.wait(10)
    proxy.always.clear()
    assert isinstance(written(client)[-1], Ended)


def test_behind_a_cancel_nothing_comes_of_what_has_arrived_already(proxy: Proxy) -> None:
    told: list[dict[str, Any]] = [{"content": str(number), "tokens": [4 + number], "tokens_predicted": number} for number in range(1, 5)]
    told.append({"content": "", "tokens": [], "stop": True, "stop_type": "eos", "tokens_predicted": 4, "timings": {}})
    whole = "".join(f"data: {json.dumps(one)}\n\n" for one in told).encode()
    proxy.always["/completion"] = lambda exchange: exchange.say(200, whole)
    client, call, came = api(proxy.url), Call(), []
    with pytest.raises(Cancelled):
        for event in client.write(Wanted([1, 2], 9, None, Sampling(), 0, 0), call):
            came.append(event)
            call.cancel()
    assert len(came) == 1, "all five came in one piece"


def test_the_key_is_sent_and_is_nowhere_to_be_seen(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("DESK_KEY", KEY)
    assert api(proxy.url, api_key_env="DESK_KEY").facts().context == 256
    assert all(f"Bearer {KEY}".encode() in head for head in proxy.heads)
    (tmp_path / "key").write_text(f"{KEY}\n")
    proxy.always["/props"] = says(401, f"the key {KEY} is wrong")
    with pytest.raises(Unauthorized, match="does not take this key") as caught:
        api(proxy.url, api_key_file=tmp_path / "key").facts()
    proxy.always["/props"] = says(500, f"the key {KEY} made me fail")
    with pytest.raises(BadAnswer) as failed:
        api(proxy.url, api_key_env="DESK_KEY").facts()
    assert KEY not in f"{caught.value} {caught.value.hint} {failed.value} {caplog.text} {RemoteRole(proxy.url, api_key_env='DESK_KEY')}"
    for text in ("", "two words", "ünicode"):
        monkeypatch.setenv("DESK_KEY", text)
        with pytest.raises(ConfigError, match="DESK_KEY hold") as refused:
            api(proxy.url, api_key_env="DESK_KEY")
        assert not text or text not in str(refused.value)
    with pytest.raises(ConfigError, match="a url with a name or password") as named:
        RemoteRole(f"http://me:{KEY}@desk:8080")
    assert KEY not in str(named.value)


@pytest.mark.parametrize("url", ["desk:8080", "ftp://desk", "http://", "http://desk:port", "http://desk?x=1", "http://desk#x", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a server"):
        RemoteRole(url)


def trio(url: str, **settings: Any) -> Trio:
    chosen = find_trio("abacus").with_models(lambda role: dataclasses.replace(role, threads=1))
    return dataclasses.replace(chosen, target=RemoteRole(url, read_timeout=30, connect_timeout=1), **settings)


def test_no_fault_loses_a_place_or_changes_the_next_answer(proxy: Proxy) -> None:
    faults: list[Any] = [Exchange.reset] * 3 + [says(500, "x"), says(401, "x"), lambda exchange: exchange.say(200, b"no")]
    with Reasoner.open(trio(proxy.url)) as reasoner:
        alone = reasoner.solve(QUESTION, strategy="target")
        engine = reasoner.trio.servers()["target"]
        for fault in faults[2:]:
            proxy.always["/completion"] = fault
            with pytest.raises(RemoteError):
                reasoner.solve(QUESTION, NEVER)
            proxy.always.clear()
            again = reasoner.solve(QUESTION, NEVER)
            assert again.text == alone.text and again.answer == ANSWER
            assert sorted(engine._slots) == [0, 1]


def test_a_server_that_falls_silent_is_waited_for_once(proxy: Proxy) -> None:
    stalled = dataclasses.replace(trio(proxy.url), target=RemoteRole(proxy.url, read_timeout=2))
    with Reasoner.open(stalled) as reasoner:
        proxy.always["/completion"] = stalls
        with pytest.raises(Unreachable, match="has sent nothing for 2 s"):
            reasoner.solve(QUESTION, NEVER)
        assert proxy.asked.count("/completion") <= 2, "what was sent ahead and the step are waited for at once, and not asked again"


def test_where_the_trio_says_so_the_drafts_best_step_stands_and_is_marked(proxy: Proxy) -> None:
    with Reasoner.open(trio(proxy.url, on_failure="draft")) as reasoner:
        draft = reasoner.solve(QUESTION, strategy="draft")
        proxy.always["/completion"] = says(500, "out of memory")
        result = reasoner.solve(QUESTION, NEVER)
        assert result.text == draft.text and all(step.target_failed and step.author == "draft" for step in result.steps)
        writes = sum(body.get("stream", False) for body in proxy.bodies)
        assert writes <= 1, "a server that failed is left alone for a while"
        kept = [event for event in reasoner.run("12+34") if isinstance(event, StepDone)]
        assert not any(step.target_failed for step in kept if step.author == "target")


def test_a_server_that_was_killed_and_started_again_is_used_again() -> None:
    with llama_server(ABACUS / "abacus-target.gguf") as first, Proxy(first.port) as proxy, Reasoner.open(trio(proxy.url)) as reasoner:
        alone = reasoner.solve(QUESTION, strategy="target")
        first.kill()
        with pytest.raises(RemoteError):
            reasoner.solve(QUESTION, NEVER)
        with llama_server(ABACUS / "abacus-target.gguf") as second:
            proxy.port_behind = second.port
            assert reasoner.solve(QUESTION, NEVER).text == alone.text
