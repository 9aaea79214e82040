"""Reading ahead on a server: how likely a step of the other model is to this one, from one request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from rsd_local.config import Sampling
from rsd_local.errors import Cancelled
from rsd_local.remote.place import Place
from rsd_local.remote.transport import Call
from rsd_local.steps import Reading, Trace


class RemoteReading:
    """A step that a server reads.

    Args:
        work: reads it, in a thread of its own.
        on_cancel: ends what that waits for.
    """

    def __init__(self, work: Callable[[Call], Reading], on_cancel: Callable[[], None]) -> None:
        self._work, self._on_cancel, self._call = work, on_cancel, Call()
        self._future: Future[Reading] = Future()
        self._thread = threading.Thread(target=self._run, name="rsd-remote-read", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._future.set_result(self._work(self._call))
        except BaseException as error:  # of any kind: whoever waits gets it
            self._future.set_exception(Cancelled("cancelled") if self._call.cancelled else error)

    def result(self) -> Reading:
        """Wait for the reading."""
        return self._future.result()

    def cancel(self) -> None:
        """Close the connection."""
        self._call.cancel()
        self._on_cancel()

    def join(self) -> None:
        """Wait until nothing of it goes on."""
        self._thread.join()


def read_step(place: Place, call: Call, sampling: Sampling | None) -> Reading:
    """What a server says of the step that was noted in a place.

    Of the distributions only what the server gives is known: no entropies, which are NaN. What it would have written is known where
    each token is the most likely one.

    Args:
        place: where it stands.
        call: the request.
        sampling: how this model would have drawn each token; None where nobody asks.
    """
    began, computed = time.perf_counter(), 0.0
    try:
        with place.asking(call):
            tokens, found = place.read(call)
            computed = found.timing.reading
    finally:
        place.counters.waiting_seconds += max(0.0, time.perf_counter() - began - computed)
    logs = np.asarray(found.log_probabilities, np.float32)
    trace = Trace(np.zeros((0, 0), np.float32), logs, np.full(len(logs), np.nan, np.float32))
    if sampling is None or not most_likely(sampling):
        return Reading(trace)
    same = [one == best for one, best in zip(tokens, found.best, strict=True)]
    kept = same.index(False) if False in same else len(same)
    return Reading(trace, found.best[: kept + 1], kept)


def most_likely(sampling: Sampling) -> bool:
    """Whether each token that is drawn is the most likely one."""
    penalties = (sampling.repeat_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    return sampling.temperature == 0 and not sampling.grammar and (sampling.penalty_last_n == 0 or penalties == (1, 0, 0))
