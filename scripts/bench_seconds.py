"""How long strategies take for the same questions, in turns.

    python scripts/bench_seconds.py QUESTIONS.jsonl --trio mine.toml --run-code -P 8 --limit 16 --rounds 5 \\
        --strategy target --strategy rsd

Every round runs each strategy over all the questions, in an order that turns from round to round, with nothing else in flight. So
what slows the machine down for a while slows all of them down. A strategy's figure is the median over the rounds of its seconds
over the first strategy's in the same round. ``rsd bench`` runs one strategy after the other, and its seconds are of different hours.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rsd_local.bench.datasets import load_dataset
from rsd_local.bench.strategies import Plan, read_strategies
from rsd_local.bench.tables import markdown
from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import trio_options
from rsd_local.config import sequences_needed
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.questions import question_pool, question_seed
from rsd_local.events import CancelToken
from rsd_local.reasoner import Reasoner


@click.command()
@click.argument("dataset")
@click.option("--strategy", "specs", multiple=True, required=True, help="As for rsd bench; the first is what others are compared with.")
@click.option("--limit", type=int, default=16, show_default=True, help="Questions.")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("-P", "--parallel", type=int, default=1, show_default=True, help="Questions at once.")
@click.option("-n", "--max-tokens", type=int, default=400, show_default=True)
@click.option("-s", "--seed", type=int, default=0, show_default=True)
@trio_options
def main(dataset: str, specs: tuple[str, ...], limit: int, rounds: int, parallel: int, max_tokens: int, seed: int, **flags: Any) -> None:
    """Times strategies in turns."""
    trio = make_trio(flags, parallel=parallel, compares=True)
    base = trio.params()
    plans = read_strategies(list(specs), replace(base, limits=replace(base.limits, tokens=max_tokens)))
    trio = replace(trio, width=max(sequences_needed(plan.strategy, plan.params.search) for plan in plans))
    items = load_dataset(dataset, limit, seed)
    taken: dict[str, list[float]] = {plan.label: [] for plan in plans}
    with Reasoner.open(trio) as reasoner:
        solve(reasoner, items[:parallel], plans[0], seed, parallel)  # what is done once, such as a probe, is nobody's
        for number in range(rounds):
            for plan in [*plans[number % len(plans) :], *plans[: number % len(plans)]]:
                taken[plan.label].append(solve(reasoner, items, plan, seed, parallel))
                click.echo(f"round {number + 1}: {plan.label} {taken[plan.label][-1]:.1f} s", err=True)
    click.echo(f"{Path(dataset).name}, {len(items)} questions, {parallel} at once, {rounds} rounds in turns\n")
    click.echo(markdown(("strategy", "seconds", f"× {plans[0].label}", "least … most"), [cells(label, taken, plans) for label in taken]))


def solve(reasoner: Reasoner, items: list[Item], plan: Plan, seed: int, parallel: int) -> float:
    """Answers all the questions, and returns the seconds from the first to the last."""
    cancel = CancelToken()

    def one(place: int) -> None:
        params = replace(plan.params, sampling=replace(plan.params.sampling, seed=question_seed(seed, place)))
        reasoner.solve(items[place].question, params, strategy=plan.strategy, cancel=cancel)

    began = time.perf_counter()
    with question_pool(parallel, cancel) as pool:
        for done in [pool.submit(one, place) for place in range(len(items))]:
            done.result()
    return time.perf_counter() - began


def cells(label: str, taken: dict[str, list[float]], plans: list[Plan]) -> list[str]:
    """A line of the table."""
    ratios = [own / first for own, first in zip(taken[label], taken[plans[0].label], strict=True)]
    median = statistics.median(ratios)
    return [label, f"{statistics.median(taken[label]):.1f}", f"{median:.2f}", f"{min(ratios):.2f} … {max(ratios):.2f}"]


if __name__ == "__main__":
    main()
