"""What attention costs with and without fusing (flash attention), by the tokens that stand in the cache.

    python scripts/bench_attention.py MODEL.gguf [--depths 64,512,1024] [--cache-type f16] [--rounds 5] [--json FILE]

A bare context for each of the two, in turns: milliseconds to write a token, to read a step of 12, and to read 128 rows of a prompt, behind
so many tokens. Printed are medians of the rounds and the ratio of paired rounds; above 1 fusing costs time. On a GPU no layer is put.
"""

from __future__ import annotations

import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from llama_cpp import llama_cpp as C

from rsd_local import RoleConfig, machine
from rsd_local.bench.machine import cpu_name
from rsd_local.bench.tables import markdown
from rsd_local.runtime import Model

SIZES = (1, 12, 128)
_TYPES = {"f32": 0, "f16": 1, "bf16": 30}
_CHUNK = 256


class Bare:
    """A context of its own over a model's weights.

    Args:
        handle: llama.cpp's model.
        fused: whether attention is.
        cache_type: of keys and values.
        context: tokens.
        threads: that compute.
    """

    def __init__(self, handle: Any, *, fused: bool, cache_type: str, context: int, threads: int) -> None:
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = context, _CHUNK, _CHUNK, 1
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type, params.type_k, params.type_v = int(fused), _TYPES[cache_type], _TYPES[cache_type]
        self._context = C.llama_init_from_model(handle, params)
        if not self._context:
            raise SystemExit("llama.cpp cannot make such a context")
        self._batch = C.llama_batch_init(_CHUNK, 0, 1)

    def fill(self, depth: int) -> None:
        """Let so many tokens stand."""
        C.llama_memory_clear(C.llama_get_memory(self._context), True)
        for start in range(0, depth, _CHUNK):
            self.read(min(_CHUNK, depth - start), start)

    def read(self, rows: int, start: int) -> float:
        """Seconds to evaluate so many tokens behind the first ``start`` ones."""
        batch = self._batch
        batch.n_tokens = rows
        for row in range(rows):
            batch.token[row], batch.pos[row], batch.n_seq_id[row], batch.logits[row] = 300 + row, start + row, 1, row == rows - 1
            batch.seq_id[row][0] = 0
        began = time.perf_counter()
        if C.llama_decode(self._context, batch):
            raise SystemExit("llama.cpp cannot evaluate a batch")
        return time.perf_counter() - began

    def forget(self, depth: int) -> None:
        """Take back all but so many tokens."""
        if not C.llama_memory_seq_rm(C.llama_get_memory(self._context), 0, depth, -1):
            raise SystemExit("this model's cache cannot be cut: take one with attention alone")

    def close(self) -> None:
        """Free it."""
        C.llama_batch_free(self._batch)
        C.llama_free(self._context)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--depths", default="64,512,1024", show_default=True, metavar="TOKENS[,TOKENS]")
@click.option("--cache-type", default="f16", show_default=True, type=click.Choice([*_TYPES]))
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "out", type=Path, metavar="FILE", help="Write the figures there too.")
def main(file: Path, depths: str, cache_type: str, rounds: int, out: Path | None) -> None:
    """Measures and prints."""
    places, threads = [int(one) for one in depths.split(",")], machine.threads()
    seconds: dict[tuple[int, int, bool], list[float]] = {}
    with ExitStack() as opened:
        opened.callback((model := Model(RoleConfig(file, gpu_layers=0))).close)
        handle, context = opened.enter_context(model.in_use()), max(places) + max(SIZES)
        bare = {fused: Bare(handle, fused=fused, cache_type=cache_type, context=context, threads=threads) for fused in (True, False)}
        for one in bare.values():
            opened.callback(one.close)
        for number in range(rounds):
            for depth in places:
                for fused in (True, False) if number % 2 else (False, True):
                    bare[fused].fill(depth)
                    for rows in SIZES:
                        seconds.setdefault((rows, depth, fused), []).append(bare[fused].read(rows, depth))
                        bare[fused].forget(depth)
    rows_of, made = [], []
    for rows in SIZES:
        for depth in places:
            pairs = list(zip(seconds[rows, depth, True], seconds[rows, depth, False], strict=True))
            on, off = (1e3 * statistics.median(one) for one in zip(*pairs, strict=True))
            ratios = sorted(fused / plain for fused, plain in pairs)
            ratio = statistics.median(ratios)
            made.append({"rows": rows, "depth": depth, "fused_ms": on, "plain_ms": off, "ratio": ratio, "rounds": ratios})
            rows_of.append((str(rows), str(depth), f"{on:.1f}", f"{off:.1f}", f"{ratio:.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"))
    head = ("rows", "tokens in the cache", "fused, ms", "plain, ms", "fused / plain, median (least … greatest)")
    click.echo(f"{file.stem}, cache {cache_type}, {cpu_name()}, {threads} threads, {rounds} rounds in turns\n")
    click.echo(markdown(head, rows_of))
    if out is not None:
        out.write_text(json.dumps({"model": file.stem, "cache_type": cache_type, "figures": made}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
