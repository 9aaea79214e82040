"""``rsd config``: each setting, its value, and where it comes from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rsd_local.cli.flags import adapter_of, make_params, make_trio
from rsd_local.cli.options import StrictCommand, run_options, trio_options
from rsd_local.cli.text import say
from rsd_local.cli.words import in_words
from rsd_local.config import ROLES, AnyRole, TunedFigures

_FLAGS = {"gpu_layers": "n_gpu_layers", "flash_attention": "flash_attn", "kind": "weighting", "tokens": "max_tokens",
          "steps": "max_steps", "temperature": "temp", "penalty_last_n": "repeat_last_n",
          "mode": "think", "budget": "think_budget", "effort": "reasoning_effort", "template": "template_kwargs",
          "scored": "score_thoughts"}  # fmt: skip
"""Settings whose flag has another name."""
_LEFT_OUT = ("threshold", "grammar")
"""Settings of a run that are shown otherwise: the trio's own, and the file that it comes from."""
_WIDE = 20  # characters of the column of values; a longer one goes beyond it


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its value, and the flag, variable or file that it comes from."""

    name: str
    value: Any
    source: str


@click.command(cls=StrictCommand)
@trio_options
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def config(ctx: click.Context, /, as_json: bool, **flags: Any) -> None:
    """Show each setting, and where it comes from.

    As rsd solve with the same flags would have it. A flag goes before a variable (RSD_THRESHOLD for --threshold),
    that before the user's own models.toml, that before the catalogue's. No model is loaded, and no file needs to be here.
    """
    found = settings(ctx, flags)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], default=str))
        return
    rows = [(one.name, in_words(one.value), one.source) for one in found]
    name, value = (max(len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        say(f"{row[1]:<{min(value, _WIDE)}}  {row[2]}", f"{row[0]:<{name}}  ")


def settings(ctx: click.Context, flags: dict[str, Any]) -> list[Setting]:
    """All settings of a call."""
    from rsd_local.catalogue import find_trio, trio_origins

    trio = make_trio(flags, loads=False)
    params = make_params(flags, trio)
    named = flags["trio"] or (None if flags["draft"] else "abacus")
    origins: dict[str, Path] = trio_origins(named) if named else {}
    if named:  # what a flag for something else has set back, such as the threshold of another kind of reward
        filed = find_trio(named)
        origins = {key: path for key, path in origins.items() if "." in key or getattr(trio, key, None) == getattr(filed, key, None)}

    def source(field: str, role: str | None = None) -> str:
        flag = role if field in ("path", "url") and role else _FLAGS.get(field, field)
        adapted = [name for name in ("lora", "lora_scaled") for given in flags[name] if adapter_of(given)[0] == role]
        if adapted and (field in ("lora", "lora_scale") or (field == "path" and not flags[flag] and f"{role}.path" not in origins)):
            flag = adapted[0]
        given = flags.get(flag)
        if role and field not in ("path", "url") and flag not in adapted and given is not None:
            given = next((value for value in given if value.rpartition("=")[0] in ("", role)), None)
        if given not in (None, ()) and (how := ctx.get_parameter_source(flag)) in _SAID:
            return _SAID[how].format(flag=flag.replace("_", "-"), variable=f"RSD_{flag.upper()}")
        named_by = f"{role}.model" if role and field == "path" else field  # an entry of the catalogue, in place of a path
        return str(origins.get(f"{role}.{field}" if role else field, origins.get(named_by, "default")))

    found = [Setting("trio", named or "named by flags", source("trio"))]
    for entry in dataclasses.fields(trio):
        value = getattr(trio, entry.name)
        if isinstance(value, AnyRole):
            rows = [(inner.name, getattr(value, inner.name)) for inner in dataclasses.fields(value)]
            found += [Setting(f"{entry.name}.{name}", _plain(one), source(name, entry.name)) for name, one in rows]
        elif entry.name not in (*ROLES, *_OF_PARAMS):
            found.append(Setting(entry.name, _plain(value), source(entry.name)))
    for group in (params.weighting, params.sampling, params.limits, params.search, params.thinking):
        rows = [(entry.name, getattr(group, entry.name)) for entry in dataclasses.fields(group) if entry.name not in _LEFT_OUT]
        found += [Setting(_FLAGS.get(name, name).replace("_", "-"), value, source(name)) for name, value in rows]
    found += [Setting(name.replace("_", "-"), _plain(flags[name]), source(name)) for name in ("grammar_file", "json_schema_file")]
    chosen = next(place for place, one in enumerate(found) if one.name == "threshold")
    found[chosen] = Setting("threshold", params.weighting.threshold, source("threshold"))
    return found


_SAID = {ParameterSource.COMMANDLINE: "flag --{flag}", ParameterSource.ENVIRONMENT: "variable {variable}"}


_OF_PARAMS = ("unchecked", "stop_after", "redrafts", "retries", "think", "think_budget", "reasoning_effort", "template_kwargs",
              "score_thoughts")  # fmt: skip
"""Settings of a trio that stand among those of a run."""


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, TunedFigures):
        return dataclasses.asdict(value)
    return str(value) if isinstance(value, Path) else value
