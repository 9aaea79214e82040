"""``rsd bench``: strategies compared on the same questions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.interrupts import on_interrupt
from rsd_local.cli.options import StrictCommand, question_options, trio_options
from rsd_local.cli.text import json_line, printable
from rsd_local.config import sequences_needed

if TYPE_CHECKING:
    from rsd_local.bench.summary import Summary


@click.command(cls=StrictCommand)
@click.argument("dataset")
@click.option("--strategy", "specs", multiple=True, metavar="NAME[:KEY=VALUE,…]", help="A strategy; again for each further one.")
@click.option("--out", type=Path, required=True, metavar="DIR", help="The folder for the results.")
@click.option("--level", type=int, metavar="1…5", help="Level of arithmetic. Default: all in turn.")
@click.option("-P", "--parallel", type=int, default=1, show_default=True, metavar="N", help="Questions answered at once.")
@click.option("-n", "--max-tokens", type=int, default=2048, show_default=True, help="Tokens of a solution.")
@click.option("--resume", is_flag=True, help="Go on with a folder that was left unfinished, or add strategies to it.")
@click.option("--text/--no-text", "texts", default=True, help="Keep questions and solutions in results.jsonl, or their hashes.")
@question_options
@trio_options
def bench(
    dataset: str,
    specs: tuple[str, ...],
    out: Path,
    limit: int | None,
    level: int | None,
    seed: int,
    parallel: int,
    max_tokens: int,
    resume: bool,
    texts: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Compare strategies on the questions of DATASET.

    Shows accuracy and cost of each. DATASET is arithmetic, a JSONL file (question, answer; or rows of HumanEval or MBPP), or
    gsm8k, math500, olympiadbench, gaokao2023en, minerva, gpqa or mmlu-stem from the hub, or humaneval or mbpp from where
    their makers publish them. The last two are graded by running what the models write, which needs --run-code.

    \b
    A strategy is rsd, target, draft, speculative, majority, best-of-n,
    step-best-of-n or beam, with settings behind a colon:
      --strategy rsd:threshold=0.8
      --strategy best-of-n:samples=8,aggregate=min

    The table goes to standard output. What the models wrote, and each error, is in DIR/results.jsonl. Ends with 1 where a
    strategy could answer no question; Ctrl-C ends with 130, and --resume goes on from there.
    """
    trio = make_trio(flags, parallel=parallel, compares=True)

    from rsd_local.bench.datasets import load_dataset
    from rsd_local.bench.machine import note_run
    from rsd_local.bench.results import Results, configuration
    from rsd_local.bench.runner import run
    from rsd_local.bench.strategies import read_strategies
    from rsd_local.cli import render
    from rsd_local.cli.progress import progress
    from rsd_local.evaluation.grading import Grader, require_math_verify, require_sandbox
    from rsd_local.events import CancelToken
    from rsd_local.reasoner import Reasoner
    from rsd_local.sandbox import Sandbox

    base = trio.params()
    base = dataclasses.replace(base, limits=dataclasses.replace(base.limits, tokens=max_tokens))
    plans = read_strategies(list(specs), base)
    trio = dataclasses.replace(trio, width=max(sequences_needed(plan.strategy, plan.params.search) for plan in plans))
    items = load_dataset(dataset, limit, seed, level)
    require_math_verify(items)
    sandbox = Sandbox.find(trio.sandbox) if trio.run_code else None
    require_sandbox(items, sandbox)
    config = configuration(trio, dataset, limit, level, seed, items, plans)
    cancel = CancelToken()
    render.confinement(trio)
    with Results.open(out, config, resume) as results, Reasoner.open(trio, render.loading()) as reasoner, Grader(sandbox=sandbox) as grader:
        if any(not results.has(item.id, plan.label) for item in items for plan in plans):
            note_run(out, {role: engine.threads for role, engine in reasoner.engines().items()})
        with on_interrupt(cancel.cancel), progress() as watch:
            run(reasoner, items, plans, results, grader, seed=seed, parallel=parallel, cancel=cancel, watch=watch, texts=texts)
    return _show_results(out, as_json)


def _show_results(folder: Path, as_json: bool) -> int:
    """Prints what a folder holds, on standard error what went wrong; 1 where a strategy could answer no question."""
    from rsd_local.bench.report import read_summary
    from rsd_local.bench.tables import error_causes

    summary = read_summary(folder)
    show_summary(summary, as_json, causes=False)
    for one in summary.strategies:
        for line in error_causes(one):
            click.echo(printable(line), err=True)
    click.echo(printable(f"pairs and plots: rsd report {folder}"), err=True)
    return 1 if summary.unanswered else 0


def show_summary(summary: Summary, as_json: bool, *, causes: bool = True) -> None:
    """Prints a bench's figures on standard output: the table and its remarks, with causes of errors or without, or one object."""
    from rsd_local.bench import tables

    if as_json:
        click.echo(json_line(dataclasses.asdict(summary)))
    else:
        remarks = tables.remarks(summary, causes=causes)
        click.echo(printable("\n".join([tables.strategy_table(summary), *([""] if remarks else []), *remarks])))
