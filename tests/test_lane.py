"""The turns that engines take on one device."""

from __future__ import annotations

import threading
import time

from rsd_local.runtime.llama import Lane


def test_a_lane_admits_what_fits_in_the_order_of_asking() -> None:
    lane, held, order = Lane(4), threading.Event(), []
    inside: set[str] = set()

    def take(name: str, width: int | None) -> None:
        with lane.turn(width):
            order.append(name)
            inside.add(name)
            held.wait()
            inside.remove(name)

    threads = []
    for name, width in (("a", 1), ("b", 2), ("wide", 9), ("late", 1)):
        threads.append(threading.Thread(target=take, args=(name, width)))
        threads[-1].start()
        _until(lambda name=name: name in inside or len(lane._waiting) == len(threads) - len(inside))  # type: ignore[misc]
    # One core is free, and the last one asked for no more; but the wide one asked before.
    assert inside == {"a", "b"}
    held.set()
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "wide", "late"]
    with lane.turn():  # everything was given back
        assert lane._free == 0


def test_a_batch_that_fails_gives_its_turn_back() -> None:
    lane = Lane(2)
    try:
        with lane.turn(2):
            raise RuntimeError
    except RuntimeError:
        pass
    with lane.turn():
        pass


def _until(done: object) -> None:
    deadline = time.monotonic() + 10
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)
