"""SGLang's own API: https://docs.sglang.io/basic_usage/native_api.html and sampling_params.html.

Used are ``/get_model_info``, ``/get_server_info``, ``/v1/models`` (``max_model_len``), ``/tokenize``, ``/detokenize``, and ``/generate``
with ``input_ids``, ``sampling_params``, ``stream``, ``return_logprob``, ``logprob_start_len`` and ``top_logprobs_num``. The fields are
those of ``python/sglang/srt/managers/io_struct.py``, ``tokenizer_manager.py`` and ``sampling/sampling_params.py``, read in October 2026.

``text`` and ``output_ids`` of a stream are all so far, or with the server's ``--incremental-streaming-output`` what is new. A text comes
later than its tokens: an unfinished word is held back. What was read stays in the prefix cache token for token.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from rsd_local.config import Sampling
from rsd_local.remote.answers import Clock
from rsd_local.remote.api import Ended, Ending, Facts, Likelihood, Piece, Timing, Wanted
from rsd_local.remote.hub_tokenizer import HubServer, HubTokenizer
from rsd_local.remote.transport import Call, Transport

_PATH = "/generate"


class SglangServer(HubServer):
    """An SGLang server.

    Args:
        transport: to it.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "SGLang")
        self._tokenizer = HubTokenizer(self._answers, self._role.model, "text", {"skip_special_tokens": False}, {}, lists=True)

    @staticmethod
    def speaks(info: Any) -> bool:
        """Whether what ``/get_model_info`` gave is SGLang's."""
        return isinstance(info, dict) and "model_path" in info and "is_generation" in info

    def facts(self) -> Facts:
        """Asks ``/get_model_info``, ``/get_server_info`` and ``/v1/models``."""
        info = self._answers.ask("/get_model_info")
        if not self.speaks(info):
            raise self._answers.garbage("what /get_model_info answers is not SGLang's")
        if info["is_generation"] is not True:
            raise self._answers.garbage("its model writes no text")
        server = self._answers.ask("/get_server_info")
        cards = self._answers.kind(self._answers.ask("/v1/models").get("data"), list, "/v1/models")
        named = self._role.model
        found = next((one for one in cards if isinstance(one, dict) and named in ("", one.get("id"))), None)
        if found is None:
            raise self._answers.garbage(f"it has no model {named}" if named else "it has no model")
        context = self._answers.number(found.get("max_model_len"), "max_model_len")
        room = server.get("max_total_num_tokens")  # of all its cache
        context = min(context, room) if isinstance(room, int) and room > 0 else context
        name, tags = named or str(info["model_path"]), self._tokenizer.has_tags()
        # A prompt and what is written behind it are fewer tokens than the context has.
        return Facts("sglang", name, max(0, context - 1), tags=tags, build=f"SGLang {server.get('version', '')}".strip(), late=True)

    def evaluate(self, tokens: Sequence[int], slot: int, call: Call, *, reuse: bool) -> Timing:
        """A request for one token, which leaves the prompt in the cache."""
        clock = Clock()
        found = self._answers.ask(_PATH, self._asks(tokens, 1, Sampling(), 0), call)
        return self._timing(self._meta(found), clock)

    def likelihood(self, tokens: Sequence[int], start: int, call: Call) -> Likelihood:
        """A request for one token with the log-probabilities of the prompt's last ones; see ``ReadingServer``.

        The first entry of both lists is that of the token at ``logprob_start_len``, and null.
        """
        clock = Clock()
        wanted = {"return_logprob": True, "logprob_start_len": start - 1, "top_logprobs_num": 1}
        meta = self._meta(self._answers.ask(_PATH, self._asks(tokens, 1, Sampling(), 0) | wanted, call))
        rows = [self._answers.kind(meta.get(name), list, _PATH)[1:] for name in ("input_token_logprobs", "input_top_logprobs")]
        if not len(rows[0]) == len(rows[1]) == len(tokens) - start:
            raise self._answers.garbage(f"log-probabilities of {len(rows[0])} tokens, not of {len(tokens) - start}")
        try:
            if any(int(row[1]) != token for row, token in zip(rows[0], tokens[start:], strict=True)):
                raise ValueError
            read = tuple(float(row[0]) for row in rows[0])
            best = tuple(int(row[0][1]) for row in rows[1])
        except (IndexError, KeyError, TypeError, ValueError):
            raise self._answers.garbage("log-probabilities that are not SGLang's") from None
        return Likelihood(read, best, self._timing(meta, clock))

    def write(self, wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        """A streamed request."""
        body = self._asks(wanted.tokens, wanted.limit, wanted.sampling, wanted.seed, wanted.stops or ()) | {"stream": True}
        clock, came, said = Clock(), 0, ""
        for event in self._transport.stream(_PATH, body, call):
            meta = self._meta(event)
            tokens = self._answers.tokens(event.get("output_ids") or [])
            text = self._answers.text(event.get("text"), _PATH)
            drawn = self._answers.number(meta.get("completion_tokens", came), "completion_tokens")
            if came and len(tokens) == drawn:  # all so far
                tokens, text = tokens[came:], text[len(said) :] if text.startswith(said) else ""
            if tokens:
                clock.first()
            came, said = came + len(tokens), said + text
            end = meta.get("finish_reason")
            if tokens or text:
                yield Piece(tokens, text, timing=None if wanted.stops is not None else self._timing(meta, clock))
            if end is not None:
                how, word = self._ending(end)
                yield Ended(how, word, self._timing(meta, clock))
                return
        raise self._transport.faults.broken()

    def _asks(self, tokens: Sequence[int], limit: int, sampling: Sampling, seed: int, stops: Sequence[str] = ()) -> dict[str, Any]:
        """A request, with all that the model's own defaults would change."""
        penalized = sampling.penalty_last_n > 0
        params: dict[str, Any] = {
            "max_new_tokens": limit, "temperature": sampling.temperature, "top_k": sampling.top_k or -1, "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repetition_penalty": sampling.repeat_penalty if penalized else 1.0,
            "presence_penalty": sampling.presence_penalty if penalized else 0.0,
            "frequency_penalty": sampling.frequency_penalty if penalized else 0.0, "sampling_seed": seed,
            "no_stop_trim": True,  # without it the text so far may shrink where a stop string is completed
        }  # fmt: skip
        return {"input_ids": list(tokens), "sampling_params": params | ({"stop": list(stops)} if stops else {})}

    def _meta(self, found: dict[str, Any]) -> dict[str, Any]:
        return self._answers.kind(found.get("meta_info"), dict, _PATH)

    def _ending(self, found: object) -> tuple[Ending, str]:
        """How an answer ended; a stop string is in its text already."""
        reason = self._answers.kind(found, dict, _PATH)
        if reason.get("type") == "length":
            return "limit", ""
        if reason.get("type") == "abort":
            status = reason.get("status_code")
            said = str(reason.get("message") or "the request was ended").encode()
            raise self._transport.faults.of_status(status if isinstance(status, int) and status >= 400 else 500, said, _PATH)
        if reason.get("type") != "stop":
            raise self._answers.garbage(f"an answer that ended by {reason.get('type')!r}")
        return ("word" if isinstance(reason.get("matched"), str) else "end"), ""

    def _timing(self, meta: dict[str, Any], clock: Clock) -> Timing:
        cached, computed = meta.get("cached_tokens"), meta.get("e2e_latency")
        return clock.timing(
            self._answers.number(meta.get("prompt_tokens"), "prompt_tokens"),
            self._answers.number(meta.get("completion_tokens", 0), "completion_tokens"),
            None if cached is None else self._answers.number(cached, "cached_tokens"),
            float(computed) if isinstance(computed, int | float) and computed >= 0 else None,
        )
