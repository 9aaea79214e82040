"""``rsd fit``: whether a trio fits this machine, and what that gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.flags import make_trio
from rsd_local.cli.options import StrictCommand, trio_options
from rsd_local.cli.text import printable, say
from rsd_local.cli.words import gigabytes

if TYPE_CHECKING:
    from pathlib import Path

    from rsd_local.events import Role
    from rsd_local.fit import MemoryPlan
    from rsd_local.gguf_header import Header

_ACCEPTED = (0.5, 0.7, 0.85, 0.95)
_CACHED = 100_000_000
"""Bytes of weights up to which they can stay in a CPU's caches; then memory is not what bounds the speed."""


@click.command(cls=StrictCommand)
@click.argument("name", metavar="[TRIO]", required=False)
@click.option("-P", "--parallel", type=int, default=1, show_default=True, metavar="N", help="Questions at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@trio_options
def fit(name: str | None, parallel: int, as_json: bool, **flags: Any) -> int:
    """Say whether a trio fits this machine.

    Shows the memory of weights, cache and batches by role, how many layers go to the GPU, and the speed that memory allows
    at best. TRIO is a name or a TOML file, as for --trio. No model is loaded; what a named trio has no files of yet is told
    from the catalogue's figures. Ends with 1 where the trio does not fit.
    """
    if name is not None and flags["trio"] is not None:
        raise click.UsageError("TRIO and --trio exclude each other")
    name = name or flags["trio"]
    trio = make_trio(flags | {"trio": name}, parallel=parallel, loads=False)

    from rsd_local import machine
    from rsd_local.errors import DoesNotFit
    from rsd_local.fit import make_plan
    from rsd_local.fit.speed import gain, memory_bandwidth, tokens_per_second
    from rsd_local.open_trio import capacities
    from rsd_local.rewards import load_heads
    from rsd_local.runtime.devices import devices

    published = _published(name)
    heads = (None,) * len(trio.stages) if any(not file.exists() for file in trio.files) else load_heads(trio)
    plan = make_plan(capacities(trio, heads), devices(), published)
    missing = {path: header.size for path, header in published.items() if path in trio.files}
    from_memory = not any(one.offloaded for one in plan.roles) and plan.roles[-1].footprint.read > _CACHED
    bandwidth = memory_bandwidth(machine.threads())
    speeds = tokens_per_second(plan, bandwidth) if from_memory else {}
    gains = {accepted: gain(speeds, accepted) for accepted in _ACCEPTED} if speeds else {}
    try:
        plan.check()
        why = ""
    except DoesNotFit as error:
        why = f"{error}; {error.hint}"
    if as_json:
        click.echo(json.dumps(_object(plan, bandwidth, speeds, gains) | {"not_here": {path.name: size for path, size in missing.items()}}))
    else:
        click.echo(printable("\n".join(_table(plan))))
        if speeds:
            each = ", ".join(f"{role} {speed:.3g}" for role, speed in speeds.items())
            click.echo()
            say(f"at best, as the memory gives {bandwidth / 1e9:.1f} GB/s: {each} tokens/s one by one")
            times = ", ".join(f"{accepted:.0%} → {times:.2f}" for accepted, times in gains.items())
            say(f"RSD against the target alone, times as fast by the share of drafted steps that stand: {times}")
    if plan.context_warning:
        say(f"warning: {plan.context_warning}", err=True)
    if missing:
        files, whole = ", ".join(f"{path.name} ({gigabytes(size)})" for path, size in missing.items()), gigabytes(sum(missing.values()))
        say(f"from published sizes; not here: {files}; rsd pull {name} fetches {whole}", err=True)
    say(f"does not fit: {why}" if why else "fits", err=True)
    return 1 if why else 0


def _published(name: str | None) -> dict[Path, Header]:
    """Stand-ins for the headers of a named trio's files that are not here."""
    from rsd_local.catalogue import Catalogue
    from rsd_local.fit import published_headers

    catalogue = Catalogue.read()
    return published_headers(catalogue.models_of(name).values()) if name in catalogue.trios else {}


def _table(plan: MemoryPlan) -> list[str]:
    lines = [f"{'MB':<8}{'weights':>9}{'cache':>9}{'batches':>9}{'memory':>9}{'GPU':>9}  layers on the GPU"]
    for one in plan.roles:
        made = one.footprint
        weights = f"{'(' + one.shares + ')':>9}" if one.shares else _megabytes(made.weights)
        sizes = "".join(_megabytes(size) for size in (made.cache, made.compute, one.on_cpu, one.on_gpu))
        lines.append(f"{one.role:<8}{weights}{sizes}  {one.offloaded} of {one.layers}")
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
