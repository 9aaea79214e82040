"""``/tokenize`` and ``/detokenize`` of vLLM and SGLang, behind which is a tokenizer of Hugging Face.

Both take a ``prompt`` or, with the chat template, ``messages`` (SGLang's newer versions), and ``add_special_tokens``. Neither can be told
to make no control token of the text of one, so such a text is split before it is sent.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from rsd_local.config import TemplateValue
from rsd_local.prompt import Prompt
from rsd_local.remote.answers import Answers
from rsd_local.remote.transport import Call, Transport
from rsd_local.steps import THOUGHT_TAGS

_MARKS = re.compile(r"<[^<>\s]{1,64}>|\[[^\[\]\s]{1,64}\]")
"""What may be the text of a control token."""
_KNOWN = 10_000  # of them
_CHATS = 64  # whose tokens are kept


class HubTokenizer:
    """The tokenizer of a server.

    Args:
        answers: asks it.
        model: that every request names.
        text: the field of ``/detokenize``'s answer.
        shown: fields of ``/detokenize`` with which control tokens have a text.
        templated: fields of ``/tokenize`` beside messages.
        lists: whether it takes several prompts at once; otherwise it gives the tokens' texts (``return_token_strs``).
    """

    def __init__(
        self, answers: Answers, model: str, text: str, shown: Mapping[str, Any], templated: Mapping[str, Any], *, lists: bool
    ) -> None:
        self._answers, self._model, self._text, self._lists = answers, model, text, lists
        self._shown, self._templated = dict(shown), dict(templated)
        self._pieces: dict[int, str] = {}
        self._added: dict[str, bool] = {}
        self._opening: list[int] | None = None
        self._chats: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def tokenize(self, text: str, *, special: bool = False, opening: bool = False, call: Call | None = None) -> list[int]:
        """The tokens of a text; see ``Server``."""
        if special and opening:  # of a chat, as the server itself makes them
            with self._lock:
                made = next(((chat, tokens) for chat, tokens in self._chats.items() if text.startswith(chat)), None)
            if made is not None:
                rest = text[len(made[0]) :]
                return [*made[1], *(self._asked(rest, call) if rest else [])]
        tokens: list[int] = []
        for part in [text] if special else self._split(text, call):
            tokens += self._asked(part, call) if part else []
        if opening:
            begin = self._begin(call)
            tokens = tokens if tokens[: len(begin)] == begin else begin + tokens
        return tokens

    def piece(self, token: int) -> str:
        """The text of a token."""
        if token not in self._pieces:
            self._pieces[token] = self._spelled([token], None)
        return self._pieces[token]

    def has_tags(self) -> bool:
        """Whether the end of a thought is one token."""
        return len(self._asked(THOUGHT_TAGS[1], None)) == 1

    def chat(self, prompt: Prompt, variables: Mapping[str, TemplateValue]) -> str:
        """A conversation as the server's chat template writes it."""
        body: dict[str, Any] = {"messages": [{"role": one.role, "content": one.content} for one in prompt.messages], **self._templated}
        if variables:
            body["chat_template_kwargs"] = dict(variables)
        tokens = list(self._answers.tokens(self._answers.ask("/tokenize", self._named(body)).get("tokens")))
        text = self._spelled(tokens, None)
        if text:
            with self._lock:
                self._chats[text] = tokens
                while len(self._chats) > _CHATS:
                    del self._chats[next(iter(self._chats))]
        return text

    def _asked(self, text: str, call: Call | None, *, opening: bool = False) -> list[int]:
        body = self._named({"prompt": text, "add_special_tokens": opening})
        return list(self._answers.tokens(self._answers.ask("/tokenize", body, call).get("tokens")))

    def _single(self, marks: list[str], call: Call | None) -> set[str]:
        """Those of some texts that are one token, from one request."""
        if self._lists:
            found = self._answers.ask("/tokenize", self._named({"prompt": marks, "add_special_tokens": False}), call)
            rows = self._answers.kind(found.get("tokens"), list, "/tokenize")
            return {mark for mark, row in zip(marks, rows, strict=False) if len(self._answers.tokens(row)) == 1}
        body = {"prompt": "\n".join(marks), "add_special_tokens": False, "return_token_strs": True}
        found = self._answers.ask("/tokenize", self._named(body), call)
        return {*marks} & {one for one in self._answers.kind(found.get("token_strs"), list, "/tokenize") if isinstance(one, str)}

    def _spelled(self, tokens: list[int], call: Call | None) -> str:
        found = self._answers.ask("/detokenize", self._named({"tokens": tokens, **self._shown}), call)
        return self._answers.string(found.get(self._text), "/detokenize")

    def _begin(self, call: Call | None) -> list[int]:
        """The tokens that a tokenizer puts before each text, where it does."""
        if self._opening is None:
            plain, whole = self._asked("a", call), self._asked("a", call, opening=True)
            places = (place for place in range(len(whole)) if whole[place : place + len(plain)] == plain)
            self._opening = whole[: next(places, 0)]
        return self._opening

    def _split(self, text: str, call: Call | None) -> list[str]:
        """A text in parts none of which holds the text of a control token; tags of a thought stay whole."""
        places = [(found.start() + 1, found[0]) for found in _MARKS.finditer(text) if found[0] not in THOUGHT_TAGS]
        new = sorted({mark for _, mark in places} - {*self._added})
        if new and len(self._added) + len(new) <= _KNOWN:  # of more, each is taken for one
            single = self._single(new, call)
            self._added |= {mark: mark in single for mark in new}
        parts, done = [], 0
        for place, mark in places:
            if self._added.get(mark, True):
                parts.append(text[done:place])
                done = place
        return [*parts, text[done:]]

    def _named(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"model": self._model} if self._model else body


class HubServer:
    """A server with such a tokenizer, as far as vLLM and SGLang are alike; see ``Server``.

    Args:
        transport: to it.
        api: that it is to speak, for people.
    """

    _tokenizer: HubTokenizer

    def __init__(self, transport: Transport, api: str) -> None:
        self._transport, self._role, self._answers = transport, transport.role, Answers(transport, api)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._role.url

    def tokenize(self, text: str, *, special: bool = False, opening: bool = False, call: Call | None = None) -> list[int]:
        """The tokens of a text; see ``Server``."""
        return self._tokenizer.tokenize(text, special=special, opening=opening, call=call)

    def piece(self, token: int) -> str:
        """The text of a token."""
        return self._tokenizer.piece(token)

    def chat(self, prompt: Prompt, variables: Mapping[str, TemplateValue]) -> str:
        """A conversation as ``/tokenize`` templates it."""
        return self._tokenizer.chat(prompt, variables)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
