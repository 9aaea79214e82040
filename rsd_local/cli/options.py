"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from rsd_local.config import (
    ROLES,
    Aggregate,
    CacheType,
    Fallback,
    FlashAttention,
    Limits,
    Params,
    RewardKind,
    RoleConfig,
    Sampling,
    Search,
    Strategy,
    TagLayout,
    Trio,
    Weighting,
    WeightingKind,
    default_temperature,
    require,
    sequences_needed,
)
from rsd_local.errors import ConfigError, ModelNotFound

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
    option("--reward-kind", type=click.Choice(get_args(RewardKind)), help="How the reward is read."),
    option("--layout", type=click.Choice(get_args(TagLayout)), help="The text a tag-logits model was trained on."),
    option("--head", type=Path, metavar="FILE", help="Safetensors file of a read-out or value-head."),
    option("--system", metavar="TEXT", help="System prompt of draft and target; '' for none."),
    option(
        "--delimiter",
        metavar="|".join((*("paragraph", "line", "sentence", "code-block"), "tokens:N", "re:PATTERN", "text:…")),
        help="Where steps end. Default: paragraph, a blank line.",
    ),
    click.option("--trust-file", is_flag=True, help="Load model files without trying them first in a process of their own."),
    _per_role("-c", "--ctx-size", metavar="N", help="Tokens per question. ROLE is draft, target or reward; without it, all."),
    _per_role("-ngl", "--n-gpu-layers", metavar="N|all|auto", help="Layers on the GPU. Default: auto, as fit."),
    _per_role("-mg", "--main-gpu", metavar="N", help="The device that holds what is not split."),
    _per_role("-ts", "--tensor-split", metavar="A,B,…", help="Shares of the model by device."),
    _per_role("-fa", "--flash-attn", metavar="|".join(get_args(FlashAttention)), help="Fused attention."),
    _per_role("-ctk", "--cache-type", metavar="|".join(get_args(CacheType)), help="Type of keys and values."),
    _per_role("-t", "--threads", metavar="N", help="CPU threads. Default: the physical cores."),
]

