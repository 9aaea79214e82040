"""vLLM's OpenAI-compatible server: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html.

Used are ``/version``, ``/v1/models`` (``max_model_len``), ``/tokenize``, ``/detokenize`` and ``/v1/completions`` with token ids as the
prompt, ``return_token_ids``, ``stop``, ``stream_options`` and ``prompt_logprobs``. The fields are those of
``vllm/entrypoints/openai/completion/protocol.py`` and ``vllm/entrypoints/serve/tokenize/protocol.py``, read in October 2026.

``max_tokens`` is at least 1, so what is sent ahead draws one token, from the output that reading the prompt gives anyway. What was read
stays in vLLM's prefix cache in whole blocks. With ``prompt_logprobs`` vLLM reads the whole prompt again, for what is in the cache gives
none (``SamplingParams.skip_reading_prefix_cache``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from rsd_local.config import Sampling
from rsd_local.remote.answers import Clock
from rsd_local.remote.api import Ended, Ending, Facts, Likelihood, Piece, Timing, Wanted
from rsd_local.remote.hub_tokenizer import HubServer, HubTokenizer
from rsd_local.remote.transport import Call, Transport

_PATH = "/v1/completions"
_DIGITS = 10  # of a token's id


class VllmServer(HubServer):
    """A vLLM server.

    Args:
        transport: to it.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "vLLM")
        self._card = self._model()
        self._name = self._answers.string(self._card["id"], "/v1/models")
        self._tokenizer = HubTokenizer(self._answers, self._name, "prompt", {}, {"add_generation_prompt": True}, lists=False)

    @staticmethod
    def speaks(ask: Callable[[str], Any]) -> bool:
        """Whether a server is one: its models say how long their context is, and others have a version too; see ``LlamaServer``."""
        version = ask("/version")
        if not isinstance(version, dict) or not isinstance(version.get("version"), str):
            return False
        models = ask("/v1/models")
        listed = models.get("data") if isinstance(models, dict) else None
        return isinstance(listed, list) and any(isinstance(one, dict) and "max_model_len" in one for one in listed)

    def facts(self) -> Facts:
        """Asks ``/version``; ``/v1/models`` was asked."""
        version = self._answers.label(self._answers.ask("/version").get("version"))
        context = self._answers.number(self._card.get("max_model_len"), "max_model_len")
        name, tags = self._answers.label(self._name), self._tokenizer.has_tags()
        return Facts("vllm", name, context, tags=tags, build=f"vLLM {version}".strip(), late=True)

    def evaluate(self, tokens: Sequence[int], slot: int, call: Call, *, reuse: bool) -> Timing:
        """A completion of one token, which leaves the prompt's blocks in the cache."""
        clock = Clock()
        found = self._answers.ask(_PATH, self._asks(tokens, 1, Sampling(), 0), call)
        return self._timing(found.get("usage"), clock)

    def likelihood(self, tokens: Sequence[int], start: int, call: Call) -> Likelihood:
        """A completion of one token with the log-probabilities of the prompt; see ``ReadingServer``."""
        clock = Clock()
        found = self._answers.ask(_PATH, self._asks(tokens, 1, Sampling(), 0) | {"prompt_logprobs": 1}, call)
        rows = self._answers.kind(self._answers.first(found.get("choices"), _PATH).get("prompt_logprobs"), list, _PATH)
        if len(rows) != len(tokens):
            raise self._answers.garbage(f"log-probabilities of {len(rows)} tokens, not of {len(tokens)}")
        read = [self._row(row, token) for row, token in zip(rows[start:], tokens[start:], strict=True)]
        timing = replace(self._timing(found.get("usage"), clock), told=True)  # nothing was cached, whether it says so or not
        return Likelihood(tuple(one for one, _ in read), tuple(best for _, best in read), timing)

    def write(self, wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        """A streamed completion with token ids."""
        body = self._asks(wanted.tokens, wanted.limit, wanted.sampling, wanted.seed) | {
            "stop": list(wanted.stops or ()),
            "include_stop_str_in_output": False,  # which stop string it was, the answer says
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": wanted.stops is None},
        }
        body |= {"ignore_eos": True} if wanted.past_end else {}
        clock, end, word, usage = Clock(), "", "", None
        for event in self._transport.stream(_PATH, body, call, most=wanted.most_events):
            usage = event.get("usage") or usage
            choices = self._answers.kind(event.get("choices"), list, _PATH)
            if not choices:
                continue
            choice = self._answers.first(choices, _PATH)
            clock.first()
            tokens = self._answers.tokens(choice.get("token_ids") or [])
            text = self._answers.text(choice.get("text"), _PATH)
            end, reason = end or self._answers.text(choice.get("finish_reason"), _PATH), choice.get("stop_reason")
            word = self._answers.string(reason, _PATH) if isinstance(reason, str) else word
            if tokens or text:
                yield Piece(tokens, text, timing=None if wanted.stops is not None or usage is None else self._timing(usage, clock))
        if not end:
            raise self._transport.faults.broken()
        yield Ended(self._ending(end, word), word, self._timing(usage, clock))

    def _model(self) -> dict[str, Any]:
        """The model's card."""
        listed = self._answers.kind(self._answers.ask("/v1/models").get("data"), list, "/v1/models")
        cards = [one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]
        named = self._role.model
        found = next((one for one in cards if one["id"] == named), None) if named else (cards[0] if cards else None)
        if found is None:
            raise self._answers.garbage(f"it has no model {named}" if named else "it has no model")
        return found

    def _asks(self, tokens: Sequence[int], limit: int, sampling: Sampling, seed: int) -> dict[str, Any]:
        """A request, with all that the server's own defaults would change."""
        penalized = sampling.penalty_last_n > 0
        return {
            "model": self._name, "prompt": list(tokens), "max_tokens": limit, "add_special_tokens": False, "return_token_ids": True,
            "temperature": sampling.temperature, "seed": seed, "top_k": sampling.top_k or -1, "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repetition_penalty": sampling.repeat_penalty if penalized else 1.0,
            "presence_penalty": sampling.presence_penalty if penalized else 0.0,
            "frequency_penalty": sampling.frequency_penalty if penalized else 0.0,
        }  # fmt: skip

    def _ending(self, end: str, word: str) -> Ending:
        if end == "length":
            return "limit"
        if end != "stop":
            raise self._answers.unknown_end(end)
        return "word" if word else "end"

    def _timing(self, found: object, clock: Clock) -> Timing:
        usage = self._answers.kind(found, dict, _PATH)
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt = self._answers.number(usage.get("prompt_tokens"), "prompt_tokens")
        written = self._answers.number(usage.get("completion_tokens", 0), "completion_tokens")
        return clock.timing(prompt, written, None if cached is None else self._answers.number(cached, "cached_tokens"))

    def _row(self, row: object, token: int) -> tuple[float, int]:
        """A prompt token's log-probability, and the most likely token in its place."""
        ranked = dict[int, tuple[float, int]]()
        for key, one in self._answers.kind(row, dict, _PATH).items():
            if not key.isdecimal() or len(key) > _DIGITS:
                raise self._answers.wrong("a token", key)
            said = self._answers.kind(one, dict, _PATH)
            rank = self._answers.number(said.get("rank"), "rank")
            ranked[int(key)] = self._answers.log_probability(said.get("logprob"), "logprob"), rank
        if token not in ranked:
            raise self._answers.garbage("prompt_logprobs that are not vLLM's")
        best = self._answers.token(min(ranked, key=lambda key: ranked[key][1]))
        return ranked[token][0], best
