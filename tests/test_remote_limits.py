"""Nothing that a server does takes longer than it may: it stalls, trickles, repeats itself, or is nowhere to be found."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from remote_support import Exchange, LlamaServer, Proxy, llama_server, needs_server
from test_remote_faults import api, says

from rsd_local import RemoteRole, Sampling
from rsd_local.errors import BadAnswer, Cancelled, ConfigError, RemoteRefused, RSDError, Unreachable
from rsd_local.remote import RemoteEngine, connection, faults, transport
from rsd_local.remote.api import Wanted
from rsd_local.remote.event_stream import EventStream
from rsd_local.remote.faults import Faults
from rsd_local.remote.step import Language, Written, follow
from rsd_local.remote.transport import Call, Transport

pytestmark = needs_server
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
HEAD = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf") as found:
        yield found


@pytest.fixture
def proxy(server: LlamaServer) -> Iterator[Proxy]:
    with Proxy(server.port) as found:
        yield found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may take ten times ``read_timeout`` may take twice that, by a clock that goes on by 30 seconds with each look."""
    passed = iter(range(0, 10**9, 30))
    clock = SimpleNamespace(monotonic=lambda: float(next(passed)))
    monkeypatch.setattr(faults, "_PATIENCE", 2)
    monkeypatch.setattr(connection, "_LOOK", 0.05)
    monkeypatch.setattr(connection, "time", clock)
    monkeypatch.setattr(transport, "time", clock)


def stream_then_stall(*events: dict[str, Any]) -> Any:
    def answer(exchange: Exchange) -> None:
        exchange.client.sendall(HEAD + b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))
        exchange.client.settimeout(60)
        exchange.client.recv(1)

    return answer


def trickle(begin: bytes, piece: bytes, pause: float = 0.02) -> Any:
    """Something, and then the same for ever, until the other side goes."""

    def answer(exchange: Exchange) -> None:
        exchange.client.sendall(begin)
        while True:
            exchange.client.sendall(piece)
            time.sleep(pause)

    return answer


def step(url: str, call: Call, on_text: Any = lambda data: None, limit: int = 12) -> Written:
    client = api(url)
    written = Written(client, Language(), None, limit, on_text)
    follow(client, Wanted([1, 2], limit, ("\n\n",), Sampling(), 0, 0), written, call, lambda *_: None)
    return written


