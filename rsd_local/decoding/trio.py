"""The three open models of a run, as the algorithms see them."""

from __future__ import annotations

from dataclasses import dataclass

from rsd_local.config import Sampling, Trio
from rsd_local.decoding.steps import Writer
from rsd_local.events import Author
from rsd_local.rewards import Reward, open_reward
from rsd_local.runtime import Drawer, Engine, Sampler, chat_tokens

_STREAMS: dict[Author, int] = {"draft": 0, "target": 1}


@dataclass(frozen=True, slots=True)
class OpenTrio:
    """Engines of the three roles.

    Attributes:
        config: how the models are asked and the reward is read.
        same_tokens: whether draft and target share a vocabulary.
    """

    config: Trio
    draft: Engine
    target: Engine
    reward: Engine
    same_tokens: bool

    def writer(self, role: Author, question: str, sampling: Sampling, sampler: Drawer | None = None) -> Writer:
        """The draft or the target at a question, with draws of its own stream.

        Raises:
            NoChatTemplate: the model cannot be asked.
            ContextFull: the question does not fit its context.
        """
        engine = self.draft if role == "draft" else self.target
        messages = [{"role": "user", "content": question}]
        if self.config.system:
            messages.insert(0, {"role": "system", "content": self.config.system})
        prompt = chat_tokens(engine.model, messages)
        return Writer.open(engine, prompt, sampler or Sampler(sampling, (_STREAMS[role],)), same_tokens=self.same_tokens)

    def judge(self, question: str) -> Reward:
        """The reward at a question.

        Raises:
            MissingTokens, NoChatTemplate: the model cannot be read in the trio's way.
            ContextFull: the question does not fit its context.
        """
        return open_reward(self.config, self.reward, question)
