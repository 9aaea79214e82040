"""What a run takes where its models think and the caller says nothing: models that think are not made for greedy, short answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from click.core import ParameterSource

from rsd_local.config import Params
from rsd_local.reasoner import Reasoner

TOKENS = 8192
"""Of an answer with a thought."""
_SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "repeat_penalty": "penalty_repeat"}
"""Settings of ``Sampling``, and the metadata of a model file that advise them: ``general.sampling.NAME``."""
_FLAGS = {"temperature": "temp"}


def with_thoughts(params: Params, reasoner: Reasoner) -> Params:
    """The same; where answers begin with a thought, sampled as the target's file advises and longer, unless flags say otherwise.

    Says so where a thought will be greedy.
    """
    if not reasoner.trio.thinks(params.thinking):
        return params
    target = reasoner.engines().get("target")
    advice = target.model.header.metadata if target is not None else {}  # a server does not tell what its file advises
    found = {name: advice.get(f"general.sampling.{key}") for name, key in _SAMPLING.items() if not _said(_FLAGS.get(name, name))}
    usable: dict[str, Any] = {
        name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
    sampling = dataclasses.replace(params.sampling, **usable)
    limits = params.limits if _said("max_tokens") else dataclasses.replace(params.limits, tokens=TOKENS)
    if sampling.temperature == 0:
        click.secho("models that think repeat themselves where they are greedy: give --temp 0.6", fg="yellow", err=True)
    return dataclasses.replace(params, sampling=sampling, limits=limits)


def _said(flag: str) -> bool:
    """Whether a flag or its variable was given."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(flag) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
