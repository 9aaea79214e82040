"""Waiting in an event loop for what blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], abandoned: Callable[[], None], undo: Callable[[T], object]) -> T:
    """Do something in a thread of its own while the loop goes on; what it raises is raised here.

    Args:
        work: what blocks.
        abandoned: called when the waiting task is cancelled.
        undo: called in a thread with the result that nobody waits for any more.
    """
    import asyncio  # whoever is here has it; a command line need not load it

    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            if error is None:
                threading.Thread(target=undo, args=(value,), name="rsd-undo", daemon=True).start()
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        try:
            value, error = work(), None
        except BaseException as raised:  # of any kind: it is raised in the loop
            value, error = None, raised
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:  # the loop has gone
            if error is None:
                undo(value)  # type: ignore[arg-type]

    threading.Thread(target=run, name="rsd-in-thread", daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        abandoned()
        raise
