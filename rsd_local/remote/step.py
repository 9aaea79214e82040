"""A step that a server is writing: from what it sends to tokens and bytes, and to where the step ends."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from rsd_local.errors import BadAnswer, Cancelled, Closed, EngineError
from rsd_local.remote.api import Ended, Piece, Server, Timing, Wanted
from rsd_local.remote.transport import Call
from rsd_local.remote.vocabulary import step_tokens
from rsd_local.segments import Scan
from rsd_local.steps import EndOfStep, Part, Step

Marks = tuple[list[int], list[int]]
_MOST_TEXT = 16 << 20  # bytes of one request's text


class Reader(Protocol):
    """Turns the tokens of one step into bytes."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds."""


@dataclass(frozen=True, slots=True)
class Language:
    """How a server's tokens become bytes.

    Attributes:
        reader: of a model here that has the same vocabulary, made anew for each step; None where there is none: then what counts is the
            text that the server sends.
        closing: tokens that close a thought; none where the model has no tags.
        closed: their bytes.
    """

    reader: Callable[[], Reader] | None = None
    closing: tuple[int, ...] = ()
    closed: bytes = b""


class Written:
    """Takes what comes of a step, request after request.

    Args:
        server: it comes from.
        language: of its model.
        until: where the step stands; None ends at no delimiter.
        limit: most tokens; what the server sends beyond them is not taken.
        on_text: given the bytes of each token.
        late: of a server whose texts come later than their tokens, what stands around a step (``vocabulary.edge_marks``).
    """

    def __init__(
        self,
        server: Server,
        language: Language,
        until: Scan | None,
        limit: int,
        on_text: Callable[[bytes], None],
        late: Marks | None = None,
    ) -> None:
        self._server, self._language, self._until, self._late = server, language, until, late
        self._limit, self._on_text = limit, on_text
        self._reader = language.reader() if language.reader is not None else None
        self._before = 0 if until is None else until.size
        self._raw = bytearray()
        self._said = bytearray()  # what the server has sent as text in this request
        self._fed = 0  # bytes of the request's tokens
        self._first = 0  # token of this request
        self.tokens: list[int] = []
        self.given = 0  # of them that were put in, and that the server did not draw
        self.closed_at: int | None = None  # where a thought was closed
        self.ended: EndOfStep | None = None

    def begin(self) -> None:
        """A further request of the same step begins."""
        self._said, self._fed, self._first = bytearray(), 0, len(self.tokens)

    def take(self, piece: Piece, call: Call) -> bool:
        """Take a piece; whether the step ends with it.

        Raises:
            BadAnswer: it holds what no piece can.
        """
        self._said += piece.text.encode("utf-8", "replace")
        if len(self._said) > _MOST_TEXT:
            raise BadAnswer(f"{self._server.url}: an answer without an end")
        if piece.lost:
            for token in self._found(piece, call):
                if self._token(token, b"") or self.ended is not None:
                    return True
        for place, token in enumerate(piece.tokens):
            last = place == len(piece.tokens) - 1
            if self._token(token, self._fresh() if last else b""):
                return True
        return False

    def leave(self, call: Call) -> None:
        """A request is left before its end: of tokens whose text has not come, those count that its text so far has."""
        if self._late is not None and self._reader is None and (self.closed_at is None or self.closed_at < self._first):
            self.tokens[self._first :] = step_tokens(self._server, bytes(self._said), self._late, call)

    def give(self, tokens: Sequence[int]) -> None:
        """Take tokens that are known to be what the server would write."""
        for token in tokens:
            if self.ended is not None:
                return
            self._token(token, b"" if self._reader is not None else self._server.piece(token).encode())
        if len(self.tokens) >= self._limit and self.ended is None:
            self.ended = "length"

    def finish(self, end: Ended) -> bool:
        """Take the end of a request; whether the step ends there."""
        if self.ended is None and self._reader is None and end.word:
            self._show(self._word(end.word))
        if self.ended is not None:
            return True
        if end.how == "end":
            self.ended = "end"
        elif end.how == "context":
            self.ended = "context"
        elif len(self.tokens) >= self._limit or (end.how == "limit" and end.lost):
            self.ended = "length"
        return self.ended is not None

    @property
    def flags(self) -> bytearray:
        """Of each token, whether the server drew it."""
        made = bytearray(b"\1" * len(self.tokens))
        if self.closed_at is not None:
            made[self.closed_at : self.closed_at + self.given] = bytes(self.given)
        return made

    def step(self, ended: EndOfStep) -> Step:
        """What was written."""
        part: Part = "answer"
        takes_back = 0
        if self._until is not None:
            part, takes_back = self._until.part, self._until.takes_back
            if self._until.stopped is not None:  # the stop string is no part of the text
                del self._raw[max(0, self._until.stopped - self._before) :]
        return Step(list(self.tokens), bytes(self._raw), ended, None, part, takes_back)

    def _token(self, token: int, text: bytes) -> bool:
        """Take a token; whether the step ends with it, or has as many as it may."""
        if len(self.tokens) >= self._limit:  # so the server does not keep to it
            self.ended = self.ended or "length"
            return True
        self.tokens.append(token)
        self._show(self._piece(token) if self._reader is not None else text)
        if self._until is not None and self._until.overruns and self._language.closing and self.closed_at is None:
            self.closed_at = len(self.tokens)
            self.tokens += self._language.closing
            self.given = len(self._language.closing)
            self._show(self._language.closed)
        return self.ended is not None

    def _piece(self, token: int) -> bytes:
        """What a token of the server's stands for in the vocabulary here."""
        assert self._reader is not None
        try:
            return self._reader.piece(token)
        except Closed:
            raise
        except EngineError as error:
            raise BadAnswer(
                f"{self._server.url} wrote what cannot be read here: {error}", hint="is it the same model's vocabulary?"
            ) from None

    def _show(self, data: bytes) -> None:
        self._raw += data
        self._fed += len(data)
        self._on_text(data)
        until = self._until
        if until is not None and until.feed(data) and self.ended is None:
            self.ended = "stop" if until.stopped is not None else "block" if until.closed else "delimiter"

    def _fresh(self) -> bytes:
        """What the server has said beyond what was taken, where its text is what counts."""
        return b"" if self._reader is not None else bytes(self._said[self._fed :])

    def _word(self, word: str) -> bytes:
        """A stop string, which the server leaves out, with what its last token has behind it."""
        said, whole = word.encode(), bytes(self._raw) + word.encode()
        piece = self._server.piece(self.tokens[-1]).encode() if self.tokens else b""
        inside = next((size for size in range(len(piece), 0, -1) if whole.endswith(piece[:size])), 0)
        return said + (piece[inside:] if inside else b"")

    def _found(self, piece: Piece, call: Call) -> list[int]:
        """Tokens that the server did not send, for they end inside a character: those that its tokenizer makes of it."""
        text = bytes(self._said[self._fed :]).decode("utf-8", "replace")
        tokens = self._server.tokenize(text, call=call)
        ends = len(piece.tokens)
        return tokens[: len(tokens) - ends] if tokens[len(tokens) - ends :] == list(piece.tokens) else tokens[: piece.lost]


