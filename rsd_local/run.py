"""One answer while it is made: its events, and every way to end it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from rsd_local.admission import Ticket
from rsd_local.errors import Cancelled, Closed
from rsd_local.events import CancelToken, Chosen, Event, Finished, Result, StepDone, Way
from rsd_local.runtime.llama import check_process, was_forked


class Run:
    """An answer: an iterator of events, also ``async for``, and a context manager.

    It holds its place in the queue from the moment it is made, and gives it back at its end, on ``close``, on any error, and
    when nobody refers to it any more. The work is done while somebody iterates; ``cancel`` and ``close`` may come from any thread.

    Args:
        ticket: its place in the queue.
        events: makes the events once it is admitted, with the token that stops them.
        cancel: the caller's own token, which stops it too.
    """

    def __init__(self, ticket: Ticket, events: Callable[[CancelToken], Iterator[Event]], cancel: CancelToken | None) -> None:
        self._ticket, self._make = ticket, events
        self._token, self._linked = CancelToken(), ExitStack()
        if cancel is not None:
            self._linked.enter_context(cancel.calling(self._token.cancel))
        self._lock = threading.RLock()  # held while the work is done
        self._events: Iterator[Event] | None = None
        self._steps: list[StepDone] = []
        self._ways: dict[int, Way] = {}
        self._end: Finished | None = None
        self._over = False
        self._closed_with: Closed | None = None

    @property
    def position(self) -> int:
        """How many runs have to end before this one is admitted; 0 once it is."""
        return self._ticket.position

    def cancel(self) -> None:
        """Stop it within one batch; the last event then says so."""
        self._token.cancel()

    def close(self) -> None:
        """Stop it and give its place and its caches back; whoever iterates gets no further event. A second call does nothing."""
        if was_forked():
            return  # place and caches are the parent's affair
        self._token.cancel()
        with self._lock:
            self._finish()

    def end_with(self, error: Closed) -> None:
        """Close it, because what it runs on is being closed; whoever iterates gets the error."""
        if not self._over:
            self._closed_with = error
        self.close()

    def result(self) -> Result:
        """The outcome, once it is there; events that were taken already count."""
        self._ticket.owner = threading.get_ident()
        return self._to_end()

    def future(self) -> Future[Result]:
        """The outcome as a future; a thread of its own does the work, and ``Future.cancel`` stops the run.

        ``asyncio.wrap_future`` makes it one that a loop waits for.
        """
        outcome: Future[Result] = Future()
        outcome.add_done_callback(lambda done: self.cancel() if done.cancelled() else None)

        def work() -> None:
            try:
                self._ticket.owner = outcome
                result = self._to_end()
            except BaseException as error:  # of any kind: it is raised where the future is asked
                with contextlib.suppress(InvalidStateError):
                    outcome.set_exception(error)
            else:
                with contextlib.suppress(InvalidStateError):  # it was cancelled
                    outcome.set_result(result)
            finally:
                self.close()

        threading.Thread(target=work, name="rsd-run", daemon=True).start()
        return outcome

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        self._ticket.owner = threading.get_ident()
        return self._next()

    async def __aiter__(self) -> AsyncIterator[Event]:
        import asyncio  # whoever is here has it; a command line need not load it

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        arrived: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

        def post(item: Event | BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has gone, and with it whoever waits
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        self.pump(post, task)
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._token.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()

    def pump(self, post: Callable[[Event | BaseException | None], None], owner: Hashable) -> None:
        """Start to do the work in a thread of its own, for a loop that must not wait.

        Args:
            post: given each event in that thread, and at the end None or what was raised.
            owner: who waits for the events, such as a task of the loop.
        """
        threading.Thread(target=self._pump, args=(post, owner), name="rsd-run", daemon=True).start()

    def _pump(self, post: Callable[[Event | BaseException | None], None], owner: Hashable) -> None:
        self._ticket.owner, self._ticket.may_lag = owner, True
        try:
            while True:
                post(self._next())
        except StopIteration:
            post(None)
        except BaseException as error:  # of any kind: it is raised in the loop
            post(error)
        finally:
            self.close()

    def _to_end(self) -> Result:
        with contextlib.suppress(StopIteration):
            while True:
                self._next()
        if self._end is None:
            raise Closed("the run was closed before its end")
        return _result(self._steps, self._ways, self._end)

    def _next(self) -> Event:
        check_process()
        with self._lock:
            if self._over:
                self._raise_if_closed()
                raise StopIteration
            try:
                event = self._work()
            except Cancelled:
                event = Finished("cancelled", "", None, {})
            except BaseException:
                self._finish()
                self._raise_if_closed()
                raise
            if isinstance(event, Finished):
                self._end = event
                self._finish()
                self._raise_if_closed()
            elif isinstance(event, StepDone):
                self._steps.append(event)
            elif isinstance(event, Chosen):
                note_way(self._ways, event)
            return event

    def _work(self) -> Event:
        if self._events is None:
            self._ticket.wait(self._token)
            self._events = self._make(self._token)
        return next(self._events)

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            if self._events is not None:
                self._events.close()  # type: ignore[attr-defined]
        finally:
            self._ticket.leave()
            self._linked.close()

    def _raise_if_closed(self) -> None:
        if self._closed_with is not None:
            raise self._closed_with


def timed(events: Iterator[Event]) -> Iterator[Event]:
    """The same events, each step with the seconds of work since the one before; the caller's own time does not count."""
    spent = 0.0
    with contextlib.closing(events):  # type: ignore[type-var]
        while True:
            began = time.perf_counter()
            try:
                event = next(events)
            except StopIteration:
                return
            spent += time.perf_counter() - began
            if isinstance(event, StepDone):
                event, spent = replace(event, seconds=spent), 0.0
            yield event


def collect(events: Iterator[Event]) -> Result:
    """The result of events that go on to their end."""
    steps: list[StepDone] = []
    ways: dict[int, Way] = {}
    for event in events:
        if isinstance(event, StepDone):
            steps.append(event)
        elif isinstance(event, Chosen):
            note_way(ways, event)
        elif isinstance(event, Finished):
            end = event
    return _result(steps, ways, end)


def note_way(ways: dict[int, Way], chosen: Chosen) -> None:
    """Take how a step comes about; where the draft tried, that is what to go again, whoever wrote it in the end."""
    if ways.get(chosen.index) != "draft":
        ways[chosen.index] = chosen.way


def _result(steps: list[StepDone], ways: dict[int, Way], end: Finished) -> Result:
    return Result(
        end.answer, end.text, end.reason, tuple(steps), end.counters, end.non_finite_rewards, end.unchecked_steps, end.decided_by,
        end.thought, tuple(ways.values()),
    )  # fmt: skip
