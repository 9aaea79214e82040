"""One answer on its way to one client: its run, the stream of chunks, and what ends both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rsd_local.errors import Cancelled, Closed, RSDError
from rsd_local.events import Event, Finished, TextWritten
from rsd_local.run import Run
from rsd_local.server.answers import Answer
from rsd_local.server.errors import TookTooLong, WrongMethod, as_ours, body_of, row_of
from rsd_local.server.usage import Account

_LOOKS = 0.5  # seconds between two looks at the place in the queue
_MOMENT = 0.02  # seconds in which text is gathered: a frame or so of a screen
STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
"""Of a stream of events; the last one is nginx's."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits of a server, in seconds.

    Attributes:
        body: in which a request's body must be there.
        answer: of an answer, its wait in the queue included.
        keep_alive: of silence in a stream, until a comment is sent.
        write: in which a client must take what it is sent.
        end: in which a run ends once it is cancelled.
    """

    body: float = 30.0
    answer: float = 3600.0
    keep_alive: float = 10.0
    write: float = 60.0
    end: float = 30.0

    def with_answer(self, seconds: float) -> Patience:
        """The same with another limit for an answer."""
        return replace(self, answer=seconds)


class Feed:
    """The events of a run inside the loop, for whoever must not wait for them for ever.

    Every token comes this way, and what it costs is taken from the models' time. So text that comes within a moment of the last one
    is given together; anything else at once.

    Args:
        run: whose work is done in a thread of its own from now on.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Event | BaseException | None] = deque()  # filled by the run's thread
        self._events: list[Event] = []
        self._called = False  # whether the loop will look anyway
        self._failure: BaseException | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._end: asyncio.Future[None] = self._loop.create_future()
        try:
            run.pump(self._post, asyncio.current_task())
        except RuntimeError as error:  # there can be no further thread
            self._failure = error
            self._end.set_result(None)
            run.close()

    def _post(self, item: Event | BaseException | None) -> None:
        self._arrived.append(item)
        if not self._called or not isinstance(item, TextWritten):
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop has gone, and with it whoever waits
                self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._called = False
        self._sort()
        if self._events or self._end.done():
            self._wake()

    def _sort(self) -> None:
        """Take in what has arrived."""
        while self._arrived:
            item = self._arrived.popleft()
            if item is None or isinstance(item, BaseException):
                self._failure = item
                self._end.set_result(None)
            else:
                self._events.append(item)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, seconds: float) -> list[Event]:
        """All events that are there, or the next one where it comes in time.

        Raises:
            RSDError: what the run ended with, behind its events.
        """
        self._sort()
        if not self._events and not self._end.done():
            self._waiting = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._wake)
            try:
                await self._waiting
            finally:
                timer.cancel()
            self._sort()
        events, self._events = self._events, []
        if events and not self._end.done():
            self._called = True
            self._loop.call_later(_MOMENT, self._look)
        if not events and self._failure is not None:
            raise self._failure
        if not events and self._end.done():
            raise Closed("the run was closed before its end")
        return events

    async def close(self, seconds: float) -> None:
        """Cancel the run, and wait for its end."""
        self.run.cancel()
        await asyncio.wait({self._end}, timeout=seconds)


