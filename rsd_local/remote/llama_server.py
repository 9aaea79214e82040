"""llama-server's own API: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md.

Used are ``/props``, ``/v1/models`` (``meta``), ``/tokenize``, ``/detokenize``, ``/apply-template`` and ``/completion`` with
``id_slot``, ``cache_prompt``, ``n_predict``, ``stop``, ``return_tokens``, ``stream`` and ``timings``. Read with its build of October 2026.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from rsd_local.config import Sampling, TemplateValue
from rsd_local.prompt import Prompt
from rsd_local.remote.answers import Answers
from rsd_local.remote.api import Ended, Ending, Facts, Piece, Timing, Wanted
from rsd_local.remote.transport import Call, Transport

_FIELDS = ["content", "tokens", "stop", "stop_type", "stopping_word", "truncated", "tokens_predicted", "timings"]
_SAMPLERS = ["penalties", "top_k", "temperature", "top_p", "min_p"]  # in the order in which this package draws
_ENDS: dict[str, Ending] = {"eos": "end", "word": "word", "limit": "limit"}


class LlamaServer:
    """A llama-server.

    Args:
        transport: to it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport, self._role = transport, transport.role
        self._answers = Answers(transport, "llama-server")
        self._pieces: dict[int, str] = {}

    @staticmethod
    def speaks(props: Any) -> bool:
        """Whether what ``/props`` gave is llama-server's."""
        return isinstance(props, dict) and "default_generation_settings" in props and "total_slots" in props

    def facts(self) -> Facts:
        """Asks ``/props`` and ``/v1/models``."""
        named = self._role.model
        props = self._answers.kind(self._transport.ask("/props" + (f"?model={named}" if named else "")), dict, "/props")
        if not self.speaks(props):
            raise self._transport.faults.garbage("what /props answers is not llama-server's")
        listed = self._answers.ask("/v1/models").get("data")
        models = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        found = next((one for one in models if named in (one.get("id"), *(one.get("aliases") or ()))), models[0] if models else {})
        told = found.get("meta")
        meta: dict[str, Any] = told if isinstance(told, dict) else {}
        settings = self._answers.kind(props["default_generation_settings"], dict, "/props")
        return Facts(
            "llama-server",
            named or str(props.get("model_alias") or found.get("id") or ""),
            self._answers.number(settings.get("n_ctx"), "n_ctx"),
            self._answers.number(props["total_slots"], "total_slots"),
            self._answers.number(meta.get("n_vocab", 0), "n_vocab"),
            self._answers.number(meta.get("n_params", 0), "n_params"),
            str(props.get("chat_template") or ""),
            f"llama-server {props.get('build_info', '')}".strip(),
        )

    def tokenize(self, text: str, *, special: bool = False, opening: bool = False, call: Call | None = None) -> list[int]:
        """The tokens of a text; see ``Server``."""
        body = self._named({"content": text, "add_special": opening, "parse_special": special})
        found = self._answers.kind(self._transport.ask("/tokenize", body, call), dict, "/tokenize").get("tokens")
        return list(self._answers.tokens(found))

    def piece(self, token: int) -> str:
        """The text of a token."""
        if token not in self._pieces:
            found = self._answers.kind(self._transport.ask("/detokenize", self._named({"tokens": [token]})), dict, "/detokenize")
            self._pieces[token] = self._answers.kind(found.get("content"), str, "/detokenize")
        return self._pieces[token]

    def chat(self, prompt: Prompt, variables: Mapping[str, TemplateValue]) -> str:
        """A conversation as ``/apply-template`` writes it."""
        body: dict[str, Any] = {"messages": [{"role": one.role, "content": one.content} for one in prompt.messages]}
        if variables:
            body["chat_template_kwargs"] = dict(variables)
        found = self._answers.kind(self._transport.ask("/apply-template", self._named(body)), dict, "/apply-template").get("prompt")
        return self._answers.kind(found, str, "/apply-template")

    def evaluate(self, tokens: Sequence[int], slot: int, call: Call, *, reuse: bool) -> Timing:
        """A completion of no token, which leaves the prompt in the slot's cache."""
        body = {"prompt": list(tokens), "n_predict": 0, "id_slot": slot, "cache_prompt": reuse, "response_fields": ["timings"]}
        found = self._transport.ask("/completion", self._named(body | _drawn(Sampling())), call)
        return self._timing(self._answers.kind(found, dict, "/completion").get("timings"))

    def write(self, wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        """A streamed completion with token ids."""
        body = {
            "prompt": list(wanted.tokens),
            "n_predict": wanted.limit,
            "id_slot": wanted.slot,
            "cache_prompt": True,
            "stop": list(wanted.stops or ()),
            "seed": wanted.seed,
            "return_tokens": True,
            "stream": True,
            "timings_per_token": wanted.stops is None,  # whoever ends it early still learns what it took
            "response_fields": _FIELDS,
        }
        came = 0
        for event in self._transport.stream("/completion", self._named(body | _drawn(wanted.sampling)), call):
            drawn = self._answers.number(event.get("tokens_predicted", came), "tokens_predicted")
            tokens = self._answers.tokens(event.get("tokens", []))
            if event.get("stop"):
                how = "context" if event.get("truncated") else _ENDS.get(str(event.get("stop_type")))
                if how is None:
                    raise self._transport.faults.garbage(f"an answer that ended by {event.get('stop_type')!r}")
                yield Ended(how, str(event.get("stopping_word") or ""), self._timing(event.get("timings")), max(0, drawn - came))
                return
            lost = max(0, drawn - came - len(tokens))
            came += lost + len(tokens)
            timing = self._timing(event["timings"]) if "timings" in event else None
            yield Piece(tokens, self._answers.kind(event.get("content", ""), str, "/completion"), lost, timing)
        raise self._transport.faults.broken()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._role.url

    def pieces(self, text: str, *, special: bool, call: Call | None = None) -> list[tuple[int, bytes]]:
        """The tokens of a text with what each stands for, a control token as its vocabulary spells it.

        Args:
            text: the text.
            special: as for ``tokenize``.
            call: the request, to end it.
        """
        body = {"content": text, "add_special": False, "parse_special": special, "with_pieces": True}
        found = self._answers.kind(self.ask("/tokenize", body, call), dict, "/tokenize").get("tokens")
        try:
            return [(int(one["id"]), _bytes(one["piece"])) for one in self._answers.kind(found, list, "/tokenize")]
        except (KeyError, TypeError, ValueError):
            raise self._transport.faults.garbage("tokens without their pieces") from None

    def marks(self) -> tuple[str, str]:
        """The texts of the beginning-of-text and the end-of-text token, empty where there is none."""
        named = self._role.model
        props = self._answers.kind(self._transport.ask("/props" + (f"?model={named}" if named else "")), dict, "/props")
        return str(props.get("bos_token") or ""), str(props.get("eos_token") or "")

    def completion(self, body: dict[str, Any], call: Call) -> dict[str, Any]:
        """What ``/completion`` answers as a whole."""
        return self._answers.kind(self.ask("/completion", body, call), dict, "/completion")

    def timing(self, found: dict[str, Any]) -> Timing:
        """What a completion took."""
        return self._timing(found.get("timings"))

    def ask(self, path: str, body: dict[str, Any], call: Call | None = None, **limits: int) -> Any:
        """What a path answers to a body, in which the model is named where the server has several; see ``Transport.ask``."""
        return self._transport.ask(path, self._named(body), call, **limits)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _named(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body that names the model, where the server has several."""
        return body | {"model": self._role.model} if self._role.model else body

    def _timing(self, found: object) -> Timing:
        told = self._answers.kind(found, dict, "/completion")
        try:
            return Timing(
                int(told["cache_n"]),
                int(told["prompt_n"]),
                int(told["predicted_n"]),
                max(0.0, float(told["prompt_ms"])) / 1e3,
                max(0.0, float(told["predicted_ms"])) / 1e3,
            )
        except (KeyError, TypeError, ValueError):
            raise self._transport.faults.garbage("timings that are not llama-server's") from None


def _bytes(piece: object) -> bytes:
    """A token's text, which is a list of bytes where it is no UTF-8."""
    return piece.encode("utf-8", "replace") if isinstance(piece, str) else bytes(piece)  # type: ignore[call-overload]


def _drawn(sampling: Sampling) -> dict[str, Any]:
    """How tokens are drawn, as llama-server has it."""
    if sampling.temperature == 0:  # the sampling that costs least
        made: dict[str, Any] = {"temperature": 0.0, "top_k": 1, "samplers": ["penalties", "top_k"]}
    else:
        made = {
            "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p,
            "samplers": _SAMPLERS,
        }  # fmt: skip
    penalties = {
        "repeat_penalty": sampling.repeat_penalty, "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty, "repeat_last_n": sampling.penalty_last_n,
    }  # fmt: skip
    return made | penalties