_PARAMS: list[Option] = [
    option("--threshold", type=float, metavar="δ", help="Reward from which a draft step stands, 0 to 1."),
    option("--weighting", type=click.Choice(get_args(WeightingKind)), default="step", show_default=True, help="ω(r)."),
    option("--probability", type=float, default=0.5, show_default=True, help="p of constant weighting."),
    option("--steepness", type=float, default=10.0, show_default=True, help="α of logistic weighting."),
    option("--redrafts", type=int, default=0, show_default=True, help="Times that the draft tries a rejected step again (rsd)."),
    option(
        "--hand-over",
        type=int,
        default=0,
        show_default=True,
        help="Rejected places in a row from which on the target writes all the rest (rsd). 0: never.",
    ),
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
    option("-n", "--max-tokens", type=int, default=2048, show_default=True, help="Tokens of the solution."),
    option("--max-steps", type=int, default=100, show_default=True, help="Steps of the solution."),
    option("--repeats", type=int, default=3, show_default=True, help="Times in a row that one step or cycle of steps ends it; 0: never."),
    option("--stop", multiple=True, metavar="TEXT", help="A text that ends the solution; again for each further one."),
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


def make_trio(flags: dict[str, Any], parallel: int = 1, width: int | None = None, *, compares: bool = False) -> Trio:
    """The trio that the flags name, with what they change.

    Args:
        flags: of ``trio_options``, and of ``run_options`` where the command has them.
        parallel: prompts at once.
        width: sequences of one prompt; without it, what the flags' strategy needs, or the trio's own.
        compares: whether figures are compared: then no prompt goes on from what earlier ones left in the caches.

    Raises:
        ConfigError: a flag's value cannot be used, or some but not all of the models are named.
    """
    from rsd_local.catalogue import find_trio

    named = {role: flags[role] for role in ("draft", "target", "reward") if flags[role]}
    kind: RewardKind = flags["reward_kind"] or "tag-logits"
    if flags["trio"] is None and named:
        needed = ["draft", "target", *(["reward"] if kind in ("tag-logits", "value-head") else [])]
        missing = [role for role in needed if role not in named]
        if missing:
            raise ConfigError(f"no {' and no '.join(missing)} model is named", hint="give --draft, --target and --reward, or --trio")
        roles: dict[str, Any] = {role: RoleConfig(path) for role, path in named.items()}
        trio = Trio(**roles, reward_kind=kind, head=flags["head"])
    else:
        trio = _changed(find_trio(flags["trio"] or "abacus"), named, flags["reward_kind"], flags["head"])
        _require_files(trio, flags["trio"])
    for flag, field, read in (
        ("ctx_size", "ctx_size", int),
        ("n_gpu_layers", "gpu_layers", lambda text: {"all": -1, "auto": "auto"}[text] if text in ("all", "auto") else int(text)),
        ("main_gpu", "main_gpu", int),
        ("tensor_split", "tensor_split", lambda text: tuple(float(share) for share in text.split(","))),
        ("flash_attn", "flash_attention", str),
        ("cache_type", "cache_type", str),
        ("threads", "threads", int),
    ):
        for given in flags[flag]:
            trio = _place(trio, flag, field, read, given)
    plain = {name: flags[name] for name in ("layout", "system", "delimiter") if flags[name] is not None}
    if flags.get("strategy") is not None:
        plain["strategy"] = flags["strategy"]
    if flags["trust_file"]:
        plain |= {role: dataclasses.replace(getattr(trio, role), trusted=True) for role in ROLES if getattr(trio, role) is not None}
    if width is None:
        width = sequences_needed(plain.get("strategy", trio.strategy), make_search(flags)) if "samples" in flags else 1
    return dataclasses.replace(trio, parallel=parallel, width=width, reuse=trio.reuse and not compares, **plain)


def _require_files(trio: Trio, name: str | None) -> None:
    """Says how to get a trio of the catalogue whose files are not here."""
    missing = [role.path.name for role in (trio.draft, trio.target, trio.reward) if role and not role.path.exists()]
    if missing and name and not name.endswith(".toml"):
        raise ModelNotFound(f"trio {name}: {', '.join(dict.fromkeys(missing))} not here", hint=f"rsd pull {name} fetches what is missing")


def _changed(trio: Trio, named: dict[str, Path], kind: str | None, head: Path | None) -> Trio:
    """The trio with other files, or with another kind of reward, which takes over no model that it cannot use.

    A threshold belongs to a combination: of another one nobody knows it, and the usual one is taken.
    """
    roles = {role: dataclasses.replace(getattr(trio, role) or RoleConfig(path), path=path) for role, path in named.items()}
    rewarded: dict[str, Any] = {} if head is None else {"head": head}
    if kind is not None and kind != trio.reward_kind:
        keeps = trio.reward if kind in ("tag-logits", "value-head") else None
        rewarded = {"reward": keeps, "reward_kind": kind, "head": head}
    if rewarded or roles:
        rewarded |= {"threshold": Trio.__dataclass_fields__["threshold"].default, "threshold_from": ""}
    return dataclasses.replace(trio, **rewarded | roles)


def _place(trio: Trio, flag: str, field: str, read: Callable[[str], Any], given: str) -> Trio:
    role, _, text = given.rpartition("=")
    if role not in ("", "draft", "target", "reward"):
        raise ConfigError(f"--{flag.replace('_', '-')} {given}: {role!r} is no role", hint="draft, target or reward")
    try:
        value = read(text)
    except ValueError:
        raise ConfigError(f"--{flag.replace('_', '-')} {given}: {text!r} is no number") from None
    roles = [name for name in ((role,) if role else ("draft", "target", "reward")) if getattr(trio, name) is not None]
    if not roles:
        raise ConfigError(f"--{flag.replace('_', '-')} {given}: this trio has no reward model", hint="it uses the target's, or none")
    return dataclasses.replace(trio, **{name: dataclasses.replace(getattr(trio, name), **{field: value}) for name in roles})


def make_search(flags: dict[str, Any]) -> Search:
    """The sizes of strategies as the flags have them."""
    return Search(**{entry.name: flags[entry.name] for entry in dataclasses.fields(Search)})


def make_params(flags: dict[str, Any], trio: Trio) -> Params:
    """Sampling, weighting and limits as the flags have them; the trio's own threshold and strategy where none is given."""
    threshold = trio.threshold if flags["threshold"] is None else flags["threshold"]
    search = make_search(flags)
    usual = default_temperature(trio.strategy, search)
    temperature = usual if flags["temp"] is None else flags["temp"]
    require(temperature > 0 or not usual, f"{trio.strategy} samples: at temperature 0 every try is the same", "give a --temp above 0")
    require(temperature > 0 or not flags["redrafts"], "a draft that tries again at temperature 0 writes the same", "give a --temp above 0")
    penalties = {name: flags[name] for name in ("repeat_penalty", "presence_penalty", "frequency_penalty")}
    return Params(
        Sampling(
            temperature, flags["top_k"], flags["top_p"], flags["min_p"], flags["seed"], **penalties, penalty_last_n=flags["repeat_last_n"]
        ),
        Weighting(flags["weighting"], threshold, flags["probability"], flags["steepness"], flags["redrafts"], flags["hand_over"]),
        Limits(tokens=flags["max_tokens"], steps=flags["max_steps"], repeats=flags["repeats"], stop=flags["stop"]),
        search,
    )
