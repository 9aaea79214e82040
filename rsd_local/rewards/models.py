"""The models that read the steps of a trio, by role."""

from __future__ import annotations

from rsd_local.config import AnyRole, RemoteRole, RoleConfig, Trio
from rsd_local.events import Role

_ROLES: tuple[Role, ...] = ("reward", "reward-2", "reward-3", "reward-4")
_WITHOUT = ("confidence", "verifier", "read-out", "likelihood", "likelihood-least", "likelihood-running", "contrast")
"""Kinds for which the draft's own trace, the target that reads ahead, or a program is enough."""


def reading_models(trio: Trio) -> dict[Role, tuple[int, AnyRole]]:
    """The models that read steps, by role: the place of the reward in the cascade, and the model's settings.

    Where the draft's own trace, the target that reads ahead or a program is enough, there is none. A judge uses the target's weights,
    or its server, where no further model is named.
    """
    places = [place for place, stage in enumerate(trio.stages) if stage.kind not in _WITHOUT]
    return dict(zip(_ROLES, ((place, trio.stages[place].model or trio.target) for place in places), strict=False))


def reward_models(trio: Trio) -> dict[Role, tuple[int, RoleConfig]]:
    """The models here that read steps, by role: the place of the reward in the cascade, and the model's settings."""
    return {role: (place, model) for role, (place, model) in reading_models(trio).items() if isinstance(model, RoleConfig)}


def reward_servers(trio: Trio) -> dict[Role, tuple[int, RemoteRole]]:
    """The models on servers that read steps, as ``reward_models``."""
    return {role: (place, model) for role, (place, model) in reading_models(trio).items() if isinstance(model, RemoteRole)}
