"""Conversations as a model's chat template writes them, with what people and models said put in as text.

A template is rendered with a placeholder for each message's text, so nothing in a text can change what the template does, and it
is known afterwards which characters are the template's and which are a text's: only the template's can be control tokens.
"""

from __future__ import annotations

import datetime
import functools
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from rsd_local.config import Thinking
from rsd_local.errors import NoChatTemplate
from rsd_local.prompt import Prompt, Speaker
from rsd_local.runtime.text_model import TextModel
from rsd_local.runtime.thinking import FAMILIES, Tags


class Hole(Enum):
    """A place in a message where text comes later."""

    HOLE = "hole"


HOLE: Final = Hole.HOLE

Content = str | tuple[str | Hole, ...]
"""What a message says: a text, or texts and holes."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text: its bytes, and whether it is the template's own, so that control tokens in it count."""

    data: bytes
    own: bool = False


Text = list[Part]


AS_THE_TEMPLATE_HAS_IT = Thinking()


def prompt_tokens(model: TextModel, prompt: Prompt, thinking: Thinking = AS_THE_TEMPLATE_HAS_IT) -> list[int]:
    """The tokens of a conversation, ready for the assistant's turn, behind a beginning-of-text token where there is one.

    Of a raw prompt, those of its text, in which control tokens count: whoever writes it writes what a template would.

    Raises:
        NoChatTemplate: the file has no template, or one that cannot be used.
    """
    if prompt.raw:
        return opening_tokens(model, [Part(prompt.question.encode("utf-8", "replace"), own=True)])
    messages = [(message.role, message.content) for message in prompt.messages]
    return opening_tokens(model, render_chat(model, messages, thinking=thinking)[0])


def opens_thought(model: TextModel, prompt: Prompt, thinking: Thinking = AS_THE_TEMPLATE_HAS_IT) -> bool:
    """Whether an answer begins inside a thought that the prompt has opened.

    Raises:
        NoChatTemplate: as ``prompt_tokens``.
    """
    return _framed(model, tuple(message.role for message in prompt.messages), thinking).in_thought


def around(
    model: TextModel, messages: Sequence[tuple[Speaker, Content]], *, thinking: Thinking = AS_THE_TEMPLATE_HAS_IT
) -> tuple[list[int], list[int]]:
    """The tokens before the only hole in a conversation, and those behind it.

    Raises:
        NoChatTemplate: as ``render_chat``.
    """
    before, behind = render_chat(model, messages, thinking=thinking)
    return opening_tokens(model, before, followed=True), tokens_of(model, behind, continues=True)


def render_chat(
    model: TextModel, messages: Sequence[tuple[Speaker, Content]], *, thinking: Thinking = AS_THE_TEMPLATE_HAS_IT
) -> list[Text]:
    """A conversation as the model's template writes it, ready for the assistant's turn: the texts before, between and behind holes.

    A template that has no place for a system message gets it in front of the first user message; one that wants a message's text as
    a list of parts gets that.

    Args:
        model: whose template is used.
        messages: role and content of each.
        thinking: whether a thought comes before the answer.

    Raises:
        NoChatTemplate: the file has no template, or it cannot be rendered, or leaves out a message.
    """
    frame = _framed(model, tuple(role for role, _ in messages), thinking)
    contents = [content if isinstance(content, tuple) else (content,) for _, content in messages]
    if frame.merged:
        contents[:2] = [(*contents[0], "\n\n", *contents[1])]
    texts = _fill(frame, contents)
    if len(texts) != 1 + sum(part is HOLE for content in contents for part in content):
        raise NoChatTemplate(f"the chat template of {model.path} repeats what it is given", hint="choose another file")
    return texts


def _framed(model: TextModel, roles: tuple[Speaker, ...], thinking: Thinking) -> _Frame:
    source = model.chat_template
    if source is None:
        raise NoChatTemplate(f"{model.path} has no chat template", hint="choose an instruct or chat model")
    bos, eos = (model.token_text(token) if token >= 0 else "" for token in (model.bos, model.eos))
    try:
        return _frame(source, bos, eos, roles, thinking, model.spelling.tags, datetime.date.today())
    except _Unusable as why:
        raise NoChatTemplate(f"the chat template of {model.path} {why}", hint="choose another file") from None


