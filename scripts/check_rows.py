"""Whether a batch of several rows gives the logits that its tokens give one by one, on this machine, for one model.

    python scripts/check_rows.py MODEL.gguf [--threads 1] [--cache-type f16] [--flash-attn auto]

Prints, for batches of different sizes behind the same prefix, the largest difference of a logit after the last token.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import numpy as np

from rsd_local import RoleConfig
from rsd_local.config import CacheType, FlashAttention
from rsd_local.runtime import Engine, Floats, Model

PREFIXES = (40, 300)
BATCHES = (2, 3, 4, 5, 6, 7, 8, 16, 32)


def after(engine: Engine, parts: list[list[int]]) -> Floats:
    """The logits (n_vocab,) after tokens of which each part is evaluated by itself, a long one in the engine's chunks."""
    sequence = engine.sequence()
    for part in parts:
        sequence.append(part)
        logits = sequence.read_logits().result()
    sequence.close()
    return logits


def main() -> None:
    """Measures, and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--threads", type=int, default=0, help="0 is the number of physical cores")
    arguments.add_argument("--cache-type", default="f16", choices=get_args(CacheType))
    arguments.add_argument("--flash-attn", default="auto", choices=get_args(FlashAttention))
    chosen = arguments.parse_args()
    config = RoleConfig(chosen.model, 512, threads=chosen.threads, cache_type=chosen.cache_type, flash_attention=chosen.flash_attn)
    model = Model(config)
    engine = Engine(model, config)
    tokens = np.random.default_rng(0).integers(model.n_vocab // 100, model.n_vocab // 3, max(PREFIXES) + max(BATCHES)).tolist()
    print("| rows in a batch | " + " | ".join(f"behind {length} tokens" for length in PREFIXES) + " |\n|" + "---|" * (len(PREFIXES) + 1))
    for rows in BATCHES:
        apart = []
        for length in PREFIXES:
            prefix, batch = tokens[:length], tokens[length : length + rows]
            apart.append(np.abs(after(engine, [prefix, batch]) - after(engine, [prefix, *([token] for token in batch)])).max())
        print(f"| {rows} | " + " | ".join("none" if value == 0 else f"{value:.2g}" for value in apart) + " |", flush=True)
    engine.close()
    model.close()


if __name__ == "__main__":
    main()
