"""Where a reasoner's models are: in this process, or behind something that has them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

from rsd_local.config import Params, Strategy, Trio
from rsd_local.decoding import STRATEGIES
from rsd_local.errors import Cancelled
from rsd_local.events import CancelToken, Event, Role
from rsd_local.open_trio import LoadProgress, LocalTrio
from rsd_local.prompt import Prompt
from rsd_local.run import timed

logging.getLogger("rsd_local").addHandler(logging.NullHandler())  # or Python prints warnings where a program has set up no logging


class Backend(Protocol):
    """Open models that answer prompts."""

    @property
    def config(self) -> Trio:
        """The trio that was opened."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can still answer; one that cannot is opened anew."""
        ...

    def events(self, prompt: Prompt, params: Params, strategy: Strategy, text: bool, cancel: CancelToken) -> Iterator[Event]:
        """The events of an answer; closing the iterator gives back what it holds.

        Args:
            prompt: as the models are asked.
            params: sampling, weighting and limits.
            strategy: the algorithm.
            text: whether there are ``TextWritten`` events.
            cancel: ends it within one batch.
        """
        ...

    def leaves_room(self, prompt: Prompt, tokens: int, share: int) -> bool:
        """Whether each context has room for an answer; see ``LocalTrio.leaves_room``."""
        ...

    def begin_close(self) -> None:
        """Note that the answers are being ended and ``close`` follows; returns at once."""
        ...

    def close(self) -> None:
        """Free the models. A second call does nothing."""
        ...


Opener = Callable[[Trio, LoadProgress | None, CancelToken], Backend]
"""Opens a trio; told how far it is, and ended by the token with ``Cancelled``."""


class LocalBackend:
    """Models in this process.

    Args:
        trio: the open models.
        opened: closes them.
    """

    def __init__(self, trio: LocalTrio, opened: ExitStack) -> None:
        self.trio, self._opened = trio, opened

    @classmethod
    def open(cls, config: Trio, progress: LoadProgress | None, cancel: CancelToken) -> LocalBackend:
        """Load the models.

        Args:
            config: the trio.
            progress: called with a role and its loaded share, 0 to 1.
            cancel: stops the loading where llama.cpp reports next.

        Raises:
            Cancelled: ``cancel`` was called.
            RSDError: as ``LocalTrio.open``.
        """

        def report(role: Role, share: float) -> None:
            if cancel.cancelled:
                raise Cancelled("loading was cancelled")
            if progress is not None:
                progress(role, share)

        with ExitStack() as opening:
            trio = LocalTrio.open(config, opening, report)
            if cancel.cancelled:
                raise Cancelled("loading was cancelled")
            return cls(trio, opening.pop_all())

    @property
    def config(self) -> Trio:
        """The trio that was opened."""
        return self.trio.config

    @property
    def alive(self) -> bool:
        """Always: what ends these models ends the process."""
        return True

    def events(self, prompt: Prompt, params: Params, strategy: Strategy, text: bool, cancel: CancelToken) -> Iterator[Event]:
        """The events of an answer; see ``Backend.events``."""
        trio = self.trio.bound(cancel, params, shows_text=text, raw=prompt.raw)
        return timed(STRATEGIES[strategy](prompt, trio, params))

    def leaves_room(self, prompt: Prompt, tokens: int, share: int) -> bool:
        """Whether each context has room for an answer; see ``LocalTrio.leaves_room``."""
        return self.trio.leaves_room(prompt, tokens, share)

    def begin_close(self) -> None:
        """There is nothing to prepare."""

    def close(self) -> None:
        """Free the models once nothing uses them."""
        self._opened.close()
