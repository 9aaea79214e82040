"""Which layers of which model go where, and whether all of it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rsd_local.config import RoleConfig
from rsd_local.errors import DoesNotFit
from rsd_local.events import Role
from rsd_local.fit.context import context_warning
from rsd_local.fit.memory import Footprint, RoleCapacity
from rsd_local.gguf_header import Header, check_adapter, read_adapter, read_header, require_model
from rsd_local.machine import Machine
from rsd_local.runtime.devices import Device

ORDER: tuple[Role, ...] = ("draft", "reward", "reward-2", "reward-3", "reward-4", "target")
"""By how often a role works: the draft writes every step, the reward reads every step, the target writes a few."""
_GPU_SPARE = 512 << 20
"""Bytes of each GPU that are left to the system and to what its driver keeps."""


@dataclass(frozen=True, slots=True)
class RolePlan:
    """One role's place.

    Attributes:
        role: which.
        config: its settings, with the layers on the GPU as a number.
        layers: how many the model has, the head counted as one.
        footprint: bytes.
        header: of its model.
        shares: the role whose weights it uses, None for weights of its own.
    """

    role: Role
    config: RoleConfig
    layers: int
    footprint: Footprint
    header: Header
    shares: Role | None

    @property
    def on_gpu(self) -> int:
        """Bytes on GPUs."""
        return gpu_bytes(self.footprint, self.offloaded, weights=self.shares is None)

    @property
    def on_cpu(self) -> int:
        """Bytes in the machine's memory."""
        made, moved = self.footprint, self.offloaded
        weights = 0 if self.shares else made.table + sum(made.blocks[: len(made.blocks) + 1 - moved] if moved else made.blocks)
        stay = len(made.caches) + 1 - moved if moved else len(made.caches)
        own = sum(made.caches[:stay]) + sum(made.adapters[:stay])
        return weights + (0 if moved or self.shares else made.head) + own + (0 if moved else made.compute)

    @property
    def offloaded(self) -> int:
        """Layers on GPUs, the head counted as one."""
        wanted = self.config.layers_on_gpu
        return self.layers if wanted < 0 else min(wanted, self.layers)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A trio's place on this machine.

    Attributes:
        roles: in the order draft, rewards, target.
        gpu_free: bytes on all GPUs together that can be used; 0 without one.
        cpu_free: bytes of memory that this process can still take.
        cpu_limit: bytes of memory that it may have at all, None where that is the machine's.
    """

    roles: tuple[RolePlan, ...]
    gpu_free: int
    cpu_free: int
    cpu_limit: int | None = None

    @property
    def on_gpu(self) -> int:
        """Bytes needed on GPUs."""
        return sum(role.on_gpu for role in self.roles)

    @property
    def on_cpu(self) -> int:
        """Bytes needed in the machine's memory."""
        return sum(role.on_cpu for role in self.roles)

    @property
    def fits(self) -> bool:
        """Whether there is room for all of it."""
        return self.on_gpu <= self.gpu_free and self.on_cpu <= self.cpu_free

    @property
    def context_warning(self) -> str:
        """One line where a context is longer than its model was trained for; empty where none is."""
        return context_warning((one.role, one.header, one.footprint.context) for one in self.roles)

    def check(self) -> None:
        """Fails where it does not fit.

        Raises:
            DoesNotFit: with what is needed, what is free, three ways out, and the flag that leaves this check out.
        """
        if not self.fits:
            where, needed, free = (
                ("on the GPU", self.on_gpu, self.gpu_free) if self.on_gpu > self.gpu_free else ("of memory", self.on_cpu, self.cpu_free)
            )
            parts = ", ".join(f"{role.role} {_gigabytes(role.on_gpu if where == 'on the GPU' else role.on_cpu)}" for role in self.roles)
            limit = f" of the {_gigabytes(self.cpu_limit)} that this process may have" if self.cpu_limit and where == "of memory" else ""
            message = f"the trio needs {_gigabytes(needed)} {where} and {_gigabytes(free)}{limit} are free ({parts})"
            raise DoesNotFit(message, hint="; ".join([*self.ways_out(on_gpu=where == "on the GPU"), "--no-fit-check loads it anyway"]))

    def ways_out(self, *, on_gpu: bool) -> list[str]:
        """Three changes that need less, the one that saves most first."""
        cache = sum(role.footprint.cache for role in self.roles)
        ways = [(cache // 2, f"half the --ctx-size saves {_gigabytes(cache // 2)}")]
        plain = sum(role.footprint.cache for role in self.roles if role.config.cache_type == "f16")
        if plain:
            ways.append((plain * 15 // 32, f"--cache-type q8_0 saves {_gigabytes(plain * 15 // 32)}"))
        if on_gpu:
            ways.append((self.on_gpu, "-ngl auto puts as many layers there as fit"))
        reward = next((role for role in self.roles if role.role not in ("draft", "target") and role.shares is None), None)
        if reward is not None:
            saved = reward.footprint.weights + reward.footprint.cache + reward.footprint.compute
            ways.append((saved, f"--reward-kind confidence, without a third model, saves {_gigabytes(saved)}"))
        weights = self.roles[-1].footprint.weights
        ways.append((weights // 3, f"a target of a third fewer bits saves {_gigabytes(weights // 3)}"))
        return [text for _, text in sorted(ways, reverse=True)[:3]]


def make_plan(roles: Mapping[Role, RoleCapacity], devices: Sequence[Device], known: Mapping[Path, Header] | None = None) -> MemoryPlan:
    """Places the roles of a trio.

    Layers that are to go to the GPU on their own (``auto``) get the room there in the order of ``ORDER``: a role all that
    fit, then the next. Roles that share a file share its place; each may have an adapter on it.

    Args:
        roles: each with what it is to hold.
        devices: of this machine.
        known: headers by path, of files that need not be read or are not here.

    Raises:
        ModelError: a file cannot be read, or an adapter is of another model.
    """
    gpus = [device for device in devices if device.kind == "gpu"]
    free = room = sum(max(0, gpu.free - _GPU_SPARE) for gpu in gpus)
    known, paths = known or {}, dict.fromkeys(capacity.config.path for capacity in roles.values())
    headers = {path: known.get(path) or read_header(path) for path in paths}
    for header in headers.values():
        require_model(header)
    adapters = _adapters(roles, headers, known)
    prints = {
        role: Footprint.of(headers[one.config.path], one, on_gpu=bool(gpus), adapter=adapters.get(role)) for role, one in roles.items()
    }
    made: dict[Role, RolePlan] = {}
    for role in (role for role in ORDER if role in roles):
        config = roles[role].config
        family = [other for other in ORDER if other in roles and roles[other].config.placement == config.placement]
        layers = len(prints[role].blocks) + 1
        if not gpus:
            count: int = 0
        elif family[0] != role:
            count = made[family[0]].offloaded
        elif config.gpu_layers == "auto":
            # A later role on the same weights brings a cache of its own with each layer.
            fitting = (n for n in range(layers, 0, -1) if sum(gpu_bytes(prints[one], n, weights=one == role) for one in family) <= room)
            count = next(fitting, 0)
        else:
            count = config.layers_on_gpu
        shares = None if family[0] == role else family[0]
        header = headers[config.path]
        made[role] = RolePlan(role, replace(config, gpu_layers=count), layers, prints[role], header, shares)
        room -= made[role].on_gpu
    machine = Machine.read()
    return MemoryPlan(tuple(made.values()), free, machine.free, machine.memory_limit)


def _adapters(roles: Mapping[Role, RoleCapacity], headers: Mapping[Path, Header], known: Mapping[Path, Header]) -> dict[Role, Header]:
    """The headers of LoRA adapters by role; one that a role before has loaded on the same weights takes no more memory."""
    found, loaded = dict[Role, Header](), set[tuple[object, ...]]()
    for role, config in ((role, roles[role].config) for role in ORDER if role in roles):
        mark = (*config.placement, config.lora)
        if config.lora is None or mark in loaded:
            continue
        loaded.add(mark)
        found[role] = known.get(config.lora) or read_adapter(config.lora)
        if config.lora not in known and config.path not in known:
            check_adapter(found[role], headers[config.path])
    return found


def gpu_bytes(footprint: Footprint, count: int, *, weights: bool) -> int:
    """Bytes that a model takes on a GPU.

    Args:
        footprint: the model's.
        count: layers there: the head first, then from the last layer on.
        weights: whether the weights count, or only what comes with them.
    """
    if count <= 0:
        return 0
    first = len(footprint.blocks) + 1 - count
    head = footprint.head + (footprint.table if footprint.tied else 0)
    own = sum(footprint.caches[first:]) + sum(footprint.adapters[first:]) + footprint.compute
    return (head + sum(footprint.blocks[first:]) if weights else 0) + own


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
