"""``rsd chat``: a conversation in the terminal."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.flags import make_params, make_trio
from rsd_local.cli.options import StrictCommand, run_options, trio_options
from rsd_local.cli.text import complain, printable
from rsd_local.config import Params, Trio
from rsd_local.errors import ConfigError, RSDError

if TYPE_CHECKING:
    from rsd_local.events import Result
    from rsd_local.reasoner import Conversation, Reasoner

_HELP = """\
/stats             what each model did for the last answer
/trio [NAME|FILE]  the trio, or another one; the conversation starts anew
/threshold [δ]     the reward from which a draft step stands, 0 to 1
/save FILE         write the conversation as Markdown
/clear             forget what was said
/quit              leave, as does Ctrl-D; Ctrl-C stops an answer"""

_OF_A_TRIO = ("draft", "target", "reward", "reward_kind", "head", "layout", "verifier", "tests", "schema", "code_file", "threshold")
"""Flags that belong to the trio that they were given for."""


@click.command(cls=StrictCommand)
@trio_options
@run_options
@click.option("-q", "--quiet", is_flag=True, help="Print the answers alone.")
def chat(quiet: bool, **flags: Any) -> int:
    """Talk to a trio.

    Each line is a question, answered in the light of those before; what was said stays in the models' caches. Steps appear
    dim while they are only drafted. /help names the commands. Ctrl-C stops an answer and keeps the conversation, Ctrl-D
    leaves. Lines can come from a pipe too: then the answers alone are on standard output.
    """
    trio = make_trio(flags)
    session = Session(flags, trio, make_params(flags, trio), quiet)
    if sys.stdin.isatty():
        import readline  # noqa: F401 - gives input() line editing and a history

        click.secho(printable(f"{_called(flags)}: /help names the commands, Ctrl-D leaves"), dim=True, err=True)
    while session.trio is not None:
        session.hold()
    return 0


@dataclass
class Session:
    """What lasts from one trio to the next.

    Attributes:
        flags: of the call.
        trio: the one to talk to; None to leave.
        params: of the answers.
        quiet: whether answers stand alone.
        said: questions and their results so far.
        before: flags, trio, parameters and what was said from before the last change of the trio.
    """

    flags: dict[str, Any]
    trio: Trio | None
    params: Params
    quiet: bool
    said: list[tuple[str, Result]] = field(default_factory=list)
    before: tuple[dict[str, Any], Trio, Params, list[tuple[str, Result]]] | None = None

    def hold(self) -> None:
        """Talks to one trio until another one is wanted, or none."""
        from rsd_local.cli import render
        from rsd_local.reasoner import Reasoner

        assert self.trio is not None
        here = self.trio
        with ExitStack() as opened:
            try:
                if not self.quiet:
                    render.confinement(here)
                reasoner = opened.enter_context(Reasoner.open(here, None if self.quiet else render.loading()))
                chat = opened.enter_context(reasoner.converse(self.params))
            except RSDError as error:
                self._go_back(error)
                return
            while self.trio is here:
                line = _read_line()
                if line is None:
                    self.trio = None
                elif line.startswith("/"):
                    self._guarded(lambda line=line: self.command(line, reasoner, chat))
                elif line:
                    self._guarded(lambda line=line: self.ask(line, chat))

    def _go_back(self, error: RSDError) -> None:
        """To the trio before, where one that was asked for cannot be opened."""
        if self.before is None:
            raise error
        complain(error)
        (self.flags, self.trio, self.params, self.said), self.before = self.before, None
        click.echo(printable(f"back to trio {_called(self.flags)}; the conversation starts anew"), err=True)

    @staticmethod
    def _guarded(work: Any) -> None:
        """Says what went wrong in one line, and lets the conversation go on."""
        try:
            work()
        except RSDError as error:
            complain(error)

    def ask(self, question: str, chat: Conversation) -> None:
        """Answers one question; Ctrl-C stops the answer."""
        from rsd_local.cli import render
        from rsd_local.events import CancelToken, Drafted, StepDone
        from rsd_local.reasoner import collect

        cancel, events, trio = CancelToken(), [], chat.config
        with _interrupts(cancel.cancel), render.drafts(shown=not self.quiet) as drafted:
            for event in chat.stream(question, self.params, cancel=cancel):
                events.append(event)
                if isinstance(event, Drafted):
                    drafted(event.text)
                else:
                    drafted("")
                    if isinstance(event, StepDone) and not self.quiet:
                        render.step(event, trio)
        result = collect(iter(events))
        self.said.append((question, result))
        if not self.quiet:
            render.ending(result, boxed=False)
        # In a terminal the steps have just been read: the answer alone follows.
        if result.answer is not None or self.quiet or not sys.stdout.isatty():
            click.echo(printable(result.answer if result.answer is not None else result.text.strip()))

    def command(self, line: str, reasoner: Reasoner, chat: Conversation) -> None:
        """Carries out a line that begins with a slash."""
        from rsd_local.cli import render

        try:
            name, *rest = shlex.split(line)
        except ValueError as error:
            raise ConfigError(f"{line}: {error}") from None
        if name == "/help" and not rest:
            click.echo(_HELP, err=True)
        elif name in ("/quit", "/exit") and not rest:
            self.trio = None
        elif name == "/clear" and not rest:
            chat.clear()
            self.said.clear()
        elif name == "/stats" and not rest:
            if not self.said:
                raise ConfigError("there is no answer yet")
            render.stats(self.said[-1][1], reasoner)
        elif name == "/threshold" and len(rest) <= 1:
            self._threshold(*rest)
        elif name == "/trio" and len(rest) <= 1:
            self._trio(*rest)
        elif name == "/save" and len(rest) == 1:
            self._save(Path(rest[0]).expanduser())
        else:
            raise ConfigError(f"no such command: {line}", hint="/help names them")

    def _threshold(self, text: str = "") -> None:
        if text:
            try:
                self.params = replace(self.params, weighting=replace(self.params.weighting, threshold=float(text)))
            except ValueError:
                raise ConfigError(f"/threshold {text}: {text!r} is no number") from None
        click.echo(f"threshold {self.params.weighting.threshold:g}", err=True)

    def _trio(self, name: str = "") -> None:
        if name:
            # What the flags say of single models belongs to the trio they were given for.
            flags = self.flags | {"trio": name} | dict.fromkeys(_OF_A_TRIO)
            trio = make_trio(flags)
            assert self.trio is not None
            self.before = self.flags, self.trio, self.params, self.said
            self.trio, self.flags = trio, flags
            self.params = make_params(flags, trio)
            self.said = []
        click.echo(printable(f"trio {_called(self.flags)}, threshold {self.params.weighting.threshold:g}"), err=True)

    def _save(self, file: Path) -> None:
        parts = [f"## {question}\n\n{result.text.strip()}\n" for question, result in self.said]
        try:
            with file.open("x", encoding="utf-8") as out:
                out.write("\n".join(parts))
        except FileExistsError:
            raise ConfigError(f"{file} is there already", hint="give another name") from None
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or error}") from None
        click.echo(printable(f"wrote {len(parts)} answers to {file}"), err=True)


def _called(flags: dict[str, Any]) -> str:
    return str(flags["trio"] or ("models named by flags" if flags["draft"] else "abacus"))


def _read_line() -> str | None:
    """The next line without its blanks, None at the end of the input; Ctrl-C gives an empty one."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() if line else None
    try:
        # input() writes its prompt to standard error where standard output is no terminal.
        return input("> ").strip()
    except EOFError:
        click.echo(err=True)
        return None
    except KeyboardInterrupt:
        click.echo(err=True)
        return ""


@contextmanager
def _interrupts(stop: Any) -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
