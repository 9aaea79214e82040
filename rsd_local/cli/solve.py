"""``rsd solve``: one question."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from rsd_local.cli.flags import make_params, make_trio
from rsd_local.cli.interrupts import on_interrupt
from rsd_local.cli.options import StrictCommand, run_options, trio_options
from rsd_local.cli.streams import start_log
from rsd_local.cli.text import call, json_line, printable
from rsd_local.errors import ConfigError, QuestionRefused


@click.command(cls=StrictCommand)
@click.argument("words", metavar="[QUESTION]", nargs=-1)
@trio_options
@run_options
@click.option("--stats", is_flag=True, help="Print what each model did and how it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one object: answer, text, steps, counters, flops.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print each event as a line as it happens.")
@click.option("-q", "--quiet", is_flag=True, help="Print the answer alone; standard error says where it is cut.")
@click.option("-v", "--verbose", is_flag=True, help="Show llama.cpp's log.")
def solve(words: tuple[str, ...], stats: bool, as_json: bool, as_jsonl: bool, quiet: bool, verbose: bool, **flags: Any) -> int:
    """Answer QUESTION.

    Without one, or where it is '-', it is read from standard input. The answer goes to standard output, everything else to
    standard error. Without a trio the built-in abacus answers: integer arithmetic with + − × and parentheses.
    """
    if as_json and as_jsonl:
        raise click.UsageError("--json and --jsonl exclude each other")
    trio = make_trio(flags)
    params = make_params(flags, trio)
    question = _question(words)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    start_log(handler, logging.DEBUG if verbose else logging.WARNING)

    from rsd_local.cli import render
    from rsd_local.cli.thoughts import with_thoughts
    from rsd_local.events import CancelToken, Finished, StepDone
    from rsd_local.reasoner import Reasoner, collect

    cancel = CancelToken()
    events = []
    if not quiet:
        render.confinement(trio)
    with Reasoner.open(trio, None if quiet else render.loading()) as reasoner:
        params = with_thoughts(params, reasoner)
        try:
            with on_interrupt(cancel.cancel):
                for event in reasoner.stream(question, params, cancel=cancel):
                    events.append(event)
                    if as_jsonl:
                        click.echo(json_line(render.event_object(event)))
                    elif isinstance(event, StepDone) and not quiet:
                        render.step(event, trio)
        except QuestionRefused as error:
            raise QuestionRefused(str(error), hint=instead(question, error.hint)) from None
        result = collect(iter(events))
        if as_json:
            click.echo(json_line(render.result_object(result)))
        elif not as_jsonl:
            render.ending(result, boxed="\\boxed" in trio.system)
            if not quiet and trio.threshold_from and flags["threshold"] is None and trio.strategy == "rsd":
                render.origin(trio)
            click.echo(printable(result.answer if result.answer is not None else result.text.strip()))
        if stats:
            render.stats(result, reasoner)
    return 130 if isinstance(events[-1], Finished) and events[-1].reason == "cancelled" else 0


def _question(words: tuple[str, ...]) -> str:
    """The question: the argument, or what standard input gives.

    Raises:
        ConfigError: there is none, or several arguments.
    """
    if len(words) > 1:
        raise ConfigError(f"the question is one argument, not {len(words)}", hint=f"put it in quotes: {call('solve', ' '.join(words))}")
    if words and words[0] != "-":
        question = words[0]
    else:
        question = "" if not words and sys.stdin.isatty() else sys.stdin.read().strip()
    if not question.strip():
        raise ConfigError(
            "the question is empty" if words else "Missing argument 'QUESTION'", hint='for example: rsd solve "(37+48)*6-129"'
        )
    return question


def instead(question: str, hint: str) -> str:
    """What to type where abacus refused a question: its expression alone, and another trio.

    Args:
        question: as it was asked.
        hint: what to do where no other trio is here.
    """
    from rsd_local.abacus import find_expression
    from rsd_local.catalogue import Catalogue

    expression, other = find_expression(question), Catalogue.read().for_any_question()
    calls = [f"without the words: {call('solve', expression)}"] if expression else []
    return "; ".join([*calls, call("solve", "--trio", other, question) if other else hint])
