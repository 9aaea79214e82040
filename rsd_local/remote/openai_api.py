"""OpenAI's API, as many servers have it: https://platform.openai.com/docs/api-reference/chat and /completions. Text alone, no tokens.

A conversation goes to ``/v1/chat/completions``, with the answer so far as the assistant's last message; a raw text to ``/v1/completions``.
Whether a server goes on with such a message is tried before the first question: llama-server does, vLLM and SGLang do with
``continue_final_message``, and one that begins a new message is refused.

A ``stop`` is not sent, for no answer says whether it ended by that or by itself: steps end here, and the connection is closed.
``usage`` then does not come, and what came is counted instead.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from os.path import commonprefix
from typing import Any

from rsd_local.config import Sampling, TemplateValue
from rsd_local.errors import BadAnswer, ConfigError, RemoteRefused
from rsd_local.prompt import Prompt
from rsd_local.remote.answers import MOST, Answers, Clock, is_count
from rsd_local.remote.api import UNKNOWN_CONTEXT, Ended, Ending, Facts, Piece, Timing, Wanted
from rsd_local.remote.texts import Chat, TextToken, chat_of, size_of, texts_of
from rsd_local.remote.transport import Call, Transport

log = logging.getLogger("rsd_local")
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
_WAYS: tuple[dict[str, Any], ...] = ({}, {"add_generation_prompt": False, "continue_final_message": True})
"""Fields with which servers go on with an assistant's message."""
_QUESTION, _TRIED, _MORE = "(12+34)*5-6", 24, 8
_LINES = re.compile(r"[^\n]*\n+|[^\n]+")
_CONTEXTS = ("max_model_len", "context_length", "context_window", "n_ctx")
_ENDS: dict[str, Ending] = {"stop": "end", "length": "limit", "eos": "end", "eos_token": "end"}
_OWN = "use a server's own API (api = llama-server, vllm or sglang)"
_SAID = "steps are tokenized anew on each side, nothing is sent ahead, and counters are estimates"
_warned = set[str]()


