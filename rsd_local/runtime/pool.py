"""The engines of one role: one, or several that share its weights where a single one would leave cores idle."""

from __future__ import annotations

import threading
from collections.abc import Sequence as Engines
from dataclasses import dataclass

from rsd_local.config import RoleConfig
from rsd_local.runtime.engine import Engine
from rsd_local.runtime.llama import physical_cores, supports_gpu
from rsd_local.runtime.model import Model
from rsd_local.runtime.sequence import Sequence

_QUESTIONS_EACH = 2


@dataclass(frozen=True, slots=True)
class Holding:
    """What a role is to hold.

    Attributes:
        config: its model and where that runs.
        slots: sequences of each engine.
        engines: how many, each with a context of its own on the same weights.
    """

    config: RoleConfig
    slots: int
    engines: int = 1

    @classmethod
    def of(cls, config: RoleConfig, questions: int, width: int = 1) -> Holding:
        """What some questions at once need.

        Args:
            config: of the role; where it may go to a GPU there is one engine, which takes all rows in one batch.
            questions: at once.
            width: sequences that each of them holds.
        """
        on_gpu = supports_gpu() and config.layers_on_gpu != 0
        cores = physical_cores()
        wanted = config.engines or cores // (config.threads or cores)
        engines = 1 if on_gpu else max(1, min(wanted, questions // _QUESTIONS_EACH))
        return cls(config, -(-questions // engines) * width, engines)


class Pool:
    """The engines of one role. A question belongs to the one that had the fewest when it came; what it forks stays there.

    Args:
        engines: alike but for what they hold, each with slots for its share of the questions.
    """

    def __init__(self, engines: Engines[Engine]) -> None:
        self.engines = tuple(engines)
        self._mutex = threading.Lock()

    @property
    def model(self) -> Model:
        """The weights that all share."""
        return self.engines[0].model

    @property
    def can_cut(self) -> bool:
        """See ``Engine.can_cut``."""
        return self.engines[0].can_cut

    def sequence(self) -> Sequence:
        """An empty sequence of the engine with the fewest questions.

        Raises:
            NoSlot: all slots are taken.
            Closed: the engines were closed.
        """
        with self._mutex:  # or two questions could both get the last place of the same engine
            return min(self.engines, key=lambda engine: (engine.closed, engine.questions)).sequence()

    def probe_states(self) -> bool:
        """See ``Engine.probe_states``; to be called while no question is open."""
        return all([engine.probe_states() for engine in self.engines])
