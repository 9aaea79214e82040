"""Small servers that answer as vLLM and as SGLang do, which cannot run here. What they write is a real llama-server's behind them.

Only these two are stood in for. Each field has the source beside it that says so, as it stood in October 2026:

- [vc] vllm-project/vllm, vllm/entrypoints/openai/completion/protocol.py and serving.py
- [vt] vllm-project/vllm, vllm/entrypoints/serve/tokenize/protocol.py
- [vm] https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, and the model card's ``max_model_len`` of
  vllm/entrypoints/openai/models/serving.py
- [vs] vllm-project/vllm, vllm/sampling_params.py
- [vp] https://docs.vllm.ai/en/latest/design/prefix_caching.html
- [sg] https://docs.sglang.io/basic_usage/native_api.html
- [sp] https://docs.sglang.io/basic_usage/sampling_params.html and sgl-project/sglang, python/sglang/srt/sampling/sampling_params.py
- [st] sgl-project/sglang, python/sglang/srt/managers/tokenizer_manager.py
- [so] sgl-project/sglang, python/sglang/srt/managers/scheduler_output_processor_mixin.py
- [sk] sgl-project/sglang, python/sglang/srt/entrypoints/openai/protocol.py and serving_tokenize.py
- [sh] sgl-project/sglang, python/sglang/srt/entrypoints/http_server.py
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


class Refused(Exception):
    """A request that is answered with another status.

    Attributes:
        status: of HTTP.
        message: for people.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class StandIn:
    """A server over a llama-server.

    Args:
        behind: the llama-server's address.
        context: tokens of a question.

    Attributes:
        url, port: where it listens.
        asked: the paths so far.
        bodies: of the requests, in the same order.
        told: what was cached of each generation's prompt, and its length.
    """

    block = 1  # tokens that the prefix cache keeps together

    def __init__(self, behind: str, context: int = 256) -> None:
        self.context = context
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.told: list[tuple[int, int]] = []
        self._behind = httpx.Client(base_url=behind, timeout=60)
        self._kept: list[list[int]] = []
        self._likely: dict[tuple[int, ...], dict[int, float]] = {}
        self._lock = threading.Lock()
        standing = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # whoever asked is gone
                    super().handle()

            def do_GET(self) -> None:
                standing._answer(self, {})

            def do_POST(self) -> None:
                standing._answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._behind.close()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """What a path answers: an object, or those of a stream."""
        raise NotImplementedError

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self.asked.append(handler.path)
        self.bodies.append(body)
        try:
            found = self.answer(handler.path, body)
            if isinstance(found, dict):
                self._say(handler, 200, found)
                return
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for event in found:
                self._chunk(handler, b"data: " + json.dumps(event).encode() + b"\n\n")
            self._chunk(handler, b"data: [DONE]\n\n")  # [vc], [sh]
            self._chunk(handler, b"")
        except Refused as refused:
            self._say(handler, refused.status, {"error": {"message": refused.message, "code": refused.status}})  # [vc], [sh]
        except OSError:
            handler.close_connection = True  # whoever asked is gone, and so the model stops

    @staticmethod
    def _chunk(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        handler.wfile.flush()

    @staticmethod
    def _say(handler: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the llama-server answers."""
        return self._behind.post(path, json=body).raise_for_status().json()

    def tokens(self, text: str, opening: bool) -> list[int]:
        """Of a text; a tokenizer of Hugging Face makes control tokens of their texts."""
        found: list[int] = self.post("/tokenize", {"content": text, "add_special": opening, "parse_special": True})["tokens"]
        return found

    def text(self, tokens: list[int]) -> str:
        """Of tokens."""
        found: str = self.post("/detokenize", {"tokens": tokens})["content"]
        return found

    def templated(self, messages: list[dict[str, str]]) -> list[int]:
        """A conversation's tokens, those included that the template begins with."""
        return self.tokens(self.post("/apply-template", {"messages": messages})["prompt"], True)

    def cached(self, tokens: list[int]) -> int:
        """How many of a prompt's tokens the prefix cache has: one at least is read, and blocks are whole."""
        with self._lock:
            most = max((_common(tokens, one) for one in self._kept), default=0)
        return min(most, len(tokens) - 1) // self.block * self.block

    def keep(self, tokens: list[int]) -> None:
        """What was read stays in the prefix cache, and so does what the list gets later."""
        with self._lock:
            self._kept.append(tokens)

    def likely(self, tokens: list[int]) -> dict[int, float]:
        """The log-probability of each token behind some."""
        key = tuple(tokens)
        if key not in self._likely:
            body = {"prompt": tokens, "n_predict": 1, "n_probs": 512, "temperature": 0.0, "cache_prompt": True}
            found = self.post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
            self._likely[key] = {one["id"]: one["logprob"] for one in found}
        return self._likely[key]

    def written(self, tokens: list[int], limit: int, stops: list[str], sampling: dict[str, Any]) -> Iterator[tuple[list[int], str, str]]:
        """Pieces of an answer, a token each, with their text: ``eos``, ``limit``, or ``word`` and a stop string is how the last one ends.

        As with both servers each token comes, and the text of one that ends inside a character comes with a later one.
        """
        body = {"prompt": tokens, "n_predict": limit, "stop": stops, "return_tokens": True, "cache_prompt": True, **sampling}
        response = self._behind.post("/completion", json=body)
        if response.status_code != 200:
            raise Refused(500, response.text)
        found = response.json()
        how = f"word{found['stopping_word']}" if found["stop_type"] == "word" else found["stop_type"]
        shown, kept = "", list(tokens)
        self.keep(kept)
        for count, token in enumerate(found["tokens"], 1):
            last = count == len(found["tokens"])
            text = found["content"] if last else self.text(found["tokens"][:count])[: len(found["content"])].rstrip("\ufffd")
            text = text if found["content"].startswith(text) else shown
            if count > 1:
                kept.append(found["tokens"][count - 2])  # read before this one could be drawn
            yield [token], text[len(shown) :], how if last else ""
            shown = text


def _common(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _drawn(body: dict[str, Any]) -> dict[str, Any]:
    """How tokens are drawn, as llama-server has it."""
    return {
        "temperature": body["temperature"], "top_k": max(0, body["top_k"]), "top_p": body["top_p"], "min_p": body["min_p"],
        "repeat_penalty": body["repetition_penalty"], "presence_penalty": body["presence_penalty"],
        "frequency_penalty": body["frequency_penalty"], "repeat_last_n": 4096,
    }  # fmt: skip


class Vllm(StandIn):
    """As vLLM.

    Args:
        behind, context: as of the class above.
        details: whether it runs with ``--enable-prompt-tokens-details``, so that it says what was cached.
    """

    block = 16  # [vp]

    def __init__(self, behind: str, context: int = 256, *, details: bool = True) -> None:
        self.details = details
        super().__init__(behind, context)

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """See [vm], [vt] and [vc]."""
        if path == "/version":
            return {"version": "0.20.0"}
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "abacus", "object": "model", "owned_by": "vllm", "max_model_len": self.context}]}
        if path not in ("/tokenize", "/detokenize", "/v1/completions"):
            raise Refused(404, "Not Found")
        if body.get("model") not in (None, "abacus"):
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if path == "/tokenize":
            chat = "messages" in body
            found = self.templated(body["messages"]) if chat else self.tokens(body["prompt"], body.get("add_special_tokens", True))
            strings = [self.text([one]) for one in found] if body.get("return_token_strs") else None
            return {"count": len(found), "max_model_len": self.context, "tokens": found, "token_strs": strings}
        if path == "/detokenize":
            return {"prompt": self.text(body["tokens"])}
        return self._complete(body)

    def _complete(self, body: dict[str, Any]) -> dict[str, Any] | Iterator[dict[str, Any]]:
        tokens, limit, rows = body["prompt"], body["max_tokens"], body.get("prompt_logprobs")
        if limit < 1:
            raise Refused(400, f"max_tokens must be at least 1, got {limit}.")  # [vs]
        if rows is not None and body.get("stream"):
            raise Refused(400, "`prompt_logprobs` are not available when `stream=True`.")  # [vc]
        if len(tokens) + limit > self.context:
            raise Refused(400, f"This model's maximum context length is {self.context} tokens.")
        if body["temperature"] > 2:
            raise Refused(400, f"temperature must be in [0, 2], got {body['temperature']}.")  # [vs]
        cached = 0 if rows is not None else self.cached(tokens)  # [vs] skip_reading_prefix_cache
        self.told.append((cached, len(tokens)))
        made = self.written(tokens, limit, body.get("stop", []), _drawn(body) | {"seed": body["seed"]})
        if body.get("stream"):
            return self._streamed(body, made, len(tokens), cached)
        written, text, how = [], "", ""
        for some, more, how in made:  # noqa: B007 - the last one counts
            written, text = [*written, *some], text + more
        choice = {"index": 0, "text": text, "finish_reason": "length" if how == "limit" else "stop", "stop_reason": None}
        choice |= {"token_ids": written} if body.get("return_token_ids") else {}
        if rows is not None:
            choice["prompt_logprobs"] = [None, *(self._row(tokens, place, rows) for place in range(1, len(tokens)))]
        return {"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": self._usage(len(tokens), len(written), cached)}

    def _row(self, tokens: list[int], place: int, rows: int) -> dict[str, Any]:
        """A prompt token's log-probability and those of the likeliest, by their ids as JSON has them."""
        likely = self.likely(tokens[:place])
        order = sorted(likely, key=lambda token: -likely[token])
        wanted = dict.fromkeys([tokens[place], *order[:rows]])
        return {str(one): {"logprob": likely[one], "rank": order.index(one) + 1, "decoded_token": ""} for one in wanted}

    def _usage(self, prompt: int, written: int, cached: int | None) -> dict[str, Any]:
        made: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
        return made | ({"prompt_tokens_details": {"cached_tokens": cached}} if self.details and cached is not None else {})

    def _streamed(self, body: dict[str, Any], made: Iterator[Any], prompt: int, cached: int) -> Iterator[dict[str, Any]]:
        count, options = 0, body.get("stream_options") or {}
        for tokens, text, how in made:
            count += len(tokens)
            choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": None, "stop_reason": None}
            choice |= {"token_ids": tokens} if body.get("return_token_ids") else {}
            if how:
                choice["finish_reason"] = "length" if how == "limit" else "stop"
                choice["stop_reason"] = how.removeprefix("word") if how.startswith("word") else None
            event = {"id": "cmpl-1", "object": "text_completion", "choices": [choice]}
            yield event | ({"usage": self._usage(prompt, count, None)} if options.get("continuous_usage_stats") else {})
        if options.get("include_usage"):
            yield {"id": "cmpl-1", "object": "text_completion", "choices": [], "usage": self._usage(prompt, count, cached)}


