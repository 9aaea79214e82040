"""How a bench looks while it runs: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import click

from rsd_local.bench.runner import Tally, Watch

_SECONDS_BETWEEN_LINES = 5.0
_MOST_BETWEEN_LINES = 300.0


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


class _Pace:
    """When the next line is due where nobody watches: after 5 seconds, and then a tenth of the time so far, up to 5 minutes."""

    def __init__(self) -> None:
        self._begun, self._last = time.monotonic(), -math.inf

    def due(self) -> bool:
        """Whether it is, and then the next one is counted from now."""
        now = time.monotonic()
        wait = min(_MOST_BETWEEN_LINES, max(_SECONDS_BETWEEN_LINES, (now - self._begun) / 10))
        if now - self._last < wait:
            return False
        self._last = now
        return True


def _lines() -> Watch:
    begun: dict[str, float] = {}
    pace = _Pace()

    def watch(tally: Tally) -> None:
        now = time.monotonic()
        started = begun.setdefault(tally.plan.label, now)
        ended = tally.done == tally.total
        if pace.due() or ended:
            fresh = tally.done - tally.before
            left = f", {_clock((now - started) / fresh * (tally.total - tally.done))} left" if fresh and not ended else ""
            click.echo(f"{tally.plan.label}: {tally.done}/{tally.total} {_so_far(tally)}{left}".rstrip(), err=True)

    return watch


def _so_far(tally: Tally) -> str:
    if not tally.done:
        return ""
    share = f", target share {tally.target_steps / tally.steps:.0%}" if tally.steps else ""
    errors = f", {tally.errors} errors" if tally.errors else ""
    return f"accuracy {tally.right / tally.done:.1%}{share}{errors}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def parts() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of a job in named parts: name, done, total."""
    with ExitStack() as opened:
        counts: dict[str, Callable[[int, int], None]] = {}

        def watch(name: str, done: int, total: int) -> None:
            if name not in counts:
                opened.close()
                counts[name] = opened.enter_context(counting(name))
            counts[name](done, total)

        yield watch


@contextmanager
def counting(label: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of one job that counts up: done, total."""
    if not sys.stderr.isatty():
        yield _counted_lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True), expand=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _counted_lines(label: str) -> Callable[[int, int], None]:
    pace = _Pace()

    def watch(done: int, total: int) -> None:
        if pace.due() or done == total:
            click.echo(f"{label}: {done}/{total}", err=True)

    return watch


@contextmanager
def transfers() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of downloads side by side: name, bytes that are there, bytes of the whole."""
    if not sys.stderr.isatty():
        said: dict[str, int] = {}

        def lines(name: str, there: int, whole: int) -> None:
            tenth = 10 * there // whole if whole else 0
            if said.get(name) != tenth:
                said[name] = tenth
                click.echo(f"{name}: {there / 1e6:.1f} of {whole / 1e6:.1f} MB", err=True)

        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), expand=True) as bars:

        def watch(name: str, there: int, whole: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=whole)
            bars.update(tasks[name], completed=there, total=whole)

        yield watch
