"""scripts/bench_remote.py on abacus: what waits for the network, by its counts; and the slow link itself."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from remote_support import needs_server

SCRIPTS = Path(__file__).parent.parent / "scripts"
SlowLink: Any = runpy.run_path(str(SCRIPTS / "slow_link.py"))["SlowLink"]


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_a_slow_link_holds_each_byte_and_keeps_a_stream_one(delay: float) -> None:
    """The server sends a second piece only once the first has come: a link that gathers an answer would never pass it on."""
    came, asked = threading.Event(), list[bytes]()

    def serve(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client:
            for _ in range(2):
                asked.append(client.recv(100))
                client.sendall(b"one")
                assert came.wait(30)
                came.clear()
                client.sendall(b"two")
            asked.append(client.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listening, SlowLink(listening.getsockname()[1], delay) as link:
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        with socket.create_connection(("127.0.0.1", int(link.url.rpartition(":")[2])), timeout=30) as client:
            for trips in (2, 1):  # the first request waits for the connection, too
                began = time.monotonic()
                client.sendall(b"ask")
                assert client.recv(100) == b"one" and time.monotonic() - began >= trips * delay
                came.set()
                assert client.recv(100) == b"two"
        server.join(30)
    assert asked == [b"ask", b"ask", b""] and link.connections == 1, "the end arrives, too"


@needs_server
def test_rsd_waits_once_for_each_step_of_the_target_and_speculation_every_few_tokens(tmp_path: Path) -> None:
    out, plot = tmp_path / "remote.json", tmp_path / "remote.png"
    call = [sys.executable, str(SCRIPTS / "bench_remote.py"), "--questions", "3", "--rounds", "1", "--delays", "5,40"]
    done = subprocess.run(
        [*call, "--json", str(out), "--plot", str(plot)], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads(out.read_text())
    ours = [row for row in made["rows"] if row["way"] == "rsd"]
    assert len(ours) == 6 and sum(row["target_steps"] for row in ours) > 0
    for row in ours:
        assert row["waits"] == row["target_steps"] <= row["steps"], "one round trip for a step that the target writes, none for another"
        assert row["requests"] == row["waits"] + row["ahead"]
    for row in made["rows"]:
        if row["way"] == "speculation":
            assert row["tokens"] / (row["guesses"] + 1) <= row["waits"] <= row["tokens"] + 1
    told = made["summary"]["counted"]
    assert told["RSD"]["waits"] < told["token-level speculation, 16 guesses"]["waits"] < told["token-level speculation, 4 guesses"]["waits"]
    assert "| token-level speculation, 4 guesses " in done.stdout and plot.stat().st_size > 10_000
    assert made["summary"]["compared"] == 3