class RemoteStep:
    """A step that a server is writing.

    Args:
        work: writes it, in a thread of its own: given the call and where bytes go.
        on_cancel: ends what that waits for.
    """

    def __init__(self, work: Callable[[Call, Callable[[bytes], None]], Step], on_cancel: Callable[[], None]) -> None:
        self._work, self._on_cancel, self._call = work, on_cancel, Call()
        self._texts: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._future: Future[Step] = Future()
        threading.Thread(target=self._run, name="rsd-remote", daemon=True).start()

    def _run(self) -> None:
        try:
            step = self._work(self._call, self._texts.put)
        except BaseException as error:  # of any kind: whoever waits gets it
            self._texts.put(None)
            self._future.set_exception(Cancelled("cancelled") if self._call.cancelled else error)
        else:
            self._texts.put(None)
            self._future.set_result(step)

    def result(self) -> Step:
        """Wait for the step."""
        return self._future.result()

    def cancel(self) -> None:
        """Close the connection, so that the server stops writing."""
        self._call.cancel()
        self._on_cancel()

    def texts(self) -> Iterator[bytes]:
        """The bytes of each token as it is written."""
        while (piece := self._texts.get()) is not None:
            yield piece


def follow(server: Server, wanted: Wanted, written: Written, call: Call, note: Callable[[int, Timing], None]) -> None:
    """One request of a step, up to its end or the step's.

    Args:
        server: that writes.
        wanted: of it.
        written: takes what comes.
        call: the request.
        note: given the length of the request's prompt and what it took; of one that is ended early what the server said last.
    """
    timing: Timing | None = None
    events = server.write(wanted, call)
    written.begin()
    over = False
    try:
        for event in events:
            if isinstance(event, Ended):
                timing = event.timing
                written.finish(event)
                return
            timing = event.timing or timing
            if over:  # the server goes on where the step does not
                return
            over = written.take(event, call)
            if over:
                written.leave(call)
            if over and wanted.stops is None:
                return
    finally:
        if timing is not None:
            note(len(wanted.tokens), timing)
        events.close()
