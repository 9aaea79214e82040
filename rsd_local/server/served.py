"""A trio that is served: what is known of it, and where it stands between being loaded and unloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from rsd_local.config import Params, Strategy, Trio, sequences_needed
from rsd_local.events import Role
from rsd_local.reasoner import LoadProgress, Reasoner

if TYPE_CHECKING:
    from rsd_local.server.record import Recorder

State = Literal["unloaded", "loading", "loaded", "unloading"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An open trio, and what its answers take where a request says nothing.

    Attributes:
        reasoner: the trio.
        params: of an answer.
        seed: of an answer; None for another one each time.
        recorder: takes in answers that are done.
    """

    reasoner: Reasoner
    params: Params
    seed: int | None = None
    recorder: Recorder | None = None

    def strategies(self) -> list[Strategy]:
        """The algorithms that the trio was opened for."""
        trio = self.reasoner.trio
        return [name for name in opened_for(self.reasoner.config, self.params) if name != "speculative" or trio.speculates]


Loader = Callable[[LoadProgress], Loaded]
"""Loads the models; what it is given says how far it is, and raises where it shall stop."""


def opened_for(config: Trio, params: Params) -> list[Strategy]:
    """The algorithms that a trio has sequences enough for."""
    return [name for name in get_args(Strategy) if sequences_needed(name, params.search) <= config.width]


@dataclass(frozen=True, slots=True)
class Offer:
    """A trio that is served.

    Attributes:
        name: for clients.
        loader: loads it.
        config: of it, as far as it is known before it is loaded.
        params: of its answers, likewise.
    """

    name: str
    loader: Loader
    config: Trio | None = None
    params: Params = field(default_factory=Params)


class Served:
    """A trio that is served, and where it stands.

    Attributes:
        offer: what is known of it.
        state: where it stands.
        loaded: it, while it is loaded.
        users: places that have it.
        loads: how often it was loaded.
        progress: of loading, by role.
    """

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.state: State = "unloaded"
        self.loaded: Loaded | None = None
        self.users = self.loads = 0
        self.used = 0.0  # when it was used last
        self.progress: dict[Role, float] = {}
        self.timer: asyncio.TimerHandle | None = None
        self._strategies: list[Strategy] | None = None

    @property
    def name(self) -> str:
        """For clients."""
        return self.offer.name

    @property
    def idle(self) -> bool:
        """Whether it is loaded and nobody has it."""
        return self.state == "loaded" and not self.users

    def strategies(self) -> list[Strategy]:
        """The algorithms that can be asked for; before it was loaded once, all that it may turn out to be able to do."""
        if self.loaded is not None:
            self._strategies = self.loaded.strategies()
        if self._strategies is None:
            return opened_for(self.offer.config, self.offer.params) if self.offer.config else []
        return self._strategies

    def take(self, loaded: Loaded) -> None:
        """It is loaded."""
        self.loaded, self.state = loaded, "loaded"
        self.loads += 1
        self.used = time.monotonic()
        self.strategies()


def free(loaded: Loaded) -> None:
    """Close an open trio, and what takes in its answers."""
    loaded.reasoner.close()
    if loaded.recorder is not None:
        loaded.recorder.close()
