"""``rsd chat``: a conversation in the terminal, or line by line from a pipe."""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args

import click

from rsd_local.cli.flags import make_params
from rsd_local.cli.options import StrictCommand, option, run_options, trio_options

_HISTORY = Literal["drop", "error"]  # as ``reasoner.HistoryRule``, which is dear to import


@click.command(cls=StrictCommand)
@trio_options
@run_options
@option(
    "--history",
    type=click.Choice(get_args(_HISTORY)),
    default="drop",
    show_default=True,
    help="Where the conversation outgrows the context: drop its oldest turns, or refuse the question.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print the answers alone.")
def chat(quiet: bool, history: _HISTORY, **flags: Any) -> int:
    """Talk to a trio.

    Each question is answered in the light of those before. The step that is being written is dim until it is accepted; a
    rejected one leaves a line. A pasted text is one question, and so are lines that end in a backslash or stand between \"""
    and \""". /help names the commands. Ctrl-C stops an answer, Ctrl-D leaves.

    From a pipe, each question has its answer on standard output, or a line that begins with "error:" where it was refused; then
    the exit code is 1. Ctrl-C then ends all of it.

    Where --system is not given, only trios for mathematics (their task, or a tag-logits reward) are asked for a boxed answer.
    """
    from rsd_local.cli.chat.lines import Lines
    from rsd_local.cli.chat.session import Session
    from rsd_local.cli.chat.trios import chat_trio

    trio = chat_trio(flags)
    session = Session(Lines(sys.stdin), quiet, history)
    session.begin(flags, trio, make_params(flags, trio))
    return session.run()
