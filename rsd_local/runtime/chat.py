"""Chat templates: rendered in jinja2's sandbox, only when asked for, and bounded in size."""

from __future__ import annotations

import datetime
import functools
from typing import TYPE_CHECKING, NoReturn

from rsd_local.errors import NoChatTemplate
from rsd_local.runtime.model import Model

if TYPE_CHECKING:
    from jinja2 import Template

Message = dict[str, str]

# Compiling a hostile template can take hundreds of megabytes, and its loops any length of text.
_LONGEST_TEMPLATE = 64_000  # characters
_LONGEST_RANGE = 10_000


def render_chat(model: Model, messages: list[Message]) -> str:
    """The text of a conversation, ready for the assistant's turn.

    A template that takes no system message gets its text in front of the first user message.

    Args:
        model: whose template is used.
        messages: each with ``role`` (system, user, assistant) and ``content``.

    Raises:
        NoChatTemplate: the file has none, or it cannot be rendered.
    """
    import jinja2

    source = model.chat_template
    if source is None:
        raise NoChatTemplate(f"{model.path} has no chat template", hint="choose an instruct or chat model")
    if len(source) > _LONGEST_TEMPLATE:
        raise NoChatTemplate(f"the chat template of {model.path} has {len(source)} characters", hint="choose another file")
    try:
        return _render(source, model, messages)
    except _Refused as refusal:
        if messages[0]["role"] != "system":
            raise NoChatTemplate(f"the chat template of {model.path} refuses these messages: {refusal}") from None
        first, second, *others = messages
        joined = {"role": "user", "content": f"{first['content']}\n\n{second['content']}"}
        return render_chat(model, [joined, *others])
    except (jinja2.TemplateError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        raise NoChatTemplate(f"the chat template of {model.path} cannot be rendered: {error}", hint="choose another file") from None


def chat_tokens(model: Model, messages: list[Message]) -> list[int]:
    """The tokens of a conversation, ready for the assistant's turn; control tokens in a message count as plain text.

    Raises:
        NoChatTemplate: as ``render_chat``.
    """
    text = render_chat(model, messages)
    return with_bos(model, tokenize_chat(model, text, [message["content"].strip() for message in messages]))


def next_turn_tokens(model: Model, messages: list[Message], question: str) -> list[int]:
    """The tokens between an answer that the model wrote and its next one: the end of its turn, and the user's next question.

    Args:
        model: whose template is used.
        messages: the conversation's beginning, up to the first question.
        question: the next one.

    Raises:
        NoChatTemplate: as ``render_chat``, or the template does not repeat what it is given.
    """
    marked = [*messages, {"role": "assistant", "content": "\0"}, {"role": "user", "content": "\1"}]
    between, found, tail = render_chat(model, marked).rpartition("\0")[2].partition("\1")
    if not found:
        raise NoChatTemplate(f"the chat template of {model.path} takes one question only", hint="use rsd solve")
    return tokenize_chat(model, between + question + tail, [question.strip()], continues=True)


def tokenize_chat(model: Model, text: str, contents: list[str], *, continues: bool = False) -> list[int]:
    """The tokens of rendered text; control tokens count as such, but not those written in one of ``contents``.

    Args:
        model: whose vocabulary is used.
        text: a template's output or a part of it.
        contents: what people or models wrote, as it stands in the text.
        continues: as in ``Model.tokenize``.
    """
    parts = [(text, True)]
    for content in contents:
        if content and model.tokenize(content, special=True) != model.tokenize(content):
            parts = [piece for part, special in parts for piece in (_around(part, content) if special else [(part, special)])]
    tokens: list[int] = []
    for part, special in parts:
        tokens += model.tokenize(part, special=special, continues=continues or bool(tokens))
    return tokens


def with_bos(model: Model, tokens: list[int]) -> list[int]:
    """The tokens behind the beginning-of-text token, where the vocabulary wants one and the template gave none."""
    return [model.bos, *tokens] if model.adds_bos and tokens[:1] != [model.bos] else tokens


class _Refused(Exception):
    """The template itself raised an exception: it does not take such messages."""


def _around(text: str, content: str) -> list[tuple[str, bool]]:
    """The text cut around a message's content: template parts, which hold control tokens, and the content, which does not."""
    parts: list[tuple[str, bool]] = []
    for index, outside in enumerate(text.split(content)):
        if index:
            parts.append((content, False))
        parts.append((outside, True))
    return parts


def _render(source: str, model: Model, messages: list[Message]) -> str:
    return _compiled(source).render(
        messages=messages,
        add_generation_prompt=True,
        bos_token=model.token_text(model.bos) if model.bos >= 0 else "",
        eos_token=model.token_text(model.eos) if model.eos >= 0 else "",
    )


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    """A template, compiled when it is first used: that takes longer than a short answer of a small model."""
    from jinja2.exceptions import SecurityError
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        """The sandbox stops escapes; this stops texts and numbers that a template multiplies without end."""

        intercepted_binops = frozenset(["*", "**"])

        def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
            sizes = [
                abs(side) if isinstance(side, int) else len(side) if isinstance(side, str | list | tuple) else 1 for side in (left, right)
            ]
            if (sizes[0] or 1) * (sizes[1] or 1) > _LONGEST_TEMPLATE or (operator == "**" and max(sizes) > 64):
                raise SecurityError("a product in the template is too large")
            return super().call_binop(context, operator, left, right)

    def refuse(message: str) -> NoReturn:
        raise _Refused(message)

    environment = Bounded(trim_blocks=True, lstrip_blocks=True)
    environment.globals["range"] = lambda *bounds: range(*bounds)[:_LONGEST_RANGE]
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(source)
