"""Several trios behind one server: loaded when they are asked for, unloaded for another one, or because nobody asks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from server_support import CALL, Server, served, text_of
from test_server_limits import start
from tiny import chain, write_script

pytestmark = pytest.mark.skipif(os.name != "posix", reason="its signals are those of POSIX")
SLOW = f"""
import pathlib, sys, time
from rsd_local.reasoner import Reasoner
opened = Reasoner.open.__func__
gate = pathlib.Path(sys.argv.pop(1))
def slowly(cls, trio, progress=None):
    while "second" in trio.target.path.name and not gate.exists():
        progress("draft", 0.5)
        time.sleep(0.02)
    return opened(cls, trio, progress)
Reasoner.open = classmethod(slowly)
from rsd_local.server import exchange
exchange.Patience.__init__.__defaults__ = (30.0, 3600.0, 0.2, 60.0, 30.0)
{CALL}
"""
"""``rsd serve`` whose second trio is loaded once a file is there, and whose streams have a comment each fifth of a second."""


def write_trio(folder: Path, name: str, texts: tuple[str, ...], extra: str = "") -> Path:
    """A trio of scripted models; endless where the texts come again."""
    then = chain(*texts) if len(set(texts)) == len(texts) else {"": texts[0], texts[0]: texts[1], texts[1]: texts[0]}
    file = write_script(folder / f"{name}-model.gguf", list(dict.fromkeys(texts)), then)
    role = f'path = "{file}"\nctx_size = 32000\nthreads = 1\n'
    trio = folder / f"{name}.toml"
    trio.write_text(f'reward_kind = "confidence"\nstrategy = "target"\nfit_check = false\n{extra}[draft]\n{role}[target]\n{role}')
    return trio


@pytest.fixture
def trios(tmp_path: Path) -> list[object]:
    """Flags of two trios: the first one writes without an end, the second one says hello."""
    files = write_trio(tmp_path, "first", ("a ", "b ", "a ")), write_trio(tmp_path, "second", ("hel", "lo"))
    return ["--trio", files[0], "--trio", files[1], "--trust-file", "-n", "31000", "--max-steps", "100000", "--repeats", "0"]


@pytest.fixture
def slow(trios: list[object], tmp_path: Path) -> Iterator[Server]:
    with served(tmp_path / "gate", "serve", "--port", "0", *trios, code=SLOW) as server:
        yield server


def loaded(server: Server) -> dict[str, int]:
    found = re.findall(r'^rsd_model_loaded\{model="(\w+)"\} (\S+)$', server.client.get("/metrics").text, re.MULTILINE)
    return {name: int(float(value)) for name, value in found}


def test_all_are_listed_and_the_model_chooses(trios: list[object]) -> None:
    with served(*trios) as server:
        names = [one["id"] for one in server.client.get("/v1/models").json()["data"]]
        assert {"first", "first:target", "second", "second:target", "second:rsd"} <= set(names)
        assert loaded(server) == {"first": 1, "second": 0}
        assert server.client.get("/props", params={"model": "second"}).status_code == 503
        for model in ("second", "second:target"):
            made = server.ask("x", model=model)
            assert made["choices"][0]["message"]["content"] == "hello" and made["model"] == model
        assert loaded(server) == {"first": 0, "second": 1}
        assert server.client.get("/props", params={"model": "second"}).json()["model_alias"] == "second"
        assert server.ask("x", max_tokens=2)["model"] == "first" and loaded(server) == {"first": 1, "second": 0}
        refusal = server.post("x", model="third")
        assert refusal.status_code == 404 and "second:target" in refusal.json()["error"]["message"]
        assert server.client.get("/health").status_code == 200


def test_as_many_are_loaded_as_are_allowed(trios: list[object]) -> None:
    with served(*trios, "--models-max", "2") as server:
        assert loaded(server) == {"first": 1, "second": 1}
        with server.streaming() as lines:
            next(lines)
            assert server.ask("x", model="second")["choices"][0]["message"]["content"] == "hello"


def test_one_that_answers_is_not_unloaded_and_who_waits_for_room_keeps_its_place(trios: list[object]) -> None:
    with served(*trios, "--parallel", "2") as server, ThreadPoolExecutor() as pool:
        with server.streaming() as lines:
            next(lines)
            second = pool.submit(server.ask, "x", model="second")
            server.eventually(lambda: server.figure("rsd_waiting") == 1, 10)
            third = pool.submit(server.ask, "x", max_tokens=2)  # of the first trio, which has a place: but it came later
            server.eventually(lambda: server.figure("rsd_waiting") == 2, 10)
            time.sleep(0.3)
            assert not second.done() and not third.done() and loaded(server) == {"first": 1, "second": 0}
        assert second.result(30)["choices"][0]["message"]["content"] == "hello"
        assert third.result(30)["model"] == "first" and loaded(server) == {"first": 1, "second": 0}
        assert re.search(r'rsd_model_loads\{model="first"\} 2', server.client.get("/metrics").text)


def test_a_stream_that_waits_for_its_trio_has_comments_and_then_its_answer(slow: Server, tmp_path: Path) -> None:
    with slow.streaming("x", model="second") as lines:
        seen = [next(lines) for _ in range(4)]
        assert seen.count(": loading") == 2 and slow.client.get("/health").status_code == 200
        assert slow.figure("rsd_waiting") == 1
        (tmp_path / "gate").touch()
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert text_of(chunks) == "hello" and chunks[0]["choices"][0]["delta"]["role"] == "assistant"


def test_a_client_that_leaves_while_its_trio_is_loaded_leaves_nothing_behind(slow: Server, tmp_path: Path) -> None:
    for stream in (True, False):
        left = contextlib.suppress(httpx.TimeoutException)  # nothing comes whole before the trio is there
        with left, slow.client.stream("POST", "/v1/chat/completions", timeout=0.5, json=asked("second", stream=stream)) as response:
            next(response.iter_lines())
    slow.eventually(lambda: slow.figure("rsd_waiting") == 0, 5)
    (tmp_path / "gate").touch()
    slow.eventually(lambda: loaded(slow) == {"first": 0, "second": 1}, 20)
    assert slow.ask("x", max_tokens=2)["model"] == "first"


def asked(model: str, **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "x"}]} | fields


def test_it_can_be_ended_while_a_trio_is_loaded_for_a_request(slow: Server) -> None:
    statuses: list[int] = []
    asking = threading.Thread(target=lambda: statuses.append(slow.post("x", model="second").status_code))
    asking.start()
    slow.eventually(lambda: slow.figure("rsd_waiting") == 1, 10)
    began = time.monotonic()
    slow.process.send_signal(signal.SIGTERM)
    assert slow.process.wait(20) == 0 and time.monotonic() - began < 15
    asking.join(5)
    assert statuses == [503]


def test_one_that_nobody_asks_is_unloaded_and_the_next_request_loads_it(trios: list[object]) -> None:
    with served(*trios, "--idle-unload", "0.5") as server:
        server.eventually(lambda: loaded(server) == {"first": 0, "second": 0}, 20)
        assert server.client.get("/health").json() == {"status": "ok"}
        with server.streaming(max_tokens=4000) as lines:
            first = "".join(line + "\n" for line in lines)
        assert first.rstrip().endswith("[DONE]") and loaded(server)["first"] == 1
        server.eventually(lambda: loaded(server) == {"first": 0, "second": 0}, 20)


def test_a_trio_that_cannot_be_loaded_is_said_to_who_asks_and_the_others_go_on(trios: list[object], tmp_path: Path) -> None:
    with served(*trios) as server:
        (tmp_path / "second-model.gguf").write_bytes(b"GGUF" + bytes(100))
        for _ in range(2):
            refusal = server.post("x", model="second")
            assert refusal.status_code == 500 and "second-model.gguf" in refusal.json()["error"]["message"]
        assert server.ask("x", max_tokens=2)["model"] == "first"


def test_a_files_own_parallel_counts_unless_a_flag_says_otherwise(tmp_path: Path) -> None:
    trio = write_trio(tmp_path, "wide", ("hel", "lo"), "parallel = 3\nqueue = 5\n")
    for flags, slots in (([], 3), (["--parallel", "2"], 2)):
        with served("--trio", trio, "--trust-file", *flags) as server:
            props = server.client.get("/props").json()
            assert props["total_slots"] == slots and props["rsd"]["queue"] == 5


def test_two_trios_of_one_name_are_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    for folder in (one, other):
        folder.mkdir()
        write_trio(folder, "same", ("hel", "lo"))
    done = start("--trio", one / "same.toml", "--trio", other / "same.toml")
    assert done.returncode == 2 and "two trios are called same" in done.stderr
    done = start("--trio", one / "same.toml", "--trio", "abacus", "--alias", "x")
    assert done.returncode == 2 and "--alias" in done.stderr
