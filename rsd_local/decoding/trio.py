"""The three open models of a run, as the algorithms see them."""

from __future__ import annotations

from dataclasses import dataclass

from rsd_local.config import Sampling, Trio
from rsd_local.decoding.steps import Writer
from rsd_local.events import Author
from rsd_local.rewards import Reward, Rewards
from rsd_local.runtime import Drawer, Pool, Sampler, Tracing, chat_tokens

_STREAMS: dict[Author, int] = {"draft": 0, "target": 1}


@dataclass(frozen=True, slots=True)
class OpenTrio:
    """The engines that write, and what scores.

    Attributes:
        config: how the models are asked and the reward is read.
        same_tokens: whether draft and target share a vocabulary.
    """

    config: Trio
    draft: Pool
    target: Pool
    rewards: Rewards
    same_tokens: bool

    def writer(self, role: Author, question: str, sampling: Sampling, sampler: Drawer | None = None, *, tracing: Tracing = "off") -> Writer:
        """The draft or the target at a question, with draws of its own stream.

        Args:
            role: which.
            question: the text.
            sampling: how tokens are drawn.
            sampler: draws them, where it is not to be an ordinary one.
            tracing: what its steps are to carry, where the reward scores them.

        Raises:
            NoChatTemplate: the model cannot be asked.
            ContextFull: the question does not fit its context.
        """
        engines = self.draft if role == "draft" else self.target
        prompt = chat_tokens(engines.model, self.config.messages(question))
        drawer = sampler or Sampler(sampling, (_STREAMS[role],))
        return Writer.open(engines, prompt, drawer, same_tokens=self.same_tokens, tracing=tracing)

    def judge(self, question: str) -> Reward:
        """The reward at a question.

        Raises:
            ContextFull: the question does not fit its context.
        """
        return self.rewards.open(question)
