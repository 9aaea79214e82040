"""llama-server's own API: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md.

Used are ``/props``, ``/v1/models`` (``meta``), ``/tokenize``, ``/detokenize``, ``/apply-template`` and ``/completion`` with
``id_slot``, ``cache_prompt``, ``n_predict``, ``stop``, ``return_tokens``, ``stream`` and ``timings``. Read with its build of October 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rsd_local.config import Sampling, TemplateValue
from rsd_local.prompt import Prompt
from rsd_local.remote.answers import MOST, Answers
from rsd_local.remote.api import Ended, Ending, Facts, Piece, Timing, Wanted
from rsd_local.remote.transport import Call, Transport

_FIELDS = ["content", "tokens", "stop", "stop_type", "stopping_word", "truncated", "tokens_predicted", "timings"]
_SAMPLERS = ["penalties", "top_k", "temperature", "top_p", "min_p"]  # in the order in which this package draws
_SLOTS = 4096  # that a server has at most
_ENDS: dict[str, Ending] = {"eos": "end", "word": "word", "limit": "limit"}


class LlamaServer:
    """A llama-server.

    Args:
        transport: to it.

    Attributes:
        answers: looks at what it answers.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport, self._role = transport, transport.role
        self.answers = Answers(transport, "llama-server")
        self._pieces: dict[int, str] = {}

    @staticmethod
    def speaks(ask: Callable[[str], Any]) -> bool:
        """Whether a server is one.

        Args:
            ask: gives what a path answers, None where there is none.
        """
        return _is_own(ask("/props"))

    def facts(self) -> Facts:
        """Asks ``/props`` and ``/v1/models``."""
        props, named, answers = self._props(), self._role.model, self.answers
        if not _is_own(props):
            raise answers.garbage("what /props answers is not llama-server's")
        listed = answers.ask("/v1/models").get("data")
        models = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        found = next((one for one in models if named in _names(one)), models[0] if models else {})
        told = found.get("meta")
        meta: dict[str, Any] = told if isinstance(told, dict) else {}
        settings = answers.kind(props["default_generation_settings"], dict, "/props")
        return Facts(
            "llama-server",
            named or answers.label(props.get("model_alias")) or answers.label(found.get("id")),
            answers.number(settings.get("n_ctx"), "n_ctx"),
            answers.number(props["total_slots"], "total_slots", _SLOTS),
            answers.number(meta.get("n_vocab", 0), "n_vocab"),
            answers.number(meta.get("n_params", 0), "n_params", MOST),
            answers.text(props.get("chat_template"), "/props"),
            f"llama-server {answers.label(props.get('build_info'))}".strip(),
        )

    def tokenize(self, text: str, *, special: bool = False, opening: bool = False, call: Call | None = None) -> list[int]:
        """The tokens of a text; see ``Server``."""
        body = self._named({"content": text, "add_special": opening, "parse_special": special})
        found = self.answers.kind(self._transport.ask("/tokenize", body, call), dict, "/tokenize").get("tokens")
        return list(self.answers.tokens(found))

    def piece(self, token: int) -> str:
        """The text of a token."""
        if token not in self._pieces:
            found = self.answers.kind(self._transport.ask("/detokenize", self._named({"tokens": [token]})), dict, "/detokenize")
            self._pieces[token] = self.answers.string(found.get("content"), "/detokenize")
        return self._pieces[token]

    def chat(self, prompt: Prompt, variables: Mapping[str, TemplateValue]) -> str:
        """A conversation as ``/apply-template`` writes it."""
        body: dict[str, Any] = {"messages": [{"role": one.role, "content": one.content} for one in prompt.messages]}
        if variables:
            body["chat_template_kwargs"] = dict(variables)
        found = self.answers.kind(self._transport.ask("/apply-template", self._named(body)), dict, "/apply-template").get("prompt")
        return self.answers.string(found, "/apply-template")

    def evaluate(self, tokens: Sequence[int], slot: int, call: Call, *, reuse: bool) -> Timing:
        """A completion of no token, which leaves the prompt in the slot's cache."""
        body = {"prompt": list(tokens), "n_predict": 0, "id_slot": slot, "cache_prompt": reuse, "response_fields": ["timings"]}
        found = self._transport.ask("/completion", self._named(body | _drawn(Sampling())), call)
        return self._timing(self.answers.kind(found, dict, "/completion").get("timings"))

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
        } | ({"ignore_eos": True} if wanted.past_end else {})
        came = 0
        for event in self._transport.stream("/completion", self._named(body | _drawn(wanted.sampling)), call, most=wanted.most_events):
            drawn = self.answers.number(event.get("tokens_predicted", came), "tokens_predicted")
            tokens = self.answers.tokens(event.get("tokens", []))
            if event.get("stop"):
                by = event.get("stop_type")
                how = "context" if event.get("truncated") else _ENDS.get(by) if isinstance(by, str) else None
                if how is None:
                    raise self.answers.unknown_end(by)
                word = self.answers.text(event.get("stopping_word"), "/completion")
                yield Ended(how, word, self._timing(event.get("timings")), max(0, drawn - came))
                return
            lost = max(0, drawn - came - len(tokens))
            came += lost + len(tokens)
            timing = self._timing(event["timings"]) if "timings" in event else None
            yield Piece(tokens, self.answers.text(event.get("content"), "/completion"), lost, timing)
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
        found = self.answers.kind(self.ask("/tokenize", body, call), dict, "/tokenize").get("tokens")
        try:
            return [(self.answers.token(one["id"]), _bytes(one["piece"])) for one in self.answers.kind(found, list, "/tokenize")]
        except (KeyError, TypeError, ValueError):
            raise self.answers.garbage("tokens without their pieces") from None

    def marks(self) -> tuple[str, str]:
        """The texts of the beginning-of-text and the end-of-text token, empty where there is none."""
        props = self._props()
        return self.answers.text(props.get("bos_token"), "/props"), self.answers.text(props.get("eos_token"), "/props")

    def completion(self, body: dict[str, Any], call: Call) -> dict[str, Any]:
        """What ``/completion`` answers as a whole."""
        return self.answers.kind(self.ask("/completion", body, call), dict, "/completion")

    def timing(self, found: dict[str, Any]) -> Timing:
        """What a completion took."""
        return self._timing(found.get("timings"))

    def ask(self, path: str, body: dict[str, Any], call: Call | None = None, **limits: int) -> Any:
        """What a path answers to a body, in which the model is named where the server has several; see ``Transport.ask``."""
        return self._transport.ask(path, self._named(body), call, **limits)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _props(self) -> dict[str, Any]:
        named = self._role.model
        return self.answers.kind(self._transport.ask("/props" + (f"?model={quote(named)}" if named else "")), dict, "/props")

    def _named(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body that names the model, where the server has several."""
        return body | {"model": self._role.model} if self._role.model else body

    def _timing(self, found: object) -> Timing:
        told, answers = self.answers.kind(found, dict, "/completion"), self.answers
        return Timing(
            answers.number(told.get("cache_n"), "cache_n"),
            answers.number(told.get("prompt_n"), "prompt_n"),
            answers.number(told.get("predicted_n"), "predicted_n"),
            answers.milliseconds(told.get("prompt_ms"), "prompt_ms"),
            answers.milliseconds(told.get("predicted_ms"), "predicted_ms"),
        )


def _is_own(props: object) -> bool:
    """Whether what ``/props`` gave is llama-server's."""
    return isinstance(props, dict) and "default_generation_settings" in props and "total_slots" in props


def _names(card: dict[str, Any]) -> list[object]:
    """What a model is called."""
    others = card.get("aliases")
    return [card.get("id"), *(others if isinstance(others, list) else ())]


def _bytes(piece: object) -> bytes:
    """A token's text, which is a list of bytes where it is no UTF-8."""
    if isinstance(piece, str):
        return piece.encode("utf-8", "replace")
    if not isinstance(piece, list):
        raise TypeError(piece)
    return bytes(piece)


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