def opening_tokens(model: TextModel, text: Text, *, followed: bool = False) -> list[int]:
    """The tokens of a text that nothing stands before: behind a beginning-of-text token, where the vocabulary wants one."""
    tokens = tokens_of(model, text, followed=followed)
    return [model.bos, *tokens] if model.adds_bos and tokens[:1] != [model.bos] else tokens


def tokens_of(model: TextModel, text: Text, *, continues: bool = False, followed: bool = False) -> list[int]:
    """The tokens of a text as a whole, as models were trained to see them, whose control tokens are the template's alone.

    A part in which somebody wrote the text of a control or user-defined token is tokenized apart from the others.

    Args:
        model: whose vocabulary is used.
        text: its parts.
        continues: as in ``Model.tokenize``.
        followed: as in ``Model.tokenize``.
    """
    own = [token for part in text if part.own for token in model.special_tokens(model.tokenize(part.data, special=True))]
    tokens = model.tokenize(b"".join(part.data for part in text), special=True, continues=continues, followed=followed)
    if model.special_tokens(tokens) == own:
        return tokens
    safe = [part.own or not model.special_tokens(model.tokenize(part.data, special=True)) for part in text]
    tokens = _tokens_apart(model, _joined(text, safe), continues, followed)
    if model.special_tokens(tokens) == own:
        return tokens
    # The text of a control token begins in the template and ends in somebody's text.
    return _tokens_apart(model, text, continues, followed)


def _tokens_apart(model: TextModel, text: Text, continues: bool, followed: bool) -> list[int]:
    tokens: list[int] = []
    for index, part in enumerate(text):
        last = index == len(text) - 1
        tokens += model.tokenize(part.data, special=part.own, continues=continues or index > 0, followed=followed or not last)
    return tokens


def _joined(text: Text, safe: list[bool]) -> Text:
    """The text with neighbouring safe parts as one, in which control tokens count."""
    joined: Text = []
    for part, harmless in zip(text, safe, strict=True):
        if harmless and joined and joined[-1].own:
            joined[-1] = Part(joined[-1].data + part.data, own=True)
        else:
            joined.append(Part(part.data, own=harmless))
    return joined


