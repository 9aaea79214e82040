"""From flags to settings: the trio that they name, and what a run takes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rsd_local.config import (
    NEEDS_MODEL,
    ROLES,
    TAKES_MODEL,
    AnyRole,
    Limits,
    Params,
    RemoteRole,
    RoleConfig,
    Sampling,
    Search,
    TemplateValue,
    Thinking,
    Trio,
    Ways,
    Weighting,
    default_temperature,
    is_url,
    require,
    sequences_needed,
)
from rsd_local.errors import ConfigError
from rsd_local.text_files import read_text

_CHECKS = ("verifier", "tests", "schema", "code_file")
_OF_MODELS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "ctx_size": ("ctx_size", int),
    "n_gpu_layers": ("gpu_layers", lambda text: {"all": -1, "auto": "auto"}[text] if text in ("all", "auto") else int(text)),
    "main_gpu": ("main_gpu", int),
    "tensor_split": ("tensor_split", lambda text: tuple(float(share) for share in text.split(","))),
    "flash_attn": ("flash_attention", str),
    "cache_type": ("cache_type", str),
    "threads": ("threads", int),
}
"""The flags that take [ROLE=]VALUE: a model's field, and how the value is read."""
_OF_THE_TRIO = ("threshold", "unchecked", "stop_after", "redrafts", "retries")
"""What a trio has where no flag is given."""


def make_trio(
    flags: dict[str, Any], parallel: int | None = 1, width: int | None = None, *, compares: bool = False, loads: bool = True
) -> Trio:
    """The trio that the flags name, with what they change.

    Args:
        flags: of ``trio_options``, and of ``run_options`` where the command has them.
        parallel: prompts at once; None for the trio's own.
        width: sequences of one prompt; without it, what the flags' strategy needs, or the trio's own.
        compares: whether figures are compared: then no prompt goes on from what earlier ones left in the caches.
        loads: whether the models are to be loaded, so that their files must be here.

    Raises:
        ConfigError: a flag's value cannot be used, or some but not all of the models are named.
    """
    from rsd_local.catalogue import find_trio, require_files

    named = {role: flags[role] for role in ROLES if flags[role]}
    adapters = read_adapters(flags)
    kind = flags["reward_kind"] or ("verifier" if flags["verifier"] else None)
    checks = {name: flags[name] for name in _CHECKS if flags[name] is not None}
    if flags["trio"] is None and named:
        trio = _of_files(named, adapters, kind or "tag-logits", flags["head"], checks)
    else:
        trio = _changed(find_trio(flags["trio"] or "abacus"), named, adapters, kind, flags["head"], checks)
        if loads and flags["trio"]:
            require_files(trio, flags["trio"])
    for flag, (field, read) in _OF_MODELS.items():
        for given in flags[flag]:
            trio = _place(trio, flag, field, read, given)
    if flags["trust_file"]:
        trio = trio.with_models(lambda role: dataclasses.replace(role, trusted=True))
    settings = _settings(flags, trio)
    if width is None:
        width = sequences_needed(settings.get("strategy", trio.strategy), make_search(flags)) if "samples" in flags else 1
    parallel = trio.parallel if parallel is None else parallel
    return dataclasses.replace(trio, parallel=parallel, width=width, reuse=trio.reuse and not compares, **settings)


def _settings(flags: dict[str, Any], trio: Trio) -> dict[str, Any]:
    """What the flags change of a trio as a whole."""
    found = {name: flags[name] for name in ("layout", "system", "delimiter", "sandbox", "on_verifier_error") if flags[name] is not None}
    if found.get("system") and trio.task == "arithmetic":  # its models never saw one, and would get wrong what they can do
        click.secho("this trio does arithmetic and takes no system prompt: --system is left out", fg="yellow", err=True)
        del found["system"]
    found["run_code"] = flags["run_code"]
    if flags["no_fit_check"]:
        found["fit_check"] = False
    if flags.get("strategy") is not None:
        found["strategy"] = flags["strategy"]
    return found


Adapters = dict[str, tuple[Path, float]]
"""A file and its scale, by role."""


def read_adapters(flags: dict[str, Any]) -> Adapters:
    """The LoRA adapters that the flags name.

    Raises:
        ConfigError: two for one role, or a scale that is no number.
    """
    found: Adapters = {}
    for flag in ("lora", "lora_scaled"):
        for given in flags[flag]:
            role, text = adapter_of(given)
            called, scale = f"--{flag.replace('_', '-')} {given}", 1.0
            if flag == "lora_scaled":
                text, _, number = text.rpartition(":")
                try:
                    scale = float(number)
                except ValueError:
                    raise ConfigError(f"{called}: {number!r} is no number", hint="give FILE:SCALE") from None
            require(bool(text), f"{called} names no file")
            require(role not in found, f"{called}: the {role} has one adapter already", "give one for each role")
            found[role] = Path(text), scale
    return found


