"""What ``rsd fit --measure`` says of RSD's gain, against what a run then shows.

    python scripts/check_gain.py gsm8k.jsonl --trio mine.toml --limit 8 --rounds 5

The models are timed as ``rsd fit --measure`` does, then the questions are answered by the target alone and by RSD in turns, with
steps kept at random with each of the shares asked for (constant weighting), so that the share is what is said and no reward's affair;
rewards are asked all the same. A round's ratio is the target's seconds of batches a token over RSD's, prompts left out. Printed are, for
each share, what was said, the median of the rounds with the least and the greatest, the difference, and the share of steps that stood.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from rsd_local.bench.datasets import load_dataset
from rsd_local.bench.tables import markdown
from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import trio_options
from rsd_local.config import Limits, Params, Search, Weighting
from rsd_local.events import Result, Role
from rsd_local.fit.measured import Speed, gain_of, measure
from rsd_local.fit.speed import STEP
from rsd_local.reasoner import Reasoner


@click.command()
@click.argument("dataset")
@click.option("--accepted", type=float, multiple=True, default=(0.5, 0.7, 0.9), show_default=True, help="A share of steps; again for more.")
@click.option("--limit", type=int, default=4, show_default=True, help="Questions.")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("-n", "--max-tokens", type=int, default=240, show_default=True, help="Tokens of a solution.")
@trio_options
def main(dataset: str, accepted: tuple[float, ...], limit: int, rounds: int, max_tokens: int, **flags: Any) -> None:
    """Compares what is said of the gain with what is seen."""
    trio = replace(make_trio(flags, compares=True), delimiter=f"tokens:{STEP}")
    params = Params(limits=Limits(tokens=max_tokens, step_tokens=STEP, repeats=0), search=Search(fallback="off"))
    items = load_dataset(dataset, limit, 0)
    with Reasoner.open(trio) as reasoner:
        speeds = {role: measure(engine) for role, engine in reasoner.engines().items()}
        gain = gain_of(speeds, reasoner.trio.rewards.costs(), ahead=reasoner.trio.rewards.ahead)
        rows = []
        for share in accepted:
            kept = replace(params, weighting=Weighting("constant", probability=share))
            ratios, stood = list[float](), list[float]()
            for number in range(rounds):
                alone, ours = 0.0, 0.0
                for place, item in enumerate(items):
                    seeded = replace(kept, sampling=replace(kept.sampling, seed=1000 * number + place))
                    first, second = (reasoner.solve(item.question, seeded, strategy=name) for name in ("target", "rsd"))
                    alone += seconds(first, speeds)
                    ours += seconds(second, speeds)
                    stood.append(1 - second.target_share)
                ratios.append(alone / ours)
                click.echo(f"{share:.0%}, round {number + 1}: {ratios[-1]:.2f}", err=True)
            said, seen = gain(statistics.mean(stood)), statistics.median(ratios)
            spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
            rows.append((f"{share:.0%}", f"{statistics.mean(stood):.0%}", f"{said:.2f}", f"{seen:.2f}", spread, f"{said / seen - 1:+.0%}"))
    click.echo(markdown(("kept", "stood", "said", "seen", "least … greatest", "said over seen"), rows))


def seconds(result: Result, speeds: Mapping[Role, Speed]) -> float:
    """Of batches a token, without what the prompts took."""
    tokens = sum(step.tokens for step in result.steps)
    prompts = sum((one.opening_tokens - one.cached_tokens) * speeds[role].prefill for role, one in result.counters.items() if one.seconds)
    return (sum(one.seconds for one in result.counters.values()) - prompts) / tokens


if __name__ == "__main__":
    main()
