"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from rsd_local.config import (
    VERIFIERS,
    Aggregate,
    CacheType,
    Fallback,
    FlashAttention,
    OnVerifierError,
    RewardKind,
    SandboxLevel,
    StopAfter,
    Strategy,
    TagLayout,
    Unchecked,
    WeightingKind,
)

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[Any], Any]


class StrictCommand(click.Command):
    """A mistyped flag is an error here: click alone would read ``-mx`` as ``-m x``.

    What begins with a minus and a digit or a parenthesis is no flag but an expression.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings.setdefault("context_settings", {})["ignore_unknown_options"] = True
        super().__init__(*arguments, **settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuses unknown flags before click looks at them."""
        known = [name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)]
        for argument in args:
            if argument == "--":
                break
            name = argument.split("=")[0]
            if argument.startswith("-") and argument.strip("-")[:1].isalpha() and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise click.UsageError(f"no such option: {name}" + (f", did you mean {near[0]}?" if near else ""), ctx)
        return super().parse_args(ctx, args)


def option(*names: str, **settings: Any) -> Option:
    """A click option whose value can come from a variable too: ``--max-tokens`` from ``RSD_MAX_TOKENS``."""
    long = next(name for name in names if name.startswith("--"))
    return click.option(*names, envvar=f"RSD_{long.strip('-').replace('-', '_').upper()}", **settings)


def _per_role(*names: str, metavar: str, help: str) -> Option:
    return option(*names, multiple=True, metavar=f"[ROLE=]{metavar}", help=help)


_TRIO: list[Option] = [
    option("--trio", metavar="NAME|FILE", help="A trio by name, or a TOML file. Default: abacus, built in."),
    option("-md", "--draft", type=Path, metavar="FILE", help="GGUF file of the draft model."),
    option("-m", "--target", type=Path, metavar="FILE", help="GGUF file of the target model."),
    option("-mr", "--reward", type=Path, metavar="FILE", help="GGUF file of the reward model, for kinds that take one."),
    option("--reward-kind", metavar="KIND[,KIND…]", help=f"How a step is scored: {', '.join(get_args(RewardKind))}."),
    option("--verifier", metavar="NAME", help=f"The program that checks steps: {', '.join(VERIFIERS)}."),
    option("--tests", type=Path, metavar="FILE", help="Python tests in place of the examples in the prompt (python-tests)."),
    option("--schema", type=Path, metavar="FILE", help="The JSON schema (json-schema)."),
    option("--code-file", metavar="NAME", help="The file that code is written to (pytest:PATH). Default: solution.py."),
    click.option("--run-code", is_flag=True, help="Allow to run code that a model wrote, in a sandbox, and the program of command:."),
    option("--sandbox", type=click.Choice(get_args(SandboxLevel)), help="strict: run no code that cannot be confined."),
    option("--on-verifier-error", type=click.Choice(get_args(OnVerifierError)), help="Where a verifier does not work."),
    option("--layout", type=click.Choice(get_args(TagLayout)), help="The text a tag-logits model was trained on."),
    option("--head", type=Path, metavar="FILE", help="Safetensors file of a read-out or value-head."),
    option("--system", metavar="TEXT", help="System prompt of draft and target; '' for none."),
    option(
        "--delimiter",
        metavar="|".join((*("paragraph", "line", "sentence", "code-block", "fence"), "tokens:N", "re:PATTERN", "text:…")),
        help="Where steps end. Default: paragraph, a blank line.",
    ),
    click.option("--trust-file", is_flag=True, help="Load model files without trying them first in a process of their own."),
    click.option("--no-fit-check", is_flag=True, help="Load the models also where they seem to need more memory than is free."),
    _per_role("-c", "--ctx-size", metavar="N", help="Tokens per question. ROLE is draft, target or reward; without it, all."),
    _per_role("-ngl", "--n-gpu-layers", metavar="N|all|auto", help="Layers on the GPU. Default: auto, as fit."),
    _per_role("-mg", "--main-gpu", metavar="N", help="The device that holds what is not split."),
    _per_role("-ts", "--tensor-split", metavar="A,B,…", help="Shares of the model by device."),
    _per_role("-fa", "--flash-attn", metavar="|".join(get_args(FlashAttention)), help="Fused attention."),
    _per_role("-ctk", "--cache-type", metavar="|".join(get_args(CacheType)), help="Type of keys and values."),
    _per_role("-t", "--threads", metavar="N", help="CPU threads. Default: the physical cores that it may use."),
]

