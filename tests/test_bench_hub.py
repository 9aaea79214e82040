"""Data sets by name, fetched by huggingface_hub from a small hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rsd_local.bench.hub import SOURCES

GSM8K = SOURCES["gsm8k"]
FILES = {
    f"/datasets/{GSM8K.repo}/resolve/{GSM8K.revision}/{GSM8K.file}": b'{"question": "1+1?", "answer": "so\\n#### 2"}\n',
}
GATED = f"/datasets/{SOURCES['gpqa'].repo}/"
LOAD = (
    "import json, sys; from rsd_local.bench.datasets import load_dataset; print(json.dumps([i.answer for i in load_dataset(sys.argv[1])]))"
)


class Hub(BaseHTTPRequestHandler):
    """What hf_hub_download asks of a hub: the headers of a file, and the file."""

    asked: list[str] = []

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, with_body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        body = FILES.get(self.path)
        if body is None:
            gated = self.path.startswith(GATED)
            self.send_response(401 if gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", GSM8K.revision)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    Hub.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def load(name: str, endpoint: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: huggingface_hub reads HF_ENDPOINT when it is imported.
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    return subprocess.run([sys.executable, "-c", LOAD, name], env=kept | settings | more, capture_output=True, text=True, timeout=120)


def test_a_data_set_is_fetched_at_its_pinned_revision_and_then_kept(endpoint: str, tmp_path: Path) -> None:
    first = load("gsm8k", endpoint, tmp_path)
    assert first.returncode == 0 and json.loads(first.stdout) == ["2"], first.stderr
    fetched = [line for line in Hub.asked if line.startswith("GET")]
    assert fetched == [f"GET {path}" for path in FILES]
    assert json.loads(load("gsm8k", endpoint, tmp_path).stdout) == ["2"]
    assert json.loads(load("gsm8k", "http://127.0.0.1:1", tmp_path).stdout) == ["2"], "a pinned revision needs no hub the second time"
    assert [line for line in Hub.asked if line.startswith("GET")] == fetched


def test_what_the_hub_refuses_is_an_error_with_a_mend(endpoint: str, tmp_path: Path) -> None:
    missing = load("math500", endpoint, tmp_path)
    assert "RSDError: math500: the hub has no HuggingFaceH4/MATH-500/test.jsonl" in missing.stderr
    gated = load("gpqa", endpoint, tmp_path)
    assert "ConfigError: gpqa asks for an account on the hub" in gated.stderr
    away = load("minerva", endpoint, tmp_path, HF_HUB_OFFLINE="1")
    assert "RSDError: minerva" in away.stderr and "hub does not answer" in away.stderr
