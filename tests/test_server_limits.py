"""The queue of ``rsd serve``, clients that go away, limits, keys, and how it begins and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from server_support import CALL, QUESTION, Server, endless_flags, read_stream, served, text_of
from test_cli import refused

pytestmark = pytest.mark.skipif(os.name != "posix", reason="its signals are those of POSIX")
OWN = """
import sys, time, pathlib
from dataclasses import replace
from rsd_local.server import process
from rsd_local.server.exchange import Patience
from rsd_local.server.guard import Guard
from rsd_local.server.models import Loaded
from rsd_local.reasoner import Reasoner
from rsd_local.catalogue import find_trio
def say(line): print(line, file=sys.stderr, flush=True)
gate = pathlib.Path(sys.argv[1])
def load(progress):
    while not gate.exists():
        progress("draft", 0.5)
        time.sleep(0.02)
    trio = find_trio("abacus")
    return Loaded(Reasoner.open(trio, progress), trio.params())
process._HEADERS = 0.5
settings = process.Settings(port=0, patience=Patience(body=0.5, answer=60, keep_alive=0.05), grace=1)
sys.exit(process.serve(settings, load, say, lambda: say("ready")))
"""
"""A server with short time limits, whose models are loaded once a file is there."""


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One answer at a time, and one more may wait; each goes on for long."""
    with served(*endless_flags(tmp_path_factory.mktemp("endless")), "--parallel", "1", "--queue", "1", "--alias", "endless") as server:
        yield server


def is_free(server: Server) -> bool:
    return server.figure("rsd_running") == server.figure("rsd_waiting") == 0


@pytest.fixture
def idle(endless: Server) -> Server:
    endless.eventually(lambda: is_free(endless), 10)
    return endless


def test_a_full_queue_refuses_at_once_and_says_when_to_ask_again(idle: Server) -> None:
    with idle.streaming() as first:
        next(first)
        with idle.streaming() as second:
            assert json.loads(next(second).removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
            next(second)
            assert json.loads(next(second).removeprefix("data: "))["rsd"] == {"waiting": 1}
            assert (idle.figure("rsd_running"), idle.figure("rsd_waiting")) == (1, 1)
            began = time.monotonic()
            response = idle.post("x")
            assert time.monotonic() - began < 1 and response.status_code == 429
            assert 1 <= int(response.headers["retry-after"]) <= 60 and response.json()["error"]["code"] == "queue-full"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_places_within_two_seconds(idle: Server, stream: bool) -> None:
    with ExitStack() as opened:
        if stream:
            streams = [opened.enter_context(idle.streaming()) for _ in range(2)]  # one is written, one waits
            assert all(next(stream) for stream in streams)
        else:
            body = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()
            for _ in range(2):
                plain = opened.enter_context(socket.create_connection(("127.0.0.1", idle.client.base_url.port or 0)))
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                plain.sendall(head.encode() + body)
        idle.eventually(lambda: idle.figure("rsd_running") == idle.figure("rsd_waiting") == 1, 5)
    left = time.monotonic()
    idle.eventually(lambda: is_free(idle), 2)
    answer = idle.ask("x", max_tokens=3)
    assert time.monotonic() - left < 3 and answer["usage"]["completion_tokens"] == 3
    assert idle.figure("rsd_clients_gone_total") >= 2


def test_a_request_that_waits_sees_its_place_and_is_answered_when_its_turn_comes(idle: Server) -> None:
    with ExitStack() as opened:
        first = opened.enter_context(idle.streaming())
        next(first)
        with idle.streaming(max_tokens=4) as second:
            text = "".join(next(second) + "\n" for _ in range(4))
            opened.close()  # the first one's client goes
            text += "".join(line + "\n" for line in second)
    chunks = read_stream(text)
    assert [chunk["rsd"]["waiting"] for chunk in chunks if "waiting" in chunk.get("rsd", {})] == [1, 0]
    assert text_of(chunks) == "a b a b " and chunks[-1]["timings"]["prompt_ms"] < 5000


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Server]:
    with served(tmp_path / "gate", code=OWN, ready=False) as server:
        yield server


def test_it_says_that_it_is_loading_until_it_has_loaded(short: Server, tmp_path: Path) -> None:
    for path in ("/health", "/v1/models", "/props"):
        response = short.client.get(path)
        assert response.status_code == 503 and response.json()["error"]["code"] == "loading" and "retry-after" in response.headers
    assert short.post().status_code == 503
    assert short.figure("rsd_ready") == 0
    (tmp_path / "gate").touch()
    short.line("ready")
    assert short.client.get("/health").json() == {"status": "ok"} and short.ask()["rsd"]["answer"] == "381"