def adapter_of(given: str) -> tuple[str, str]:
    """The role and the rest of a flag's ``[ROLE=]FILE``; without a role it is the target's, as in llama.cpp."""
    role, sign, text = given.partition("=")
    return (role, text) if sign and role in ROLES else ("target", given)


def _of_files(named: dict[str, Path | str], adapters: Adapters, kind: str, head: Path | None, checks: dict[str, Any]) -> Trio:
    """A trio of nothing but the files that are named."""
    needed = ["draft", "target", *(["reward"] if not {*NEEDS_MODEL}.isdisjoint(kind.split(",")) else [])]
    missing = [role for role in needed if role not in named and not (role == "reward" and role in adapters)]
    if missing:
        fix = "give --draft, --target and --reward, or --trio"
        if missing == ["reward"]:
            fix = "give --reward, or --reward-kind judge: the target is asked then"
        raise ConfigError(f"no {' and no '.join(missing)} model is named", hint=fix)
    _check_kind(kind, adapters)
    roles: dict[str, Any] = _adapted({role: _named(path) for role, path in named.items()}, adapters)
    return Trio(**roles, reward_kind=kind, head=head, **checks)


def _check_kind(kind: str, adapters: Adapters) -> None:
    takes = not {*TAKES_MODEL}.isdisjoint(kind.split(","))
    require(takes or "reward" not in adapters, f"reward kind {kind} reads no model, so it takes no adapter", "choose another --reward-kind")


def _named(path: Path | str, before: AnyRole | None = None) -> AnyRole:
    """A model by its file or its server's URL, with the settings of the one that it takes the place of, where they are of its kind."""
    if is_url(path):
        return dataclasses.replace(before, url=str(path)) if isinstance(before, RemoteRole) else RemoteRole(str(path))
    path = Path(path)
    if isinstance(before, RoleConfig):
        return dataclasses.replace(before, path=path, lora=None, lora_scale=1.0)
    return RoleConfig(path)


def _adapted(roles: dict[str, AnyRole], adapters: Adapters) -> dict[str, AnyRole]:
    """Roles with adapters; a reward without a model is the target's weights with its adapter."""
    made = dict(roles)
    for role, (path, scale) in adapters.items():
        base = roles.get(role) or (roles.get("target") if role == "reward" else None)
        require(base is not None, f"--lora {role}={path}: no {role} model is named", f"give --{role}")
        require(not isinstance(base, RemoteRole), f"--lora {role}={path}: that model is on a server", "start the server with its --lora")
        if isinstance(base, RoleConfig):
            made[role] = dataclasses.replace(base, lora=path, lora_scale=scale)
    return made


def _changed(
    trio: Trio, named: dict[str, Path | str], adapters: Adapters, kind: str | None, head: Path | None, checks: dict[str, Any]
) -> Trio:
    """The trio with other files, or with another kind of reward, which takes over no model that it cannot use.

    A threshold belongs to a combination: of another one nobody knows it, and the usual one is taken.
    """
    models = {role: _named(path, getattr(trio, role)) for role, path in named.items()}
    if not trio.rewards or kind is not None:
        _check_kind(kind or trio.reward_kind, adapters)
    own: dict[str, AnyRole] = {role: model for role in ROLES if (model := getattr(trio, role)) is not None}
    roles = models | {role: model for role, model in _adapted(own | models, adapters).items() if role in adapters}
    rewarded = checks if head is None else checks | {"head": head}
    if "verifier" in checks and not trio.rewards:  # the files of another one go with it
        rewarded = {"tests": None, "schema": None} | rewarded
    if kind is not None and (kind != trio.reward_kind or trio.rewards):
        keeps = trio.reward if not {*NEEDS_MODEL}.isdisjoint(kind.split(",")) else None
        gone: dict[str, Any] = {"verifier": "", "tests": None, "schema": None, "rewards": ()}
        rewarded = gone | {"reward": keeps, "reward_kind": kind, "head": head} | checks
    if rewarded or roles:
        rewarded = rewarded | {"threshold": math.nan, "threshold_from": "", "tuned": None}
    return dataclasses.replace(trio, **rewarded | roles)