def test_a_cancel_ends_a_stream_in_which_something_else_was_asked(proxy: Proxy) -> None:
    """A token that ends inside a character has its text asked for, over another connection."""
    proxy.always["/completion"] = stream_then_stall({"content": "a", "tokens": [5], "tokens_predicted": 2})
    call, shown = Call(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            made = pool.submit(step, proxy.url, call, lambda data: shown.set() if data else None)
            assert shown.wait(30) and "/tokenize" in proxy.asked
            call.cancel()
            with pytest.raises(Cancelled):
                made.result(30)
        finally:
            proxy.close()


def test_a_step_ends_at_its_limit_whatever_the_server_sends(proxy: Proxy) -> None:
    proxy.always["/completion"] = trickle(HEAD, b'data: {"content": "a", "tokens": [5]}\n\n', 0.0)
    written = step(proxy.url, Call())
    assert len(written.tokens) == 12 and written.ended == "length"
    many = {"content": "a" * 5000, "tokens": [5] * 5000}
    proxy.always["/completion"] = stream_then_stall(many, {"content": "a", "tokens": [5]})
    assert len(step(proxy.url, Call()).tokens) == 12


def test_a_stream_of_nothing_is_no_answer(proxy: Proxy) -> None:
    proxy.always["/completion"] = trickle(HEAD, b'data: {"content": "", "tokens": []}\n\n', 0.0)
    with pytest.raises(BadAnswer, match="a stream without an end"):
        step(proxy.url, Call())


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEAD, b": keep-alive\n\n"),
        (HEAD + b'data: {"content": "', b"a"),
        (b"HTTP/1.1 200 X\r\n", b"X-More: 1\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_bytes_that_are_no_answer_do_not_keep_anybody_waiting(proxy: Proxy, impatient: None, begin: bytes, piece: bytes) -> None:
    """Comments, a line without an end, and headers."""
    proxy.always["/completion"] = trickle(begin, piece)
    client = api(proxy.url, read=120.0)
    with pytest.raises(Unreachable, match="comes to no end within 240 s"):
        list(client.write(Wanted([1, 2], 12, None, Sampling(), 0, 0), Call()))


def test_an_answer_that_is_no_stream_has_an_end_too(proxy: Proxy, impatient: None) -> None:
    proxy.always["/tokenize"] = trickle(HEAD, b" ")
    with pytest.raises(Unreachable, match="comes to no end within 240 s"):
        api(proxy.url, read=120.0).tokenize("1")


def test_an_answer_may_come_slowly(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than ``read_timeout`` in all, for that is the time without a byte: by a clock that runs fast."""
    passed = iter(range(0, 10**9, 30))
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: float(next(passed))))

    def slowly(exchange: Exchange) -> None:
        exchange.client.sendall(HEAD)
        for byte in b'{"tokens": [1, 2]}':
            exchange.client.sendall(bytes([byte]))
            time.sleep(0.01)

    proxy.always["/tokenize"] = slowly
    assert api(proxy.url, read=120.0, connect=3600.0).tokenize("1") == [1, 2]


def test_the_text_of_an_error_is_not_waited_for(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_ERROR_SECONDS", 0.2)
    proxy.always["/tokenize"] = trickle(b"HTTP/1.1 500 X\r\nContent-Length: 100000\r\n\r\n", b"x")
    call = Call()
    with pytest.raises(BadAnswer, match=r"failed \(500\): x"):
        api(proxy.url).tokenize("1", call=call)
    assert call.traffic.received > 0
    proxy.always["/tokenize"] = lambda exchange: exchange.say(400, b"no such", length=500)
    with pytest.raises(RemoteRefused, match=r"\(400\): no such"):
        api(proxy.url).tokenize("1")


def test_a_cancel_ends_the_search_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    searched, found = threading.Event(), threading.Event()

    def search(*_: Any, **__: Any) -> Any:
        searched.set()
        found.wait(60)
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", search)
    client, call = api("http://desk.example:8080"), Call()
    with ThreadPoolExecutor(1) as pool:
        try:
            asked = pool.submit(client.tokenize, "1", call=call)
            assert searched.wait(30)
            call.cancel()
            with pytest.raises(Cancelled):
                asked.result(30)
        finally:
            found.set()


def test_closing_ends_what_waits(proxy: Proxy) -> None:
    proxy.always["/tokenize"] = stream_then_stall()
    client = api(proxy.url)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.tokenize, "1")
        while "/tokenize" not in proxy.asked:
            time.sleep(0.01)
        client.close()
        with pytest.raises(RSDError):
            asked.result(30)


class Recording(Call):
    """A call that does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_what_fails_before_anything_was_written_is_asked_three_times_with_growing_pauses_of_chance(proxy: Proxy) -> None:
    proxy.always["/tokenize"] = Exchange.reset
    calls = [Recording() for _ in range(4)]
    for call in calls:
        with pytest.raises(Unreachable):
            api(proxy.url, connect=60).tokenize("1", call=call)
        assert len(call.pauses) == 2 and 0.1 <= call.pauses[0] <= 0.2 and 0.2 <= call.pauses[1] <= 0.4
    assert proxy.asked.count("/tokenize") == 12 and len({call.pauses[0] for call in calls}) > 1
    assert calls[0].traffic.rounds == 3


def test_a_busy_server_is_asked_again_until_the_time_is_over_and_says_itself_when(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Recording, "pause", lambda call, seconds: (call.pauses.append(seconds), now.__setitem__(0, now[0] + seconds))[0])
    proxy.always["/tokenize"] = says(503, "Loading model")
    call = Recording()
    with pytest.raises(RSDError, match="still loading"):
        api(proxy.url, connect=8).tokenize("1", call=call)
    assert len(call.pauses) > 5 and max(call.pauses) <= 1.0 and sum(call.pauses) <= 8
    proxy.always["/tokenize"] = says(429, "slow down", Retry_After="7")
    now[0], call = 0.0, Recording()
    with pytest.raises(RSDError, match="too much to do"):
        api(proxy.url, connect=8).tokenize("1", call=call)
    assert call.pauses == [7.0]


def test_certificates_and_proxies_that_cannot_be_used_are_one_line(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("hello")
    for name, path in (("SSL_CERT_FILE", tmp_path / "nowhere.pem"), ("SSL_CERT_FILE", tmp_path / "none.pem")):
        monkeypatch.setenv(name, str(path))
        assert api(proxy.url).tokenize("1"), "without TLS nobody needs them"
        with pytest.raises(ConfigError, match=f"the certificates of {name} cannot be read") as caught:
            api("https://localhost:8080")
        assert str(caught.value).isprintable() and caught.value.hint
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    refused = ["gopher://me:s3cret@desk:1", "http://me:s3cret@desk:port"]
    refused += ["socks5://me:s3cret@desk:1"] if importlib.util.find_spec("socksio") is None else []
    for url in refused:
        monkeypatch.setenv("ALL_PROXY", url)
        with pytest.raises(ConfigError, match="the proxy of ALL_PROXY cannot be used") as caught:
            api(proxy.url).tokenize("1")
        assert "s3cret" not in f"{caught.value} {caught.value.hint}" and str(caught.value).isprintable()


def objects(content: bytes, size: int = 1) -> list[dict[str, Any]]:
    stream = EventStream(Faults(RemoteRole("http://desk")), "/completion")
    found = [one for start in range(0, len(content), size) for one in stream.feed(content[start : start + size])]
    return found + list(stream.end())


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_is_read_as_servers_write_it(size: int) -> None:
    content = b': hello\r\nevent: x\r\nid: 5\nretry: 3\ndata:{"a": 1}\r\n\r\ndata: {"b": 2, "error": null}\n\ndata:[DONE]\ndata: {"c": 3}'
    assert objects(content, size) == [{"a": 1}, {"b": 2, "error": None}, {"c": 3}]


def test_a_passing_failure_makes_no_other_server_of_one(proxy: Proxy) -> None:
    proxy.faults["/props"] = [says(500, "out of memory")]
    with pytest.raises(BadAnswer, match=r"failed \(500\): out of memory"):
        RemoteEngine(RemoteRole(proxy.url), "target")
    with contextlib.closing(RemoteEngine(RemoteRole(proxy.url), "target")) as engine:
        assert engine.facts.api == "llama-server"
    proxy.always["/props"] = says(501, "Not Implemented")
    proxy.always["/version"] = lambda exchange: exchange.say(200, b'{"version": "v2.20"}')
    with contextlib.closing(RemoteEngine(RemoteRole(proxy.url), "target")) as engine:
        assert engine.facts.api == "openai", "a version alone makes no vLLM"


def test_a_models_name_is_written_as_an_address_has_it_and_what_is_missing_is_said(proxy: Proxy) -> None:
    proxy.always["/props"] = says(404, "The model `a b&c` does not exist.")
    with pytest.raises(RemoteRefused, match=r"\(404\): The model `a b&c` does not exist\."):
        api(proxy.url, model="a b&c").facts()
    assert proxy.heads[-1].startswith(b"GET /props?model=a%20b%26c HTTP/1.1")


def test_a_connection_that_was_cut_is_not_used_again(proxy: Proxy, impatient: None) -> None:
    sender = Transport(RemoteRole(proxy.url))
    proxy.faults["/tokenize"] = [trickle(b"HTTP/1.1 200 X\r\n", b"X-More: 1\r\n")]
    with pytest.raises(Unreachable):
        sender.ask("/tokenize", {"content": "1"})
    assert not sender._idle and sender.ask("/tokenize", {"content": "1"})
    sender.close()
