"""SGLang's own API: https://docs.sglang.io/basic_usage/native_api.html and sampling_params.html.

Used are ``/get_model_info``, ``/get_server_info``, ``/v1/models`` (``max_model_len``), ``/tokenize``, ``/detokenize``, and ``/generate``
with ``input_ids``, ``sampling_params``, ``stream``, ``return_logprob``, ``logprob_start_len`` and ``top_logprobs_num``. The fields are
those of ``python/sglang/srt/managers/io_struct.py``, ``tokenizer_manager.py`` and ``sampling/sampling_params.py``, read in October 2026.

``text`` and ``output_ids`` of a stream are all so far, or with the server's ``--incremental-streaming-output`` what is new. A text comes
later than its tokens: an unfinished word is held back. What was read stays in the prefix cache token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from rsd_local.config import Sampling
from rsd_local.remote.answers import MOST, Clock
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
    def speaks(ask: Callable[[str], Any]) -> bool:
        """Whether a server is one; see ``LlamaServer``."""
        return _is_own(ask("/get_model_info"))

    def facts(self) -> Facts:
        """Asks ``/get_model_info``, ``/get_server_info`` and ``/v1/models``."""
        info = self._answers.ask("/get_model_info")
        if not _is_own(info):
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
        room = self._answers.number(server.get("max_total_num_tokens") or context, "max_total_num_tokens", MOST)  # of all its cache
        name, tags = named or self._answers.label(info["model_path"]), self._tokenizer.has_tags()
        # A prompt and what is written behind it are fewer tokens than the context has.
        build = f"SGLang {self._answers.label(server.get('version'))}".strip()
        return Facts("sglang", name, max(0, min(context, room) - 1), tags=tags, build=build, late=True)

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
        read = [self._entry(row) for row in rows[0]]
        if [token for _, token in read] != list(tokens[start:]):
            raise self._answers.garbage("log-probabilities that are not SGLang's")
        best = [self._entry(next(iter(self._answers.kind(row, list, _PATH)), None))[1] for row in rows[1]]
        return Likelihood(tuple(one for one, _ in read), tuple(best), self._timing(meta, clock))

    def write(self, wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        """A streamed request."""
        body = self._asks(wanted.tokens, wanted.limit, wanted.sampling, wanted.seed, wanted.stops or ()) | {"stream": True}
        body["sampling_params"] |= {"ignore_eos": True} if wanted.past_end else {}
        clock, came, said = Clock(), 0, ""
        for event in self._transport.stream(_PATH, body, call, most=wanted.most_events):
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
            status, said = reason.get("status_code"), reason.get("message")
            told = said.encode("utf-8", "replace") if isinstance(said, str) and said else b"the request was ended"
            raise self._transport.faults.of_status(status if isinstance(status, int) and 400 <= status < 600 else 500, told, _PATH)
        if reason.get("type") != "stop":
            raise self._answers.unknown_end(reason.get("type"))
        return ("word" if isinstance(reason.get("matched"), str) else "end"), ""

    def _timing(self, meta: dict[str, Any], clock: Clock) -> Timing:
        cached, computed = meta.get("cached_tokens"), meta.get("e2e_latency")
        return clock.timing(
            self._answers.number(meta.get("prompt_tokens"), "prompt_tokens"),
            self._answers.number(meta.get("completion_tokens", 0), "completion_tokens"),
            None if cached is None else self._answers.number(cached, "cached_tokens"),
            None if computed is None else self._answers.seconds(computed, "e2e_latency"),
        )

    def _entry(self, found: object) -> tuple[float, int]:
        """A token's log-probability, and the token."""
        entry = self._answers.kind(found, list, _PATH)
        if len(entry) < 2:
            raise self._answers.garbage("log-probabilities that are not SGLang's")
        return self._answers.log_probability(entry[0], "a log-probability"), self._answers.token(entry[1])


def _is_own(info: object) -> bool:
    """Whether what ``/get_model_info`` gave is SGLang's."""
    return isinstance(info, dict) and "model_path" in info and "is_generation" in info
