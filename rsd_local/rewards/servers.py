"""The models on servers that read steps, by what they are asked for: shares of answers, states, or rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from rsd_local.config import RemoteRole, RewardConfig, Trio
from rsd_local.errors import BadHead
from rsd_local.events import Counters, Role
from rsd_local.prompt import Prompt
from rsd_local.remote import Call, PoolingEngine, ReadingEngine, RemoteEngine, token_states
from rsd_local.rewards.heads import Head
from rsd_local.rewards.layouts import Layout
from rsd_local.rewards.models import reward_servers
from rsd_local.rewards.remote import Noted, Question
from rsd_local.rewards.remote_layout import LayoutQuestion
from rsd_local.rewards.remote_model import RemoteModel
from rsd_local.rewards.remote_pooling import PoolingQuestion
from rsd_local.runtime import Model, TextModel
from rsd_local.steps import Step


@dataclass(frozen=True, slots=True)
class At:
    """A prompt, and how a model reads it.

    Attributes:
        prompt: as draft and target are asked.
        layout: gives the layout for a model.
    """

    prompt: Prompt
    layout: Callable[[TextModel], Layout]


class AskedModel(Protocol):
    """A model on a server that is asked about steps."""

    @property
    def engine(self) -> ReadingEngine | PoolingEngine:
        """Of the server."""

    @property
    def model(self) -> TextModel | None:
        """Its vocabulary and template; None where the server makes the text itself."""

    @property
    def trips(self) -> int:
        """Requests that a step takes."""

    def question(self, at: At) -> Question:
        """A prompt there."""

    def meet(self, models: Iterable[Model]) -> None:
        """Know the models here, one of which may make the tokens that this one has."""

    def check(self, head: Head | None, at: At) -> None:
        """Fail before the first prompt where the server does not give what is needed.

        Args:
            head: of the reward, None where it has none.
            at: any prompt.

        Raises:
            MissingTokens, NoChatTemplate, BadHead: why.
            RemoteError: why.
        """


class AskedLayout:
    """A model on a llama-server, which is asked with the same text as one here; see ``AskedModel``.

    Args:
        engine: of the server.
    """

    def __init__(self, engine: ReadingEngine) -> None:
        self.engine, self.model = engine, RemoteModel(engine)

    @property
    def trips(self) -> int:
        """The step's score, and its tokens where no model here makes them."""
        return 1 if self.model.near is not None else 2

    def meet(self, models: Iterable[Model]) -> None:
        """Compares the tokens of a dozen probe texts."""
        self.model.meet(models)

    def question(self, at: At) -> LayoutQuestion:
        """A prompt there."""
        return LayoutQuestion(self.engine, lambda: at.layout(self.model), states=self.engine.states)

    def check(self, head: Head | None, at: At) -> None:
        """Makes the text of a prompt, and asks for states where they are read."""
        opening = at.layout(self.model).opening()
        if head is not None:
            size = token_states(self.engine.llama, opening, Call()).shape[1]
            if not head.matches(size):
                raise BadHead(f"the head is not for states of {size} numbers, as {self.model.path} gives", hint="choose another one")


class AskedPooling:
    """A model that answers ``/pooling``; see ``AskedModel``.

    Args:
        engine: of the server.
    """

    trips, model = 1, None

    def __init__(self, engine: PoolingEngine) -> None:
        self.engine = engine

    def question(self, at: At) -> PoolingQuestion:
        """A prompt there."""
        return PoolingQuestion(self.engine, at.prompt)

    def meet(self, models: Iterable[Model]) -> None:
        """The server makes the tokens."""

    def check(self, head: Head | None, at: At) -> None:
        """Asks for the reward of one step."""
        self.question(at).scores([Noted(Step([], b"1", "delimiter"))], [0], -1, Call(), Counters())


def open_asked(config: RemoteRole, role: Role, reward: RewardConfig, beside: Iterable[object] = (), *, reuse: bool = True) -> AskedModel:
    """Reach the server of a reward.

    Args:
        config: where it is.
        role: of the reward.
        reward: how it is read.
        beside: engines of other roles; one of the same server shares its slots.
        reuse: whether a prompt goes on from what earlier ones left in its cache.

    Raises:
        ConfigError: its key cannot be read, or it is of another kind.
        RemoteError: it cannot be reached.
    """
    if reward.kind == "prm":
        return AskedPooling(PoolingEngine(config, role))
    where = config.url, config.model
    same = next((one for one in beside if isinstance(one, RemoteEngine) and (one.config.url, one.config.model) == where), None)
    engine = ReadingEngine(config, role, states=reward.kind == "value-head", reuse=reuse, beside=same)
    try:
        return AskedLayout(engine)
    except BaseException:
        engine.close()
        raise


def open_servers(trio: Trio, writers: Iterable[RemoteEngine], opening: ExitStack) -> dict[Role, AskedModel]:
    """Reach the servers of a trio's rewards, by role.

    Args:
        trio: the trio.
        writers: engines of its draft and target that are on servers.
        opening: closes what was opened.

    Raises:
        ConfigError, RemoteError: as ``open_asked``.
    """
    made: dict[Role, AskedModel] = {}
    for role, (place, config) in reward_servers(trio).items():
        beside = (*writers, *(one.engine for one in made.values()))
        made[role] = open_asked(config, role, trio.stages[place], beside, reuse=trio.reuse)
        opening.callback(made[role].engine.close)
    return made
