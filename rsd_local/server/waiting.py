"""A request whose trio is not loaded yet: it waits in line, is told so, and is answered then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rsd_local.errors import RSDError
from rsd_local.server.errors import TookTooLong, as_ours, body_of
from rsd_local.server.exchange import STREAM_HEADERS, Exchange, Patience, failure_response, to_json
from rsd_local.server.trios import Place


class Waiting(Response):
    """The response to a request that waits for its trio.

    Args:
        place: in line.
        begin: begins the answer once the trio is there; it takes the place over.
        stream: whether the answer is sent in chunks.
        patience: the time limits.
        ended: told what went wrong where no answer was begun; None where the client went away.
    """

    def __init__(
        self,
        place: Place,
        begin: Callable[[Patience], Awaitable[Exchange]],
        stream: bool,
        patience: Patience,
        ended: Callable[[RSDError | None], None],
    ) -> None:
        self._place, self._begin, self._stream, self._patience, self._ended = place, begin, stream, patience, ended
        self._until = time.monotonic() + patience.answer
        self._started = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, and send the answer."""
        gone = asyncio.create_task(_gone(receive))
        try:
            if not await self._wait(gone, send):
                self._ended(None)
                return
            exchange = await self._begin(self._patience.with_answer(max(0.0, self._until - time.monotonic())))
        except Exception as error:
            failure = as_ours(error)
            self._ended(failure)
            await self._send_failure(failure, scope, receive, send)
            return
        finally:
            gone.cancel()
            await asyncio.wait({gone})
        exchange.begun = self._started
        await exchange(scope, receive, send)

    async def _wait(self, gone: asyncio.Task[None], send: Send) -> bool:
        """Wait for the trio; False where the client went away first.

        Raises:
            RSDError: it cannot be loaded, or takes too long.
        """
        try:
            while not self._place.granted.done():
                left = self._until - time.monotonic()
                if left <= 0:
                    raise TookTooLong(f"the answer took longer than {self._patience.answer:g} s")
                await asyncio.wait({self._place.granted, gone}, timeout=min(left, self._patience.keep_alive), return_when="FIRST_COMPLETED")
                if gone.done():
                    self._place.leave()
                    return False
                if not self._place.granted.done() and self._stream:
                    await self._send_comment(send)
            self._place.granted.result()
        except BaseException:
            self._place.leave()
            raise
        return True

    async def _send_comment(self, send: Send) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        await send({"type": "http.response.body", "body": b": loading\n\n", "more_body": True})

    async def _send_failure(self, failure: RSDError, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._started:
            await failure_response(failure)(scope, receive, send)
            return
        event = f"data: {to_json(body_of(failure))}\n\n".encode("utf-8", "replace")
        await send({"type": "http.response.body", "body": event, "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
