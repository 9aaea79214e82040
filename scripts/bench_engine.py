"""What the engine costs over a bare llama.cpp loop, what batching gains, and what a rollback takes.

    python scripts/bench_engine.py MODEL.gguf [--tokens 128] [--rounds 5] [--json]

The variants run in turns in one process; each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as C

from rsd_local.config import RoleConfig, Sampling
from rsd_local.runtime import Engine, Model, Sampler, Sequence

PROMPT = "Write down, one after another, the numbers from one to one hundred in words."
GREEDY = Sampling()


class BareLoop:
    """``llama_decode`` and argmax with nothing around them, on a context of its own."""

    def __init__(self, model: Model, config: RoleConfig, threads: int) -> None:
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = config.ctx_size, 256, 256
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self._context = C.llama_init_from_model(model.handle, params)
        self._vocabulary = model.n_vocab

    def run(self, prompt: list[int], count: int) -> float:
        """Seconds to write ``count`` tokens after the prompt, which is not timed."""
        C.llama_memory_clear(C.llama_get_memory(self._context), True)
        tokens = (C.llama_token * len(prompt))(*prompt)
        C.llama_decode(self._context, C.llama_batch_get_one(tokens, len(prompt)))
        one = (C.llama_token * 1)()
        row = ctypes.POINTER(ctypes.c_float * self._vocabulary)
        began = time.perf_counter()
        for _ in range(count):
            logits = ctypes.cast(C.llama_get_logits_ith(self._context, -1), row).contents
            one[0] = int(np.frombuffer(memoryview(logits), np.float32).argmax())
            C.llama_decode(self._context, C.llama_batch_get_one(one, 1))
        return time.perf_counter() - began

    def close(self) -> None:
        """Frees the context."""
        C.llama_free(self._context)


def prefilled(engine: Engine, prompt: list[int]) -> Sequence:
    """A sequence that has evaluated its prompt but for the last token."""
    sequence = engine.sequence()
    sequence.append(prompt[:-1])
    sequence.read_logits().result()
    sequence.append(prompt[-1:])
    return sequence


def engine_run(engine: Engine, prompt: list[int], count: int, sequences: int) -> float:
    """Seconds to write ``count`` tokens in each of so many sequences at once."""
    opened = [prefilled(engine, prompt) for _ in range(sequences)]
    began = time.perf_counter()
    futures = [sequence.generate(Sampler(GREEDY), count) for sequence in opened]
    written = [len(future.result().tokens) for future in futures]
    elapsed = time.perf_counter() - began
    for sequence in opened:
        sequence.close()
    return elapsed * count * sequences / sum(written)


def rollback_run(engine: Engine, prompt: list[int]) -> float:
    """Seconds to forget a step of 40 tokens, carried out at once."""
    sequence = prefilled(engine, prompt)
    sequence.mark()
    length = len(sequence)
    sequence.generate(Sampler(GREEDY), 40).result()
    began = time.perf_counter()
    sequence.truncate(length)
    engine.settle(sequence)
    elapsed = time.perf_counter() - began
    sequence.close()
    return elapsed


def measure(path: Path, count: int, rounds: int) -> dict[str, float]:
    """All figures of one model file."""
    config = RoleConfig(path, ctx_size=1024)
    model = Model(config)
    engine = Engine(model, config, 4)
    bare = BareLoop(model, config, engine.threads)
    prompt = model.tokenize(PROMPT)
    seconds: dict[str, list[float]] = {"bare": [], "engine": [], "four": [], "rollback": []}
    for turn in range(rounds + 1):
        taken = {
            "bare": bare.run(prompt, count),
            "engine": engine_run(engine, prompt, count, 1),
            "four": engine_run(engine, prompt, count, 4),
            "rollback": rollback_run(engine, prompt),
        }
        for name, value in taken.items():
            if turn > 0:  # the first round warms up
                seconds[name].append(value)
    bare.close()
    model.close()
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    of_bare = statistics.median(b / e for b, e in zip(seconds["bare"], seconds["engine"], strict=True))
    of_one = statistics.median(4 * e / f for e, f in zip(seconds["engine"], seconds["four"], strict=True))
    return {
        "bare_tokens_per_second": count / middle["bare"],
        "engine_tokens_per_second": count / middle["engine"],
        "engine_of_bare": of_bare,
        "four_tokens_per_second": 4 * count / middle["four"],
        "four_of_one": of_one,
        "rollback_ms": 1e3 * middle["rollback"],
    }


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--tokens", type=int, default=128)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    figures = measure(chosen.model, chosen.tokens, chosen.rounds)
    if chosen.json:
        print(json.dumps({"model": chosen.model.name, "tokens": chosen.tokens, "rounds": chosen.rounds, **figures}))
        return
    print(f"{chosen.model.name}, {chosen.tokens} tokens, median of {chosen.rounds} rounds in turns")
    for name, value in figures.items():
        print(f"  {name:<26} {value:10.3f}")


if __name__ == "__main__":
    main()
