"""The engines of one role: one, or several that share its weights where a single one would leave cores idle."""

from __future__ import annotations

import threading
from collections.abc import Sequence as Engines
from contextlib import closing
from dataclasses import dataclass

from rsd_local.config import RoleConfig
from rsd_local.runtime.engine import Engine
from rsd_local.runtime.llama import physical_cores, supports_gpu
from rsd_local.runtime.model import Model
from rsd_local.runtime.sequence import Sequence

_QUESTIONS_EACH = 2


@dataclass(frozen=True, slots=True)
class Load:
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
    def of(cls, config: RoleConfig, questions: int, width: int = 1) -> Load:
        """The load of some questions at once.

        An engine that is set to fewer threads than there are cores gets others beside it, as many as the cores hold, each
        for two questions or more. On a GPU one engine does all: it takes all rows in one batch.

        Args:
            config: of the role.
            questions: at once.
            width: sequences that each of them holds.
        """
        cores = physical_cores()
        alone = (supports_gpu() and config.layers_on_gpu != 0) or not config.threads
        engines = 1 if alone else max(1, min(cores // config.threads, questions // _QUESTIONS_EACH))
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
        """
        with self._mutex:
            return min(self.engines, key=lambda engine: engine.questions).sequence()

    def probe_states(self) -> bool:
        """See ``Engine.probe_states``; to be called while no question is open."""
        return all([engine.probe_states() for engine in self.engines])

    def exact_rows(self, most: int) -> int:
        """See ``Engine.exact_rows``.

        Raises:
            NoSlot: all slots are taken.
        """
        with closing(self.sequence()) as lent:
            return lent.engine.exact_rows(lent, most)
