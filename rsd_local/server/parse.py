"""Requests: bodies in OpenAI's form as frozen dataclasses."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rsd_local.config import Params, Strategy, TemplateValue, Thinking, ThinkMode, default_temperature, require
from rsd_local.prompt import Message, Prompt, Speaker
from rsd_local.server.errors import BadField, Unsupported
from rsd_local.server.fields import (
    CHAT,
    COMPLETION,
    EXTENSION,
    HARMLESS,
    REFUSED,
    REFUSED_IN_MESSAGES,
    STREAM_OPTIONS,
    TABLE,
    TEXT,
    ResponseFormat,
    read_fields,
    refuse,
)

Form = Literal["chat", "completion"]
_SPEAKERS: dict[str, Speaker] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "penalty_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
"""Fields of a request, and those of ``Sampling``."""
_LEAST_TOP_P = 1e-6  # of a request's 0, which keeps the most likely token


@dataclass(frozen=True, slots=True)
class Extension:
    """The object ``rsd`` of a request; what is None is the server's own.

    Attributes:
        strategy: the algorithm.
        threshold: reward from which a step of the draft is accepted.
        candidates: draft steps that are sampled at each place.
        max_steps: of the answer.
        target_budget: most of the answer's tokens that the target may write, as a share.
        rejected: whether rejected steps are sent.
        drafts: whether text is sent as it is written, before anybody knows whether it is accepted.
    """

    strategy: Strategy | None = None
    threshold: float | None = None
    candidates: int | None = None
    max_steps: int | None = None
    target_budget: float | None = None
    rejected: bool = False
    drafts: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an answer.

    Attributes:
        form: whose form the answer has.
        prompt: a conversation, or a text to go on behind.
        model: by name; empty for the only one.
        stream: whether the answer comes in chunks.
        include_usage: whether a last chunk has the usage.
        sampling: fields of ``Sampling`` that are given.
        seed: None for one that nobody chose.
        max_tokens: of the answer; None for the server's own limit.
        stop: texts that end the answer; None for the server's own.
        effort: ``reasoning_effort``, empty where not given.
        template: further variables of the chat template.
        extension: the object ``rsd``.
        response_format: what the answer must be; None where nothing is said.
    """

    form: Form
    prompt: Prompt
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    effort: str = ""
    template: tuple[tuple[str, TemplateValue], ...] = ()
    extension: Extension = Extension()
    response_format: ResponseFormat | None = None

    @property
    def thinks(self) -> bool | None:
        """Whether the models are told to think or not to; None where they are not told."""
        told = dict(self.template).get("enable_thinking", dict(self.template).get("thinking"))
        return told if isinstance(told, bool) else False if self.effort == "none" else None

    def params(self, base: Params, strategy: Strategy, seed: int) -> Params:
        """What the run takes.

        Args:
            base: the server's own, where the request says nothing.
            strategy: the algorithm.
            seed: where the request gives none.

        Raises:
            ConfigError: settings that do not go together.
        """
        own, search = self.extension, base.search
        search = replace(search, candidates=own.candidates) if own.candidates else search
        usual = default_temperature(strategy, search)
        sampling = replace(base.sampling, seed=seed if self.seed is None else self.seed, **self.sampling)
        if "temperature" not in self.sampling and sampling.temperature == 0:
            sampling = replace(sampling, temperature=usual)
        if self.response_format is not None:
            sampling = replace(sampling, grammar=self.response_format.grammar())
        require(sampling.temperature > 0 or not usual, f"{strategy} samples: at temperature 0 every try is the same")
        weighting = base.weighting
        weighting = weighting if own.threshold is None else replace(weighting, threshold=own.threshold)
        weighting = weighting if own.target_budget is None else replace(weighting, target_budget=own.target_budget)
        limits = replace(base.limits, tokens=self.max_tokens or base.limits.tokens, steps=own.max_steps or base.limits.steps)
        limits = limits if self.stop is None else replace(limits, stop=self.stop)
        return Params(sampling, weighting, limits, search, self._thinking(base.thinking))

    def _thinking(self, base: Thinking) -> Thinking:
        mode: ThinkMode = base.mode if self.thinks is None else "on" if self.thinks else "off"
        effort = base.effort if self.effort in ("", "none") else self.effort
        return replace(base, mode=mode, effort=effort, template=tuple((dict(base.template) | dict(self.template)).items()))


