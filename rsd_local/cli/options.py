"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from rsd_local.cli.command import SharedOption, StrictCommand
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
    ThinkMode,
    Unchecked,
    WeightingKind,
    is_url,
)

__all__ = ["StrictCommand", "option", "question_options", "run_options", "several_trios_options", "trio_options"]

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[Any], Any]


def file_or_url(value: str) -> Path | str:
    """A file, or the address of a server, which stays a text: a path would lose one of its slashes."""
    return value if is_url(value) else Path(value)


_SECTIONS = {
    "Models": "--trio --draft --target --reward --lora --lora-scaled --head --system --delimiter --trust-file --no-fit-check",
    "Rewards": "--reward-kind --layout --verifier --tests --schema --code-file --run-code --sandbox --on-verifier-error --unchecked",
    "Memory and devices": "--ctx-size --n-gpu-layers --main-gpu --tensor-split --flash-attn --cache-type --threads",
    "Strategy": "--strategy --threshold --weighting --probability --steepness --redrafts --hand-over --route-entropy --target-budget "
    "--candidates --samples --beams "
    "--branches --aggregate --speculate --fallback --retries --replay",
    "Thinking": "--think --think-budget --score-thoughts --reasoning-effort --template-kwargs",
    "Limits": "--max-tokens --max-steps --repeats --stop --stop-after",
    "Sampling": "--temp --top-k --top-p --min-p --repeat-penalty --presence-penalty --frequency-penalty --repeat-last-n --seed "
    "--grammar-file --json-schema-file",
}
"""Headings of the help, and the options below them."""


def option(*names: str, **settings: Any) -> Option:
    """A click option whose value can come from a variable too: ``--max-tokens`` from ``RSD_MAX_TOKENS``."""
    long = next(name for name in names if name.startswith("--"))
    return _shared(*names, envvar=f"RSD_{long.strip('-').replace('-', '_').upper()}", **settings)


def _shared(*names: str, **settings: Any) -> Option:
    long = next(name for name in names if name.startswith("--"))
    section = next((heading for heading, inside in _SECTIONS.items() if long in inside.split()), "Options")
    return click.option(*names, cls=SharedOption, section=section, **settings)


def _per_role(*names: str, metavar: str, help: str) -> Option:
    return option(*names, multiple=True, metavar=f"[ROLE=]{metavar}", help=help)


