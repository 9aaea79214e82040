"""How a run looks: steps on standard error while it goes, objects for programs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from rsd_local.cli.text import printable
from rsd_local.config import Trio
from rsd_local.events import Chosen, Counters, Drafted, Event, Finished, Result, Role, StepDone, TextWritten
from rsd_local.reasoner import LoadProgress, Reasoner
from rsd_local.runtime import supports_gpu

_ENDINGS = {
    "length": "stopped at --max-tokens; the solution may be cut",
    "steps": "stopped at --max-steps; the solution may be cut",
    "repetition": "stopped: the same step came again and again",
    "context": "stopped: the context is full; a larger --ctx-size gives more room",
    "cancelled": "stopped",
}


def loading() -> LoadProgress | None:
    """Shows what is being loaded on one line, where standard error is a terminal."""
    if not sys.stderr.isatty():
        return None

    def show(role: Role, share: float) -> None:
        line = "" if share >= 1.0 else f"loading the {role} model {share:4.0%}"
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)

    return show


def confinement(trio: Trio) -> None:
    """Says so where code that a model wrote will be run and cannot be kept from files or network."""
    if not trio.run_code:
        return
    from rsd_local.sandbox import Sandbox

    open_to = [one.name for one in Sandbox.find(trio.sandbox).protections if not one.holds and one.name in ("files", "network")]
    if open_to:
        click.secho(f"code is not kept from {' and '.join(open_to)} on this machine: rsd doctor says why", fg="yellow", err=True)


def origin(trio: Trio) -> None:
    """Says where the threshold in use comes from."""
    click.secho(printable(f"threshold {trio.threshold:g}, from {trio.threshold_from}"), dim=True, err=True)


def step(event: StepDone, trio: Trio, *, folded: bool = False) -> None:
    """Prints a step with its author and its reward, and behind a target's what became of the draft's.

    Where programs score, or several rewards, the one that decided is named.

    Args:
        event: the step.
        trio: whose.
        folded: whether of a step of a thought only the beginning is shown, on one line.
    """
    given = "" if event.reward is None else f" {event.reward:.2f}"
    own = "" if event.own_reward is None else f" {event.own_reward:.2f}"
    again = f", try {event.retries + 1}" if event.retries else ""
    mark = f"draft{given}"
    if event.author == "target":
        mark = f"target{own}{again}" + (f"   (draft{given})" if event.rejected is not None else "")
    names = len(trio.stages) > 1 or trio.stages[0].kind == "verifier"
    mark += f"  {event.reward_by or 'unchecked'}" if names and (event.author == "draft" or event.rejected is not None) else ""
    mark += "  for the target's server failed" if event.target_failed else ""
    color = "yellow" if event.author == "target" else "green"
    click.echo(click.style(f"[{event.index + 1}] {mark}", fg=color) + f"  {event.seconds:.1f} s", err=True)
    text = printable(event.text.strip("\n"))
    if event.part == "thought":
        line = " ".join(text.split())
        short = line if len(line) <= _FOLDED else line[: _FOLDED - 1] + "…"
        click.secho(short if folded else text + "\n", dim=True, err=True)
    else:
        click.echo(text + "\n", err=True)


@contextmanager
def drafts(*, shown: bool) -> Iterator[Callable[[str], None]]:
    """Shows a text dim on standard error until the next one takes its place; only where that is a terminal."""
    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), transient=True, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda text: live.update(Text(printable(text.strip("\n")), style="dim"), refresh=True)


def ending(result: Result, *, boxed: bool = True) -> None:
    """Says why a run ended where that was not its own end, and, where one is looked for, that there is no boxed answer."""
    if result.finish_reason in _ENDINGS:
        click.secho(_ENDINGS[result.finish_reason], fg="yellow", err=True)
    if result.unchecked_steps:
        count = f"{result.unchecked_steps} step{'s' * (result.unchecked_steps != 1)}"
        click.secho(f"{count} held nothing that could be checked", fg="yellow", err=True)
    if boxed and result.answer is None:
        click.secho("no \\boxed answer: here is the whole text", fg="yellow", err=True)
    if result.non_finite_rewards:
        click.secho(f"{result.non_finite_rewards} rewards were no finite numbers; none was accepted", fg="yellow", err=True)


def stats(result: Result, reasoner: Reasoner) -> None:
    """Prints the counters by role, the two FLOP counts, and how the models run."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False)
    table = Table("role", *_COLUMNS.values(), box=None)  # lines between columns would leave 80 characters too few for the figures
    for column in table.columns[1:]:
        column.justify = "right"
    for role, counters in result.counters.items():
        values = [getattr(counters, name) for name in _COLUMNS]
        table.add_row(role, *(f"{value:.2f}" if isinstance(value, float) else f"{value:,}" for value in values))
    console.print(table)
    share = f", target share {result.target_share:.0%}" if result.steps else ""
    console.print(f"{len(result.steps)} step{'s' * (len(result.steps) != 1)}{share}, finished: {result.finish_reason}")
    console.print(f"FLOPs, paper convention {result.paper_flops:.3g}, full count {result.full_flops:.3g}")
    for role, counters in result.counters.items():
        for line in further(counters):
            click.echo(f"{role:<7} {line}", err=True)
    engines = reasoner.engines()
    for role, engine in engines.items():
        click.echo(f"{role:<7} {printable(engine.about())}", err=True)
    for role, server in reasoner.trio.servers().items():
        click.echo(f"{role:<7} {printable(server.about())}", err=True)
    click.echo(f"GPU offload in this build of llama.cpp: {'yes' if supports_gpu() else 'no'}", err=True)


def further(counters: Counters) -> Iterator[str]:
    """Figures that only some models have, a line each: requests to a server, and tokens behind a step that was not accepted."""
    if counters.rounds:
        sent, received = f"{counters.sent_bytes / 1e3:.1f} kB", f"{counters.received_bytes / 1e3:.1f} kB"
        requests = f"{counters.rounds} request{'s' * (counters.rounds != 1)}"
        yield f"{requests}: {sent} sent, {received} received, {counters.waiting_seconds:.2f} s on the way"
    if counters.unused_tokens:
        yield f"{counters.unused_tokens} token{'s' * (counters.unused_tokens != 1)} written ahead and not used"


_FOLDED = 76  # characters of a step of a thought
_COLUMNS = {
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "generated_tokens": "written",
    "discarded_tokens": "dropped",
    "evaluated_tokens": "rows",
    "decode_calls": "batches",
    "seconds": "seconds",
    "waiting_seconds": "waiting",
}


def event_object(event: Event) -> dict[str, Any]:
    """An event as an object for JSON, its kind under ``event``."""
    kind = {TextWritten: "text", Chosen: "chosen", Drafted: "drafted", StepDone: "step", Finished: "finished"}[type(event)]
    made = {"event": kind} | dataclasses.asdict(event)
    if isinstance(event, Finished):
        made |= {"finish_reason": made.pop("reason")}
    return made


def result_object(result: Result) -> dict[str, Any]:
    """A result as an object for JSON."""
    return {
        "answer": result.answer,
        "text": result.text,
        "thought": result.thought,
        "finish_reason": result.finish_reason,
        "steps": [dataclasses.asdict(step) for step in result.steps],
        "counters": {role: dataclasses.asdict(counters) for role, counters in result.counters.items()},
        "flops": {"paper": result.paper_flops, "full": result.full_flops},
        "non_finite_rewards": result.non_finite_rewards,
        "unchecked_steps": result.unchecked_steps,
        "decided_by": result.decided_by,
        "ways": result.ways,
    }
