"""A storm of clients, most of which go away: no place is lost, an answer comes soon afterwards, and memory does not grow."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time

import psutil
import pytest
from server_support import QUESTION, Server, served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
CLIENTS, LEAVING = 200, 150


async def client(port: int, number: int) -> bytes:
    """Ask; what came of it, nothing for a client that goes away within half a second."""
    chance = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"messages": [{"role": "user", "content": QUESTION}], "stream": number % 2 == 0}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        if number < LEAVING:
            await asyncio.sleep(chance.random() * 0.5)
            return b""
        return await reader.read()
    finally:
        writer.transport.abort() if number % 3 == 0 else writer.close()


async def storm(port: int) -> list[bytes]:
    numbers = random.Random(0).sample(range(CLIENTS), CLIENTS)
    return await asyncio.gather(*(client(port, number) for number in numbers))


def check(server: Server) -> None:
    """All who stayed have an answer; one more comes within five seconds, and nobody has a place."""
    answers = [answer for answer in asyncio.run(storm(server.client.base_url.port or 0)) if answer]
    assert len(answers) == CLIENTS - LEAVING and all(b"381" in answer for answer in answers)
    began = time.monotonic()
    assert server.ask()["rsd"]["answer"] == "381" and time.monotonic() - began < 5
    server.eventually(lambda: server.figure("rsd_running") == server.figure("rsd_waiting") == 0, 5)


def test_after_a_storm_of_clients_that_leave_nothing_is_lost_and_nothing_has_grown() -> None:
    with served("--parallel", "4", "--queue", str(CLIENTS)) as server:
        process = psutil.Process(server.process.pid)
        sizes = []
        for _ in range(3):
            check(server)
            sizes.append(process.memory_info().rss)
        assert sizes[2] < 1.05 * sizes[1], sizes
        assert process.num_fds() < 60 and process.num_threads() < 60
        assert "Traceback" not in "".join(server.log)