def read_json(body: bytes) -> dict[str, Any]:
    """A body as an object.

    Raises:
        BadField: it is no JSON, or something else than an object.
    """

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    try:
        found = json.loads(body, parse_constant=refuse_constant)
    except RecursionError:
        raise BadField("the body is nested too deep") from None
    except ValueError as error:
        raise BadField(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadField("the body must be an object", hint='such as {"messages": [{"role": "user", "content": "…"}]}')
    return found


def read_chat(given: dict[str, Any]) -> Asked:
    """A request for a chat completion.

    Raises:
        BadField: a field has a wrong type or value, is missing, or cannot be honoured.
        QuestionRefused: the messages are no conversation.
    """
    values = _read(given, CHAT)
    if "messages" not in values:
        raise BadField("messages is missing", "messages")
    limit = values.get("max_completion_tokens", values.get("max_tokens"))
    return _asked("chat", _conversation(values["messages"]), values, limit)


def read_completion(given: dict[str, Any]) -> Asked:
    """A request for a completion: text behind a text, without a chat template.

    Raises:
        BadField: as ``read_chat``.
        QuestionRefused: there is no text.
    """
    prompt = given.get("prompt")
    if isinstance(prompt, list) and any(isinstance(one, int | list) for one in prompt):
        raise Unsupported("a prompt of token ids is not supported by this server", "prompt", hint="give its text")
    values = _read(given, COMPLETION)
    texts = values.get("prompt")
    if texts is None:
        raise BadField("prompt is missing", "prompt")
    if len(texts) != 1:
        raise Unsupported(f"{len(texts)} prompts in one request are not supported by this server", "prompt", hint="send one at a time")
    return _asked("completion", Prompt((Message("user", texts[0]),), raw=True), values, values.get("max_tokens"))


def _read(given: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    refuse(given, {name: harmless for name, harmless in REFUSED.items() if name not in kinds})
    read_fields(given, HARMLESS)
    values = read_fields(given, kinds)
    if values.get("n", 1) != 1:
        raise Unsupported("n above 1 is not supported by this server", "n", hint="ask again for another answer, with another seed")
    return values


def _asked(form: Form, prompt: Prompt, values: dict[str, Any], max_tokens: int | None) -> Asked:
    options = read_fields(values.get("stream_options", {}), STREAM_OPTIONS, "stream_options.")
    extension = values.get("rsd", {})
    for name in extension:
        if name not in EXTENSION:
            near = difflib.get_close_matches(name, EXTENSION, 1) or EXTENSION
            raise BadField(f"rsd.{name} is unknown", f"rsd.{name}", hint=f"known: {', '.join(near)}")
    sampling = {ours: values[name] for name, ours in _SAMPLING.items() if name in values}
    if sampling.get("top_p") == 0:
        sampling["top_p"] = _LEAST_TOP_P
    return Asked(
        form,
        prompt,
        values.get("model", ""),
        values.get("stream", False),
        options.get("include_usage", False),
        sampling,
        values["seed"] % 2**64 if "seed" in values else None,
        max_tokens,
        values.get("stop"),
        values.get("reasoning_effort", ""),
        values.get("chat_template_kwargs", ()),
        Extension(**read_fields(extension, EXTENSION, "rsd.")),
        values.get("response_format"),
    )


def _conversation(messages: list[Any]) -> Prompt:
    """The messages; those of one speaker in a row become one, with a blank line between them."""
    talk: list[Message] = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        TABLE.read(message, where)
        name = TEXT.read(message.get("role"), f"{where}.role")
        if name not in _SPEAKERS:
            what = Unsupported if name in ("tool", "function") else BadField
            raise what(f"{where}.role {name!r} is not supported by this server", f"{where}.role", hint="system, user or assistant")
        refuse(message, REFUSED_IN_MESSAGES, f"{where}.")
        read_fields(message, {"name": TEXT}, f"{where}.")
        text, speaker = _content(message.get("content"), f"{where}.content"), _SPEAKERS[name]
        if talk and talk[-1].role == speaker:
            text = f"{talk.pop().content}\n\n{text}"
        talk.append(Message(speaker, text))
    return Prompt(tuple(talk))


def _content(content: Any, where: str) -> str:
    """A message's text: a string, or parts of text one after another."""
    if not isinstance(content, list):
        if not isinstance(content, str):
            raise BadField(f"{where} must be a string or an array of text parts", where)
        return content
    texts = []
    for place, part in enumerate(content):
        at = f"{where}[{place}]"
        kind = TEXT.read(TABLE.read(part, at).get("type"), f"{at}.type")
        if kind != "text":
            raise Unsupported(f"{at}.type {kind!r} is not supported by this server", f"{at}.type", hint="text is")
        texts.append(TEXT.read(part.get("text"), f"{at}.text"))
    return "".join(texts)
