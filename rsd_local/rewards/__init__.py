"""Rewards: a step becomes a number in [0, 1]. One file for each way to read it; the choice is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rsd_local.config import RoleConfig, Trio
from rsd_local.errors import BadHead
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.rewards.features import confidence, step_features
from rsd_local.rewards.heads import Head, ReadOut, ValueHead, read_head
from rsd_local.rewards.judge import Digit, Judge
from rsd_local.rewards.layouts import Layout, MathShepherd, RLHFlow
from rsd_local.rewards.reading import ReadReward
from rsd_local.rewards.readout import OwnSteps
from rsd_local.rewards.traced import TraceReward
from rsd_local.rewards.value_head import QwenPrm, Skywork
from rsd_local.roles import Reward
from rsd_local.runtime import Engine, Model, Tracing

__all__ = ["Head", "Rewards", "load_head", "read_head", "reward_config"]


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
    """The trio's way to score, ready for prompts.

    Attributes:
        config: the trio.
        engine: of the model that reads the steps, see ``reward_config``.
        head: see ``load_head``.
    """

    config: Trio
    engine: Engine | None
    head: Head | None

    @property
    def tracing(self) -> Tracing:
        """What the draft's steps must carry to be scored."""
        if self.engine is not None:
            return "off"
        return "states" if isinstance(self.head, ReadOut) and {"last", "lasts"} & set(self.head.parts) else "numbers"

    def check(self, draft: Engine) -> None:
        """Fail before the first prompt where a model cannot be read in the trio's way.

        Args:
            draft: with no prompt open, to see whether its trace has states.

        Raises:
            MissingTokens, NoChatTemplate, BadHead: why.
        """
        model, head = (self.engine or draft).model, self.head
        if self.tracing == "states" and not draft.probe_states():
            raise BadHead(
                f"{model.path.name} is of a kind that gives no hidden states while it writes",
                hint="choose another draft, or fit the read-out on the target (rsd train-reward --role target)",
            )
        if head is not None and not head.matches(model.n_embd):
            raise BadHead(f"the head is not for states of {model.n_embd} numbers, as {model.path.name} has", hint="choose another one")
        if self.engine is not None:
            self._layout(model, Prompt.of("1+1", self.config.system)).opening()

    def open(self, prompt: Prompt, cancel: CancelToken | None = None) -> Reward:
        """The reward at a prompt.

        Raises:
            ContextFull: the prompt does not fit the reward model's context.
        """
        engine, head, by = self.engine, self.head, self.config.reward_kind
        if engine is not None:
            engine.check_fits(len(prompt.question.encode("utf-8", "replace")))
            return ReadReward.open(engine, self._layout(engine.model, prompt), by, cancel)
        if isinstance(head, ReadOut):
            return TraceReward(lambda trace, before: head.reward(step_features(trace, before, head.parts)), by)
        return TraceReward(lambda trace, before: confidence(trace), by)

    def _layout(self, model: Model, prompt: Prompt) -> Layout:
        head = self.head
        if isinstance(head, ValueHead):
            return Skywork(model, head, prompt) if head.layout == "skywork" else QwenPrm(model, head, prompt)
        if isinstance(head, ReadOut):
            return OwnSteps(model, head, prompt)
        if self.config.reward_kind == "tag-logits":
            tagged: Callable[..., Layout] = MathShepherd if self.config.layout == "math-shepherd" else RLHFlow
            return tagged(model, prompt)
        return Judge(model, prompt) if self.config.reward_kind == "judge" else Digit(model, prompt)
