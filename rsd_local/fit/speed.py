"""What a plan's speed can be at best: a token reads all weights once, and memory gives so many bytes a second."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rsd_local.events import Role
from rsd_local.fit.plan import MemoryPlan

STEP = 30  # tokens of a step: of the order of what small models write on school mathematics
_BLOCK, _ROUNDS = 64 << 20, 5


def memory_bandwidth(threads: int) -> float:
    """Bytes a second that so many threads read together, measured in a fraction of a second; the best of five rounds."""
    blocks = [np.ones(_BLOCK // 8, np.int64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        times = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            list(pool.map(np.max, blocks))
            times.append(time.perf_counter() - began)
    return threads * _BLOCK / min(times)


def tokens_per_second(plan: MemoryPlan, bandwidth: float) -> dict[Role, float]:
    """The most tokens a second that each role can write or read one by one, on the CPU alone."""
    return {one.role: bandwidth / max(1, one.footprint.read) for one in plan.roles}


def gain(speeds: dict[Role, float], accepted: float) -> float:
    """How many times as fast as the target alone RSD can be at best.

    A token costs a pass of the draft, a step a pass of the reward model, and of a rejected step each token a pass of the
    target, and one more to read what it missed.

    Args:
        speeds: tokens a second by role; without a reward where scoring costs nothing, and of a cascade as if all were asked.
        accepted: the share of steps that stand as drafted.
    """
    target = 1 / speeds["target"]
    judged = sum(1 / speed / STEP for role, speed in speeds.items() if role not in ("draft", "target"))
    return target / (1 / speeds["draft"] + judged + (1 - accepted) * target * (1 + 1 / STEP))
