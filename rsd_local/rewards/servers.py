"""The models on servers that read steps, by what they are asked for: shares of answers, states, or rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rsd_local.config import RemoteRole, RewardConfig
from rsd_local.errors import BadHead
from rsd_local.events import Role
from rsd_local.prompt import Prompt
from rsd_local.remote import Call, ReadingEngine, RemoteEngine, token_states
from rsd_local.rewards.heads import Head
from rsd_local.rewards.layouts import Layout
from rsd_local.rewards.remote import Question
from rsd_local.rewards.remote_layout import LayoutQuestion
from rsd_local.rewards.remote_model import RemoteModel
from rsd_local.runtime import TextModel


@dataclass(frozen=True, slots=True)
class At:
    """A prompt, and how a model reads it.

    Attributes:
        prompt: as draft and target are asked.
        layout: gives the layout for a model.
    """

    prompt: Prompt
    layout: Callable[[TextModel], Layout]


class AskedModel:
    """A model on a server that is asked about steps.

    Args:
        engine: of the server.
        config: of the reward.

    Attributes:
        model: its vocabulary and template.
    """

    def __init__(self, engine: ReadingEngine, config: RewardConfig) -> None:
        self.engine, self._states = engine, config.kind == "value-head"
        self.model: TextModel | None = RemoteModel(engine)

    @property
    def parameters(self) -> int:
        """Weights that a token meets."""
        return self.engine.parameters

    @property
    def context(self) -> int:
        """Tokens that one question may take."""
        return self.engine.context

    def question(self, at: At) -> Question:
        """A prompt there."""
        model = self.model
        assert model is not None
        return LayoutQuestion(self.engine, lambda: at.layout(model), states=self._states)

    def check(self, head: Head | None, at: At) -> None:
        """Fail before the first prompt where the server does not give what is needed.

        Args:
            head: of the reward, None where it has none.
            at: any prompt.

        Raises:
            MissingTokens, NoChatTemplate, BadHead: why.
            RemoteError: why.
        """
        assert self.model is not None
        opening = at.layout(self.model).opening()
        if head is not None:
            states = token_states(self.engine.llama, opening, Call())
            if not head.matches(states.shape[1]):
                raise BadHead(
                    f"the head is not for states of {states.shape[1]} numbers, as {self.model.path} gives", hint="choose another one"
                )


def open_asked(config: RemoteRole, role: Role, reward: RewardConfig, beside: Iterable[RemoteEngine], *, reuse: bool) -> AskedModel:
    """Reach the server of a reward.

    Args:
        config: where it is.
        role: of the reward.
        reward: how it is read.
        beside: engines of servers, one of which may be of the same.
        reuse: whether a prompt goes on from what earlier ones left in its cache.

    Raises:
        ConfigError: its key cannot be read, or it is of another kind.
        RemoteError: it cannot be reached.
    """
    same = next((one for one in beside if (one.config.url, one.config.model) == (config.url, config.model)), None)
    engine = ReadingEngine(config, role, reuse=reuse, beside=same)
    try:
        return AskedModel(engine, reward)
    except BaseException:
        engine.close()
        raise
