"""What a sequence can ask of its engine: to write tokens, to read an output, or to evaluate what it holds.

An engine evaluates a request's rows and gives it their outputs until the request says that it is done.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from rsd_local.events import CancelToken
from rsd_local.roles import Hint
from rsd_local.runtime.outputs import Output
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.slots import common_prefix
from rsd_local.runtime.trace import Tracer, Tracing
from rsd_local.steps import EndOfStep, Part, Step

if TYPE_CHECKING:
    from rsd_local.runtime.sequence import Sequence
    from rsd_local.runtime.thinking import Reader
    from rsd_local.segments import Scan

T = TypeVar("T")


class Request(ABC, Generic[T]):
    """Work that a sequence waits for. Made by ``Sequence``, done by the engine in the device's thread."""

    hidden = False
    """Whether hidden states are read, alone or beside logits."""
    reads_last = True
    """Whether the last token's output is needed; without it, only the tokens before are evaluated."""

    def __init__(self, sequence: Sequence, cancel: CancelToken | None) -> None:
        self.sequence, self._token, self._cancelled = sequence, cancel, False
        self.start = len(sequence.tokens)
        self.positions: list[int] = []  # of tokens whose outputs are still to come, where it reads several (``ReadAt``)
        self.ahead: list[int] = []
        self.chunk = 0  # the most of them in one batch
        self.future: Future[T] = Future()
        self.future.set_running_or_notify_cancel()
        self.value: T | None = None  # what the future is set to once the engine has let the request go
        self.asked, self.computing = time.perf_counter(), 0.0

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled or (self._token is not None and self._token.cancelled)

    def cancel(self) -> None:
        """End it within one batch, from any thread."""
        self._cancelled = True

    def accepts(self, known: Output) -> bool:
        """Whether the last token's output as it was kept is enough, so that the token need not be evaluated again."""
        return known.hidden is not None or not self.hidden

    @abstractmethod
    def process_output(self, outputs: list[Output]) -> bool:
        """Use the outputs of the last token's row and of the rows behind it that were a guess.

        Returns:
            Whether it is done; ``value`` is then what it gives.
        """


class Prefill(Request[None]):
    """Evaluates all tokens but the last."""

    reads_last = False

    def process_output(self, outputs: list[Output]) -> bool:
        """Done as soon as nothing but the last token is left."""
        return True


class Read(Request[Floats]):
    """Logits or a hidden state to read at the sequence's last token."""

    def __init__(self, sequence: Sequence, hidden: bool, cancel: CancelToken | None) -> None:
        super().__init__(sequence, cancel)
        self.hidden = hidden

    def process_output(self, outputs: list[Output]) -> bool:
        """Copy the output; whoever goes on here need not evaluate the token again, unless the model leaves logits out beside states."""
        output, keeps = outputs[0], not self.hidden or self.sequence.engine.gives_both
        if keeps:
            output = self.sequence.cached_output = output.copy()
        values = output.hidden if self.hidden else output.logits
        assert values is not None
        self.value = values if keeps else values.copy()
        return True