@dataclass(frozen=True, slots=True)
class _Slot:
    """The place of a message's text: which one, and on which sides the template takes white space off."""

    message: int
    strips_left: bool
    strips_right: bool


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a template writes around messages of certain roles.

    Attributes:
        merged: whether the system message went into the user's.
        parts: its own texts, and the places of the messages' texts.
        in_thought: whether it ends inside a thought.
    """

    merged: bool
    parts: tuple[str | _Slot, ...]
    in_thought: bool


class _Unusable(Exception):
    """What is wrong with a template."""


@functools.lru_cache(maxsize=32)
def _frame(
    source: str, bos: str, eos: str, roles: tuple[Speaker, ...], thinking: Thinking, tags: Tags | None, day: datetime.date
) -> _Frame:
    """The frame of the first form of these messages in which all of their texts appear, in order; ``day`` may stand in it."""
    from rsd_local.runtime import templates

    variables = {"bos_token": bos, "eos_token": eos, **dict(thinking.variables)}
    reasons: list[str] = []
    for merged in (False, True) if roles[0] == "system" else (False,):
        shown = roles[1:] if merged else roles
        for as_parts in (False, True):
            marks = [f"{secrets.randbits(128):039}" for _ in shown]
            try:
                messages = [_message(*one, as_parts) for one in zip(shown, marks, strict=True)]
                text = templates.render(source, messages, variables)
            except templates.TooMuch as error:
                raise _Unusable(f"cannot be used: {error}") from None
            except templates.Refused as error:
                reasons.append(f"refuses these messages: {error}")
                continue
            except Exception as error:  # foreign code
                reasons.append(f"cannot be rendered: {error}")
                continue
            places = [text.find(mark) for mark in marks]
            if min(places) >= 0 and places == sorted(places) and not (as_parts and "'type'" in text):
                end = text[places[-1] :]
                tail = _tail(end, thinking, tags)
                if tags is not None and tail == tags.empty and not _needs_telling(source, tags, variables):
                    tail = ""
                return _Frame(merged, tuple(_slots(text + tail, marks)), _open_thought(end + tail) is not None)
            lost = next((role for role, place in zip(shown, places, strict=True) if place < 0), None)
            reasons.append(f"leaves out what the {lost} says" if lost else "mixes the messages up")
    raise _Unusable(reasons[0])


_EDGE = "\u2003"  # white space that no template writes: where it is gone from around a placeholder, the template strips


def _message(role: Speaker, mark: str, as_parts: bool) -> dict[str, object]:
    text = f"{_EDGE}{mark}{_EDGE}"
    return {"role": role, "content": [{"type": "text", "text": text}] if as_parts else text}


def _slots(text: str, marks: list[str]) -> Iterator[str | _Slot]:
    at = 0
    for found in re.finditer(f"({_EDGE}?)({'|'.join(marks)})({_EDGE}?)", text):
        if found.start() > at:
            yield text[at : found.start()]
        yield _Slot(marks.index(found[2]), not found[1], not found[3])
        at = found.end()
    if at < len(text):
        yield text[at:]


def _needs_telling(source: str, tags: Tags, variables: Mapping[str, object]) -> bool:
    """Whether a model that thinks is not told to leave that by a template that was asked to: it writes the same where it is to think."""
    from rsd_local.runtime import templates

    if not any(mark in source for mark in tags.marks):
        return False  # such a model has the tokens of its family, and does not think
    texts = []
    for asked in ({}, {"enable_thinking": True, "thinking": True}):
        try:
            texts.append(templates.render(source, [{"role": "user", "content": "?"}], {**variables, **asked}))
        except Exception:  # foreign code
            return True
    return texts[0] == texts[1]


def _tail(end: str, thinking: Thinking, tags: Tags | None) -> str:
    """What has to stand behind a rendered text so that the answer begins with a thought, or without one, as it is asked to.

    Args:
        end: of the text, from the last message on.
        thinking: what is asked for.
        tags: the model's; None where it does not think, as far as its file tells.
    """
    begun = _open_thought(end)
    if thinking.mode == "off" and begun is not None:
        header = begun.answer if begun.answer.strip() else ""
        return f"\n{begun.end}\n\n" if end.endswith("\n") and not header else begun.end + header
    closed = tags is not None and tags.end in end and not tags.answer.strip()  # a header's end is every message's end too
    if tags is None or thinking.mode == "auto" or begun is not None or closed:
        return ""
    return tags.opening if thinking.mode == "on" else tags.empty


def _open_thought(text: str) -> Tags | None:
    """The tags of a thought that a text ends inside of."""
    for tags in FAMILIES:
        at = text.rfind(tags.begin.rstrip())
        if at >= 0 and tags.end not in text[at:]:
            return tags
    return None


def _fill(frame: _Frame, contents: Sequence[tuple[str | Hole, ...]]) -> list[Text]:
    texts: list[Text] = [[]]
    for part in frame.parts:
        if isinstance(part, str):
            texts[-1].append(Part(part.encode("utf-8", "replace"), own=True))
            continue
        for piece in _stripped(contents[part.message], part):
            if isinstance(piece, Hole):
                texts.append([])
            elif piece:
                texts[-1].append(Part(piece.encode("utf-8", "replace")))
    return texts


def _stripped(content: Iterable[str | Hole], slot: _Slot) -> list[str | Hole]:
    """A message's content with neighbouring texts as one, without the white space that the template takes off."""
    pieces: list[str | Hole] = []
    for piece in content:
        if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    if slot.strips_left and pieces and isinstance(pieces[0], str):
        pieces[0] = pieces[0].lstrip()
    if slot.strips_right and pieces and isinstance(pieces[-1], str):
        pieces[-1] = pieces[-1].rstrip()
    return pieces
