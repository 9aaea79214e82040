"""What this process may use of the machine: CPUs, CPU time and memory, as affinity, cgroups and the system limit them.

cgroup v2: https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.max``, ``memory.max``, ``memory.high``); v1:
https://docs.kernel.org/scheduler/sched-bwc.html and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html. A limit of any
cgroup on the path from the process' own to the root holds, so the smallest one counts.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is, and what this process may use of it.

    Attributes:
        cores: physical cores of the machine.
        usable_cores: physical cores among the CPUs that the process may run on.
        quota: CPUs' worth of time that its cgroups give it, None without a limit.
        memory: bytes of the machine's memory.
        memory_limit: bytes that its cgroups give all their processes together, or its address space; None without a limit
            below the machine's memory.
        free: bytes that it can still take: of the machine's, and of each limit what is not used up.
    """

    cores: int
    usable_cores: int
    quota: float | None
    memory: int
    memory_limit: int | None
    free: int

    @classmethod
    def read(cls, root: Path = ROOT) -> Machine:
        """What holds for this process now.

        Args:
            root: where ``proc`` and ``sys`` lie.
        """
        cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
        there = psutil.virtual_memory()
        limits = [*_cgroup_memory(root), *_address_space()]
        smallest = min((limit for limit, _ in limits), default=there.total)
        return cls(
            cores,
            min(cores, _cores_among(allowed_cpus(), root)),
            min(_cgroup_quotas(root), default=None),
            there.total,
            smallest if smallest < there.total else None,
            max(0, min(there.available, *(limit - used for limit, used in limits), there.total)),
        )

    @property
    def threads(self) -> int:
        """Threads that can compute at once: one per usable core, no more than the whole CPUs of the quota.

        Threads of one batch wait for each other, so one that is out of time stops all: a quota of 1.5 CPUs is one thread.
        """
        return max(1, min(self.usable_cores, math.floor(self.quota) if self.quota is not None else self.usable_cores))


def threads() -> int:
    """The number of threads that an engine has where none is given."""
    return Machine.read().threads


def allowed_cpus() -> frozenset[int]:
    """The logical CPUs that this process may run on: its affinity, which a cgroup's ``cpuset`` narrows too."""
    try:
        if hasattr(os, "sched_getaffinity"):
            return frozenset(os.sched_getaffinity(0))
        return frozenset(psutil.Process().cpu_affinity() or ())  # Windows; macOS has no affinity
    except (AttributeError, OSError, psutil.Error):
        return frozenset(range(psutil.cpu_count() or 1))


def _cores_among(cpus: frozenset[int], root: Path) -> int:
    """How many physical cores some logical CPUs belong to; where the system does not say, each counts as one."""
    cores = set[object]()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        place = tuple(_text(topology / name) for name in ("physical_package_id", "core_id"))
        cores.add(cpu if None in place else place)
    return max(1, len(cores))


def _cgroup_quotas(root: Path) -> list[float]:
    """The limits of CPU time on the cgroups' paths, in CPUs."""
    found = []
    for folder in _cgroups(root, "cpu"):
        both = (_text(folder / "cpu.max") or "").split()
        quota, period = _number(both[0] if both else None), _number(both[1] if len(both) > 1 else "100000")
        if quota is None:
            quota, period = (_number(_text(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if quota is not None and period and quota > 0:  # v1 has −1 for none
            found.append(quota / period)
    return found


def _cgroup_memory(root: Path) -> list[tuple[int, int]]:
    """The limits of memory on the cgroups' paths, and what is used of each that cannot be taken back, in bytes."""
    found = []
    for folder in _cgroups(root, "memory"):
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory.high", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            most = _number(_text(folder / limit))
            if most is not None:
                found.append((most, max(0, (_number(_text(folder / usage)) or 0) - _cached_files(folder))))
    return found


def _cached_files(folder: Path) -> int:
    """Bytes of files that a cgroup's processes have read, which the kernel drops where memory is needed."""
    rows = dict(line.partition(" ")[::2] for line in (_text(folder / "memory.stat") or "").splitlines())
    prefix = "total_" if "total_inactive_file" in rows else ""  # v1: with those of the cgroups inside
    return sum(_number(rows.get(f"{prefix}{name}_file")) or 0 for name in ("inactive", "active"))


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process' cgroups with a controller, from its own up to the root of each hierarchy."""
    mounts = list(_mounts(root))
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        second = number == "0" and not names
        if not second and controller not in names.split(","):
            continue
        for mounted, point, kind, options in mounts:
            if kind != ("cgroup2" if second else "cgroup") or not (second or controller in options):
                continue
            # In a container the mount may show a part of the hierarchy only, which the process' path begins with.
            above = mounted.rstrip("/")
            inside = path.removeprefix(above) if f"{path}/".startswith(f"{above}/") else ""
            steps = [step for step in inside.split("/") if step]
            steps = [] if ".." in steps else steps
            base = root / point.lstrip("/")
            yield from (base.joinpath(*steps[:depth]) for depth in range(len(steps), -1, -1))
            break


def _mounts(root: Path) -> Iterator[tuple[str, str, str, set[str]]]:
    """Of each mount its folder in its own file system, its mount point, its type, and its file system's options."""
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        here, _, there = line.partition(" - ")
        left, right = here.split(), there.split()
        if len(left) >= 5 and len(right) >= 3 and right[0] in ("cgroup", "cgroup2"):
            mounted, point = (field.encode().decode("unicode_escape") if "\\" in field else field for field in (left[3], left[4]))
            yield mounted, point, right[0], set(right[2].split(","))


def _address_space() -> list[tuple[int, int]]:
    """The limit of ``ulimit -v``, and the bytes of it that are in use."""
    if sys.platform != "linux":
        return []
    import resource

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return [] if most == resource.RLIM_INFINITY else [(most, psutil.Process().memory_info().vms)]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    """A whole number; None for ``max``, and for what is none."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