def test_it_can_be_ended_while_it_loads(short: Server) -> None:
    assert short.client.get("/health").status_code == 503
    short.process.send_signal(signal.SIGTERM)
    assert short.process.wait(10) == 0


def test_slow_and_large_requests_are_refused(short: Server, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    short.line("ready")
    port = short.client.base_url.port or 0
    with socket.create_connection(("127.0.0.1", port), timeout=5) as head:
        head.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHo")
        assert head.recv(100) == b""  # it is closed
    with socket.create_connection(("127.0.0.1", port), timeout=5) as again:
        again.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen = b""
        while b'"ok"}' not in seen:
            seen += again.recv(1000)
        again.sendall(b"GET /hea")
        time.sleep(0.1)
        assert again.recv(100) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as body:
        body.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert b"408" in body.recv(1000)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as declared:
        declared.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        assert b"413" in declared.recv(1000)
    chunked = short.client.post("/v1/chat/completions", content=(b" " * (1 << 20) for _ in range(9)))
    assert chunked.status_code == 413 and chunked.json()["error"]["code"] == "body_too_large"
    large = [{"role": "user", "content": "1" * (7 << 20)}]
    assert short.client.post("/v1/chat/completions", json={"messages": large}).status_code == 400
    assert short.client.get("/health", headers={"x": "y" * (1 << 16)}).status_code == 431


def test_a_silent_stream_is_kept_alive_by_comments(tmp_path: Path) -> None:
    code = OWN.replace('find_trio("abacus")', "read_trio(sys.argv[2])").replace(
        "import sys,", "from rsd_local import read_trio\nimport sys,"
    )
    flags = endless_flags(tmp_path)
    trio = tmp_path / "trio.toml"
    role = f'path = "{flags[1]}"\nctx_size = 32000\nthreads = 1\n'
    trio.write_text(f'reward_kind = "confidence"\nstrategy = "target"\n[draft]\n{role}[target]\n{role}')
    (tmp_path / "gate").touch()
    with served(tmp_path / "gate", trio, code=code) as server:
        with server.streaming(max_tokens=31_000, rsd={"max_steps": 1000}) as first, server.streaming() as second:
            next(first)
            lines = [next(second) for _ in range(12)]
    assert lines.count(": keep-alive") >= 2


def test_an_answer_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with served(*endless_flags(tmp_path), "--timeout", "1") as server:
        response = server.post("x")
        assert response.status_code == 504 and response.json()["error"]["code"] == "timeout"
        with server.streaming() as lines:
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        server.eventually(lambda: is_free(server), 2)


def test_a_question_that_does_not_fit_is_a_400_in_a_stream_too(idle: Server) -> None:
    for stream in (False, True):
        response = idle.post("a " * 40_000, stream=stream)
        assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"


def test_a_key_is_demanded_and_never_logged(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("  first-secret\n\nsecond-sécret\n", encoding="utf-8")
    with served("--api-key-file", keys, "--host", "0.0.0.0") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")

        def status(path: str = "/v1/models", **headers: str) -> int:
            return httpx.get(url + path, headers={name.replace("_", "-"): value.encode() for name, value in headers.items()}).status_code  # type: ignore[misc]

        assert status() == status(authorization="Bearer wrong-guess") == status(authorization="first-secret") == 401
        assert status(authorization="Bearer first-secre") == status("/metrics") == status("/props") == 401
        assert status("/health") == 200
        for headers in ({"authorization": "Bearer first-secret"}, {"authorization": "bearer second-sécret"}, {"x_api_key": "first-secret"}):
            assert status(**headers) == 200
        assert status(host="rebound.example", authorization="Bearer first-secret") == 200  # whoever has the key may ask
        refusal = httpx.post(url + "/v1/chat/completions", json={})
        assert refusal.status_code == 401 and refusal.json()["error"]["code"] == "invalid_api_key"
        assert refusal.headers["www-authenticate"] == "Bearer"
        httpx.get(url + "/v1/models?api_key=first-secret")
        server.line("401")
    log = "".join(server.log)
    assert "secret" not in log and "sécret" not in log and "wrong-guess" not in log


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:1"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:80"}, 200),
        ({"host": "LOCALHOST."}, 200),
        ({"host": "rebound.example"}, 403),
        ({"host": "127.0.0.1.rebound.example"}, 403),
        ({"host": "localhost@rebound.example"}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, 200),
        ({"host": "localhost:1", "origin": "http://localhost:2"}, 403),
        ({"origin": "http://page.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[broken"}, 403),
    ],
)
def test_other_hosts_and_other_pages_are_refused(idle: Server, headers: dict[str, str], status: int) -> None:
    response = idle.client.get("/health", headers=headers)
    assert response.status_code == status and "access-control-allow-origin" not in response.headers
    assert status == 200 or response.json()["error"]["code"] == "not_allowed"