class Exchange(Response):
    """The response with an answer: whole, or as server-sent events.

    A client that goes away cancels the run; so do the time limit and ``stop``.

    Args:
        run: that makes the answer.
        answer: makes its objects.
        stream: whether it is sent in chunks.
        patience: the time limits.
        ended: told how it ended: with an account, an error, or neither where the client went away.
    """

    def __init__(
        self, run: Run, answer: Answer, stream: bool, patience: Patience, ended: Callable[[Account | None, RSDError | None], None]
    ) -> None:
        self.run, self._answer, self._stream, self._patience, self._ended = run, answer, stream, patience, ended
        self._cause: RSDError | None = None  # of a cancellation
        self._started = self._gone = False
        self.begun = False  # whether the headers of a stream were sent before, while its trio was loaded
        self.background = None

    def stop(self, cause: RSDError) -> None:
        """End the answer with an error."""
        self._cause = self._cause or cause
        self.run.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        feed = Feed(self.run)
        watch = asyncio.create_task(self._watch(receive))
        limit = asyncio.get_running_loop().call_later(
            self._patience.answer, lambda: self.stop(TookTooLong(f"the answer took longer than {self._patience.answer:g} s"))
        )
        failure: RSDError | None = None
        try:
            await (self._send_stream if self._stream else self._send_whole)(feed, send)
        except Exception as error:
            failure = as_ours(error)
            await self._send_failure(failure, scope, receive, send)
        finally:
            limit.cancel()
            watch.cancel()
            await feed.close(self._patience.end)
            self._ended(self._answer.account, failure)

    async def _watch(self, receive: Receive) -> None:
        """Cancel the run once the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self.run.cancel()

    async def _events(self, feed: Feed, seconds: float) -> AsyncIterator[list[Event]]:
        """The events as they come, and an empty list for so many seconds without one.

        Raises:
            RSDError: the run failed, or was cancelled by something else than a client that went away.
        """
        times = self._answer.times
        while True:
            if not times.admitted and self.run.position == 0:
                times.admitted = time.perf_counter()
            events = await feed.wait(seconds if times.admitted else min(_LOOKS, seconds))
            for event in events:
                self._answer.note(event)
            last = events[-1] if events else None
            if isinstance(last, Finished) and last.reason == "cancelled" and not self._gone:
                raise self._cause or Cancelled("the answer was cancelled")
            yield events
            if isinstance(last, Finished):
                return

    async def _send_whole(self, feed: Feed, send: Send) -> None:
        async for _ in self._events(feed, self._patience.keep_alive):
            pass
        if not self._gone:
            await self._send_json(200, self._answer.whole(), send)

    async def _send_stream(self, feed: Feed, send: Send) -> None:
        place, quiet = self.run.position, time.monotonic()
        if place:
            await self._write(send, [self._answer.waiting(place)])
        async for events in self._events(feed, self._patience.keep_alive):
            chunks = [chunk for event in events for chunk in self._answer.chunks(event)]
            if place and (now := self.run.position) != place:
                place = now
                chunks.insert(0, self._answer.waiting(place))
            if chunks:
                await self._write(send, chunks)
                quiet = time.monotonic()
            elif time.monotonic() - quiet >= self._patience.keep_alive:
                await self._write(send, [])
                quiet = time.monotonic()
        await self._write_text(send, "data: [DONE]\n\n", more=False)

    async def _write(self, send: Send, chunks: list[dict[str, Any]]) -> None:
        """Send chunks, or a comment where there is none; the first time behind the headers and the chunk that all begin with."""
        if not self._started:
            await self._start(200, STREAM_HEADERS, send)
            chunks = [self._answer.first(), *chunks]
        await self._write_text(send, "".join(f"data: {to_json(chunk)}\n\n" for chunk in chunks) or ": keep-alive\n\n")

    async def _send_failure(self, error: RSDError, scope: Scope, receive: Receive, send: Send) -> None:
        """Say what went wrong: as a response where none has begun, otherwise as the stream's last event."""
        if self._gone or isinstance(error, ClientStalled):
            return
        if not self._started and not self.begun:
            await failure_response(error)(scope, receive, send)
        elif self._stream:
            with contextlib.suppress(ClientStalled):
                await self._write_text(send, f"data: {to_json(body_of(error))}\n\n", more=False)

    async def _send_json(self, status: int, content: dict[str, Any], send: Send) -> None:
        body = to_json(content)
        length = str(len(body.encode("utf-8", "replace"))).encode()
        await self._start(status, [(b"content-type", b"application/json"), (b"content-length", length)], send)
        await self._write_text(send, body, more=False)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]], send: Send) -> None:
        self._started = True
        if not self._gone and not self.begun:
            await send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write_text(self, send: Send, text: str, *, more: bool = True) -> None:
        if self._gone:
            return
        try:
            async with asyncio.timeout(self._patience.write):
                await send({"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": more})
        except TimeoutError:
            raise ClientStalled("the client does not read its answer") from None


class ClientStalled(Cancelled):
    """A client that does not take what it is sent."""

    code = "client-stalled"


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))  # once: every token's chunk goes through it


def to_json(content: Any) -> str:
    """An object as JSON, in which every number is one of JSON's."""
    return _ENCODER.encode(content)


def failure_response(error: RSDError, retry_after: int = 1) -> Response:
    """An error as a response.

    Args:
        error: it.
        retry_after: seconds after which it is worth to ask again, where it is.
    """
    row = row_of(error)
    headers = {"retry-after": str(retry_after)} if row.status in (429, 503) else {}
    headers |= {"www-authenticate": "Bearer"} if row.status == 401 else {}
    headers |= {"allow": error.allow} if isinstance(error, WrongMethod) else {}
    return Response(to_json(body_of(error)).encode("utf-8", "replace"), row.status, headers, "application/json")
