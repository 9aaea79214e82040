"""What a trio is asked: a conversation that ends with a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rsd_local.errors import QuestionRefused

Speaker = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: who says it, and its text."""

    role: Speaker
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends with a question of the user.

    Attributes:
        messages: a system message or none, then user and assistant in turn, the last one the user's.
        raw: whether draft and target go on behind the only message's text as it is, without their chat templates.

    Raises:
        QuestionRefused: the messages are in no such order, one holds a NUL character, or a raw one has no text.
    """

    messages: tuple[Message, ...]
    raw: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", tuple(self.messages))
        talk = [message.role for message in self.messages]
        for message in self.messages:
            if message.role not in get_args(Speaker):
                raise QuestionRefused(f"{message.role!r} is no role of a message", hint="system, user or assistant")
            if "\0" in message.content:
                raise QuestionRefused("a message holds a NUL character", hint="take it out")
        if talk[:1] == ["system"]:
            del talk[0]
        if not talk or any(role != ("assistant" if place % 2 else "user") for place, role in enumerate(talk)) or talk[-1] != "user":
            raise QuestionRefused(
                f"messages of {', '.join(talk) or 'nobody'} are no conversation",
                hint="a system message or none, then user and assistant in turn, the user last",
            )
        if self.raw and not (len(self.messages) == 1 and self.messages[0].content):
            raise QuestionRefused("there is no text to go on behind", hint="give one text that is not empty")

    @classmethod
    def of(cls, question: str, system: str = "") -> Prompt:
        """A single question, behind a system message where one is given."""
        asked = Message("user", question)
        return cls((Message("system", system), asked) if system else (asked,))

    @property
    def question(self) -> str:
        """The last message, the user's."""
        return self.messages[-1].content

    @property
    def turn(self) -> int:
        """How many questions stand before the last one."""
        return sum(message.role == "user" for message in self.messages) - 1

    def with_system(self, system: str) -> Prompt:
        """The same behind a system message, where it is a conversation that has none and ``system`` is not empty."""
        if not system or self.raw or self.messages[0].role == "system":
            return self
        return Prompt((Message("system", system), *self.messages))

    def then(self, answer: str, question: str) -> Prompt:
        """The conversation with an answer and the next question."""
        return Prompt((*self.messages, Message("assistant", answer), Message("user", question)))