def test_pages_and_hosts_that_are_named_may_ask(tmp_path: Path) -> None:
    with served("--cors-origin", "http://page.example", "--allowed-host", "Box.local") as server:
        page = {"origin": "http://page.example"}
        asks = page | {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
        response = server.client.options("/v1/chat/completions", headers=asks)
        assert response.status_code == 200 and response.headers["access-control-allow-origin"] == "http://page.example"
        assert server.client.get("/health", headers=page).headers["access-control-allow-origin"] == "http://page.example"
        assert server.client.get("/health", headers={"origin": "http://other.example"}).status_code == 403
        assert server.client.get("/health", headers={"host": "box.local:8177"}).status_code == 200


def test_sigterm_lets_running_answers_finish_takes_no_new_ones_and_ends_with_0(tmp_path: Path) -> None:
    with served(*endless_flags(tmp_path), "--grace", "60") as server:
        with server.streaming(max_tokens=3000, rsd={"max_steps": 1000}) as lines:
            text = next(lines) + "\n\n"
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(httpx.TransportError):
                httpx.get(server.url + "/health")
            text += "\n".join(line for line in lines)
        chunks = read_stream(text)
        assert server.process.wait(10) == 0
    assert text_of(chunks).count("a ") == 1500 and chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_sigterm_ends_answers_that_take_longer_than_the_grace_in_words(tmp_path: Path) -> None:
    with served(*endless_flags(tmp_path), "--grace", "0.5") as server:
        with server.streaming() as lines:
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "stopping"
        assert server.process.wait(10) == 0 and time.monotonic() - began < 8


def test_ctrl_c_ends_it_with_130() -> None:
    with served() as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 130


def start(*flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CALL, "serve", *map(str, flags)], capture_output=True, text=True, timeout=60)


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(start("--port", taken.getsockname()[1]), 2, "cannot listen at 127.0.0.1", "in use", "--port")
    for host in ("0.0.0.0", "::"):
        refused(start("--port", "0", "--host", host), 2, "is open to other machines", "--api-key-file")
    refused(start("--host", "no.such.host.invalid"), 2, "cannot listen at")
    refused(start("--api-key-file", tmp_path / "none"), 2, "cannot be read")
    (tmp_path / "empty").write_text("\n \n")
    refused(start("--api-key-file", tmp_path / "empty"), 2, "has no key")
    refused(start("--trio", "nothing-of-that-name"), 2, "nothing-of-that-name")
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    done = start("--port", "0", "-md", file, "-m", file, "--reward-kind", "confidence")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "broken.gguf" in done.stderr.splitlines()[-1]


def test_the_log_has_one_object_a_request_and_no_text() -> None:
    with served("--log-json") as server:
        server.ask()
        facts = [json.loads(server.line("{"))]  # before the next one is asked: a client has its answer before the line is there
        server.client.get("/v1/%0aforged?key=hidden")
        facts.append(json.loads(server.line("{")))
    assert facts[0]["path"] == "/v1/chat/completions" and facts[0]["status"] == 200 and facts[0]["completion_tokens"] == 36
    assert {"time", "level", "request", "client", "ms", "model", "prompt_tokens", "cached_tokens", "reason"} <= set(facts[0])
    assert facts[1]["path"] == "/v1/%0aforged" and facts[1]["status"] == 404
    assert QUESTION not in "".join(server.log) and "hidden" not in "".join(server.log)


def test_a_storm_of_clients_that_leave_loses_no_place() -> None:
    with served("--parallel", "2", "--queue", "20") as server, ExitStack() as opened:
        body = json.dumps({"messages": [{"role": "user", "content": QUESTION}], "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for number in range(60):
            client = socket.create_connection(("127.0.0.1", server.client.base_url.port or 0))
            client.sendall(head + body)
            if number % 4:
                client.close()
            else:
                opened.callback(client.close)
        began = time.monotonic()
        server.eventually(lambda: server.figure("rsd_waiting") == 0, 20)
        assert server.ask()["rsd"]["answer"] == "381" and time.monotonic() - began < 20
        server.eventually(lambda: is_free(server), 5)