def _place(trio: Trio, flag: str, field: str, read: Callable[[str], Any], given: str) -> Trio:
    role, _, text = given.rpartition("=")
    if role not in ("", "draft", "target", "reward"):
        raise ConfigError(f"--{flag.replace('_', '-')} {given}: {role!r} is no role", hint="draft, target or reward")
    try:
        value = read(text)
    except ValueError:
        raise ConfigError(f"--{flag.replace('_', '-')} {given}: {text!r} is no number") from None
    if role == "reward" and not any(stage.model for stage in trio.stages):
        raise ConfigError(f"--{flag.replace('_', '-')} {given}: this trio has no reward model", hint="it uses the target's, or none")
    if role and isinstance(getattr(trio, role), RemoteRole):
        raise ConfigError(f"--{flag.replace('_', '-')} {given}: the {role} is on a server", hint="start the server with it")
    return trio.with_models(lambda one: dataclasses.replace(one, **{field: value}), (role,) if role else ROLES)


def make_search(flags: dict[str, Any]) -> Search:
    """The sizes of strategies as the flags have them."""
    return Search(**{entry.name: flags[entry.name] for entry in dataclasses.fields(Search) if flags.get(entry.name) is not None})


def _ways(file: Path | None, trio: Trio) -> Ways:
    """The ways of a result's steps.

    Raises:
        ConfigError: the file has none, or the trio's strategy is not auto.
    """
    if file is None:
        return ()
    require(trio.strategy == "auto", "--replay is for --strategy auto", "leave it away, or choose that strategy")
    text = read_text(file)
    try:
        found = json.loads(text)["ways"]
        return Search(ways=tuple(found)).ways
    except (ValueError, KeyError, TypeError, ConfigError):
        raise ConfigError(f"{file} holds no ways of steps", hint="give a result that rsd solve --strategy auto --json wrote") from None


def make_params(flags: dict[str, Any], trio: Trio) -> Params:
    """Sampling, weighting and limits as the flags have them; the trio's own where none is given."""
    own = {name: getattr(trio, name) if flags[name] is None else flags[name] for name in _OF_THE_TRIO}
    search = dataclasses.replace(make_search(flags), retries=own["retries"], ways=_ways(flags["replay"], trio))
    usual = default_temperature(trio.strategy, search)
    temperature = usual if flags["temp"] is None else flags["temp"]
    require(temperature > 0 or not usual, f"{trio.strategy} samples: at temperature 0 every try is the same", "give a --temp above 0")
    penalties = {name: flags[name] for name in ("repeat_penalty", "presence_penalty", "frequency_penalty")}
    return Params(
        Sampling(
            temperature,
            flags["top_k"],
            flags["top_p"],
            flags["min_p"],
            flags["seed"],
            **penalties,
            penalty_last_n=flags["repeat_last_n"],
            grammar=make_grammar(flags, trio),
        ),
        Weighting(
            flags["weighting"],
            own["threshold"],
            flags["probability"],
            flags["steepness"],
            own["redrafts"],
            flags["hand_over"],
            own["unchecked"],
            flags["route_entropy"],
            flags["target_budget"],
        ),
        Limits(
            tokens=flags["max_tokens"],
            steps=flags["max_steps"],
            repeats=flags["repeats"],
            stop=flags["stop"],
            stop_after=own["stop_after"],
        ),
        search,
        make_thinking(flags, trio),
    )


def make_grammar(flags: dict[str, Any], trio: Trio) -> str:
    """The grammar that answers follow, as the flags have it.

    Raises:
        ConfigError: a file cannot be read or used, or the trio's answers follow none.
    """
    grammar, schema = flags["grammar_file"], flags["json_schema_file"]
    require(grammar is None or schema is None, "--grammar-file and --json-schema-file exclude each other")
    if grammar is None and schema is None:
        return ""
    require(
        trio.task != "arithmetic", "this trio answers arithmetic alone, and no grammar", "leave the grammar away, or choose another --trio"
    )
    if schema is None:
        return read_text(grammar, hint="give a file of GBNF with a rule root")
    from rsd_local.json_grammar import json_schema_to_grammar

    try:
        return json_schema_to_grammar(read_text(schema))
    except ConfigError as error:
        raise ConfigError(f"{schema}: {error}", hint=error.hint) from None


def make_thinking(flags: dict[str, Any], trio: Trio) -> Thinking:
    """Whether models think, and what their templates are given, as the flags have it."""
    mode, budget, effort, scored = (
        getattr(trio, name) if flags[name] is None else flags[name]
        for name in ("think", "think_budget", "reasoning_effort", "score_thoughts")
    )
    return Thinking(mode, budget, effort, tuple((trio.template_kwargs | dict(map(_variable, flags["template_kwargs"]))).items()), scored)


def _variable(given: str) -> tuple[str, TemplateValue]:
    """A variable of the chat template; what is no number, true, false or null is a text."""
    name, sign, text = given.partition("=")
    require(bool(sign), f"--template-kwargs {given!r} has no =", "give NAME=VALUE, such as enable_thinking=false")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return name.strip(), value if value is None or isinstance(value, bool | int | float | str) else text