_PARAMS: list[Option] = [
    option("--threshold", type=float, metavar="δ", help="Reward from which a draft step stands, 0 to 1."),
    option("--weighting", type=click.Choice(get_args(WeightingKind)), default="step", show_default=True, help="ω(r)."),
    option("--probability", type=float, default=0.5, show_default=True, help="p of constant weighting."),
    option("--steepness", type=float, default=10.0, show_default=True, help="α of logistic weighting."),
    option("--redrafts", type=int, help="Times that the draft tries a rejected step again (rsd). Default: 0."),
    option(
        "--hand-over",
        type=int,
        default=0,
        show_default=True,
        help="Rejected places in a row from which on the target writes all the rest (rsd). 0: never.",
    ),
    option("--unchecked", type=click.Choice(get_args(Unchecked)), help="Who decides where there is nothing to check (rsd)."),
    option("--strategy", type=click.Choice(get_args(Strategy)), help="The algorithm. Default: the trio's own, mostly rsd."),
    option("--candidates", type=int, default=1, show_default=True, help="Draft steps sampled at each place (rsd)."),
    option("--samples", type=int, default=8, show_default=True, help="Samples (majority, best-of-n, step-best-of-n)."),
    option("--beams", type=int, default=2, show_default=True, help="Solutions that stay at each step (beam)."),
    option("--branches", type=int, default=4, show_default=True, help="Steps tried after each of them (beam)."),
    option("--aggregate", type=click.Choice(get_args(Aggregate)), default="last", show_default=True, help="Of rewards (best-of-n)."),
    option(
        "--speculate", type=int, default=0, show_default=True, help="Tokens drafted at a time (speculative). 0: as many as keep it exact."
    ),
    option(
        "--fallback", type=click.Choice(get_args(Fallback)), default="auto", show_default=True, help="Evaluate a rejected step ahead (rsd)."
    ),
    option("--retries", type=int, help="Times that the target tries a step again that fails its check (rsd). Default: 0."),
    option("-n", "--max-tokens", type=int, default=2048, show_default=True, help="Tokens of the solution."),
    option("--max-steps", type=int, default=100, show_default=True, help="Steps of the solution."),
    option("--repeats", type=int, default=3, show_default=True, help="Times in a row that one step or cycle of steps ends it; 0: never."),
    option("--stop", multiple=True, metavar="TEXT", help="A text that ends the solution; again for each further one."),
    option("--stop-after", type=click.Choice(get_args(StopAfter)), help="End the answer with its first code block."),
    option("--temp", type=float, help="Temperature; 0 is greedy. Default: 0, or 0.7 for strategies that sample several times."),
    option("--top-k", type=int, default=0, show_default=True, help="Most likely tokens kept; 0 for all."),
    option("--top-p", type=float, default=1.0, show_default=True, help="Probability mass kept."),
    option("--min-p", type=float, default=0.0, show_default=True, help="Share of the best token's probability to stay."),
    option("--repeat-penalty", type=float, default=1.0, show_default=True, help="Divides the logits of tokens written lately."),
    option("--presence-penalty", type=float, default=0.0, show_default=True, help="Subtracted from those logits."),
    option("--frequency-penalty", type=float, default=0.0, show_default=True, help="Subtracted once for each time."),
    option("--repeat-last-n", type=int, default=64, show_default=True, help="Tokens that count as written lately."),
    option("-s", "--seed", type=int, default=0, show_default=True, help="Seed of the question."),
]

_QUESTIONS: list[Option] = [
    click.option("--limit", type=int, metavar="N", help="Questions, a seeded choice. Default: all; 100 of arithmetic."),
    click.option("-s", "--seed", type=int, default=0, show_default=True, help="Seed of the questions and of every draw."),
    click.option("--json", "as_json", is_flag=True, help="Print the figures as one object."),
]


def question_options(command: F) -> F:
    """Adds the options of commands that go through the questions of a data set and report figures."""
    return _stack(command, _QUESTIONS)


def trio_options(command: F) -> F:
    """Adds the options that choose and place the models."""
    return _stack(command, _TRIO)


def run_options(command: F) -> F:
    """Adds the options of sampling, weighting and limits."""
    return _stack(command, _PARAMS)


def _stack(command: F, options: list[Option]) -> F:
    for option in reversed(options):
        command = option(command)
    return command
