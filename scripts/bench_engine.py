"""What rsd_local costs over a bare llama.cpp loop, with other models open beside it, and what the engine's parts take.

    python scripts/bench_engine.py MODEL.gguf [BESIDE.gguf …] [--tokens 64] [--rounds 5] [--ratio-only] [--json]

The bare loop (``llama_decode`` and argmax) runs in a process of its own, and so does a ``Reasoner`` with MODEL as its target,
BESIDE (or MODEL) as its draft, and a judge; the two take turns, so that neither feels the other's threads. Figures are medians of the
rounds, ratios medians of the rounds' ratios. The first round warms up.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as C

from rsd_local import Limits, Params, Reasoner, RoleConfig, Sampling, Trio, Weighting, machine
from rsd_local.prompt import Prompt
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws, Engine, Model, Sequence, prompt_tokens, repacks_safely

QUESTION = "Write down, one after another, the numbers from one to one hundred in words."
LONG = "The following remark stands here to make the beginning of each prompt long. " * 45
GREEDY = Sampling()
CONTEXT = 1024


def draws() -> Draws:
    """Greedy ones."""
    return Draws(GREEDY, Stream(0, TARGET))


class BareLoop:
    """``llama_decode`` and argmax with nothing around them, over weights laid out as rsd_local has them."""

    def __init__(self, path: Path, prompt: list[int], threads: int = 0) -> None:
        model_params = C.llama_model_default_params()
        model_params.use_extra_bufts = repacks_safely()
        self._model = C.llama_model_load_from_file(str(path).encode(), model_params)
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, 256, 256
        params.n_threads = params.n_threads_batch = threads or machine.threads()
        params.no_perf = True
        self._context = C.llama_init_from_model(self._model, params)
        self._vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self._model))
        self._prompt = prompt

    def run(self, count: int) -> float:
        """Tokens a second over ``count`` tokens after the prompt, which is not timed."""
        C.llama_memory_clear(C.llama_get_memory(self._context), True)
        tokens = (C.llama_token * len(self._prompt))(*self._prompt)
        C.llama_decode(self._context, C.llama_batch_get_one(tokens, len(self._prompt)))
        one = (C.llama_token * 1)()
        row = ctypes.POINTER(ctypes.c_float * self._vocabulary)
        began = time.perf_counter()
        for _ in range(count):
            logits = ctypes.cast(C.llama_get_logits_ith(self._context, -1), row).contents
            one[0] = int(np.frombuffer(memoryview(logits), np.float32).argmax())
            C.llama_decode(self._context, C.llama_batch_get_one(one, 1))
        return count / (time.perf_counter() - began)


class OpenTrio:
    """A Reasoner with three engines; each run lets all of them work before its target is timed."""

    def __init__(self, path: Path, beside: list[Path], threads: int = 0) -> None:
        files = [path, *beside, path, path][:3]
        target, draft, judge = (RoleConfig(file, CONTEXT, threads=threads, trusted=True) for file in files)
        self._reasoner = Reasoner.open(Trio(draft, target, judge, reward_kind="judge", reuse=False))
        self._warm = Params(weighting=Weighting("constant", probability=0.5), limits=Limits(tokens=24, step_tokens=8))
        self.prompt = prompt_tokens(self._reasoner.trio.here("target").model, Prompt.of(QUESTION))

    def close(self) -> None:
        """Free the models."""
        self._reasoner.close()

    def run(self, count: int) -> float:
        """Tokens a second of the target over ``count`` tokens after the prompt, which is not timed."""
        self._reasoner.solve(QUESTION, self._warm)
        sequence = prefilled(self._reasoner.trio.here("target"), self.prompt)
        began = time.perf_counter()
        written = len(sequence.generate(draws(), count).future.result().tokens)
        elapsed = time.perf_counter() - began
        sequence.close()
        return written / elapsed


def prefilled(engine: Engine, prompt: list[int]) -> Sequence:
    """A sequence that has evaluated its prompt but for the last token."""
    sequence = engine.sequence(prompt)
    sequence.prefill().result()
    return sequence


def parts(path: Path, count: int, rounds: int) -> dict[str, float]:
    """Figures of one engine by itself: four sequences at once, a rollback, a second prompt with the same beginning."""
    config = RoleConfig(path, CONTEXT, trusted=True)
    model = Model(config)
    engine = Engine(model, config, 4)
    prompt = model.tokenize(QUESTION)
    one, four, back = [], [], []
    for _ in range(rounds + 1):
        one.append(_written(engine, prompt, count, 1))
        four.append(_written(engine, prompt, count, 4))
        back.append(_rollback(engine, prompt))
    first, second = (model.tokenize(LONG + end)[:640] for end in ("First.", "And now the second one, which ends otherwise."))
    shared = next(place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1])
    for tokens in (first, second):
        sequence = engine.sequence(tokens)
        sequence.read_logits().result()
        counters = sequence.take_counters()
        sequence.close()
    model.close()
    return {
        "four_of_one": statistics.median(f / o for f, o in zip(four[1:], one[1:], strict=True)),
        "rollback_ms": 1e3 * statistics.median(back[1:]),
        "prefix_tokens": shared,
        "second_prompt_tokens": len(second),
        "second_prompt_cached": counters.cached_tokens,
        "second_prompt_evaluated": counters.evaluated_tokens,
    }


def _written(engine: Engine, prompt: list[int], count: int, sequences: int) -> float:
    """Tokens a second of so many sequences at once."""
    opened = [prefilled(engine, prompt) for _ in range(sequences)]
    began = time.perf_counter()
    written = sum(len(writing.future.result().tokens) for writing in [sequence.generate(draws(), count) for sequence in opened])
    elapsed = time.perf_counter() - began
    for sequence in opened:
        sequence.close()
    return written / elapsed


def _rollback(engine: Engine, prompt: list[int]) -> float:
    """Seconds to forget a step of 40 tokens, carried out at once."""
    sequence = prefilled(engine, prompt)
    sequence.mark()
    length = len(sequence)
    sequence.generate(draws(), 40).future.result()
    began = time.perf_counter()
    sequence.truncate(length)
    engine.sync_cache(sequence)
    elapsed = time.perf_counter() - began
    sequence.close()
    return elapsed


class Child:
    """One side of the comparison in a process of its own: it runs when it is told to."""

    def __init__(self, kind: str, chosen: argparse.Namespace) -> None:
        call = [sys.executable, __file__, str(chosen.model), *map(str, chosen.beside), "--tokens", str(chosen.tokens), "--child", kind]
        self._process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self) -> Any:
        """What one run printed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(chosen: argparse.Namespace) -> None:
    """What a child does: one run for each line of its input."""
    if chosen.child == "parts":
        sys.stdin.readline()
        print(json.dumps(parts(chosen.model, chosen.tokens, chosen.rounds)), flush=True)
        return
    trio = OpenTrio(chosen.model, chosen.beside)
    side: OpenTrio | BareLoop = trio
    if chosen.child == "bare":
        prompt = trio.prompt
        trio.close()  # its decode thread, and with it the OpenMP team, ends
        side = BareLoop(chosen.model, prompt)
    for _ in sys.stdin:
        print(json.dumps(side.run(chosen.tokens)), flush=True)


