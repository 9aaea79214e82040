"""A llama-server as a process, and requests to it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from speed.turn import Turn

_HOST = Path(__file__).with_name("host.py")
_STARTS = 600.0  # seconds that a server may load
Json = Any


class ServerFailed(Exception):
    """A server did not start, or refused a request."""


def there(program: str) -> bool:
    """Whether there is a llama-server: the program that is named, or the package xllamacpp."""
    return bool(program) or importlib.util.find_spec("xllamacpp") is not None


class Server:
    """A llama-server for one model; greedy requests with token ids.

    Args:
        turn: threads, context, layout of the weights, and the program.
        model: the file.
        slots: answers at once.
        embeddings: whether it gives the state of a prompt's last token, and nothing else.
    """

    def __init__(self, turn: Turn, model: str, slots: int = 1, *, embeddings: bool = False) -> None:
        context = max(512, turn.context)
        as_in_file = turn.layout == "file"
        self._local = threading.local()
        if turn.server:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            call = [turn.server, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-c", str(context * slots), "-np", str(slots)]
            call += ["-t", str(turn.threads), "-tb", str(turn.threads), "--cache-ram", "0"]
            call += ["--no-repack"] if as_in_file else []
            call += [] if turn.gpu_layers == "auto" else ["-ngl", turn.gpu_layers]
            call += ["--embeddings", "--pooling", "last", "-b", str(context), "-ub", str(context)] if embeddings else []
            self._process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self._address, self.build = f"http://127.0.0.1:{port}", f"llama-server ({turn.server})"
        else:
            settings = {
                "model": model, "context": context, "slots": slots, "threads": turn.threads, "as_in_file": as_in_file,
                "gpu_layers": turn.gpu_layers, "embeddings": embeddings,
            }  # fmt: skip
            command = [sys.executable, str(_HOST), json.dumps(settings)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self._address, self.build = self._told()
        self._wait()
        if turn.server:
            self.build += f" {self.get('/props').get('build_info', '')}"

    def _told(self) -> tuple[str, str]:
        """Where xllamacpp's server listens, and its build."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b'{"address"'):
                told = json.loads(line)
                return told["address"], told["build"]
        raise ServerFailed(f"the server ended with {self._process.wait()} before it listened")

    def _wait(self) -> None:
        """Until the model is loaded."""
        until = time.monotonic() + _STARTS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                self.get("/health")
                return
            except ServerFailed:
                time.sleep(0.1)
        self.close()
        raise ServerFailed("the server does not answer")

    def get(self, path: str) -> Json:
        """What a path gives."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Json) -> Json:
        """What a path answers to a body."""
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> Json:
        """One request over this thread's connection, or a new one where the server has closed that since."""
        try:
            status, said = self._sent(method, path, body)
        except (ConnectionError, http.client.HTTPException):
            self._local.link = None
            try:
                status, said = self._sent(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                raise ServerFailed(f"{path}: {error!r}") from error
        if status != 200:
            raise ServerFailed(f"{path}: {status} {said[:300].decode('utf-8', 'replace')}")
        return json.loads(said)

    def _sent(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        link = getattr(self._local, "link", None)
        if link is None:
            address = urllib.parse.urlparse(self._address)
            link = self._local.link = http.client.HTTPConnection(str(address.hostname), address.port)
        link.request(method, path, body, {"Content-Type": "application/json"})
        answer = link.getresponse()
        return answer.status, answer.read()

    def prompt(self, question: str) -> list[int]:
        """The token ids of a question in the model's chat template."""
        text = self.post("/apply-template", {"messages": [{"role": "user", "content": question}]})["prompt"]
        return self.tokenize(text, special=True)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The token ids of a text."""
        found: list[int] = self.post("/tokenize", {"content": text, "add_special": special, "parse_special": special})["tokens"]
        return found

    def complete(self, tokens: list[int], count: int, slot: int = 0, probabilities: int = 0) -> list[int]:
        """What the model writes behind some tokens, exactly ``count`` of them; what the slot has of them already is not read again.

        Args:
            tokens: from the prompt's first one on.
            count: to write.
            slot: of the server.
            probabilities: of how many likely tokens to give the probability too, which is then left unread.
        """
        body = {"prompt": tokens, "n_predict": count, "id_slot": slot, "cache_prompt": True, "return_tokens": True, "ignore_eos": True}
        greedy = {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"], "n_probs": probabilities}  # the sampling that costs least
        found: list[int] = self.post("/completion", body | greedy)["tokens"]
        if len(found) != count:
            raise ServerFailed(f"the server wrote {len(found)} of {count} tokens")
        return found

    def state(self, tokens: list[int]) -> list[float]:
        """The hidden state of the last of some tokens."""
        found: list[float] = self.post("/embedding", {"content": tokens, "embd_normalize": -1})[0]["embedding"][0]
        return found

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
