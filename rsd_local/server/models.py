"""The trios that are served: their names, and what a request makes of one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsd_local.config import Params, Strategy, sequences_needed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.server.errors import BadField, NoSuchModel, Unsupported
from rsd_local.server.parse import Asked
from rsd_local.server.served import Loaded, Loader, Offer, Served
from rsd_local.server.trios import Place, Trios

__all__ = ["Job", "Loaded", "Loader", "Models", "Offer", "Place"]

if TYPE_CHECKING:
    from rsd_local.server.record import Recorder

_SEED_BITS = 53  # what every reader of JSON can hold


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
    """What is served under which name: trios, each with its strategies.

    Args:
        offers: the trios, at least one; the first one is asked where a request names none.
        most: how many are loaded at once.
        idle: seconds after which one that nobody asks for is unloaded; 0 for never.
    """

    def __init__(self, offers: tuple[Offer, ...], most: int = 1, idle: float = 0.0) -> None:
        self.trios = Trios(offers, most, idle)
        self.name = offers[0].name

    @property
    def ready(self) -> bool:
        """Whether requests are answered; a trio that is not loaded then is loaded for them."""
        return self.trios.ready

    @property
    def stopping(self) -> bool:
        """Whether no new work is taken any more."""
        return self.trios.stopping

    async def load(self) -> None:
        """Load the first trios, in a thread of their own.

        Raises:
            RSDError: one cannot be loaded.
        """
        await self.trios.start()

    def stop(self) -> None:
        """Take no new work; what is being loaded is given up."""
        self.trios.stop()

    def close(self) -> None:
        """Free the models; runs that go on end with Closed."""
        self.trios.close()

    def names(self) -> list[str]:
        """The trios' names, and each with each strategy behind it.

        Raises:
            Stopping, Loading: no request is taken now.
        """
        self.trios.check()
        return [name for served in self.trios.served.values() for name in _names(served)]

    def find(self, model: str) -> Served:
        """The trio that a model's name means; the first one for no name.

        Raises:
            NoSuchModel: none.
            Stopping, Loading: no request is taken now.
        """
        self.trios.check()
        for served in self.trios.served.values():
            if model in _names(served):
                return served
        if not model:
            return self.trios.served[self.name]
        raise NoSuchModel(f"the model {model[:100]!r} is not served here", "model", hint=f"one of: {', '.join(self.names())}")

    def enter(self, asked: Asked) -> Place:
        """A place in line for the trio that a request names.

        Raises:
            NoSuchModel: there is none of that name.
            QueueFull: too many wait for it.
            Stopping, Loading: no request is taken now.
        """
        return self.trios.enter(self.find(asked.model).name)

    def job(self, asked: Asked, place: Place) -> Job:
        """What a request comes to; chat templates may be rendered for it.

        Args:
            asked: the request.
            place: of it, which has its trio.

        Raises:
            NoSuchModel: its model is not served.
            ConfigError: its settings cannot be used with this trio.
        """
        name, loaded = place.served.name, place.served.loaded
        assert loaded is not None
        config = loaded.reasoner.config
        strategy = _strategy(asked, name, loaded) or config.strategy
        if strategy not in loaded.strategies():
            raise BadField(
                f"this trio was not opened for the strategy {strategy}", "rsd.strategy", hint=f"start rsd with --strategy {strategy}"
            )
        _check_thinking(asked, loaded.reasoner)
        if config.task == "arithmetic" and asked.response_format is not None and asked.response_format.schema is not None:
            raise Unsupported("response_format is not supported by this trio, which answers arithmetic alone", "response_format")
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
        return Job(asked, asked.model or name, asked.prompt, params, strategy, loaded.reasoner, loaded.recorder)


def _names(served: Served) -> list[str]:
    return [served.name, *(f"{served.name}:{strategy}" for strategy in served.strategies())]


def _strategy(asked: Asked, name: str, loaded: Loaded) -> Strategy | None:
    """The strategy that a request names, behind the model's name or in its extension."""
    named = asked.extension.strategy
    if asked.model in ("", name):
        return named
    strategies = loaded.strategies()
    found = next((one for one in strategies if asked.model == f"{name}:{one}"), None)
    if found is None:
        names = [name, *(f"{name}:{one}" for one in strategies)]
        raise NoSuchModel(f"the model {asked.model[:100]!r} is not served here", "model", hint=f"one of: {', '.join(names)}")
    if named not in (None, found):
        raise BadField(f"rsd.strategy is {named}, and the model names {found}", "rsd.strategy", hint="leave one of them away")
    return found


def _check_thinking(asked: Asked, reasoner: Reasoner) -> None:
    """Refuses a wish about thoughts where no model thinks; not to think is what such a model does."""
    if reasoner.trio.has_tags or asked.effort in ("", "none"):
        return
    raise Unsupported("reasoning_effort is not supported by this trio, whose models do not think", "reasoning_effort", hint="leave it away")