def measure(chosen: argparse.Namespace) -> dict[str, float]:
    """All figures of one model file."""
    bare, trio = Child("bare", chosen), Child("trio", chosen)
    rounds = [(bare.run(), trio.run()) for _ in range(chosen.rounds + 1)][1:]
    for child in (bare, trio):
        child.close()
    figures: dict[str, float] = {}
    if not chosen.ratio_only:
        alone = Child("parts", chosen)
        figures = alone.run()
        alone.close()
    return {
        "bare_tokens_per_second": statistics.median(one for one, _ in rounds),
        "open_trio_tokens_per_second": statistics.median(other for _, other in rounds),
        "open_trio_of_bare": statistics.median(other / one for one, other in rounds),
        **figures,
    }


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("beside", type=Path, nargs="*", help="the draft and the judge of the trio that is open meanwhile")
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--ratio-only", action="store_true", help="leave out what is measured of one engine by itself")
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--child", choices=("bare", "trio", "parts"), help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.child:
        serve(chosen)
        return
    figures = measure(chosen)
    names = [path.name for path in (chosen.model, *chosen.beside)]
    if chosen.json:
        print(json.dumps({"model": names[0], "beside": names[1:], "tokens": chosen.tokens, "rounds": chosen.rounds, **figures}))
        return
    print(f"{names[0]} beside {', '.join(names[1:]) or 'itself'}, {chosen.tokens} tokens, median of {chosen.rounds} rounds in turns")
    for name, value in figures.items():
        print(f"  {name:<28} {value:10.3f}" if isinstance(value, float) else f"  {name:<28} {value:10}")


if __name__ == "__main__":
    main()
