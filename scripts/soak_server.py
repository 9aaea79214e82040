"""Keeps ``rsd serve`` busy for long: clients that ask, that leave, and that send nonsense; whether it errs, and whether it grows.

    python scripts/soak_server.py [--minutes 30] [--clients 8] [--json]

An error of ours is an empty answer, a status of 500 or more that no limit explains, a stream without its end, or a connection that is
broken by the server. Resident memory is taken behind the first five minutes (a third of a shorter run) and at the end. The exit code
is 1 where there was an error, a place was lost, or memory grew by 5 % or more.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
from served import Server, asked, events, served

MOST_GROWTH = 0.05
_SETTLED = 300.0  # seconds
_BAD: tuple[Any, ...] = (
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 5000,
    {"messages": []},
    {"messages": [{"role": "user", "content": "what is love?"}]},
    {"messages": [{"role": "user", "content": "1" * 20_000}]},
    asked("1+1", temperature="hot"),
    asked("1+1", tools=[{"type": "function"}]),
    asked("1+1", model="no-such-model"),
    asked("1+1", response_format={"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}),
    asked("1+1", max_tokens=10**400),
)


class Soak:
    """What clients do, and what came of it.

    Args:
        server: that they ask.
        end: when they stop, by ``time.monotonic``.
    """

    def __init__(self, server: Server, end: float) -> None:
        self._server, self._end = server, end
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []

    def client(self, number: int) -> None:
        """One client, until the end."""
        chance = random.Random(number)
        doings = (self._ask, self._stream, self._leave, self._send_nonsense, self._look)
        while time.monotonic() < self._end and self._server.process.poll() is None:
            doing = chance.choices(doings, (3, 4, 4, 2, 1))[0]
            try:
                wrong = doing(chance)
            except Exception as error:  # of any kind: it is what is looked for
                wrong = repr(error)
            with self._lock:
                self.done[doing.__name__.strip("_")] += 1
                if wrong:
                    self.errors.append(f"{doing.__name__}: {wrong}"[:300])

    def _ask(self, chance: random.Random) -> str:
        question = _question(chance)
        connection = self._server.connect(120)
        response = self._server.post(asked(question, model=chance.choice(("abacus", "abacus:target"))), connection)
        made = json.loads(response.read())
        connection.close()
        if response.status == 429:
            return ""
        if response.status != 200:
            return f"{response.status} {made}"
        return "" if made["choices"][0]["message"]["content"] and made["usage"]["completion_tokens"] else f"an empty answer: {made}"

    def _stream(self, chance: random.Random) -> str:
        question = _question(chance)
        connection = self._server.connect(120)
        response = self._server.post(asked(question, stream=True, rsd={"drafts": chance.random() < 0.5}), connection)
        if response.status != 200:
            return "" if response.status == 429 else f"{response.status}"
        found = list(events(response))
        connection.close()
        broken = next((event for event in found if event and "error" in event), None)
        return f"{broken}" if broken else "" if found and found[-1] is None else "a stream without its end"

    def _leave(self, chance: random.Random) -> str:
        """Ask, and go away within half a second."""
        connection = self._server.connect(120)
        body = json.dumps(asked(_question(chance), stream=chance.random() < 0.7)).encode()
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        time.sleep(chance.random() * 0.5)
        connection.close()
        return ""

    def _send_nonsense(self, chance: random.Random) -> str:
        connection = self._server.connect(120)
        response = self._server.post(chance.choice(_BAD), connection)
        made = response.read()
        connection.close()
        fine = 400 <= response.status < 500 and b'"error"' in made
        return "" if fine else f"{response.status} {made[:200]!r}"

    def _look(self, chance: random.Random) -> str:
        connection = self._server.connect(30)
        connection.request("GET", chance.choice(("/health", "/v1/models", "/metrics", "/props", "/openapi.json")))
        response = connection.getresponse()
        response.read()
        connection.close()
        return "" if response.status == 200 else f"{response.status}"


def _question(chance: random.Random) -> str:
    return f"({chance.randint(2, 60)}+{chance.randint(2, 60)})*{chance.randint(2, 9)}"


def _free_after(server: Server, seconds: float) -> float | None:
    """Seconds until no answer is written any more and one is right; None where that takes longer."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        figures = server.figures()
        if figures["rsd_running"] == figures["rsd_waiting"] == 0:
            made = json.loads(server.post(asked("(37+48)*6-129")).read())
            return time.monotonic() - began if made.get("rsd", {}).get("answer") == "381" else None
        time.sleep(0.05)
    return None


def soak(minutes: float, clients: int) -> dict[str, Any]:
    """Let clients loose for so long."""
    with served("--parallel", 4, "--queue", 64) as server:
        process = psutil.Process(server.process.pid)
        began = time.monotonic()
        made = Soak(server, began + 60 * minutes)
        settled = threading.Timer(min(_SETTLED, 20 * minutes), lambda: sizes.append(process.memory_info().rss))
        sizes: list[int] = []
        settled.start()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(made.client, range(clients)))
        free = _free_after(server, 5)
        sizes.append(process.memory_info().rss)
        files, threads = process.num_fds() if sys.platform != "win32" else 0, process.num_threads()
        code = server.stop()
    log = "".join(server.log)
    growth = sizes[-1] / sizes[0] - 1
    return {
        "minutes": minutes,
        "clients": clients,
        "requests": dict(made.done),
        "errors": len(made.errors),
        "first_errors": made.errors[:10],
        "tracebacks": log.count("Traceback"),
        "answer_after_seconds": None if free is None else round(free, 2),
        "resident_bytes": {"settled": sizes[0], "end": sizes[-1]},
        "growth": round(growth, 4),
        "open_files": files,
        "threads": threads,
        "exit_code": code,
        "fine": not made.errors and free is not None and growth < MOST_GROWTH and "Traceback" not in log and code == 0,
    }


def main() -> None:
    """Soak it and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = soak(given.minutes, given.clients)
    if given.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(0 if found["fine"] else 1)


if __name__ == "__main__":
    main()
