"""``rsd fit``: whether a trio fits this machine, and what that gives."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import StrictCommand, trio_options
from rsd_local.cli.text import json_line, printable, say
from rsd_local.cli.words import gigabytes
from rsd_local.config import RemoteRole, require
from rsd_local.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from pathlib import Path

    from rsd_local.catalogue.models import ModelEntry
    from rsd_local.config import RewardConfig, Trio
    from rsd_local.events import Role
    from rsd_local.fit import MemoryPlan
    from rsd_local.remote import PoolingEngine, RemoteEngine

_ACCEPTED = (0.5, 0.7, 0.85, 0.95)
_CACHED = 100_000_000
"""Bytes of weights up to which they can stay in a CPU's caches; then memory is not what bounds the speed."""


@click.command(cls=StrictCommand)
@click.argument("name", metavar="[TRIO]", required=False)
@click.option("-P", "--parallel", type=int, default=1, show_default=True, metavar="N", help="Questions at once.")
@click.option("--measure", "measured", is_flag=True, help="Load the models, time them for a few seconds, and say what RSD gains here.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@trio_options
def fit(name: str | None, parallel: int, measured: bool, as_json: bool, **flags: Any) -> int:
    """Say whether a trio fits this machine.

    Shows the memory of weights, cache and batches by role, how many layers go to the GPU, and the speed that memory allows
    at best. TRIO is a name or a TOML file, as for --trio. Without --measure no model is loaded, and what a named trio has no files of
    yet is told from the catalogue's figures. Where the catalogue does not know the shape of a model, its weights alone are counted, and the
    rest stands as unknown. A model on a server takes no memory here, and the server is asked what it has. Ends with 1 where the trio does
    not fit, or a server cannot be asked.
    """
    if name is not None and flags["trio"] is not None:
        raise click.UsageError("TRIO and --trio exclude each other")
    name = name or flags["trio"]
    trio = make_trio(flags | {"trio": name}, parallel=parallel, loads=False)

    from rsd_local import machine
    from rsd_local.capacities import capacities
    from rsd_local.errors import DoesNotFit
    from rsd_local.fit import make_plan, published_headers
    from rsd_local.fit.speed import gain, memory_bandwidth, tokens_per_second
    from rsd_local.rewards import load_heads
    from rsd_local.runtime.devices import devices

    entries = _not_here(name)
    published = published_headers(entries.values())
    unknown = {path.name: other for other, entry in entries.items() if (path := entry.path) in published and entry.shape is None}
    heads = (None,) * len(trio.stages) if any(not file.exists() for file in trio.files) else load_heads(trio)
    plan = make_plan(capacities(trio, heads), devices(), published)
    missing = {path: header.size for path, header in published.items() if path in trio.files}
    away = _servers(trio)
    lost = [role for role, told in away.items() if "error" in told]
    from_memory = bool(plan.roles) and not any(one.offloaded for one in plan.roles) and plan.roles[-1].footprint.read > _CACHED
    bandwidth = memory_bandwidth(machine.threads())
    experts = [other for other, entry in entries.items() if entry.active is not None and entry.path in published]
    speeds = tokens_per_second(plan, bandwidth) if from_memory and not experts and not away else {}
    gains = {accepted: gain(speeds, accepted) for accepted in _ACCEPTED} if speeds else {}
    try:
        plan.check()
        why = ""
    except DoesNotFit as error:
        why = f"{error}; {error.hint}"
    times = _measured(trio, missing, why) if measured and not lost else None
    if as_json:
        shown = _object(plan, bandwidth, speeds, gains) | _gaps(plan, missing, unknown) | {"servers": away}
        click.echo(json_line(shown | ({"measured": times} if times is not None else {})))
    else:
        said = (f"{role:<8} {told.get('about') or told['error']}" for role, told in away.items())
        click.echo(printable("\n".join([*_table(plan, unknown), *said])))
        if times is None:
            _say_speeds(bandwidth, speeds, gains, experts)
        else:
            _say_measured(times)
    if plan.context_warning:
        say(f"warning: {plan.context_warning}", err=True)
    if missing:
        files, whole = ", ".join(f"{path.name} ({gigabytes(size)})" for path, size in missing.items()), gigabytes(sum(missing.values()))
        say(f"from published sizes; not here: {files}; rsd pull {name} fetches {whole}", err=True)
    if unknown:
        names = ", ".join(unknown.values())
        say(f"not counted: what the context and the batches of {names} take, which is unknown until the file is here", err=True)
    say(f"does not fit: {why}" if why else _fits(unknown, lost, measured=measured), err=as_json or bool(why or lost))
    return 1 if why or lost else 0


def _fits(unknown: Mapping[str, str], lost: list[str], *, measured: bool) -> str:
    """That a trio fits, and how far that is known."""
    known = "fits, as far as is known" if unknown or lost else "fits"
    unmeasured = ", so nothing was measured" if measured else ""
    return f"{known}; not asked: the server of the {' and the '.join(lost)}{unmeasured}" if lost else known


def _servers(trio: Trio) -> dict[str, dict[str, Any]]:
    """What the servers of a trio say of themselves, by role, or why they say nothing."""
    from rsd_local.remote import RemoteEngine
    from rsd_local.rewards import reward_servers

    both = {"draft": trio.draft, "target": trio.target}
    told = {role: _told(config.url, partial(RemoteEngine, config, role)) for role, config in both.items() if isinstance(config, RemoteRole)}
    for name, (place, config) in reward_servers(trio).items():
        told[name] = _told(config.url, partial(_reward_engine, config, name, trio.stages[place]))
    return told


def _reward_engine(config: RemoteRole, name: Role, stage: RewardConfig) -> RemoteEngine | PoolingEngine:
    from rsd_local.rewards.servers import open_asked

    return open_asked(config, name, stage).engine


def _told(url: str, open_engine: Callable[[], RemoteEngine | PoolingEngine]) -> dict[str, Any]:
    """What one server says of itself, or why it says nothing."""
    try:
        with closing(open_engine()) as engine:
            return dataclasses.asdict(engine.facts) | {"url": url, "about": engine.about()}
    except RemoteError as error:
        return {"url": url, "error": f"{error}; {error.hint}" if error.hint else str(error)}


def _say_speeds(bandwidth: float, speeds: dict[Role, float], gains: dict[float, float], experts: list[str]) -> None:
    """The speed at best, and RSD's gain by the share of kept steps; or why there is none of models of experts."""
    if experts:
        click.echo()
        say(f"no speed is told before the files are here: a token reads a part of the weights only, of {', '.join(experts)}")
    if speeds:
        each = ", ".join(f"{role} {speed:.3g}" for role, speed in speeds.items())
        click.echo()
        say(f"at best, as the memory gives {bandwidth / 1e9:.1f} GB/s: {each} tokens/s one by one")
        times = ", ".join(f"{accepted:.0%} → {times:.2f}" for accepted, times in gains.items())
        say(f"RSD against the target alone, times as fast by the share of drafted steps that stand: {times}")


def _measured(trio: Trio, missing: Mapping[Path, int], why: str) -> dict[str, Any]:
    """Seconds and tokens a second of each role, and RSD's gain by the share of kept steps.

    Raises:
        ConfigError: the files are not here, or do not fit.
    """
    require(not missing, "--measure needs the models' files, and some are not here", "leave it away, or rsd pull the trio")
    require(not why, f"--measure loads the models, and that {why}", "leave it away")

    from rsd_local.fit.measured import gain_of, measure, measure_server
    from rsd_local.reasoner import Reasoner

    with Reasoner.open(trio) as reasoner:
        speeds = {role: measure(engine) for role, engine in reasoner.engines().items()}
        speeds |= {role: measure_server(engine) for role, engine in reasoner.trio.servers().items()}
        gain = gain_of(speeds, reasoner.trio.rewards.costs(), ahead=reasoner.trio.rewards.ahead)
    return {
        "roles": {role: dataclasses.asdict(speed) for role, speed in speeds.items()},
        "gain_by_accepted_share": {accepted: gain(accepted) for accepted in _ACCEPTED},
    }


def _say_measured(times: dict[str, Any]) -> None:
    click.echo()
    for role, speed in times["roles"].items():
        trip = f"; the way to its server and back takes {1e3 * speed['trip']:.3g} ms" if speed["trip"] else ""
        writes = f"writes {1 / speed['decode']:.3g} tokens/s one by one, " if speed["decode"] else ""
        say(f"{role:<8} {writes}reads {1 / speed['prefill']:.3g} {'' if writes else 'tokens/s '}in a prompt{trip}")
    gains = ", ".join(f"{accepted:.0%} → {gain:.2f}" for accepted, gain in times["gain_by_accepted_share"].items())
    say(f"RSD against the target alone, times as fast by the share of drafted steps that stand, measured: {gains}")


def _not_here(name: str | None) -> dict[str, ModelEntry]:
    """The models of a named trio, by name, of which a file is not here."""
    from rsd_local.catalogue import Catalogue

    catalogue = Catalogue.read()
    used = catalogue.models_of(name).values() if name in catalogue.trios else ()
    return {other: entry for other, entry in catalogue.models.items() if entry in used and entry.state != "here"}


def _gaps(plan: MemoryPlan, missing: dict[Path, int], unknown: Container[str]) -> dict[str, Any]:
    """What a plan is not sure of, for JSON: files that are not here, and roles of which only the weights are counted."""
    roles = [one.role for one in plan.roles if one.config.path.name in unknown]
    return {"not_here": {path.name: size for path, size in missing.items()}, "weights_only": roles}


def _table(plan: MemoryPlan, unknown: Container[str]) -> list[str]:
    lines = [f"{'MB':<8}{'weights':>9}{'cache':>9}{'batches':>9}{'memory':>9}{'GPU':>9}  layers on the GPU"]
    for one in plan.roles:
        made = one.footprint
        weights = f"{'(' + one.shares + ')':>9}" if one.shares else _megabytes(made.weights)
        known = one.config.path.name not in unknown
        sizes = "".join(_megabytes(size) if known else f"{'?':>9}" for size in (made.cache, made.compute))
        placed = "".join(_megabytes(size) for size in (one.on_cpu, one.on_gpu))
        lines.append(f"{one.role:<8}{weights}{sizes}{placed}  {one.offloaded} of {one.layers if known else '?'}")
    lines.append(f"{'all':<35}{_megabytes(plan.on_cpu)}{_megabytes(plan.on_gpu)}")
    lines.append(f"{'free':<35}{_megabytes(plan.cpu_free)}{_megabytes(plan.gpu_free)}")
    adapted = [one for one in plan.roles if one.config.lora is not None]
    return lines + [f"{one.role} with the adapter {one.config.lora}, {one.footprint.adapter / 1e6:,.1f} MB" for one in adapted]


def _object(plan: MemoryPlan, bandwidth: float, speeds: dict[Role, float], gains: dict[float, float]) -> dict[str, Any]:
    roles = {
        one.role: {
            "weights": one.footprint.weights,
            "adapter": one.footprint.adapter,
            "cache": one.footprint.cache,
            "batches": one.footprint.compute,
            "memory": one.on_cpu,
            "gpu": one.on_gpu,
            "layers": one.layers,
            "layers_on_gpu": one.offloaded,
            "shares_weights_of": one.shares,
        }
        for one in plan.roles
    }
    free = {"memory": plan.cpu_free, "gpu": plan.gpu_free}
    return {
        "fits": plan.fits,
        "roles": roles,
        "needed": {"memory": plan.on_cpu, "gpu": plan.on_gpu},
        "free": free,
        "bandwidth": bandwidth,
        "tokens_per_second": speeds,
        "gain_by_accepted_share": gains,
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:9,.0f}"
