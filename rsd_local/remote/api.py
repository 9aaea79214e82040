"""What is asked of a server, whatever it speaks."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from rsd_local.config import Sampling, TemplateValue
from rsd_local.prompt import Prompt
from rsd_local.remote.transport import Call

Ending = Literal["end", "word", "limit", "context"]
UNKNOWN_CONTEXT = 1 << 20
"""Tokens of a context that a server says nothing of."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself and of its model.

    Attributes:
        api: that it speaks.
        model: its name there.
        context: tokens that one question may take; ``UNKNOWN_CONTEXT`` where it does not say.
        slots: questions at once; 0 where it does not say.
        vocabulary: how many tokens there are; 0 where it does not say.
        parameters: weights that a token meets; 0 where it does not say.
        template: of its chats; empty where it does not say.
        build: of the server, for people.
        tags: whether its vocabulary has the tags of a thought, where it gives no template.
        texts: whether it takes and gives texts alone; its tokens are then pieces of text (``texts.TextToken``).
        ahead: whether text may be sent ahead of the request that goes on with it.
        late: whether the text of a token may come with a later one.
    """

    api: str
    model: str
    context: int
    slots: int = 0
    vocabulary: int = 0
    parameters: int = 0
    template: str = ""
    build: str = ""
    tags: bool = False
    texts: bool = False
    ahead: bool = True
    late: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text to go on with.

    Attributes:
        tokens: all that stands, from the prompt's first one on.
        limit: most tokens to write.
        stops: texts that end the writing; None where whoever reads along ends it.
        sampling: how tokens are drawn.
        seed: of the draws, below 2^32.
        slot: where its cache is; −1 for any.
        past_end: whether the model goes on where it would end, so that there is as much to time as was asked for.
    """

    tokens: Sequence[int]
    limit: int
    stops: tuple[str, ...] | None
    sampling: Sampling
    seed: int
    slot: int
    past_end: bool = False

    @property
    def most_events(self) -> int:
        """More than a stream of that has: an event may hold a part of a token, or nothing."""
        return 4 * self.limit + 1000


@dataclass(frozen=True, slots=True)
class Timing:
    """What a request took on the server.

    Attributes:
        cached: tokens of the prompt that were in its cache.
        read: tokens of the prompt that were evaluated.
        written: tokens that were drawn; the last one is not evaluated.
        reading, writing: seconds of both.
        told: whether the server says what was cached; where it does not, ``read`` is the whole prompt.
    """

    cached: int
    read: int
    written: int
    reading: float
    writing: float
    told: bool = True

    def with_cached(self, known: int) -> Timing:
        """The same where the server says what was cached; otherwise what is known to have been read before counts as that.

        Args:
            known: tokens from the prompt's first one on.
        """
        if self.told:
            return self
        cached = max(0, min(known, self.read - 1))
        return replace(self, cached=cached, read=self.read - cached, told=True)

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.reading + self.writing

    @property
    def rows(self) -> int:
        """Tokens that went through the model."""
        return self.read + max(0, self.written - 1)


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of an answer.

    Attributes:
        tokens: that came.
        text: that came; text which may begin a stop string comes later.
        lost: tokens before these that the server did not send, for they end inside a character.
        timing: so far, where it was asked for.
    """

    tokens: tuple[int, ...]
    text: str
    lost: int = 0
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer.

    Attributes:
        how: by itself, with a stop string, at the limit, or where the context is full.
        word: the stop string, which is in no text.
        timing: of the whole request.
        lost: tokens at the end that were not sent.
    """

    how: Ending
    word: str
    timing: Timing
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely given tokens are.

    Attributes:
        log_probabilities: of each token at temperature 1, natural.
        best: the most likely token at the place of each.
        timing: of the request.
    """

    log_probabilities: tuple[float, ...]
    best: tuple[int, ...]
    timing: Timing


class Server(Protocol):
    """A server with one model."""

    @property
    def url(self) -> str:
        """Where it is."""

    def facts(self) -> Facts:
        """Asks what it is."""

    def tokenize(self, text: str, *, special: bool = False, opening: bool = False, call: Call | None = None) -> list[int]:
        """The tokens of a text.

        Args:
            text: the text.
            special: whether the text of a control token is one.
            opening: whether a beginning-of-text token stands before it, where the model has one.
            call: the request, to end it.
        """

    def piece(self, token: int) -> str:
        """The text of a token."""

    def chat(self, prompt: Prompt, variables: Mapping[str, TemplateValue]) -> str:
        """A conversation as the model's template writes it, ready for the assistant's turn."""

    def evaluate(self, tokens: Sequence[int], slot: int, call: Call, *, reuse: bool) -> Timing:
        """Take tokens into a slot's cache.

        Args:
            tokens: all that stands, from the prompt's first one on.
            slot: as in ``Wanted``.
            call: the request, to end it.
            reuse: whether what the cache has of them already may stay.
        """

    def write(self, wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        """Go on with a text: pieces, and the end. Leaving early closes the connection, so that the server stops."""

    def close(self) -> None:
        """Close the connections."""


@runtime_checkable
class ReadingServer(Server, Protocol):
    """A server that says how likely given tokens are."""

    def likelihood(self, tokens: Sequence[int], start: int, call: Call) -> Likelihood:
        """How likely each token from a place on is.

        Args:
            tokens: all that stands, from the prompt's first one on.
            start: the place, at least 1.
            call: the request, to end it.
        """
