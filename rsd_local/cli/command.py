"""How a command reads its arguments, and how its help looks; click does the rest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from click.core import ParameterSource

from rsd_local.errors import ConfigError

_OPTION = re.compile(r"--?[A-Za-z][\w-]*(?:=.*)?", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[0-9.]+")
_EXTRA = re.compile(r"\[(?:default|required|env var)[^\]]*\]")
_HYPHEN, _SPACE = "\ue000", "\ue001"  # in place of those where no line may be broken


def is_option(word: str) -> bool:
    """Whether a word is spelled like an option, known or not; ``-3+5`` and ``-x + 3`` are not."""
    return _OPTION.fullmatch(word) is not None


@dataclass(slots=True)
class Words:
    """The words of a call, told apart.

    Attributes:
        options: names and values of options, in the order of the call.
        values: all other words.
        unknown: words that are spelled like options, and are none of the command's.
        waiting: the option at the end whose value is missing.
        mistaken: an option whose value was left out, for the next option stands in its place; and that one.
    """

    options: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    waiting: click.Option | None = None
    mistaken: tuple[str, str] | None = None


def names_of(parameters: Iterable[click.Parameter]) -> dict[str, click.Option]:
    """The options by each of their spellings."""
    options = [one for one in parameters if isinstance(one, click.Option)]
    return {name: one for one in options for name in (*one.opts, *one.secondary_opts)}


def takes_value(option: click.Option) -> bool:
    """Whether a value follows the option's name."""
    return not (option.is_flag or option.count)


def read_words(known: dict[str, click.Option], arguments: Sequence[str]) -> Words:
    """Tells options, their values and other words apart.

    What follows an option that takes a value is its value, whatever it begins with. ``-n20`` is ``-n 20``; only numbers can
    be written like that, for ``-mx`` may be a mistyped ``-md`` or ``-m x``.
    """
    found, rest = Words(), list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.values += rest
            break
        name, value = _split(word, known)
        if name is None:
            (found.unknown if is_option(word) else found.values).append(word)
            continue
        found.options.append(name)
        if value is None and takes_value(known[name]):
            if not rest:
                found.waiting = known[name]
                break
            value = rest.pop(0)
            if value in known:
                found.mistaken = name, value
        if value is not None:
            found.options.append(value)
    return found


def _split(word: str, known: dict[str, click.Option]) -> tuple[str | None, str | None]:
    """The option that a word names, and the value in the same word."""
    if word in known:
        return word, None
    name, is_given, value = word.partition("=")
    if is_given and name in known and takes_value(known[name]):
        return name, value
    attached = [name for name in known if word.startswith(name) and name[1] != "-" and takes_value(known[name])]
    name = max(attached, key=len, default="")
    return (name, word[len(name) :]) if name and _NUMBER.fullmatch(word[len(name) :]) else (None, None)


class Formatter(click.HelpFormatter):
    """Breaks no line inside a name with hyphens, nor inside a default."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Writes the first line."""
        super().write_usage(prog, _held(args), prefix)

    def write_text(self, text: str) -> None:
        """Writes paragraphs."""
        super().write_text(_held(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Writes a table of two columns."""
        super().write_dl([(first, _held(second)) for first, second in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """All that was written."""
        return super().getvalue().replace(_HYPHEN, "-").replace(_SPACE, " ")


def _held(text: str) -> str:
    return _EXTRA.sub(lambda match: match[0].replace(" ", _SPACE), text).replace("-", _HYPHEN)


class SharedOption(click.Option):
    """An option that several commands have.

    Args:
        section: the heading that its help stands under.
    """

    def __init__(self, *arguments: Any, section: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """The value as the command takes it; a bad one of a variable is the variable's."""
        try:
            return super().process_value(ctx, value)
        except click.BadParameter as error:
            error.param_hint = self.variable(ctx) or error.param_hint
            raise

    def variable(self, ctx: click.Context) -> str | None:
        """The variable that its value comes from, None where it does not come from one."""
        assert self.name is not None
        return str(self.envvar) if ctx.get_parameter_source(self.name) is ParameterSource.ENVIRONMENT else None


class StrictCommand(click.Command):
    """A command for which a mistyped flag is an error, and a text that begins with a minus is none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses unknown flags, and hands click the rest in an order that leaves nothing to guess."""
        known = names_of(self.get_params(ctx))
        words = read_words(known, args)
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        for word in words.unknown:
            name = word.partition("=")[0]
            names = {one.removeprefix("--"): one for one in known}  # what all names begin with makes none alike
            near = [names[one] for one in difflib.get_close_matches(name.removeprefix("--"), names, 1)]
            takes_text = any(isinstance(parameter, click.Argument) for parameter in self.params)
            hint = f", did you mean {near[0]}?" if near else "; a text that begins with a minus goes behind --" if takes_text else ""
            raise click.UsageError(f"no such option: {name}{hint}", ctx)
        if words.waiting is not None:
            raise click.UsageError(f"{words.options[-1]} needs a value", ctx)
        if words.mistaken is not None:
            name, value = words.mistaken
            raise click.UsageError(f"{name} needs a value; where that is the text {value}, write {name}={value}", ctx)
        return super().parse_args(ctx, [*words.options, "--", *words.values])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that names a flag whose value is a variable's names the variable."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            message = str(error)
            for option in self.get_params(ctx):
                if isinstance(option, SharedOption) and (variable := option.variable(ctx)):
                    message = re.sub(rf"(?<![\w-])({'|'.join(map(re.escape, option.opts))})(?![\w-])", variable, message)
            error.args = (message,)
            raise

    def get_help(self, ctx: click.Context) -> str:
        """The help as a text."""
        return formatted(self, ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the command's own options, then those that it shares with others under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for heading, rows in sections.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def formatted(command: click.Command, ctx: click.Context) -> str:
    """A command's help, as wide as the terminal, at most 80 columns."""
    formatter = Formatter(width=ctx.terminal_width, max_width=ctx.max_content_width)
    command.format_help(ctx, formatter)
    return formatter.getvalue().rstrip("\n")
