"""Questions side by side, each with a seed of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rsd_local.events import CancelToken


def question_seed(seed: int, place: int) -> int:
    """The sampling seed of the question at a place: below 2^48, the same for every strategy and every schedule."""
    return int.from_bytes(hashlib.sha256(f"{seed} {place}".encode()).digest()[:6])


@contextmanager
def question_pool(parallel: int, cancel: CancelToken) -> Iterator[ThreadPoolExecutor]:
    """Threads for questions; an error cancels what is in flight."""
    pool = ThreadPoolExecutor(parallel, "bench")
    try:
        yield pool
    except BaseException:  # of any kind, a KeyboardInterrupt too: it goes on
        cancel.cancel()  # or what is in flight would be answered to its end for nobody
        raise
    finally:
        pool.shutdown(cancel_futures=True)
