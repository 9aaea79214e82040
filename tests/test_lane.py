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


def test_batches_of_one_thread_wait_for_wider_ones_only() -> None:
    lane, held, inside = Lane(2), threading.Event(), list[int]()

    def take(width: int) -> None:
        with lane.turn(width):
            inside.append(width)
            held.wait()

    threads = [threading.Thread(target=take, args=(width,)) for width in (1, 1, 1, 2, 1)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        _until(lambda number=number: len(inside) + len(lane._waiting) == number)  # type: ignore[misc]
    assert inside == [1, 1, 1] and lane._free == -1  # three at once on two cores; the wide one waits, and who asked after it
    held.set()
    for thread in threads:
        thread.join()
    assert inside == [1, 1, 1, 2, 1] and lane._free == 2


def test_a_gpu_has_one_turn_at_a_time() -> None:
    lane, order = Lane(1), []

    def take() -> None:
        with lane.turn(1):
            order.append("second")

    with lane.turn(1):
        waiting = threading.Thread(target=take)
        waiting.start()
        _until(lambda: len(lane._waiting) == 1)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


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
