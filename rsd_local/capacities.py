"""What each model of a trio is to hold on this machine, and where it goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rsd_local.config import RoleConfig, Trio
from rsd_local.events import Role
from rsd_local.fit import RoleCapacity, make_plan
from rsd_local.gguf_header import Header
from rsd_local.rewards import Head, read_ahead, reward_models
from rsd_local.runtime.attention import faster_attention
from rsd_local.runtime.devices import devices


def capacities(config: Trio, heads: tuple[Head | None, ...]) -> dict[Role, RoleCapacity]:
    """What a trio opens here, by role."""
    wide = config.parallel * config.width
    ahead = any(read_ahead(stage, head) for stage, head in zip(config.stages, heads, strict=True))

    def capacity(role: RoleConfig, slots: int, kind: str = "") -> RoleCapacity:
        forks = slots > config.parallel  # one question's sequences begin with its prompt, those of several with what was left behind
        return RoleCapacity(role, slots, kind == "value-head" and forks, shares_prefixes=forks or (slots > 1 and config.reuse))

    roles: dict[Role, RoleCapacity] = {}
    if isinstance(config.draft, RoleConfig):
        roles["draft"] = capacity(faster_attention(config.draft), wide)
    if isinstance(config.target, RoleConfig):
        roles["target"] = capacity(config.target, wide if ahead else config.parallel)
    read = {
        role: capacity(faster_attention(reward), wide, config.stages[place].kind) for role, (place, reward) in reward_models(config).items()
    }
    return roles | read


def placed(roles: dict[Role, RoleCapacity], headers: dict[Path, Header], *, check: bool = True) -> dict[Role, RoleCapacity]:
    """The roles with the layers that go to the GPU as numbers.

    Args:
        roles: each with what it is to hold.
        headers: of their models.
        check: whether there must be memory enough.

    Raises:
        DoesNotFit: there is not memory enough for all of them.
    """
    found = devices()
    if not found or not roles:  # this build of llama.cpp does not tell
        return roles
    plan = make_plan(roles, found, headers)
    if check:
        plan.check()
    return {one.role: replace(roles[one.role], config=one.config) for one in plan.roles}
