"""The trio that is served: its names, its loading, and what a request makes of it."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from rsd_local.config import Params, Strategy, sequences_needed
from rsd_local.errors import Cancelled
from rsd_local.events import CancelToken, Role
from rsd_local.prompt import Prompt
from rsd_local.reasoner import LoadProgress, Reasoner
from rsd_local.server.errors import BadField, Loading, NoSuchModel, Stopping, Unsupported
from rsd_local.server.parse import Asked

if TYPE_CHECKING:
    from rsd_local.server.drift import DriftWatch
    from rsd_local.server.record import Recorder

_SEED_BITS = 53  # what every reader of JSON can hold


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
        config, trio = self.reasoner.config, self.reasoner.trio
        fits: list[Strategy] = [name for name in get_args(Strategy) if sequences_needed(name, self.params.search) <= config.width]
        return [name for name in fits if name != "speculative" or trio.speculates]


Loader = Callable[[LoadProgress], Loaded]
"""Loads the models; what it is given says how far it is, and raises where it shall stop."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a request comes to.

    Attributes:
        asked: the request.
        model: the name that the answer has.
        prompt: as the trio is asked.
        params: of the run.
        strategy: of the run.
        reasoner: that runs it.
        recorder: takes it in once it is done.
    """

    asked: Asked
    model: str
    prompt: Prompt
    params: Params
    strategy: Strategy
    reasoner: Reasoner
    recorder: Recorder | None = None


class Models:
    """What is served under which name: one trio, which is loaded once.

    Args:
        name: the trio's.
        loader: loads it.
    """

    def __init__(self, name: str, loader: Loader) -> None:
        self.name, self._loader = name, loader
        self._loaded: Loaded | None = None
        self._stopping = False
        self.progress: dict[Role, float] = {}

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self._loaded is not None and not self._stopping

    @property
    def stopping(self) -> bool:
        """Whether no new work is taken any more."""
        return self._stopping

    @property
    def loaded(self) -> Loaded:
        """The open trio.

        Raises:
            Stopping: no new work is taken.
            Loading: it is not open yet.
        """
        if self._stopping:
            raise Stopping("the server is stopping and takes no new work")
        if self._loaded is None:
            raise Loading("the models are being loaded", hint="ask again in a moment")
        return self._loaded

    @property
    def drift(self) -> DriftWatch | None:
        """What watches a trio that was tuned; None where none is open."""
        recorder = self._loaded.recorder if self._loaded is not None else None
        return recorder.drift if recorder is not None else None

    async def load(self) -> None:
        """Load the models, in a thread of its own.

        Raises:
            RSDError: they cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Loaded] = loop.create_future()

        def settle(loaded: Loaded | None, error: Exception | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            elif loaded is not None:
                done.set_result(loaded)

        def work() -> None:
            loaded: Loaded | None = None
            failure: Exception | None = None
            try:
                loaded = self._loader(self._note)
            except BaseException as error:  # of any kind: it is raised in the loop, which only an Exception does not end
                failure = error if isinstance(error, Exception) else RuntimeError(f"loading ended with {error!r}")
            loop.call_soon_threadsafe(settle, loaded, failure)

        threading.Thread(target=work, name="rsd-load", daemon=True).start()
        self._loaded = await done

    def _note(self, role: Role, share: float) -> None:
        if self._stopping:
            raise Cancelled("the server is stopping")
        self.progress[role] = share

    def stop(self) -> None:
        """Take no new work; what is being loaded is given up."""
        self._stopping = True

    def close(self) -> None:
        """Free the models; runs that go on end with Closed."""
        self._stopping = True
        if self._loaded is not None:
            self._loaded.reasoner.close()
            if self._loaded.recorder is not None:
                self._loaded.recorder.close()

    def names(self) -> list[str]:
        """The trio's name, and with each strategy behind it."""
        return [self.name, *(f"{self.name}:{strategy}" for strategy in self.loaded.strategies())]

    def job(self, asked: Asked) -> Job:
        """What a request comes to; chat templates may be rendered for it.

        Raises:
            NoSuchModel: its model is not served.
            ConfigError: its settings cannot be used with this trio.
        """
        loaded = self.loaded
        config = loaded.reasoner.config
        strategy = self._strategy(asked, loaded) or config.strategy
        if strategy not in loaded.strategies():
            raise BadField(
                f"this trio was not opened for the strategy {strategy}", "rsd.strategy", hint=f"start rsd with --strategy {strategy}"
            )
        _check_thinking(asked, loaded.reasoner)
        seed = secrets.randbits(_SEED_BITS) if loaded.seed is None else loaded.seed
        params = asked.params(loaded.params, strategy, seed)
        needed = sequences_needed(strategy, params.search)
        if needed > config.width:
            raise BadField(
                f"{needed} sequences are needed, this trio was opened for {config.width}",
                "rsd.candidates",
                hint="start rsd with --candidates",
            )
        loaded.reasoner.trio.bound(CancelToken(), params, shows_text=False, raw=asked.prompt.raw)  # refuses what it cannot do
        return Job(asked, asked.model or self.name, asked.prompt, params, strategy, loaded.reasoner, loaded.recorder)

    def _strategy(self, asked: Asked, loaded: Loaded) -> Strategy | None:
        """The strategy that a request names, behind the model's name or in its extension."""
        named = asked.extension.strategy
        if asked.model in ("", self.name):
            return named
        strategies = loaded.strategies()
        found = next((one for one in strategies if asked.model == f"{self.name}:{one}"), None)
        if found is None:
            names = [self.name, *(f"{self.name}:{one}" for one in strategies)]
            raise NoSuchModel(f"the model {asked.model[:100]!r} is not served here", "model", hint=f"one of: {', '.join(names)}")
        if named not in (None, found):
            raise BadField(f"rsd.strategy is {named}, and the model names {found}", "rsd.strategy", hint="leave one of them away")
        return found


def _check_thinking(asked: Asked, reasoner: Reasoner) -> None:
    """Refuses a wish about thoughts where no model thinks; not to think is what such a model does."""
    if reasoner.trio.has_tags or asked.effort in ("", "none"):
        return
    raise Unsupported("reasoning_effort is not supported by this trio, whose models do not think", "reasoning_effort", hint="leave it away")
