"""A running ``rsd serve`` for measurements, and plain requests to it; a library of HTTP would take time of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

_CALL = "import sys; from rsd_local.cli import main; main(sys.argv[1:])"
HEADERS = {"content-type": "application/json"}


class Server:
    """A server in a process of its own.

    Attributes:
        process: it.
        port: that it listens at.
    """

    def __init__(self, flags: list[str]) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", _CALL, "serve", "--port", "0", *flags], stderr=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.log: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(re.search(r"http://[^/\s]+:(\d+)", self._line("http://"))[1])  # type: ignore[index]
        self._line("ready")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)

    def _line(self, part: str) -> str:
        end = time.monotonic() + 300
        while time.monotonic() < end and (self.process.poll() is None or not self._lines.empty()):
            with contextlib.suppress(queue.Empty):
                self.log.append(self._lines.get(timeout=0.1))
                if part in self.log[-1]:
                    return self.log[-1]
        raise SystemExit(f"the server did not start: {''.join(self.log)}")

    def connect(self, timeout: float = 600) -> http.client.HTTPConnection:
        """A connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def post(self, body: Any, connection: http.client.HTTPConnection | None = None) -> http.client.HTTPResponse:
        """The response to a chat completion."""
        connection = connection or self.connect()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", "/v1/chat/completions", data, HEADERS)
        return connection.getresponse()

    def figures(self) -> dict[str, float]:
        """The figures of ``/metrics``, by name and labels."""
        connection = self.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line and not line.startswith("#"))}

    def stop(self) -> int:
        """End it in order; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def served(*flags: object) -> Iterator[Server]:
    """A server with flags of ``rsd serve``."""
    server = Server([str(flag) for flag in flags])
    try:
        yield server
    finally:
        server.stop()


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any] | None]:
    """The objects of a stream as they come; None for ``[DONE]``."""
    while line := response.readline():
        if line.startswith(b"data: "):
            yield None if line.startswith(b"data: [DONE]") else json.loads(line[6:])


def asked(question: str, **fields: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"messages": [{"role": "user", "content": question}]} | fields