class OpenAiServer:
    """A server with OpenAI's API.

    Args:
        transport: to it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport, self._role = transport, transport.role
        self._answers = Answers(transport, "OpenAI's API")
        self._card = self._model()
        self._name = self._role.model or self._answers.text(self._card.get("id"), "/v1/models")
        self._way: dict[str, Any] | None = None

    @staticmethod
    def speaks(ask: Callable[[str], Any]) -> bool:
        """Whether ``/v1/models`` of a server gives a list of models; see ``LlamaServer``."""
        models = ask("/v1/models")
        return isinstance(models, dict) and isinstance(models.get("data"), list)

    def facts(self) -> Facts:
        """What ``/v1/models`` says; OpenAI's own gives names alone."""
        meta = self._card.get("meta")
        card: dict[str, Any] = self._card | (meta if isinstance(meta, dict) else {})
        context = next((card[name] for name in _CONTEXTS if is_count(card.get(name)) and card[name] > 0), UNKNOWN_CONTEXT)
        if self._role.url not in _warned:
            _warned.add(self._role.url)
            log.warning("%s takes and gives text alone: %s", self._role.url, _SAID)
        return Facts(
            "openai",
            self._answers.label(self._name),
            context,
            parameters=card["n_params"] if is_count(card.get("n_params"), MOST) else 0,
            build="OpenAI's API",
            texts=True,
            ahead=False,
        )

    def tokenize(self, text: str, *, special: bool = False, opening: bool = False, call: Call | None = None) -> list[int]:
        """A text as one piece."""
        return [TextToken(text)] if text else []

    def piece(self, token: int) -> str:
        """The text of a piece."""
        return texts_of([token])

    def chat(self, prompt: Prompt, variables: Mapping[str, TemplateValue]) -> str:
        """A conversation, packed: the server templates it.

        Raises:
            RemoteRefused: the server does not go on with an answer that was begun.
        """
        if self._way is None:
            self._way = self._find_way()
        return Chat.of(prompt, variables).packed()

    def evaluate(self, tokens: Sequence[int], slot: int, call: Call, *, reuse: bool) -> Timing:
        """A request for one token; how much of it stays in a cache is the server's affair."""
        clock = Clock()
        path, body = self._asks(tokens, 1, Sampling(), 0)
        return self._timing(self._answers.ask(path, body, call).get("usage"), clock, tokens, 1)

    def write(self, wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        """A streamed completion, in pieces that end where a line does."""
        path, body = self._asks(wanted.tokens, wanted.limit, wanted.sampling, wanted.seed)
        yield from self._streamed(path, body, wanted, call)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._role.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _streamed(self, path: str, body: dict[str, Any], wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        clock, came, end, usage, tokens = Clock(), 0, "", None, wanted.tokens
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        for event in self._transport.stream(path, body, call, most=wanted.most_events):
            usage = event.get("usage") or usage
            choices = self._answers.kind(event.get("choices", []), list, path)
            if not choices:
                continue
            choice = self._answers.first(choices, path)
            said = choice.get("text") if path == _TEXT else self._answers.kind(choice.get("delta") or {}, dict, path).get("content")
            end = end or self._answers.text(choice.get("finish_reason"), path)
            for text in _LINES.findall(self._answers.text(said, path)):
                clock.first()
                came += 1
                yield Piece((TextToken(text, 1),), text, timing=self._timing(None, clock, tokens, came))
        if not end:
            raise self._transport.faults.broken()
        if end not in _ENDS:
            raise self._answers.unknown_end(end)
        timing = self._timing(usage, clock, tokens, came)
        if min(timing.written, wanted.limit) > came:  # tokens that show as no text, such as that of the end
            yield Piece((TextToken("", 1),) * (min(timing.written, wanted.limit) - came), "", timing=timing)
        yield Ended(_ENDS[end], "", timing)

    def _asks(self, tokens: Sequence[int], limit: int, sampling: Sampling, seed: int) -> tuple[str, dict[str, Any]]:
        """A path and what it is asked; fields that OpenAI's API does not know only where they change something."""
        body: dict[str, Any] = {"max_tokens": limit, "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed % 2**31}
        body |= {"model": self._name} if self._name else {}
        body |= {"top_k": sampling.top_k} if sampling.top_k and sampling.temperature else {}
        body |= {"min_p": sampling.min_p} if sampling.min_p and sampling.temperature else {}
        if sampling.penalty_last_n:
            one = sampling.repeat_penalty
            body |= {"repetition_penalty": one, "repeat_penalty": one} if one != 1 else {}  # vLLM's name and llama.cpp's
            body |= {"presence_penalty": sampling.presence_penalty} if sampling.presence_penalty else {}
            body |= {"frequency_penalty": sampling.frequency_penalty} if sampling.frequency_penalty else {}
        chat, text = chat_of(tokens), texts_of(tokens)
        if chat is None:
            return _TEXT, body | {"prompt": text}
        body |= {"chat_template_kwargs": chat.variables} if chat.variables else {}
        begun = [{"role": "assistant", "content": text}] if text else []
        return _CHAT, body | {"messages": [*chat.messages, *begun]} | ((self._way or {}) if begun else {})

    def _timing(self, usage: object, clock: Clock, tokens: Sequence[int], came: int) -> Timing:
        """By ``usage``; without it what came, behind a prompt of about its text's size."""
        if not isinstance(usage, dict):
            return clock.timing(max(1, size_of(tokens)), came, None)
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt = self._answers.number(usage.get("prompt_tokens"), "prompt_tokens")
        written = self._answers.number(usage.get("completion_tokens", 0), "completion_tokens")
        return clock.timing(prompt, written, cached if is_count(cached) else None)

    def _model(self) -> dict[str, Any]:
        """The model's card, empty where the server lists none and one is named."""
        try:
            listed = self._answers.kind(self._answers.ask("/v1/models").get("data"), list, "/v1/models")
        except (RemoteRefused, BadAnswer):
            if not self._role.model:
                raise
            listed = []
        cards = [one for one in listed if isinstance(one, dict)]
        named = self._role.model
        found = next((one for one in cards if one.get("id") == named), None) if named else next(iter(cards), None)
        if found is None and cards:
            raise ConfigError(f"{self._role.url} has no model {named}", hint=f"such as {self._answers.label(cards[0].get('id'))}")
        return found or {}

    def _find_way(self) -> dict[str, Any]:
        """How this server goes on with an assistant's message: with half of an answer it must write the other half.

        Raises:
            RemoteRefused: it does not.
        """
        asked = Chat([{"role": "user", "content": _QUESTION}], {})
        pieces = self._tried(asked, "", {}, _TRIED)
        middle = next((place for place in range(len(pieces) // 2, len(pieces)) if not pieces[place - 1][-1:].isspace()), 0)
        begun, rest = "".join(pieces[:middle]), "".join(pieces[middle:])
        if not begun or not rest:
            raise RemoteRefused(f"{self._role.url} answers a test question with too little text, or only with hidden thoughts", hint=_OWN)
        for way in _WAYS:
            try:
                more = "".join(self._tried(asked, begun, way, _MORE))
            except RemoteRefused:
                continue
            if more and len(commonprefix([more, rest])) >= min(3, len(more), len(rest)):
                return way
        raise RemoteRefused(f"{self._role.url} begins anew where an assistant's answer is to be gone on with", hint=_OWN)

    def _tried(self, chat: Chat, begun: str, way: dict[str, Any], limit: int) -> list[str]:
        self._way = way
        try:
            tokens = [TextToken(chat.packed()), *([TextToken(begun)] if begun else [])]
            path, body = self._asks(tokens, limit, Sampling(), 0)
            wanted = Wanted(tokens, limit, None, Sampling(), 0, -1)
            return [one.text for one in self._streamed(path, body, wanted, Call()) if isinstance(one, Piece) and one.text]
        finally:
            self._way = None
