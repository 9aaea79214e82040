"""The command line: one file per command, loaded only when asked for.

Exit codes: 0 done, 1 something failed, 2 the call itself was wrong, 130 stopped by Ctrl-C. Standard output that cannot be
written (a full disk, a closed descriptor) is a failure; one whose reader has gone ends the call without a word, with 1.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

import click

from rsd_local.cli import streams
from rsd_local.cli.command import StrictCommand, formatted, is_option, names_of
from rsd_local.errors import ConfigError, RSDError

GROUPS = {
    "Ask": {
        "solve": ("solve:solve", "Answer a question."),
        "chat": ("chat:chat", "Talk to a trio."),
        "serve": ("serve:serve", "Serve a trio behind OpenAI's API."),
    },
    "Get models": {
        "list": ("models:list_", "Show all trios and models, and which are here."),
        "pair": ("pair:pair", "Find a draft and a target among your own files."),
        "show": ("models:show", "Show what is known of a trio or a model."),
        "fit": ("fit:fit", "Say whether a trio fits this machine."),
        "pull": ("models:pull", "Download the files of a trio or a model."),
        "verify": ("models:verify", "Read files, and compare them with what was published."),
        "rm": ("models:rm", "Take files out of the cache."),
    },
    "Measure": {
        "bench": ("bench:bench", "Compare strategies on the questions of a data set."),
        "report": ("report:report", "Write the report of a bench: tables, plots, a page."),
        "estimate": ("estimate:estimate", "Say what a measured saving is worth."),
        "tune": ("tune:tune", "Choose a threshold by a stated wish, and keep it."),
        "train-reward": ("train_reward:train_reward", "Fit a reward on states of your own models."),
    },
    "This machine": {
        "doctor": ("doctor:doctor", "Look at this machine, and whether rsd works on it."),
        "config": ("config:config", "Show each setting, and where it comes from."),
        "completion": ("completion:completion", "Print the completion script of a shell."),
    },
}
"""Headings of the help, and below them each command with its place in ``rsd_local.cli`` and what it does."""

_COMMANDS = {name: place for commands in GROUPS.values() for name, (place, _) in commands.items()}
_ALSO_CALLED = {
    **dict.fromkeys(("ask", "run"), "solve"),
    **dict.fromkeys(("ls", "models"), "list"),
    **dict.fromkeys(("download", "get"), "pull"),
    **dict.fromkeys(("remove", "delete"), "rm"),
    "info": "show",
    "eval": "bench",
    "train": "train-reward",
    "server": "serve",
    "check": "doctor",
    "version": "--version",
}
"""What other tools call a command."""

_FIRST = """\
First steps:
  rsd solve "(37+48)*6-129"   arithmetic, with models that come with rsd
  rsd list                    trios for all other questions
  rsd help COMMAND            what a command does, and its flags
"""


class _LazyGroup(click.Group):
    """Imports a command's module when the command is looked at."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of their listing."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command by its name."""
        if cmd_name == "help":
            return help_
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(f"rsd_local.cli.{module}"), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a word there is nothing to do but help."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(0)
        if args and args[0] not in names_of(self.get_params(ctx)) and args[0].startswith("-") and not is_option(args[0]):
            raise _no_command(args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of a call; where there is none, the error names what to type instead."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise _no_command(args)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """The help as a text."""
        return formatted(self, ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands below their headings, without loading one of them."""
        for heading, commands in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<12}", summary) for name, (_, summary) in commands.items()])
        formatter.write(f"\n{_FIRST}")


def _no_command(args: Sequence[str]) -> ConfigError:
    """What to type where the first word is no command: one that is spelled nearly so, or the words as a question."""
    from rsd_local.cli.text import call, cut

    word, rest = args[0], args[1:]
    sentence = len(args) > 2 and not any(one.startswith("-") for one in args)
    near = _ALSO_CALLED.get(word) or next(iter(difflib.get_close_matches(word, _COMMANDS, 1, 0.8 if sentence else 0.6)), None)
    if near:
        return ConfigError(f"No such command {word!r}", hint=f"did you mean: {call(near, *rest)}")
    return ConfigError(f"No such command {cut(word)!r}", hint=f"to ask it: {call('solve', ' '.join(args))}")


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rsd-local", prog_name="rsd")
def cli() -> None:
    """Reward-guided speculative decoding on your own machine.

    A small draft model writes each reasoning step, a reward model scores it, and only a step that scores badly is
    written again by the large target model.
    """


@click.command("help", cls=StrictCommand, hidden=True)
@click.argument("command", required=False)
@click.pass_context
def help_(ctx: click.Context, command: str | None) -> None:
    """Show what a command does, and its flags."""
    whole = ctx.parent
    assert whole is not None and isinstance(whole.command, click.Group)
    if command is None:
        click.echo(whole.get_help())
        return
    found = whole.command.get_command(whole, command)
    if found is None:
        raise _no_command([command])
    click.echo(click.Context(found, whole, command).get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; every failure that a user can cause ends in one line on standard error."""
    streams.prepare()
    try:
        code = cli.main(args=arguments, prog_name="rsd", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except RSDError as error:
        _fail(error, error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "rsd"
        _fail(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _fail("interrupted", 130)
    except OSError as error:
        _fail_of_system(error)


def _fail_of_system(error: OSError) -> None:
    """Standard output that cannot be written, or whatever else the system refused."""
    lost = streams.lost_output()
    if isinstance(error, BrokenPipeError):
        sys.exit(1)  # whoever read our output has gone; nothing is left to say
    if lost is not None:
        _fail(f"standard output cannot be written: {lost}", 1)
    said = error.strerror or str(error)
    _fail(f"{error.filename}: {said}" if error.filename is not None else said, 1)


def _fail(problem: RSDError | str, code: int) -> None:
    from rsd_local.cli.text import complain

    complain(problem)
    sys.exit(code)