class Sglang(StandIn):
    """As SGLang.

    Args:
        behind, context: as of the class above.
        incremental: whether it runs with ``--incremental-streaming-output``, so that a stream's events have only what is new.
    """

    def __init__(self, behind: str, context: int = 256, *, incremental: bool = False) -> None:
        self.incremental = incremental
        super().__init__(behind, context)

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """See [sg], [sk] and [sh]."""
        if path == "/get_model_info":
            return {"model_path": "abacus", "tokenizer_path": "abacus", "is_generation": True, "preferred_sampling_params": None}
        if path == "/get_server_info":
            return {"context_length": None, "max_total_num_tokens": 4 * self.context, "internal_states": [], "version": "0.6.0"}
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "abacus", "owned_by": "sglang", "max_model_len": self.context}]}
        if path == "/tokenize":
            chat, opening = body.get("messages") is not None, body.get("add_special_tokens", True)
            if isinstance(body.get("prompt"), list):
                some = [self.tokens(one, opening) for one in body["prompt"]]
                return {"tokens": some, "count": [len(one) for one in some], "max_model_len": self.context}
            found = self.templated(body["messages"]) if chat else self.tokens(body["prompt"], opening)
            return {"tokens": found, "count": len(found), "max_model_len": self.context}
        if path == "/detokenize":
            return {"text": self.text(body["tokens"])}
        if path != "/generate":
            raise Refused(404, "Not Found")
        return self._generate(body)

    def _generate(self, body: dict[str, Any]) -> dict[str, Any] | Iterator[dict[str, Any]]:
        tokens, params = body["input_ids"], body["sampling_params"]
        if len(tokens) >= self.context:
            raise Refused(400, f"The input ({len(tokens)} tokens) is longer than the model's context length ({self.context} tokens).")
        if len(tokens) + params["max_new_tokens"] >= self.context:  # [st]
            raise Refused(400, f"Requested token count exceeds the model's maximum context length of {self.context} tokens.")
        if not 0 < params["repetition_penalty"] <= 2:
            raise Refused(400, "repetition_penalty must be in (0, 2] (1.0 = no penalty)")  # [sp]
        start = body.get("logprob_start_len", -1) if body.get("return_logprob") else -1
        cached = self.cached(tokens) if start < 0 else min(self.cached(tokens), start)  # what is asked for is read
        self.told.append((cached, len(tokens)))
        events = self._events(tokens, params, cached)
        if body.get("stream"):
            return events
        *_, last = events
        if start >= 0:  # [so]: the first entry is padded, and what is drawn is no part
            rows = [self.likely(tokens[:place]) for place in range(start + 1, len(tokens))]
            read = [[row[token], token, None] for row, token in zip(rows, tokens[start + 1 :], strict=True)]
            best = [[[row[top], top, None] for top in [max(row, key=lambda one, row=row: row[one])]] for row in rows]
            last["meta_info"] |= {"input_token_logprobs": [[None, tokens[start], None], *read], "input_top_logprobs": [None, *best]}
        return last

    def _events(self, tokens: list[int], params: dict[str, Any], cached: int) -> Iterator[dict[str, Any]]:
        made: list[int] = []
        said, shown = "", ""
        drawn = _drawn(params) | {"seed": params.get("sampling_seed", 0)}
        for some, more, how in self.written(tokens, params["max_new_tokens"], [], drawn):
            made, said = [*made, *some], said + more
            found = next((stop for stop in params.get("stop", []) if stop in said), None)
            end = None
            if found is not None:
                end = {"type": "stop", "matched": found}  # [sp], with no_stop_trim
            elif how:
                end = {"type": "length", "length": len(made)} if how == "limit" else {"type": "stop", "matched": made[-1]}
            text = said if end is not None else _printable(said)
            meta = {
                "id": "1", "finish_reason": end, "prompt_tokens": len(tokens), "completion_tokens": len(made), "cached_tokens": cached,
            }  # fmt: skip  # [st]
            meta |= {"e2e_latency": 0.01} if end is not None else {}
            new = {"text": text[len(shown) :], "output_ids": some} if self.incremental else {"text": text, "output_ids": list(made)}
            shown = text
            yield new | {"meta_info": meta}
            if end is not None:
                return


def _printable(text: str) -> str:
    """A text up to its last whole word, as SGLang streams it (find_printable_text of python/sglang/utils.py)."""
    return text if text.endswith("\n") else text[: text.rfind(" ") + 1] if " " in text else text[: text.rfind("\n") + 1]
