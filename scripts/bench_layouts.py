"""How fast a model writes and reads with its weights as in the file, and laid out anew for the CPU by llama.cpp.

    python scripts/bench_layouts.py MODEL.gguf … [--threads N] [--rounds 5] [--json]

For each model two processes take turns, one for each layout: tokens a second one by one, in batches of 12 (a step that is read),
and in a prompt of 128. Figures are medians of the rounds, ratios medians of the rounds' ratios. The first round warms up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from llama_cpp import llama_cpp as C

from rsd_local import machine

SIZES = {"one by one": (1, 32), "steps of 12": (12, 4), "prompt of 128": (128, 1)}  # rows of a batch, and batches


class Loop:
    """A model with one of the layouts, and nothing around it."""

    def __init__(self, path: Path, repack: bool, threads: int) -> None:
        model_params = C.llama_model_default_params()
        model_params.n_gpu_layers, model_params.use_extra_bufts = 0, repack
        self._model = C.llama_model_load_from_file(str(path).encode(), model_params)
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 512, 128, 128
        params.n_threads = params.n_threads_batch = threads
        self._context = C.llama_init_from_model(self._model, params)

    def rates(self) -> dict[str, float]:
        """Tokens a second for each size of a batch."""
        found = {}
        for name, (rows, batches) in SIZES.items():
            C.llama_memory_clear(C.llama_get_memory(self._context), True)
            began = time.perf_counter()
            for batch in range(batches):
                tokens = (C.llama_token * rows)(*(1000 + 7 * (batch * rows + row) for row in range(rows)))
                C.llama_decode(self._context, C.llama_batch_get_one(tokens, rows))
                C.llama_synchronize(self._context)
            found[name] = rows * batches / (time.perf_counter() - began)
        return found


def serve(path: Path, repack: bool, threads: int) -> None:
    """The child: one line of rates for each line that comes in."""
    loop = Loop(path, repack, threads)
    for _ in sys.stdin:
        print(json.dumps(loop.rates()), flush=True)


def compare(path: Path, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of both layouts and of their ratios, for each size."""
    children = [
        subprocess.Popen(
            [sys.executable, __file__, str(path), "--threads", str(threads), "--serve", layout],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for layout in ("file", "repacked")
    ]  # fmt: skip
    seen: list[list[dict[str, float]]] = []
    for number in range(rounds + 1):
        order = [0, 1] if number % 2 else [1, 0]
        got: dict[int, dict[str, float]] = {}
        for which in order:
            stdin, stdout = children[which].stdin, children[which].stdout
            assert stdin is not None and stdout is not None
            stdin.write("\n")
            stdin.flush()
            got[which] = json.loads(stdout.readline())
        seen.append([got[0], got[1]])
    for child in children:
        child.communicate()
    return {
        name: {
            "file": statistics.median(pair[0][name] for pair in seen[1:]),
            "repacked": statistics.median(pair[1][name] for pair in seen[1:]),
            "repacked_of_file": statistics.median(pair[1][name] / pair[0][name] for pair in seen[1:]),
        }
        for name in SIZES
    }


def main() -> None:
    """Measure each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=machine.threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=["file", "repacked"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.models[0], given.serve == "repacked", given.threads)
        return
    found = {path.name: compare(path, given.threads, given.rounds) for path in given.models}
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for model, sizes in found.items():
        print(f"{model}, {given.threads} threads, tokens a second, median of {given.rounds} rounds in turns")
        print(f"  {'':<14} {'as in the file':>14} {'repacked':>10} {'ratio':>7}")
        for name, of in sizes.items():
            print(f"  {name:<14} {of['file']:>14.1f} {of['repacked']:>10.1f} {of['repacked_of_file']:>7.2f}")


if __name__ == "__main__":
    main()
