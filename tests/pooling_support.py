"""A stand-in for a vLLM that serves a process reward model, for no vLLM can run here.

It follows the published forms, each named with its source in vLLM's repository (of 2026):

- ``GET /version``: ``{"version": …}`` (``docs/serving``, "Extra server endpoints").
- ``GET /v1/models``: ``object``, ``data`` with ``id``, ``root``, ``max_model_len`` (``ModelCard``).
- ``POST /pooling``: ``model``, ``messages``, ``task``, ``encoding_format`` (``PoolingChatRequest`` in
  ``vllm/entrypoints/pooling/pooling/protocol.py``); answered by ``id``, ``object``, ``created``, ``model``, ``data`` with ``index``,
  ``object`` = "pooling" and ``data``, and ``usage`` with ``prompt_tokens`` and ``total_tokens`` (``PoolingResponse``).
- The rows of ``Qwen2ForProcessRewardModel``: its pooling is ``STEP``, so there is one row of two classes for each tag, after the
  softmax where ``use_activation`` is not false (``docs/models/pooling_models/reward.md``).
- An error is ``{"error": {"message", "type", "param", "code"}}`` (``ErrorResponse``).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL, TAG = "Qwen/Qwen2.5-Math-PRM-7B", "<extra_0>"


def good(text: str) -> float:
    """The reward of a text, some number in [0, 1] that depends on all of it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:2], "big") / 65535


def conversation(messages: list[dict[str, str]]) -> str:
    """As Qwen2.5's template writes it."""
    return "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)


def rewards(messages: list[dict[str, str]]) -> list[float]:
    """Of each tag: of the text before it."""
    text = conversation(messages)
    ends = [place for place in range(len(text)) if text.startswith(TAG, place)]
    return [good(text[:end]) for end in ends]


class Pooling:
    """The stand-in.

    Attributes:
        url: where it listens.
        asked: the bodies of requests to ``/pooling``.
        rows: what becomes of the rows.
        answer: what comes in place of an answer: status and object; None for an answer.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.rows: Callable[[list[list[float]]], Any] = lambda rows: rows
        self.answer: tuple[int, Any] | None = None
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                models = [{"id": MODEL, "object": "model", "root": MODEL, "max_model_len": 4096}]
                known = {"/version": {"version": "0.19.0"}, "/v1/models": {"object": "list", "data": models}}
                self._say(200 if self.path in known else 404, known.get(self.path, {"detail": "Not Found"}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/pooling":
                    self._say(404, {"detail": "Not Found"})
                    return
                stand_in.asked.append(body)
                self._say(*(stand_in.answer or (200, stand_in.answered(body))))

            def _say(self, status: int, found: Any) -> None:
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answered(self, body: dict[str, Any]) -> dict[str, Any]:
        """To a request."""
        rows = [[1 - one, one] for one in rewards(body["messages"])]
        tokens = len(conversation(body["messages"]).split())
        return {
            "id": "pool-1", "object": "list", "created": 1, "model": body["model"],
            "data": [{"index": 0, "object": "pooling", "data": self.rows(rows)}],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }  # fmt: skip

    def __enter__(self) -> Pooling:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
