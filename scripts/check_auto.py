"""Whether ``--strategy auto`` is ever slower than the better of the target alone and speculative decoding.

    python scripts/check_auto.py "Tell me how bread is made." --trio mine.toml --rounds 7 --json out.json

Each strategy answers in a process of its own, in an order that turns from round to round: first --warm tokens that are not counted, in
which auto measures its ways, then --tokens tokens. A round's ratio is auto's seconds a token over those of the better of the other
two, by the clock; the better one is that of the lower median of all rounds, for the faster of two in each round is faster than either
by the rounds' noise. Printed are the median of the ratios and its 95 % interval by the binomial of ranks.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import trio_options
from rsd_local.config import Limits, Params, Weighting
from rsd_local.errors import ConfigError
from rsd_local.reasoner import Reasoner

STRATEGIES = ("target", "speculative", "auto")


@click.command()
@click.argument("question")
@click.option("--rounds", type=int, default=7, show_default=True)
@click.option("--warm", type=int, default=100, show_default=True, help="Tokens before those that count.")
@click.option("--tokens", type=int, default=500, show_default=True, help="Tokens that count, at least.")
@click.option("--threshold", type=float, help="The trio's own where left out.")
@click.option("--only", hidden=True, help="Answer with one strategy and print its seconds a token.")
@click.option("--json", "out", type=Path, metavar="FILE", help="Write the figures there too.")
@trio_options
def main(
    question: str, rounds: int, warm: int, tokens: int, threshold: float | None, only: str | None, out: Path | None, **flags: Any
) -> None:
    """Times auto against what it chooses from."""
    if only is not None:
        click.echo(json.dumps(answer(question, only, warm, tokens, threshold, flags)))
        return
    made: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    ways: list[dict[str, int]] = []
    for number in range(rounds):
        for place in range(len(STRATEGIES)):
            name = STRATEGIES[(place + number) % len(STRATEGIES)]
            done = subprocess.run([sys.executable, *sys.argv, "--only", name], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr.strip())
            found = json.loads(done.stdout.splitlines()[-1])
            made[name].append(found["seconds"] or float("inf"))
            if name == "auto":
                ways.append(found["ways"])
            click.echo(f"round {number + 1}: {name} {1 / made[name][-1]:.2f} tokens/s {found['ways'] or ''}", err=True)
    better = min(("target", "speculative"), key=lambda name: statistics.median(made[name]))
    ratios = sorted(own / other for own, other in zip(made["auto"], made[better], strict=True))
    figures = {"ratio": statistics.median(ratios), "better": better, "rounds": ratios, "seconds": made, "ways": ways}
    if out is not None:
        out.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    low, high = interval(ratios)
    click.echo(f"auto takes {figures['ratio']:.3f} ({low:.3f} … {high:.3f}) of the time of {better}, the better of target and speculative")


def answer(question: str, name: str, warm: int, tokens: int, threshold: float | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Seconds a token of one strategy, and how often each way was chosen; no seconds where these models cannot do it."""
    trio = make_trio(flags, compares=True)
    params = trio.params() if threshold is None else Params(weighting=Weighting(threshold=threshold))
    with Reasoner.open(trio) as reasoner:

        def written(least: int) -> tuple[float, dict[str, int]]:
            spent, done, ways = 0.0, 0, dict[str, int]()
            while done < least:
                limits = Limits(tokens=least - done, repeats=0)
                began = time.perf_counter()
                result = reasoner.solve(question, replace(params, limits=limits), strategy=name)  # type: ignore[arg-type]
                spent += time.perf_counter() - began
                done += sum(step.tokens for step in result.steps)
                for way in result.ways:
                    ways[way] = ways.get(way, 0) + 1
            return spent / done, ways

        try:
            written(warm)
            seconds, ways = written(tokens)
        except ConfigError:  # speculative, with two vocabularies
            return {"seconds": None, "ways": {}}
    return {"seconds": seconds, "ways": ways}


def interval(ratios: list[float]) -> tuple[float, float]:
    """A 95 % interval of the median: the ranks outside which it lies with a probability of at most 5 %; all where they are too few."""
    size, chance, rank = len(ratios), 0.0, 0
    count = 1
    while True:
        chance += 2 * count / 2**size
        if chance > 0.05:
            break
        count, rank = count * (size - rank) // (rank + 1), rank + 1
    return ratios[max(0, rank - 1)], ratios[min(size - 1, size - max(rank, 1))]


if __name__ == "__main__":
    main()
