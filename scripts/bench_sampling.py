"""What drawing a token costs, by filter, and what four draws gain in threads.

    python scripts/bench_sampling.py [--words 151936] [--rounds 200] [--json]

Logits are made: a bulk and a head that falls off as real models' do; ``flat`` ones have no head, and top-p then keeps most words. The
variants run in turns in one process, on eight rows of logits; each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rsd_local.config import Sampling
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.trace import Tracer

ROWS = 8
SAMPLINGS = {
    "greedy": Sampling(),
    "temperature": Sampling(temperature=0.7),
    "top_p": Sampling(temperature=0.7, top_p=0.95),
    "min_p": Sampling(temperature=0.7, min_p=0.05),
    "top_k": Sampling(temperature=0.7, top_k=20),
    "all_filters": Sampling(temperature=0.7, top_k=20, top_p=0.95, min_p=0.05),
    "penalties": Sampling(temperature=0.7, repeat_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.1),
    "penalties_and_all_filters": Sampling(temperature=0.7, top_k=20, top_p=0.95, min_p=0.05, repeat_penalty=1.1),
}
FLAT = {"flat_temperature": SAMPLINGS["temperature"], "flat_top_p": SAMPLINGS["top_p"], "flat_min_p": SAMPLINGS["min_p"]}


def peaked(words: int, chance: np.random.Generator) -> Floats:
    """Logits (words,) with a head, as a model of 0.5B weights was seen to give."""
    logits = chance.normal(-4.5, 2.7, words)
    head = chance.choice(words, min(100, words), replace=False)
    logits[head] = 20 - 3.5 * np.log(1 + np.arange(len(head))) + chance.normal(0, 1, len(head))
    return logits.astype(np.float32)


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def draw_costs(words: int, rounds: int, context: list[int]) -> dict[str, float]:
    """Milliseconds of one draw under each sampling, and of noting its probability and entropy."""
    chance = np.random.default_rng(0)
    rows = [peaked(words, chance) for _ in range(ROWS)]
    flat = [chance.normal(0, 0.3, words).astype(np.float32) for _ in range(ROWS)]
    draws = {name: Draws(sampling, Stream(0, TARGET)) for name, sampling in {**SAMPLINGS, **FLAT}.items()}
    seconds: dict[str, list[float]] = {name: [] for name in (*draws, "trace")}
    tracer = Tracer()
    for turn in range(rounds + ROWS):
        for name, one in draws.items():
            logits = (flat if name in FLAT else rows)[turn % ROWS]
            one.draw(logits, context)  # brings this row into the cache, as the decode before a draw does
            seconds[name].append(timed(one.draw, logits, context))
        seconds["trace"].append(timed(tracer.note, 0, rows[turn % ROWS], None))
    return {f"{name}_ms": 1e3 * statistics.median(values[ROWS:]) for name, values in seconds.items()}


def thread_gain(words: int, rounds: int, threads: int) -> dict[str, float]:
    """How many times faster four sequences draw in threads, each with its share of them, than one after another."""
    chance = np.random.default_rng(1)
    rows = [peaked(words, chance) for _ in range(4)]
    gains = {}
    with ThreadPoolExecutor(max(threads - 1, 1)) as pool:
        for name in ("temperature", "top_p", "min_p", "top_k"):
            four = [Draws(SAMPLINGS[name], Stream(0, TARGET, attempt=place)) for place in range(4)]

            def draw(places: range, four: list[Draws] = four) -> None:
                for place in places:
                    four[place].draw(rows[place])

            def together(draw: Callable[[range], None] = draw) -> None:
                shares = [range(first, 4, threads) for first in range(threads)]
                others = [pool.submit(draw, share) for share in shares[1:]]
                draw(shares[0])
                for other in others:
                    other.result()

            ratios = [timed(draw, range(4)) / timed(together) for _ in range(rounds + ROWS)]
            gains[f"four_in_threads_gain_{name}"] = statistics.median(ratios[ROWS:])
    return gains


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--words", type=int, default=151_936)
    arguments.add_argument("--rounds", type=int, default=200)
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    threads = min(4, os.cpu_count() or 1)
    context = [int(token) for token in np.random.default_rng(2).integers(0, chosen.words, 64)]
    figures = {**draw_costs(chosen.words, chosen.rounds, context), **thread_gain(chosen.words, chosen.rounds, threads)}
    if chosen.json:
        print(json.dumps({"words": chosen.words, "rounds": chosen.rounds, "threads": threads, **figures}))
        return
    print(f"{chosen.words} words, median of {chosen.rounds} rounds in turns; four draws in {threads} threads")
    for name, value in figures.items():
        print(f"  {name:<34} {value:8.3f}")


if __name__ == "__main__":
    main()
