"""Rewards: a step becomes a number in [0, 1]. One file for each way to read it; the choice is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rsd_local.config import RoleConfig, Trio
from rsd_local.errors import BadHead
from rsd_local.rewards.base import Reward, Scoring
from rsd_local.rewards.features import confidence, step_features
from rsd_local.rewards.heads import Head, ReadOut, ValueHead, read_head
from rsd_local.rewards.judge import Digit, Judge
from rsd_local.rewards.layouts import Layout, MathShepherd, RLHFlow
from rsd_local.rewards.reading import ReadReward
from rsd_local.rewards.readout import OwnSteps
from rsd_local.rewards.traced import TraceReward
from rsd_local.rewards.value_head import QwenPrm, Skywork
from rsd_local.runtime import Model, Pool, Tracing

__all__ = ["Head", "Reward", "Rewards", "Scoring", "load_head", "read_head", "reward_config"]


def load_head(trio: Trio) -> Head | None:
    """The head that the trio's kind of reward needs, None where it needs none.

    Raises:
        BadHead: it cannot be read, is of another kind, or belongs to another model.
    """
    if trio.reward_kind not in ("value-head", "read-out") or trio.head is None:
        return None
    head = read_head(trio.head)
    wanted = ValueHead if trio.reward_kind == "value-head" else ReadOut
    if not isinstance(head, wanted):
        raise BadHead(f"{trio.head} is no {trio.reward_kind}", hint="choose the --reward-kind that it was made for")
    if isinstance(head, ReadOut):
        head.check((trio.draft if head.role == "draft" else trio.target).path)
    return head


def reward_config(trio: Trio, head: Head | None) -> RoleConfig | None:
    """The model that reads the steps, None where the draft's own trace is enough.

    A judge, and a read-out of the target, use the target's weights where no third model is named.
    """
    if trio.reward_kind == "confidence" or (isinstance(head, ReadOut) and head.role == "draft"):
        return None
    return trio.reward or trio.target


@dataclass(frozen=True, slots=True)
class Rewards:
    """The trio's way to score, ready for questions.

    Attributes:
        config: the trio.
        engines: of the model that reads the steps, see ``reward_config``.
        head: see ``load_head``.
    """

    config: Trio
    engines: Pool | None
    head: Head | None

    @property
    def tracing(self) -> Tracing:
        """What the draft's steps must carry to be scored."""
        if self.engines is not None:
            return "off"
        return "states" if isinstance(self.head, ReadOut) and {"last", "lasts"} & set(self.head.parts) else "numbers"

    def check(self, draft: Pool) -> None:
        """Fails before the first question where a model cannot be read in the trio's way.

        Args:
            draft: with no question open, to see whether its trace has states.

        Raises:
            MissingTokens, NoChatTemplate, BadHead: why.
        """
        model, head = (self.engines or draft).model, self.head
        if self.tracing == "states" and not draft.probe_states():
            raise BadHead(
                f"{model.path.name} is of a kind that gives no hidden states while it writes",
                hint="choose another draft, or fit the read-out on the target (rsd train-reward --role target)",
            )
        if head is not None and not head.fits(model.n_embd):
            raise BadHead(f"the head is not for states of {model.n_embd} numbers, as {model.path.name} has", hint="choose another one")
        self.open("1+1").close()

    def open(self, question: str) -> Reward:
        """The reward at a question.

        Raises:
            ContextFull: the question does not fit the reward model's context.
        """
        engines, head = self.engines, self.head
        if engines is not None:
            return ReadReward.open(engines, self._layout(engines.model, question))
        if isinstance(head, ReadOut):
            return TraceReward(lambda trace, before: head.reward(step_features(trace, before, head.parts)))
        return TraceReward(lambda trace, before: confidence(trace))

    def _layout(self, model: Model, question: str) -> Layout:
        head = self.head
        if isinstance(head, ValueHead):
            return Skywork(model, head, question) if head.layout == "skywork" else QwenPrm(model, head, question)
        if isinstance(head, ReadOut):
            return OwnSteps(model, head, self.config.messages(question))
        if self.config.reward_kind == "tag-logits":
            tagged: Callable[..., Layout] = MathShepherd if self.config.layout == "math-shepherd" else RLHFlow
            return tagged(model, question)
        return Judge(model, question) if self.config.reward_kind == "judge" else Digit(model, question)