_TRIO: list[Option] = [
    option("--trio", metavar="NAME|FILE", help="A trio by name (rsd list), or its TOML file. Default: abacus, built in."),
    option("-md", "--draft", type=file_or_url, metavar="FILE", help="GGUF file of the draft model, ollama:NAME, or a server's URL."),
    option("-m", "--target", type=file_or_url, metavar="FILE", help="GGUF file of the target model, ollama:NAME, or a server's URL."),
    option("-mr", "--reward", type=file_or_url, metavar="FILE", help="The same of the reward model, for kinds that take one."),
    _per_role("--lora", metavar="FILE", help="LoRA adapter of a role (without ROLE, the target); of the reward, on the target's weights."),
    _per_role("--lora-scaled", metavar="FILE:SCALE", help="The same with its effect multiplied by SCALE."),
    option("--reward-kind", metavar="KIND[,KIND…]", help=f"How a step is scored: {', '.join(get_args(RewardKind))}."),
    option("--verifier", metavar="NAME", help=f"The program that checks steps: {', '.join(VERIFIERS)}."),
    option("--tests", type=Path, metavar="FILE", help="Python tests in place of the examples in the prompt (python-tests)."),
    option("--schema", type=Path, metavar="FILE", help="The JSON schema (json-schema)."),
    option("--code-file", metavar="NAME", help="The file that code is written to (pytest:PATH). Default: solution.py."),
    _shared("--run-code", is_flag=True, help="Allow to run code that a model wrote, in a sandbox, and the program of command:."),
    option("--sandbox", type=click.Choice(get_args(SandboxLevel)), help="strict: run no code that cannot be confined."),
    option("--on-verifier-error", type=click.Choice(get_args(OnVerifierError)), help="Where a verifier does not work."),
    option("--layout", type=click.Choice(get_args(TagLayout)), help="The text a tag-logits model was trained on."),
    option("--head", type=Path, metavar="FILE", help="Safetensors file of a read-out or value-head."),
    option("--system", metavar="TEXT", help="System prompt of draft and target; '' for none."),
    option(
        "--delimiter",
        metavar="WHERE",
        help="Where steps end: paragraph (a blank line, the default), line, sentence, code-block, fence, tokens:N, re:PATTERN, text:….",
    ),
    _shared("--trust-file", is_flag=True, help="Load model files without trying them first in a process of their own."),
    _shared("--no-fit-check", is_flag=True, help="Load the models also where they seem to need more memory than is free."),
    _per_role("-c", "--ctx-size", metavar="N", help="Tokens per question. ROLE is draft, target or reward; without it, all."),
    _per_role("-ngl", "--n-gpu-layers", metavar="N|all|auto", help="Layers on the GPU. Default: auto, as fit."),
    _per_role("-mg", "--main-gpu", metavar="N", help="The device that holds what is not split."),
    _per_role("-ts", "--tensor-split", metavar="A,B,…", help="Shares of the model by device."),
    _per_role(
        "-fa",
        "--flash-attn",
        metavar="|".join(get_args(FlashAttention)),
        help="Fused attention; auto: not for draft and reward on AVX-512.",
    ),
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
    option(
        "--route-entropy",
        type=float,
        default=0.0,
        show_default=True,
        help="The target writes a step at whose start the draft is less sure than this, in nats (rsd). 0: never.",
    ),
    option("--target-budget", type=float, default=1.0, show_default=True, help="Most of the tokens that the target may write (rsd)."),
    option("--unchecked", type=click.Choice(get_args(Unchecked)), help="Who decides where there is nothing to check (rsd)."),
    option(
        "--strategy",
        type=click.Choice(get_args(Strategy)),
        metavar="NAME",
        help=f"The algorithm: {', '.join(get_args(Strategy))}. Default: the trio's own, mostly rsd.",
    ),
    option("--candidates", type=int, default=1, show_default=True, help="Draft steps sampled at each place (rsd)."),
    option("--samples", type=int, default=8, show_default=True, help="Samples (majority, best-of-n, step-best-of-n)."),
    option("--beams", type=int, default=2, show_default=True, help="Solutions that stay at each step (beam)."),
    option("--branches", type=int, default=4, show_default=True, help="Steps tried after each of them (beam)."),
    option("--aggregate", type=click.Choice(get_args(Aggregate)), default="last", show_default=True, help="Of rewards (best-of-n)."),
    option(
        "--speculate", type=int, default=0, show_default=True, help="Tokens drafted at a time (speculative). 0: as many as keep it exact."
    ),
    option(
        "--fallback",
        type=click.Choice(get_args(Fallback)),
        default="auto",
        show_default=True,
        help="Evaluate guesses of the target ahead: rejected steps, its MTP head's.",
    ),
    option("--retries", type=int, help="Times that the target tries a step again that fails its check (rsd). Default: 0."),
    option("--replay", type=Path, metavar="FILE", help="Go the ways of a result that --json wrote, step by step (auto)."),
    option("-n", "--max-tokens", type=int, default=2048, show_default=True, help="Tokens of the solution."),
    option("--max-steps", type=int, default=100, show_default=True, help="Steps of the solution."),
    option("--repeats", type=int, default=3, show_default=True, help="Times in a row that one step or cycle of steps ends it; 0: never."),
    option("--stop", multiple=True, metavar="TEXT", help="A text that ends the solution; again for each further one."),
    option("--stop-after", type=click.Choice(get_args(StopAfter)), help="End the answer with its first code block."),
    option("--think", type=click.Choice(get_args(ThinkMode)), help="Whether models think before they answer. Default: auto, as they do."),
    option("--think-budget", type=int, metavar="N", help="Tokens behind which a thought is closed, at a step's end. Default: 0, never."),
    option("--score-thoughts", type=int, metavar="N", help="Score every N-th step of a thought. 0: none. Default: 1."),
    option("--reasoning-effort", metavar="LEVEL", help="For chat templates that know it, such as low, medium or high."),
    option("-tk", "--template-kwargs", multiple=True, metavar="KEY=VALUE", help="A variable of the chat template; again for each."),
    option("--temp", type=float, help="Temperature; 0 is greedy. Default: 0, or 0.7 for strategies that sample several times."),
    option("--top-k", type=int, default=0, show_default=True, help="Most likely tokens kept; 0 for all."),
    option("--top-p", type=float, default=1.0, show_default=True, help="Probability mass kept."),
    option("--min-p", type=float, default=0.0, show_default=True, help="Share of the best token's probability to stay."),
    option("--repeat-penalty", type=float, default=1.0, show_default=True, help="Divides the logits of tokens written lately."),
    option("--presence-penalty", type=float, default=0.0, show_default=True, help="Subtracted from those logits."),
    option("--frequency-penalty", type=float, default=0.0, show_default=True, help="Subtracted once for each time."),
    option("--repeat-last-n", type=int, default=64, show_default=True, help="Tokens that count as written lately."),
    option("-s", "--seed", type=int, default=0, show_default=True, help="Seed of the question."),
    option("--grammar-file", type=Path, metavar="FILE", help="Grammar in GBNF that the answer follows."),
    option("-jf", "--json-schema-file", type=Path, metavar="FILE", help="JSON schema that the answer fits."),
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


def several_trios_options(command: F) -> F:
    """Adds the options of a command that may name several trios; the others hold for each of them."""
    about = "A trio by name (rsd list), or its TOML file; again for each further one. Default: abacus, built in."
    return _stack(command, [option("--trio", multiple=True, type=click.Path(), metavar="NAME|FILE", help=about), *_TRIO[1:]])


def run_options(command: F) -> F:
    """Adds the options of sampling, weighting and limits."""
    return _stack(command, _PARAMS)


def _stack(command: F, options: list[Option]) -> F:
    for option in reversed(options):
        command = option(command)
    return command
