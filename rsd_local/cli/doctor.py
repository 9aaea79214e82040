"""``rsd doctor``: what this machine has, what the build can use of it, and whether it works."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsd_local.cli.options import StrictCommand
from rsd_local.cli.text import json_line, printable
from rsd_local.cli.words import gigabytes
from rsd_local.errors import RSDError

if TYPE_CHECKING:
    from rsd_local.catalogue import Catalogue
    from rsd_local.config import RemoteRole, RewardConfig
    from rsd_local.runtime.devices import Device

_PACKAGES = ("rsd-local", "llama-cpp-python", "numpy", "huggingface-hub")
_PATIENCE = 10.0  # seconds that a server is waited for
_QUESTION, _ANSWER = "(37+48)*6-129", "381"
_NO_AMX = "weights stay as in the file, for some compilers break llama.cpp's AMX kernel; RSD_AMX=1 says that this build is sound"


@click.command(cls=StrictCommand)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def doctor(as_json: bool) -> int:
    """Look at this machine, and whether rsd works on it.

    Shows versions, devices, memory, caches and trios, the servers that these name, what programs are kept from in the sandbox,
    and answers one question with abacus. Ends with 1 where that answer is wrong or does not come.
    """
    from rsd_local.catalogue import Catalogue, user_models_file
    from rsd_local.cli.wheels import advice
    from rsd_local.machine import Machine
    from rsd_local.runtime import repacks_safely
    from rsd_local.runtime.devices import cpu_features, devices

    found, catalogue = devices(), Catalogue.read()
    machine = Machine.read()
    report: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {
            "cores": machine.cores,
            "allowed": machine.usable_cores,
            "quota": machine.quota,
            "threads": machine.threads,
            "features": cpu_features(),
            "repacks": repacks_safely(),
        },
        "memory": {"total": machine.memory, "limit": machine.memory_limit, "available": machine.free},
        "devices": [{"name": one.name, "description": one.description, "free": one.free, "total": one.total} for one in found],
        "advice": advice(found),
        "cache": str(_cache()),
        "settings": {"file": str(user_models_file()), "there": user_models_file().exists()},
        "trios": {name: catalogue.state(name) for name in catalogue.trios},
        "to_pull": {name: size for name in catalogue.trios if (size := catalogue.to_pull(name))},
        "servers": servers(catalogue),
        "sandbox": sandbox(),
        "self_test": self_test(),
    }
    if as_json:
        click.echo(json_line(report))
    else:
        click.echo(printable("\n".join(_lines(report, found))))
    return 0 if report["self_test"]["works"] else 1


def servers(catalogue: Catalogue) -> dict[str, str]:
    """What the servers that trios name say of themselves, or why they say nothing."""
    from rsd_local.config import RemoteRole

    found: dict[str, str] = {}
    for name in catalogue.trios:
        try:
            trio = catalogue.trio(name)
        except RSDError:
            continue  # its state says what is wrong
        asked = [(role, None) for role in (trio.draft, trio.target)] + [(stage.model, stage) for stage in trio.stages]
        for role, stage in asked:
            if isinstance(role, RemoteRole) and f"{role.url} {role.model}".strip() not in found:
                found[f"{role.url} {role.model}".strip()] = _server(role, stage)
    return found


def _server(role: RemoteRole, stage: RewardConfig | None) -> str:
    from rsd_local.remote import PoolingEngine, RemoteEngine

    kind = PoolingEngine if stage is not None and stage.kind == "prm" else RemoteEngine
    try:
        with closing(kind(replace(role, read_timeout=min(role.read_timeout, _PATIENCE)), "server")) as engine:
            return engine.about()
    except RSDError as error:
        return f"{error}; {error.hint}" if error.hint else str(error)


def sandbox() -> dict[str, Any]:
    """What a program that runs with ``--run-code`` is kept from here, found by trying it, and what to do about what is missing."""
    from rsd_local.errors import SandboxTooWeak
    from rsd_local.sandbox import Sandbox

    try:
        found = Sandbox.find()
    except SandboxTooWeak as error:
        return {"backend": None, "protections": [], "why": str(error), "advice": error.hint}
    try:
        Sandbox.find("strict")
        advice = ""
    except SandboxTooWeak as error:
        advice = error.hint
    return {"backend": found.backend, "protections": [asdict(one) for one in found.protections], "why": "", "advice": advice}


def self_test() -> dict[str, Any]:
    """Answers one question with the built-in trio, and says how long it took, or why it did not."""
    from rsd_local.catalogue import find_trio
    from rsd_local.reasoner import Reasoner

    began = time.perf_counter()
    try:
        with Reasoner.open(find_trio("abacus")) as reasoner:
            answer = reasoner.solve(_QUESTION).answer
    except RSDError as error:
        return {"works": False, "why": str(error)}
    taken = round(time.perf_counter() - began, 3)
    return {"works": answer == _ANSWER, "question": _QUESTION, "answer": answer, "seconds": taken}


def _lines(report: dict[str, Any], found: list[Device]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    memory, test = report["memory"], report["self_test"]
    lines = [
        f"versions   {versions}",
        f"system     {report['system']}",
        f"cpu        {_cores(report['cpu'])}; llama.cpp uses {', '.join(report['cpu']['features'])}",
        *([] if report["cpu"]["repacks"] else [f"           {_NO_AMX}"]),
        f"memory     {memory['available'] / 1e9:.1f} of {memory['total'] / 1e9:.1f} GB free{_limit(memory)}",
    ]
    gpus = [f"{one.name} {one.description}, {one.free / 1e9:.1f} of {one.total / 1e9:.1f} GB free" for one in found if one.kind == "gpu"]
    lines += [f"gpu        {line}" for line in gpus or ["none that this build of llama.cpp can use"]]
    lines += [f"           a device is there that it could use: {line}" for line in report["advice"]]
    lines += [
        f"cache      {report['cache']}",
        f"settings   {report['settings']['file']}" + ("" if report["settings"]["there"] else " (not there: nothing of your own)"),
    ]
    lines += _trio_lines(report["trios"], report["to_pull"])
    lines += [f"server     {address}: {told}" for address, told in report["servers"].items()]
    lines += _sandbox_lines(report["sandbox"])
    outcome = f"{test['question']} = {test['answer']} in {test['seconds']:.2f} s" if "seconds" in test else test["why"]
    return [*lines, f"self-test  {'works' if test['works'] else 'FAILS'}: {outcome}"]


def _trio_lines(states: dict[str, str], to_pull: dict[str, int]) -> list[str]:
    """Those that are here, or should be; of the others how many, for ``rsd list`` has them."""
    away = [name for name, state in states.items() if to_pull.get(name) and state.endswith(" missing") and "incomplete: " not in state]
    sizes = {name: f" (rsd pull {name}: {gigabytes(size)})" for name, size in to_pull.items() if size}
    lines = [f"trio       {name}: {state}{sizes.get(name, '')}" for name, state in states.items() if name not in away]
    return [*lines, f"           {len(away)} more to pull (rsd list)"] if away else lines


def _cores(cpu: dict[str, Any]) -> str:
    """The cores that this process may use, and the threads that this gives where they are fewer."""
    said = f"{cpu['cores']} cores" if cpu["allowed"] == cpu["cores"] else f"{cpu['allowed']} of {cpu['cores']} cores allowed"
    if cpu["quota"] is not None:
        said += f", time of {cpu['quota']:.3g} CPUs"
    return said if cpu["threads"] == cpu["cores"] else f"{said}: {cpu['threads']} thread{'s' if cpu['threads'] > 1 else ''}"


def _limit(memory: dict[str, Any]) -> str:
    return f", this process and its group may have {memory['limit'] / 1e9:.1f} GB" if memory["limit"] else ""


def _sandbox_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"sandbox    {found['backend'] or found['why']}"]
    for one in found["protections"]:
        lines.append(f"           {one['name']}{'' if one['holds'] else ' DOES NOT HOLD'}: {one['how']}")
    return [*lines, f"           for more: {found['advice']}"] if found["advice"] else lines


def _cache() -> Path:
    from rsd_local.catalogue.cache import hub_cache

    return hub_cache()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
