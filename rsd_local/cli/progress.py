"""How a bench looks while it runs: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from rsd_local.bench.runner import Tally, Watch

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress() -> Iterator[Watch]:
    """What the runner tells about a strategy's questions, shown on standard error."""
    if sys.stderr.isatty():
        with _bars() as watch:
            yield watch
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Watch]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[so_far]}"))
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=Console(stderr=True), expand=True) as bars:

        def watch(tally: Tally) -> None:
            label = tally.plan.label
            if label not in tasks:
                tasks[label] = bars.add_task(escape(label), total=tally.total, completed=tally.done, so_far="")
            bars.update(tasks[label], completed=tally.done, so_far=escape(_so_far(tally)))

        yield watch


def _lines() -> Watch:
    begun: dict[str, float] = {}
    last = 0.0

    def watch(tally: Tally) -> None:
        nonlocal last
        now = time.monotonic()
        started = begun.setdefault(tally.plan.label, now)
        ended = tally.done == tally.total
        if ended or now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            fresh = tally.done - tally.before
            left = f", {_clock((now - started) / fresh * (tally.total - tally.done))} left" if fresh and not ended else ""
            click.echo(f"{tally.plan.label}: {tally.done}/{tally.total} {_so_far(tally)}{left}".rstrip(), err=True)

    return watch


def _so_far(tally: Tally) -> str:
    if not tally.done:
        return ""
    share = f", target share {tally.target_steps / tally.steps:.0%}" if tally.steps else ""
    return f"accuracy {tally.right / tally.done:.1%}{share}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
