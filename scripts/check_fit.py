"""Compares what rsd fit says of models with what they take: resident memory after each wrote a few tokens.

    python scripts/check_fit.py MODEL.gguf [MODEL.gguf …]

Each case runs in a process of its own. Linux: elsewhere resident memory does not count mapped files alike.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from rsd_local.config import RoleConfig, Sampling
from rsd_local.fit import RoleCapacity
from rsd_local.fit.memory import Footprint
from rsd_local.gguf_header import read_header
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws, Engine, Model

CASES = ((1, 4096), (4, 2048), (8, 4096))  # sequences, tokens of each


def taken(path: Path, slots: int, context: int) -> int:
    """Bytes that a model and its engine add to this process, each sequence having read 300 tokens and written 8."""
    config, before = RoleConfig(path, ctx_size=context), psutil.Process().memory_info().rss
    engine = Engine(Model(config), config, slots)
    sequences = [engine.sequence(list(range(100, 400))) for _ in range(slots)]
    for writing in [sequence.generate(Draws(Sampling(), Stream(0, TARGET)), 8) for sequence in sequences]:
        writing.future.result()
    return int(psutil.Process().memory_info().rss - before)


def main() -> None:
    """Prints one line per model and case."""
    if sys.argv[1] == "--one":
        print(taken(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
        return
    print("| model | sequences × context | said, MB | taken, MB | said / taken |\n|---|---|---|---|---|")
    for path in map(Path, sys.argv[1:]):
        for slots, context in CASES:
            made = Footprint.of(read_header(path), RoleCapacity(RoleConfig(path, ctx_size=context), slots), on_gpu=False)
            said = made.weights + made.cache + made.compute
            command = [sys.executable, __file__, "--one", str(path), str(slots), str(context)]
            real = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(f"| {path.stem} | {slots} × {context:,} | {said / 1e6:,.0f} | {real / 1e6:,.0f} | {said / real:.3f} |", flush=True)


if __name__ == "__main__":
    main()
