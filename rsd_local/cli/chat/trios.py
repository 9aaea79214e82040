"""The trio of a conversation: as the flags name it, asked in a way that suits talk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rsd_local.cli.flags import make_trio
from rsd_local.config import Trio
from rsd_local.errors import ModelNotFound

PLAIN_PROMPT = "You are a helpful assistant. Write short paragraphs with a blank line between them."
"""The system prompt of a conversation about anything. A paragraph is a step, so there is something to accept or reject early."""


def chat_trio(flags: dict[str, Any], parallel: int | None = 1) -> Trio:
    """The trio that the flags name, for so many prompts at once; for as many as it says itself where that is None.

    Where neither they nor the trio's file give a system prompt and the trio is not for mathematics, it gets a plain one in place of
    the one that asks for a boxed answer.

    Raises:
        ConfigError: a flag's value cannot be used, or some but not all of the models are named.
        ModelNotFound: a file is not here.
    """
    from rsd_local.catalogue import trio_origins

    trio = make_trio(flags, parallel)
    missing = [str(file) for file in trio.files if not file.exists()]
    if missing:
        raise ModelNotFound(f"no model file {missing[0]}", hint="check the path")
    given = flags["system"] is not None or (flags["trio"] is not None and "system" in trio_origins(flags["trio"]))
    return trio if given or for_mathematics(trio) else replace(trio, system=PLAIN_PROMPT)


def for_mathematics(trio: Trio) -> bool:
    """Whether a trio is for mathematics: its task says so, or a reward of a layout that is trained on nothing else."""
    return trio.task != "any" or any(stage.kind == "tag-logits" for stage in trio.stages)


def has_short_answer(trio: Trio) -> bool:
    """Whether a trio's answers end in a short one that can be told apart from the text."""
    return trio.task == "arithmetic" or "\\boxed" in trio.system


def called(flags: dict[str, Any]) -> str:
    """A trio's name for people."""
    return str(flags["trio"] or ("models named by flags" if flags["draft"] else "abacus"))
