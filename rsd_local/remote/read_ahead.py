"""Reading ahead on a server: how likely a step of the other model is to this one, from one request."""

from __future__ import annotations

import time

import numpy as np

from rsd_local.config import Sampling
from rsd_local.remote.place import Place
from rsd_local.remote.transport import Call
from rsd_local.steps import Reading, Trace


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
