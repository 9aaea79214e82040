"""A server in a process of its own, and what tests ask it."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from tiny import write_script

CALL = "import sys; from rsd_local.cli import main; main(sys.argv[1:])"
QUESTION = "(37+48)*6-129"
ENDLESS = ("a ", "b ")


class Server:
    """A running one.

    Attributes:
        url: without a path.
        process: of it.
        client: speaks to it.
        log: lines of standard error so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.log = process, list[str]()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = re.search(r"http://\S+:\d+", self.line("http://"))[0]  # type: ignore[index]
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)

    def line(self, part: str, seconds: float = 90) -> str:
        """The next line with a text in it."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(queue.Empty):
                self.log.append(self._lines.get(timeout=0.1))
                if part in self.log[-1]:
                    return self.log[-1]
                continue
            assert self.process.poll() is None or time.monotonic() < end - seconds + 1, f"it ended: {''.join(self.log)}"
            assert time.monotonic() < end, f"no line with {part!r}: {''.join(self.log)}"

    def ask(self, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
        """A whole chat completion."""
        response = self.post(question, **fields)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def post(self, question: str = QUESTION, **fields: Any) -> httpx.Response:
        """The response to a chat completion."""
        return self.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": question}]} | fields)

    def chunks(self, question: str = QUESTION, path: str = "/v1/chat/completions", **fields: Any) -> list[dict[str, Any]]:
        """The chunks of a stream, whose end is checked."""
        asked = {"messages": [{"role": "user", "content": question}]} if "chat" in path else {"prompt": question}
        response = self.client.post(path, json=asked | {"stream": True} | fields)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return read_stream(response.text)

    @contextlib.contextmanager
    def streaming(self, question: str = "x", **fields: Any) -> Iterator[Iterator[str]]:
        """The lines of a stream that goes on."""
        asked = {"messages": [{"role": "user", "content": question}], "stream": True} | fields
        with self.client.stream("POST", "/v1/chat/completions", json=asked) as response:
            assert response.status_code == 200
            yield response.iter_lines()

    def figure(self, name: str) -> float:
        """A figure of ``/metrics``, named as it stands there."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def eventually(self, fine: Callable[[], bool], seconds: float) -> None:
        """Wait for something to be so."""
        end = time.monotonic() + seconds
        while not fine():
            assert time.monotonic() < end, "it did not come to pass in time"
            time.sleep(0.02)


def read_stream(text: str) -> list[dict[str, Any]]:
    """The objects of server-sent events; the last event is ``[DONE]``."""
    events = [event.strip().removeprefix("data: ") for event in text.split("\n\n") if event.strip() and not event.startswith(":")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def text_of(chunks: list[dict[str, Any]], name: str = "content") -> str:
    """What the chunks of a stream add up to."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["delta"].get(name, "") if "delta" in choice else choice["text"] for choice in choices)


@contextlib.contextmanager
def served(*flags: object, code: str = CALL, ready: bool = True) -> Iterator[Server]:
    """A server with flags of ``rsd serve``, or one that a program of its own starts."""
    arguments = ["serve", "--port", "0", *map(str, flags)] if code == CALL else [str(flag) for flag in flags]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        server = Server(process)
        with server.client:
            if ready:
                server.line("ready")
            yield server
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def endless_flags(folder: Path) -> list[object]:
    """Flags of a trio whose answers go on for long."""
    file = write_script(folder / "endless.gguf", list(ENDLESS), {"": "a ", "a ": "b ", "b ": "a "})
    return [
        "-md", file, "-m", file, "--reward-kind", "confidence", "-t", "1", "-c", "32000", "-n", "31000", "--max-steps", "100000",
        "--repeats", "0", "--strategy", "target", "--trust-file", "--no-fit-check",
    ]  # fmt: skip
