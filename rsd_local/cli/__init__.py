"""The command line: one file per command, loaded only when asked for.

Exit codes: 0 done, 1 something failed, 2 the call itself was wrong, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from rsd_local.errors import RSDError

_COMMANDS = {
    "solve": "rsd_local.cli.solve:solve",
    "chat": "rsd_local.cli.chat:chat",
    "bench": "rsd_local.cli.bench:bench",
    "report": "rsd_local.cli.report:report",
    "estimate": "rsd_local.cli.estimate:estimate",
    "train-reward": "rsd_local.cli.train_reward:train_reward",
    "tune": "rsd_local.cli.tune:tune",
    "pull": "rsd_local.cli.models:pull",
    "list": "rsd_local.cli.models:list_",
    "show": "rsd_local.cli.models:show",
    "verify": "rsd_local.cli.models:verify",
    "rm": "rsd_local.cli.models:rm",
    "fit": "rsd_local.cli.fit:fit",
    "doctor": "rsd_local.cli.doctor:doctor",
    "config": "rsd_local.cli.config:config",
}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is looked at."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of their listing."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command by its name."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rsd-local", prog_name="rsd")
def cli() -> None:
    """Reward-guided speculative decoding on your own machine.

    A small draft model writes each reasoning step, a reward model scores it, and only a step that scores badly is
    written again by the large target model.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; every failure that a user can cause ends in one line on standard error."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a question of bytes that are no text is refused, or answered, not a crash
    try:
        code = cli.main(args=arguments, prog_name="rsd", standalone_mode=False)
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
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say, and the interpreter must not say it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(problem: RSDError | str, code: int) -> None:
    from rsd_local.cli.text import complain

    complain(problem)
    sys.exit(code)