class Generation(Request[Step]):
    """Tokens to write: one at each pass, more where a hint of them holds.

    Where states are kept, the last token is evaluated too, for the state after it. Its outputs are kept for the next request,
    so that it need not be evaluated again.

    Args:
        sequence: that is written to.
        draws: draws each token.
        limit: most tokens to write.
        until: says where the step ends; None for no delimiter.
        hint: a guess of the tokens.
        tracing: what is kept of what each token was drawn from.
        cancel: ends it; the sequence is then as before.
        on_text: given the bytes of each token, in the device's thread, so it must not wait.
        reader: turns tokens into bytes; None for a new one.
    """

    def __init__(
        self,
        sequence: Sequence,
        draws: Draws,
        limit: int,
        until: Scan | None,
        hint: Hint,
        tracing: Tracing,
        cancel: CancelToken | None,
        on_text: Callable[[bytes], None] | None,
        reader: Reader | None = None,
    ) -> None:
        super().__init__(sequence, cancel)
        self._reader = reader or sequence.engine.model.spelling.reader()
        self.hidden = tracing == "states"
        self._tracer = Tracer() if tracing != "off" else None
        self._draws, self._limit, self._until, self._on_text = draws, limit, until, on_text
        self._only = hint.only
        self._before = 0 if until is None else until.size  # bytes of the step that stand already
        self.ahead, self.chunk = list(hint.tokens), hint.chunk
        self._raw = bytearray()
        self._ended: EndOfStep | None = None

    def take_over(self, own: Tokens[int], kept: int) -> bool:
        """Write what was drawn already, by a reading ahead of a step whose first ``kept`` tokens stand in the sequence.

        To be called before the engine has the request.

        Returns:
            Whether the step is done with that.
        """
        sequence, counters = self.sequence, self.sequence.counters
        self.start -= kept
        standing, true, output = sequence.tokens[self.start :], sequence.keep, sequence.cached_output
        sequence.cut(self.start)
        counters.missed_guesses += len(own) > kept
        ended: EndOfStep | None = None
        for token in own:
            ended = self._write(token)
            if ended:
                break
        made = sequence.tokens[self.start :]
        counters.kept_tokens += min(kept, len(made))
        sequence.cached_output = output if made == standing else None
        sequence.keep = min(true, self.start + common_prefix(standing, made))
        if ended is None and self._only:
            ended = "mismatch"
        return ended is not None and self._finish(ended, None)

    def process_output(self, outputs: list[Output]) -> bool:
        """Draw a token from each row for as long as the hint holds."""
        sequence = self.sequence
        if self._ended is not None:
            sequence.cached_output = outputs[0].copy()
            return self._finish(self._ended, sequence.cached_output.hidden)
        sequence.cached_output = None
        sequence.counters.ahead_tokens += len(outputs) - 1
        ended: EndOfStep | None = "context" if len(sequence.tokens) >= sequence.engine.context else None
        for place, output in enumerate(outputs if ended is None else []):
            held, ended = self._draw(output)
            sequence.counters.kept_tokens += held and place + 1 < len(outputs)
            if ended or not held:
                break
        # Of the hint, the cache keeps what was drawn; the last token drawn is evaluated with the next row to come.
        sequence.keep = min(sequence.keep, len(sequence.tokens) - 1)
        if ended is None:
            return False
        if self.hidden and ended not in ("end", "context"):
            self._ended, self.ahead = ended, []
            return False
        return self._finish(ended, None)

    def _draw(self, output: Output) -> tuple[bool, EndOfStep | None]:
        """Draw one token; say whether the hint had it, and whether the step ends with it."""
        sequence, counters = self.sequence, self.sequence.counters
        token = self._draws.draw(output.logits, sequence.tokens)
        if self._tracer is not None:
            self._tracer.note(token, output.logits, output.hidden)
        guess = self.ahead[0] if self.ahead else None
        held = guess == token
        counters.missed_guesses += guess is not None and not held
        self.ahead = self.ahead[1:] if held else []
        return held, self._write(token) or ("mismatch" if self._only and not held else None)

    def _write(self, token: int) -> EndOfStep | None:
        """Note a token that was drawn; say whether the step ends with it."""
        self.sequence.tokens.append(token)
        self.sequence.written.append(1)
        self.sequence.counters.generated_tokens += 1
        return self._end(token)

    def _end(self, token: int) -> EndOfStep | None:
        model, sequence = self.sequence.engine.model, self.sequence
        if model.is_end(token):
            return "end"
        ended = self._show(self._reader.piece(token))
        if (
            self._until is not None
            and self._until.overruns
            and len(sequence.tokens) + len(model.spelling.closing) < sequence.engine.context
        ):
            self._close_thought()
        if self._until is not None and ended:
            return "stop" if self._until.stopped is not None else "block" if self._until.closed else "delimiter"
        if len(sequence.tokens) - self.start >= self._limit:
            return "length"
        return "context" if len(sequence.tokens) >= sequence.engine.context else None

    def _show(self, piece: bytes) -> bool:
        """Take what is written; say whether it ends the step."""
        self._raw += piece
        if self._on_text is not None:
            self._on_text(piece)
        return self._until is not None and self._until.feed(piece)

    def _close_thought(self) -> None:
        """Write what closes a thought that is as long as it may be."""
        sequence, spelling = self.sequence, self.sequence.engine.model.spelling
        sequence.keep = min(sequence.keep, len(sequence.tokens) - 1)
        for token in spelling.closing:
            self._draws.pass_by(token)
            sequence.tokens.append(token)
            sequence.written.append(0)
            if self._tracer is not None:
                self._tracer.note_given()
        self.ahead = []
        self._show(spelling.closed)

    def _finish(self, ended: EndOfStep, after: Floats | None) -> bool:
        trace = self._tracer.trace(after) if self._tracer is not None and len(self.sequence) > self.start else None
        part: Part = "answer"
        takes_back = 0
        if self._until is not None:
            part, takes_back = self._until.part, self._until.takes_back
            if self._until.stopped is not None:  # the stop string is no part of the text
                del self._raw[max(0, self._until.stopped - self._before) :]
        self.value = Step(self.sequence.tokens[self.start :], bytes(self._raw), ended, trace, part, takes_back)
        return True
