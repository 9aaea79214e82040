"""What a sequence can ask of its engine: to write tokens, to read an output, or to evaluate what it holds.

An engine evaluates a request's rows and hands it their outputs until the request says that it is done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from rsd_local.events import CancelToken
from rsd_local.runtime.outputs import Held
from rsd_local.runtime.sampler import Drawer, Floats
from rsd_local.runtime.trace import Trace, Tracer, Tracing

if TYPE_CHECKING:
    from rsd_local.runtime.model import Model
    from rsd_local.runtime.outputs import Outputs
    from rsd_local.runtime.sequence import Sequence

EndOfStep = Literal["delimiter", "end", "length", "context", "mismatch"]
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Guess:
    """What is known before a generation starts.

    Attributes:
        tokens: a guess of those to come. They are evaluated together, and each is kept for as long as the sampler draws
            the same: what is written does not depend on the guess, only what it takes.
        chunk: how many of them go into one batch.
        only: whether the generation ends with the first token that the guess does not have.
        before: what of the step stands already, for the delimiter that may complete across two calls.
    """

    tokens: Tokens[int] = ()
    chunk: int = 16
    only: bool = False
    before: bytes = b""


@dataclass(frozen=True, slots=True)
class Generated:
    """What one call of ``generate`` wrote.

    Attributes:
        tokens: all of them, an end-of-text token included.
        text: their bytes; a character may be cut at either end.
        ended: by the delimiter, by an end-of-text token, by the length asked for, by the context's end, or by the first
            token that a guess did not have.
        trace: of the tokens, where one was asked for.
    """

    tokens: list[int]
    text: bytes
    ended: EndOfStep
    trace: Trace | None = None


class Request(ABC, Generic[T_co]):
    """Work that a sequence waits for. Made by ``Sequence``, done by the engine's worker."""

    hidden = False
    """Whether hidden states are read, alone or beside logits."""
    reads_last = True
    """Whether the last token's output is needed; without it, only the tokens before are evaluated."""

    def __init__(self, sequence: Sequence, cancel: CancelToken | None) -> None:
        self.sequence, self.cancel = sequence, cancel
        self.start = len(sequence.tokens)
        self.ahead: list[int] = []
        self.chunk = 0  # the most of them in one batch
        self.future: Future[T_co] = Future()
        self.future.set_running_or_notify_cancel()

    @abstractmethod
    def take(self, rows: list[int], outputs: Outputs | Held, model: Model, context: int) -> Callable[[], None] | None:
        """Uses the outputs of rows; returns what hands the result out once done, None to go on.

        Args:
            rows: the last token's row and those of what was evaluated ahead of it.
            outputs: of those rows.
            model: of the engine.
            context: the most tokens of a sequence.
        """


class Prefill(Request[None]):
    """Evaluates all tokens but the last."""

    reads_last = False

    def take(self, rows: list[int], outputs: Outputs | Held, model: Model, context: int) -> Callable[[], None] | None:
        """Done as soon as nothing but the last token is left."""
        return lambda: self.future.set_result(None)


class Reading(Request[Floats]):
    """Logits or a hidden state to read at the sequence's last token."""

    def __init__(self, sequence: Sequence, hidden: bool, cancel: CancelToken | None) -> None:
        super().__init__(sequence, cancel)
        self.hidden = hidden

    def take(self, rows: list[int], outputs: Outputs | Held, model: Model, context: int) -> Callable[[], None] | None:
        """Copies the output."""
        values = (outputs.hidden if self.hidden else outputs.logits)(rows[0]).copy()
        return lambda: self.future.set_result(values)


class Generation(Request[Generated]):
    """Tokens to write: one at each pass, more where a guess of them holds.

    Where states are kept, the last token is evaluated too, for the state after it. Its outputs are held for the next request,
    so that it need not be evaluated again.
    """

    def __init__(
        self,
        sequence: Sequence,
        sampler: Drawer,
        limit: int,
        until: bytes,
        guess: Guess,
        tracing: Tracing,
        cancel: CancelToken | None,
    ) -> None:
        super().__init__(sequence, cancel)
        self.hidden = tracing == "states"
        self._tracer = Tracer() if tracing != "off" else None
        self._ended: EndOfStep | None = None
        self._sampler, self._limit, self._until, self._guess = sampler, limit, until, guess
        self.ahead, self.chunk = list(guess.tokens), guess.chunk
        self._text = bytearray(guess.before)

    def take(self, rows: list[int], outputs: Outputs | Held, model: Model, context: int) -> Callable[[], None] | None:
        """Draws a token from each row for as long as the guess holds."""
        if self._ended is not None:
            self.sequence.held = Held(outputs.logits(rows[0]).copy(), outputs.hidden(rows[0]).copy())
            return self._finish(self._ended, self.sequence.held.kept_hidden)
        sequence, counters = self.sequence, self.sequence.counters
        sequence.held = None
        counters.ahead_tokens += len(rows) - 1
        ended: EndOfStep | None = None
        guessed, held = bool(self.ahead), False
        for place, row in enumerate(rows):
            logits = outputs.logits(row)
            token = self._sampler.draw(logits)
            if self._tracer is not None:
                self._tracer.note(token, logits, outputs.hidden(row) if self.hidden else None)
            sequence.tokens.append(token)
            sequence.written.append(1)
            counters.generated_tokens += 1
            held = bool(self.ahead) and self.ahead[0] == token
            ended = self._end(token, model, context) or ("mismatch" if self._guess.only and not held else None)
            self.ahead = self.ahead[1:] if held else []
            if held and place + 1 < len(rows):
                counters.kept_tokens += 1
            if ended or not held:
                break
        counters.missed_guesses += guessed and not held and ended != "end"
        # Of the guess, the cache keeps what was drawn; the last token drawn is evaluated with the next row to come.
        sequence.keep = min(sequence.keep, len(sequence.tokens) - 1)
        if ended is None:
            return None
        if self.hidden and ended != "end":
            self._ended, self.ahead = ended, []
            return None
        return self._finish(ended, None)

    def _finish(self, ended: EndOfStep, after: Floats | None) -> Callable[[], None]:
        text = bytes(self._text[len(self._guess.before) :])
        made = Generated(self.sequence.tokens[self.start :], text, ended, self._tracer.trace(after) if self._tracer else None)
        return lambda: self.future.set_result(made)

    def _end(self, token: int, model: Model, context: int) -> EndOfStep | None:
        if model.is_end(token):
            return "end"
        piece, text, until = model.piece(token), self._text, self._until
        text += piece
        if until and text.find(until, max(0, len(text) - len(piece) - len(until) + 1)) > 0 and _stands_before(text, until):
            return "delimiter"
        if len(self.sequence.tokens) - self.start >= self._limit:
            return "length"
        return "context" if len(self.sequence.tokens) >= context else None


def _stands_before(text: bytearray, until: bytes) -> bool:
    """Whether something other than white space stands before the last delimiter."""
    return bool(text[: text.rfind(until)].strip())
