"""Where and when a bench ran: one line of ``runs.jsonl`` for each run that answered something."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from rsd_local.machine import allowed_cpus

RUNS = "runs.jsonl"
Run = dict[str, Any]
_WINDOWS_CPU = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_PACKAGES = ("rsd-local", "llama-cpp-python", "numpy", "math-verify")


def note_run(folder: Path, threads: Mapping[str, int]) -> None:
    """Adds this run to a bench's folder; one that cannot be written to is noticed by the first line of results.

    Args:
        folder: of the bench.
        threads: of each role's engine.
    """
    line = json.dumps(describe_run(threads)).encode() + b"\n"
    with contextlib.suppress(OSError), (folder / RUNS).open("a+b") as file:
        file.seek(0)
        there = file.read()
        file.write(line if there[-1:] in (b"", b"\n") else b"\n" + line)  # behind a line that a kill has torn


def read_runs(folder: Path) -> tuple[Run, ...]:
    """The runs of a folder, none where an earlier version wrote it."""
    found: list[Run] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (folder / RUNS).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line that a kill has torn
                made = json.loads(line)
                if isinstance(made, dict):
                    found.append(made)
    return tuple(found)


def describe_run(threads: Mapping[str, int]) -> Run:
    """This machine, its software, and the time in UTC.

    Args:
        threads: of each role's engine.
    """
    from rsd_local.runtime.devices import devices, llama_version

    return {
        "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": {"physical": psutil.cpu_count(logical=False), "logical": psutil.cpu_count(), "allowed": len(allowed_cpus())},
        "threads": dict(threads),
        "gpus": [one.description or one.name for one in devices() if one.kind == "gpu"],
        "memory": psutil.virtual_memory().total,
        "system": system(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}, "llama.cpp": llama_version()},
    }


def cpu_name() -> str:
    """The processor as its maker calls it, or its architecture where the system does not tell."""
    found = ""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() in ("model name", "Model", "Hardware", "cpu model"):
                    found = value.strip()
                    break
    elif sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            call = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(call, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    elif sys.platform == "win32":
        import winreg

        with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _WINDOWS_CPU) as key:
            found = str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    return " ".join(found.split()) or platform.processor() or platform.machine() or "unknown"


def system() -> str:
    """The operating system: name, release and architecture."""
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    with contextlib.suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {name}"
    return f"macOS {platform.mac_ver()[0]}, {name}" if platform.mac_ver()[0] else name


def summary_lines(runs: tuple[Run, ...]) -> list[tuple[str, str]]:
    """Names and values for a report: machine, threads, date, software and system, of each machine once."""
    if not runs:
        return [("machine", "not recorded: an earlier version wrote this folder")]
    lines: list[tuple[str, str]] = []
    for name, tell in (
        ("machine", _machine),
        ("threads", _threads),
        ("software", _software),
        ("system", lambda run: str(run.get("system"))),
    ):
        lines.append((name, "; ".join(dict.fromkeys(tell(run) for run in runs))))
    dates = [str(run.get("begun", "?")).replace("T", " ").replace("+00:00", " UTC") for run in runs]
    lines.insert(2, ("date", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}, {len(dates)} runs"))
    return lines


def differing(runs: tuple[Run, ...]) -> bool:
    """Whether runs were made on several machines, or with different threads, so that their seconds are not alike."""
    return len({(_machine(run), _threads(run)) for run in runs}) > 1


def _machine(run: Run) -> str:
    cores = run.get("cores") or {}
    gpus = f"; {', '.join(run['gpus'])}" if run.get("gpus") else ""
    return (
        f"{run.get('cpu')}, {cores.get('physical')} cores ({cores.get('logical')} logical, {cores.get('allowed')} allowed), "
        f"{(run.get('memory') or 0) / 2**30:.1f} GiB{gpus}"
    )


def _threads(run: Run) -> str:
    threads = run.get("threads") or {}
    counts = set(threads.values())
    return str(counts.pop()) if len(counts) == 1 else ", ".join(f"{role} {count}" for role, count in threads.items()) or "not recorded"


def _software(run: Run) -> str:
    return ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items() if version)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
