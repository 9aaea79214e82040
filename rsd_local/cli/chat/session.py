"""A conversation from its first question to its last, whatever trios it goes through."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import click

from rsd_local.cli.chat import commands
from rsd_local.cli.chat.lines import Entry, Lines
from rsd_local.cli.chat.trios import called, chat_trio, has_short_answer
from rsd_local.cli.flags import make_params
from rsd_local.cli.interrupts import on_interrupt
from rsd_local.cli.text import complain, printable
from rsd_local.config import Params, ThinkMode, Trio
from rsd_local.errors import Cancelled, ConfigError, RSDError
from rsd_local.events import CancelToken

if TYPE_CHECKING:
    from rsd_local.events import Result
    from rsd_local.reasoner import Conversation, Reasoner

_OF_A_TRIO = ("draft", "target", "reward", "reward_kind", "head", "layout", "verifier", "tests", "schema", "code_file", "threshold")
"""Flags that belong to the trio that they were given for."""


@dataclass
class Talk:
    """What belongs to one trio.

    Attributes:
        flags: of the call, with the trio's name.
        trio: the one to talk to.
        params: of the answers.
        said: all questions and their results.
        turns: what of it the models are still told.
    """

    flags: dict[str, Any]
    trio: Trio
    params: Params
    said: list[tuple[str, Result]] = field(default_factory=list)
    turns: list[tuple[str, str]] = field(default_factory=list)


class Session:
    """Reads entries and answers them until there are no more.

    Args:
        lines: where they come from.
        quiet: whether answers stand alone.
        history: what becomes of a conversation that no longer fits, see ``Reasoner.converse``.
    """

    def __init__(self, lines: Lines, quiet: bool, history: Literal["drop", "error"]) -> None:
        self._lines, self._quiet, self._history = lines, quiet, history
        self._talk: Talk | None = None
        self._before: Talk | None = None  # where another trio was asked for and is not open yet
        self._refused = False

    def begin(self, flags: dict[str, Any], trio: Trio, params: Params) -> None:
        """Chooses the first trio."""
        self._talk = Talk(flags, trio, params)
        if self._lines.terminal and not self._quiet:
            about = "solves integer arithmetic, such as (37+48)*6-129\n" if trio.task == "arithmetic" else ""
            name = called(flags)
            greeting = f"{name} {about}" if about else f"{name}: "
            click.secho(printable(f"{greeting}/help names the commands, Ctrl-D leaves"), dim=True, err=True)

    def run(self) -> int:
        """Talks to the end of the input, and returns the exit code: 1 where something from a pipe was refused."""
        while self._talk is not None:
            self._hold(self._talk)
        return int(self._refused and not self._lines.terminal)

    def _hold(self, talk: Talk) -> None:
        """Talks to one trio until another one is wanted, or none."""
        from rsd_local.cli import render
        from rsd_local.cli.thoughts import with_thoughts
        from rsd_local.reasoner import Reasoner

        with ExitStack() as opened:
            try:
                if not self._quiet:
                    render.confinement(talk.trio)
                reasoner = opened.enter_context(Reasoner.open(talk.trio, None if self._quiet else render.loading()))
                chat = opened.enter_context(reasoner.converse(talk.params, history=self._history))
            except RSDError as error:
                self._go_back(error)
                return
            except KeyboardInterrupt:
                self._go_back(Cancelled("interrupted"))
                return
            self._before = None
            talk.params = with_thoughts(talk.params, reasoner)
            chat.turns = talk.turns
            while self._talk is talk:
                try:
                    self._take(talk, reasoner, chat)
                except KeyboardInterrupt:
                    if not self._lines.terminal:
                        raise
                    click.echo(err=True)

    def _go_back(self, error: RSDError) -> None:
        """To the trio before, where one that was asked for cannot be opened."""
        if self._before is None:
            raise KeyboardInterrupt if isinstance(error, Cancelled) else error
        self._refuse(error)
        self._talk, self._before = self._before, None
        click.echo(printable(f"the conversation goes on with trio {called(self._talk.flags)}"), err=True)

    def _refuse(self, error: RSDError) -> None:
        """Says what went wrong in one line, and lets the conversation go on."""
        self._refused = True
        complain(error)

    def _take(self, talk: Talk, reasoner: Reasoner, chat: Conversation) -> None:
        """Reads an entry and does what it wants."""
        entry: Entry | None = Entry("")
        try:
            entry = self._lines.read()
            if entry is None:
                self._talk = None
            elif entry.command:
                self._echo(entry.text)
                self._command(entry.text, talk, reasoner, chat)
            elif entry.text:
                self._echo(entry.text)
                self._ask(entry.text, talk, chat)
        except RSDError as error:
            error.hint = error.hint.replace("--trio ", "/trio ")
            self._refuse(error)
            if not (entry and entry.command) and not self._lines.terminal and not (_is_terminal(sys.stdout) and _is_terminal(sys.stderr)):
                click.echo(printable(f"error: {' '.join(str(error).split())}"))

    def _echo(self, text: str) -> None:
        """Shows what was read where nobody has typed it."""
        if not self._lines.terminal and not self._quiet:
            click.secho(printable("> " + text.replace("\n", "\n  ")), dim=True, err=True)

    def _ask(self, question: str, talk: Talk, chat: Conversation) -> None:
        """Answers one question; Ctrl-C stops the answer."""
        from rsd_local.cli import render
        from rsd_local.cli.chat.view import watching
        from rsd_local.events import CancelToken
        from rsd_local.reasoner import collect

        cancel, events = CancelToken(), []
        dropped = len(chat.turns) - chat.prompt(question, talk.params).turn
        with self._lines.unseen(), on_interrupt(cancel.cancel), watching(talk.trio, _note(dropped), quiet=self._quiet) as shown:
            for event in chat.stream(question, talk.params, cancel=cancel, text=True):
                events.append(event)
                shown(event)
        result = collect(iter(events))
        if result.finish_reason == "cancelled" and not self._lines.terminal:
            raise KeyboardInterrupt  # of all that is in the pipe
        talk.said.append((question, result))
        if not self._quiet:
            render.ending(result, boxed=False)
        self._answer(result, talk.trio)

    def _answer(self, result: Result, trio: Trio) -> None:
        """Prints the answer, in a terminal that has just shown the text only where it does not end with it."""
        answer = result.answer if has_short_answer(trio) else None
        if self._quiet or not (_is_terminal(sys.stdout) and _is_terminal(sys.stderr)):
            click.echo(printable(result.text.strip() if answer is None else answer))
        elif answer is not None and not ends_with(result.text, answer):
            click.echo(click.style("answer: ", bold=True) + printable(answer))

    def _command(self, line: str, talk: Talk, reasoner: Reasoner, chat: Conversation) -> None:
        """Carries out a line that begins with a slash."""
        from rsd_local.cli import render

        name, argument = commands.parse(line)
        if name == "/help":
            click.echo(commands.HELP, err=True)
        elif name == "/quit":
            self._talk = None
        elif name == "/clear":
            chat.clear()
            talk.said.clear()
        elif name == "/stats":
            if not talk.said:
                raise ConfigError("there is no answer yet")
            render.stats(talk.said[-1][1], reasoner)
        elif name == "/threshold":
            self._threshold(talk, argument)
        elif name == "/think":
            self._think(talk, reasoner, argument)
        elif name == "/trio":
            self._trio(talk, argument)
        else:
            self._save(talk, argument)

    def _think(self, talk: Talk, reasoner: Reasoner, mode: str) -> None:
        if mode:
            from rsd_local.cli.thoughts import with_thoughts

            thinking = replace(talk.params.thinking, mode=cast(ThinkMode, mode))
            reasoner.trio.bound(CancelToken(), replace(talk.params, thinking=thinking), shows_text=False)  # refuses what it cannot do
            talk.params = with_thoughts(
                replace(make_params(talk.flags, talk.trio), weighting=talk.params.weighting, thinking=thinking), reasoner
            )
        click.echo(f"think {talk.params.thinking.mode}", err=True)

    def _threshold(self, talk: Talk, text: str) -> None:
        if text:
            try:
                talk.params = replace(talk.params, weighting=replace(talk.params.weighting, threshold=float(text)))
            except ValueError:
                raise ConfigError(f"/threshold {text}: {text!r} is no number") from None
        click.echo(f"threshold {talk.params.weighting.threshold:g}", err=True)

    def _trio(self, talk: Talk, name: str) -> None:
        if name:
            # What the flags say of single models belongs to the trio they were given for.
            flags = talk.flags | {"trio": name} | dict.fromkeys(_OF_A_TRIO)
            trio = chat_trio(flags)
            self._before, self._talk = talk, Talk(flags, trio, make_params(flags, trio))
            talk = self._talk
        click.echo(printable(f"trio {called(talk.flags)}, threshold {talk.params.weighting.threshold:g}"), err=True)

    def _save(self, talk: Talk, name: str) -> None:
        from rsd_local.cli.chat.transcript import markdown, save

        if not talk.said:
            raise ConfigError("there is no answer yet")
        file = commands.as_path(name)
        save(file, markdown(f"Conversation with trio {called(talk.flags)}", talk.said))
        count = len(talk.said)
        click.echo(printable(f"wrote {count} answer{'s' * (count != 1)} to {file}"), err=True)


def ends_with(text: str, answer: str) -> bool:
    """Whether nothing but signs follows the answer in the text."""
    before, found, behind = text.rpartition(answer)
    return bool(found) and not before[-1:].isalnum() and not any(character.isalnum() for character in behind)


def _note(dropped: int) -> str:
    """What to say where turns were dropped."""
    if not dropped:
        return ""
    which = f"{dropped} oldest questions and answers are" if dropped > 1 else "oldest question and answer are"
    return f"the context is full: the {which} forgotten"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()
