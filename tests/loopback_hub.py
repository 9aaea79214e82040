"""A small model hub on loopback, with what can go wrong with one: no word leaves the machine."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub: the headers of a file, and the file or the rest of it.

    ``files`` are known by how their paths end; ``faults`` says what goes wrong with which: ``wrong`` bytes, a ``cut`` connection, a
    ``slow`` one, a ``gated`` repository, one that is no ``hub``, or a refusal: its status, headers and body. ``commit`` is that of
    all files, ``began`` when it was first asked.
    """

    files: dict[str, bytes] = {}
    faults: dict[str, str | tuple[int, dict[str, str], str]] = {}
    asked: list[str] = []
    ranges: list[str] = []
    tokens: list[tuple[str, str | None]] = []
    began = 0.0
    commit = COMMIT

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, with_body: bool) -> None:
        Hub.began = Hub.began if self.asked else time.monotonic()
        self.asked.append(f"{self.command} {self.path}")
        self.tokens.append((self.path, self.headers["Authorization"]))
        body, fault = (
            next((found for end, found in table.items() if self.path.endswith(end)), None) for table in (self.files, self.faults)
        )
        if isinstance(fault, tuple):
            self.refuse(*fault, with_body=with_body)
            return
        if body is None or fault == "gated":
            self.send_response(401 if fault == "gated" else 404)
            self.send_header("X-Error-Code", "GatedRepo" if fault == "gated" else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "hub":
            self.refuse(200, {"Content-Type": "text/html"}, "<html>Sign in to this network</html>", with_body=with_body)
            return
        if "Range" in self.headers:
            self.ranges.append(self.headers["Range"])
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        digest = hashlib.sha256(b"another" if fault == "wrong" else body).hexdigest()
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if not with_body:
            return
        self.wfile.write(body[start : len(body) // 2] if fault in ("slow", "cut") else body[start:])
        self.wfile.flush()
        if fault == "slow":
            time.sleep(20)
        elif fault == "cut":
            self.connection.close()

    def refuse(self, status: int, headers: dict[str, str], text: str, *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if with_body:
            self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes], home: Path, commit: str = COMMIT) -> Iterator[dict[str, str]]:
    """A hub with these files; gives the settings with which huggingface_hub asks it and keeps files in ``home``."""
    Hub.files, Hub.faults, Hub.asked, Hub.ranges, Hub.tokens, Hub.commit = files, {}, [], [], [], commit
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(home),
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "3",
        }
        server.shutdown()
        thread.join()


def environment(settings: dict[str, str]) -> dict[str, str]:
    """The process's environment with these settings and nobody's account."""
    return {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE")} | settings
