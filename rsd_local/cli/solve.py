"""``rsd solve``: one question."""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Any

import click

from rsd_local.cli.flags import make_params, make_trio
from rsd_local.cli.options import StrictCommand, run_options, trio_options
from rsd_local.cli.text import printable


@click.command(cls=StrictCommand)
@click.argument("question")
@trio_options
@run_options
@click.option("--stats", is_flag=True, help="Print what each model did and how it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one object: answer, text, steps, counters, flops.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print each event as a line as it happens.")
@click.option("-q", "--quiet", is_flag=True, help="Print the answer alone.")
@click.option("-v", "--verbose", is_flag=True, help="Show llama.cpp's log.")
def solve(question: str, stats: bool, as_json: bool, as_jsonl: bool, quiet: bool, verbose: bool, **flags: Any) -> int:
    """Answer QUESTION ('-' reads it from standard input).

    The answer goes to standard output, everything else to standard error. Without a trio the built-in abacus answers:
    integer arithmetic with + − × and parentheses.
    """
    if as_json and as_jsonl:
        raise click.UsageError("--json and --jsonl exclude each other")
    trio = make_trio(flags)
    params = make_params(flags, trio)
    if question == "-":
        question = sys.stdin.read().strip()
    if not question.strip():
        raise click.UsageError("the question is empty")
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG if verbose else logging.WARNING, format="%(name)s: %(message)s")

    from rsd_local.cli import render
    from rsd_local.events import CancelToken, Finished, StepDone
    from rsd_local.reasoner import Reasoner, collect

    cancel = CancelToken()
    events = []
    if not quiet:
        render.confinement(trio)
    with Reasoner.open(trio, None if quiet else render.loading()) as reasoner:
        previous = signal.signal(signal.SIGINT, lambda *_: cancel.cancel())
        try:
            for event in reasoner.stream(question, params, cancel=cancel):
                events.append(event)
                if as_jsonl:
                    click.echo(json.dumps(render.event_object(event), ensure_ascii=False))
                elif isinstance(event, StepDone) and not quiet:
                    render.step(event, trio)
        finally:
            signal.signal(signal.SIGINT, previous)
        result = collect(iter(events))
        if as_json:
            click.echo(json.dumps(render.result_object(result), ensure_ascii=False))
        elif not as_jsonl:
            if not quiet:
                render.ending(result, boxed="\\boxed" in trio.system)
                if trio.threshold_from and flags["threshold"] is None and trio.strategy == "rsd":
                    render.origin(trio)
            click.echo(printable(result.answer if result.answer is not None else result.text.strip()))
        if stats:
            render.stats(result, reasoner)
    return 130 if isinstance(events[-1], Finished) and events[-1].reason == "cancelled" else 0
