"""A real llama-server in a process of its own, and a proxy in front of it that does what networks and servers do wrong."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
RSD = [sys.executable, "-c", "from rsd_local.cli import main; main()"]
HOST = Path(__file__).parent.parent / "scripts" / "speed" / "host.py"
NO_SERVER = importlib.util.find_spec("xllamacpp") is None
needs_server = pytest.mark.skipif(NO_SERVER, reason="needs the package xllamacpp, which carries a llama-server")


def rsd(*words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command of this package."""
    return subprocess.run([*RSD, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=240)


def trio_file(folder: Path, url: str, **settings: object) -> Path:
    """Abacus with its target on a server, as a trio's TOML file."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    lines += ['task = "arithmetic"', 'system = ""', 'reward_kind = "tag-logits"', 'layout = "math-shepherd"']
    for role in ("draft", "reward"):
        lines += [f"[{role}]", f"path = {json.dumps((ABACUS / f'abacus-{role}.gguf').as_posix())}", "threads = 1"]
    file = folder / "mine.toml"
    file.write_text("\n".join([*lines, "[target]", f"url = {json.dumps(url)}", "connect_timeout = 1"]) + "\n")
    return file


class LlamaServer:
    """A llama-server of xllamacpp; see ``scripts/speed/host.py``.

    Attributes:
        url: where it listens.
        port: of that.
    """

    def __init__(self, model: Path, *, context: int = 1024, slots: int = 2, embeddings: bool = False) -> None:
        settings = {
            "model": str(model), "context": context, "slots": slots, "threads": 1, "as_in_file": False, "gpu_layers": "0",
            "embeddings": embeddings, "pooling": "none",
        }  # fmt: skip
        command = [sys.executable, str(HOST), json.dumps(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        line = next(line for line in self._process.stdout if line.startswith(b'{"address"'))
        self.url: str = json.loads(line)["address"]
        self.port = int(self.url.rpartition(":")[2])

    def slots(self) -> list[dict[str, Any]]:
        """What it says of its slots."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/slots", timeout=60).json()
        return found

    def works(self) -> bool:
        """Whether one of its slots does."""
        return any(slot["is_processing"] for slot in self.slots())

    def kill(self) -> None:
        """As when its machine loses power."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def llama_server(model: Path, **settings: int) -> Iterator[LlamaServer]:
    """One that goes with the block."""
    server = LlamaServer(model, **settings)
    try:
        yield server
    finally:
        server.kill()


Fault = Callable[["Exchange"], None]


class Exchange:
    """A request that has come to the proxy.

    Attributes:
        client: the connection that it came over.
        head: its first line and headers.
        body: its body.
        path: that is asked.
    """

    def __init__(self, client: socket.socket, head: bytes, body: bytes, proxy: Proxy) -> None:
        self.client, self.head, self.body, self.proxy = client, head, body, proxy
        self.path = head.split(b" ", 2)[1].decode()

    def pass_on(self, *, most: int | None = None, pause: float = 0.0) -> None:
        """Let the server answer.

        Args:
            most: bytes of the answer after which nothing comes any more.
            pause: seconds between pieces of it.
        """
        with socket.create_connection(("127.0.0.1", self.proxy.port_behind), timeout=60) as server:
            head = b"\r\n".join(line for line in self.head.split(b"\r\n") if not line.lower().startswith(b"connection:"))
            server.sendall(head.rstrip(b"\r\n") + b"\r\nConnection: close\r\n\r\n" + self.body)
            passed = 0
            while data := server.recv(1 << 16 if pause == 0 else 64):
                if most is not None:
                    data = data[: most - passed]
                time.sleep(self.proxy.delay + pause)
                self.client.sendall(data)
                passed += len(data)
                if most is not None and passed >= most:
                    return

    def say(self, status: int, body: bytes, *, headers: str = "", length: int | None = None) -> None:
        """Answer in the server's place."""
        size = len(body) if length is None else length
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n"
        self.client.sendall(head.encode() + body)

    def reset(self) -> None:
        """Break the connection off as a crash does."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.client.close()


class Proxy:
    """Stands in front of a server; each request has a connection of its own.

    Args:
        port_behind: the server's, on this machine.

    Attributes:
        url: where it listens.
        delay: seconds that each request and each answer takes longer.
        asked: the paths so far.
        faults: what happens to the next requests of a path, in order; with none it is passed on.
        always: what happens to every request of a path.
        open: connections that are open.
    """

    def __init__(self, port_behind: int) -> None:
        self.port_behind, self.delay = port_behind, 0.0
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.closed_early = threading.Event()
        self._port = 0
        self.listen()
        self.url = f"http://127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Take connections, again at the same address."""
        self._listening = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError):
                data = b""
                while b"\r\n\r\n" not in data:
                    data += (more := client.recv(1 << 16))
                    if not more:
                        return
                head, _, body = data.partition(b"\r\n\r\n")
                size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
                while len(body) < size:
                    body += client.recv(1 << 16)
                time.sleep(self.delay)
                exchange = Exchange(client, head, body, self)
                path = exchange.path.partition("?")[0]
                self.asked.append(path)
                self.heads.append(head)
                self.bodies.append(json.loads(body) if body else {})
                waiting = self.faults.get(path)
                fault = waiting.pop(0) if waiting else self.always.get(path)
                if fault is None:
                    exchange.pass_on()
                else:
                    fault(exchange)
        except OSError:
            self.closed_early.set()

    def close(self) -> None:
        """Take no further connections: new ones are refused."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts, which would take one more
        self._listening.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
