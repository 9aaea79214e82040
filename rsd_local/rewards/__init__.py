"""Rewards: a step becomes a number in [0, 1]. One file for each way to read it; the choice is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rsd_local.config import AnyRole, RemoteRole, RewardConfig, TagLayout, Trio, require
from rsd_local.errors import BadHead, MissingTokens
from rsd_local.events import CancelToken, Role
from rsd_local.prompt import Prompt
from rsd_local.rewards.ahead import AheadReward, ReadingScore, contrast, likelihood, read_out
from rsd_local.rewards.cascade import Cascade, Stage
from rsd_local.rewards.checked import CheckReward
from rsd_local.rewards.features import confidence, step_features
from rsd_local.rewards.heads import Head, HeadLayout, ReadOut, ValueHead, read_head
from rsd_local.rewards.judge import Digit, Judge
from rsd_local.rewards.layouts import Granite, Layout, MathShepherd, RLHFlow
from rsd_local.rewards.models import reading_models, reward_models, reward_servers
from rsd_local.rewards.reading import ReadReward
from rsd_local.rewards.remote import RemoteReward
from rsd_local.rewards.servers import AskedModel, At
from rsd_local.rewards.traced import TraceReward
from rsd_local.rewards.value_head import QwenPrm, Skywork, TokenClassification
from rsd_local.rewards.verifier import Verifier
from rsd_local.roles import Abilities, Reader, Reward, StepCost
from rsd_local.runtime import Engine, TextModel, Tracing

__all__ = ["Head", "Rewards", "StepReward", "load_heads", "read_ahead", "read_head", "reward_models", "reward_servers"]

_AHEAD = {
    "likelihood": likelihood("mean"),
    "likelihood-least": likelihood("least"),
    "likelihood-running": likelihood("running"),
    "contrast": contrast,
}
"""Kinds that look at the probabilities that the target gives a step."""
_TAGGED: dict[TagLayout, Callable[[TextModel, Prompt], Layout]] = {"math-shepherd": MathShepherd, "rlhflow": RLHFlow, "granite": Granite}
_HEADED: dict[HeadLayout, Callable[[TextModel, ValueHead, Prompt], Layout]] = {
    "skywork": Skywork,
    "qwen-prm": QwenPrm,
    "trl": TokenClassification,
}


def load_heads(trio: Trio) -> tuple[Head | None, ...]:
    """The head of each of the trio's rewards, None where it needs none.

    Raises:
        BadHead: one cannot be read, is of another kind, or belongs to another model.
    """
    return tuple(_load_head(stage, trio) for stage in trio.stages)


def _load_head(stage: RewardConfig, trio: Trio) -> Head | None:
    if stage.head is None:
        return None
    head = read_head(stage.head)
    wanted = ValueHead if stage.kind == "value-head" else ReadOut
    if not isinstance(head, wanted):
        raise BadHead(f"{stage.head} is no {stage.kind}", hint="choose the --reward-kind that it was made for")
    if isinstance(head, ReadOut):
        model: AnyRole = trio.draft if head.role == "draft" else trio.target
        if isinstance(model, RemoteRole):
            raise BadHead(f"{stage.head} reads states of the {head.role}, which is on a server", hint="choose another --reward-kind")
        head.check(model.path, model.lora, model.lora_scale)
    return head


def read_ahead(config: RewardConfig, head: Head | None) -> ReadingScore | None:
    """How a reward scores what the target says of a step that it reads ahead, None where the target is not asked to.

    Args:
        config: of the reward.
        head: its head, where it has one.
    """
    if isinstance(head, ReadOut):
        return read_out(head.reward) if head.role == "target" else None
    return _AHEAD.get(config.kind)


@dataclass(frozen=True, slots=True)
class StepReward:
    """One way to score, ready for prompts.

    Attributes:
        trio: whose it is.
        config: of this reward.
        last: whether no other one is asked after it.
        role: of its model in counters.
        engine: of the model here that reads the steps; None where there is none.
        head: see ``load_heads``.
        verifier: the program that checks; None for other kinds.
        server: of the model elsewhere that reads the steps; None where there is none.
    """

    trio: Trio
    config: RewardConfig
    last: bool
    role: Role
    engine: Engine | None
    head: Head | None
    verifier: Verifier | None
    server: AskedModel | None = None

    @property
    def reads_ahead(self) -> ReadingScore | None:
        """How the target's reading of a step is scored, None where the target is not asked to read it."""
        return read_ahead(self.config, self.head)

    @property
    def tracing(self) -> Tracing:
        """What the draft's steps must carry to be scored."""
        if self.reads_ahead is not None:
            return "numbers" if self.config.kind == "contrast" else "off"
        if self.engine is not None or self.verifier is not None or self.server is not None:
            return "off"
        return "states" if isinstance(self.head, ReadOut) and {"last", "lasts"} & set(self.head.parts) else "numbers"

    def check(self, draft: Engine | None, target: Engine | None) -> None:
        """Fail before the first prompt where a model cannot be read in this way.

        Args:
            draft, target: with no prompt open, to see whether they give states beside logits; None for one on a server.

        Raises:
            MissingTokens, NoChatTemplate, BadHead: why.
            RemoteError: a server does not give what is needed.
        """
        if self.server is not None:
            self.server.check(self.head, self._at(Prompt.of("1+1", self.trio.system)))
            self.server.meet(dict.fromkeys(engine.model for engine in (draft, target) if engine is not None))
            return
        head, ahead = self.head, self.reads_ahead is not None
        engine = self.engine or (target if ahead else draft)
        if engine is None or draft is None or target is None:  # a trio refuses what would look into a model on a server
            if self.engine is not None:
                self._check_engine(self.engine)
            return
        model = engine.model
        if ahead and head is not None:
            target.probe_states()
        if self.tracing == "states" and not draft.probe_states():
            raise BadHead(
                f"{model.path.name} is of a kind that gives no hidden states while it writes",
                hint="choose another draft, or fit the read-out on the target (rsd train-reward --role target)",
            )
        if self.config.kind == "contrast" and not draft.model.common_tokens(target.model):
            raise MissingTokens(
                f"a contrast needs one vocabulary, and {draft.model.path.name} and {target.model.path.name} have two",
                hint="choose --reward-kind likelihood, or a draft of the target's family",
            )
        self._check_engine(engine)

    def _check_engine(self, engine: Engine) -> None:
        """Whether the engine that reads steps can be read with this head and in this layout."""
        head, model = self.head, engine.model
        if head is not None and not head.matches(model.n_embd):
            raise BadHead(f"the head is not for states of {model.n_embd} numbers, as {model.path.name} has", hint="choose another one")
        if self.engine is not None:
            self._layout(model, Prompt.of("1+1", self.trio.system)).opening()

    def open(self, prompt: Prompt, reader: Callable[[], Reader], cancel: CancelToken | None = None) -> Reward:
        """The reward at a prompt.

        Args:
            prompt: as the models are asked.
            reader: makes the target that reads steps ahead; called where it is needed.
            cancel: ends whatever is read.

        Raises:
            ContextFull: the prompt does not fit the reward model's context.
            RemoteError: the reward's server fails.
        """
        engine, head, by = self.engine, self.head, self.config.name
        if self.reads_ahead is not None:
            return AheadReward(reader(), self.reads_ahead, by, state=head is not None, role=self.role)
        if self.server is not None:
            return RemoteReward.open(self.server.question(self._at(prompt)), by, cancel, self.role, self.server.engine.parameters)
        if self.verifier is not None:
            return CheckReward(self.verifier, prompt, by, self.trio.on_verifier_error == "target", cancel)
        if engine is not None:
            engine.check_fits(len(prompt.question.encode("utf-8", "replace")))
            return ReadReward.open(engine, self._layout(engine.model, prompt), by, cancel, self.role)
        if isinstance(head, ReadOut):
            return TraceReward(lambda trace, before: head.reward(step_features(trace, before, head.parts)), by)
        return TraceReward(lambda trace, before: confidence(trace), by)

    def opening(self, prompt: Prompt) -> tuple[int, int] | None:
        """The context of the model that reads the steps, and how many tokens it reads before the first one; None where no model does."""
        model = self.model
        if model is None:
            return None
        layout = self._layout(model, prompt)
        context = self.engine.context if self.engine is not None else self.server.engine.context if self.server is not None else 0
        return context, len(layout.opening()) + len(layout.query)

    def query(self, prompt: Prompt) -> int:
        """How many tokens the model that reads a step is asked behind it."""
        return 0 if self.model is None else len(self._layout(self.model, prompt).query)

    @property
    def model(self) -> TextModel | None:
        """The vocabulary and the template of the model that reads the steps; None where no model does, or its server makes the text."""
        return self.engine.model if self.engine is not None else None if self.server is None else self.server.model

    def _at(self, prompt: Prompt) -> At:
        """The prompt as a server is asked about its steps."""
        return At(prompt, lambda model: self._layout(model, prompt))

    def _layout(self, model: TextModel, prompt: Prompt) -> Layout:
        head = self.head
        if isinstance(head, ValueHead):
            return _HEADED[head.layout](model, head, prompt)
        if self.config.kind == "tag-logits":
            return _TAGGED[self.config.layout](model, prompt)
        return Judge(model, prompt) if self.config.kind == "judge" else Digit(model, prompt)


@dataclass(frozen=True, slots=True)
class Rewards:
    """The trio's ways to score, in the order in which they are asked."""

    stages: tuple[StepReward, ...]

    @classmethod
    def of(
        cls,
        trio: Trio,
        heads: tuple[Head | None, ...],
        engines: Mapping[Role, Engine],
        verifiers: tuple[Verifier | None, ...],
        servers: Mapping[Role, AskedModel],
    ) -> Rewards:
        """All of a trio's.

        Args:
            trio: the trio.
            heads, verifiers: one for each of its rewards.
            engines: of ``reward_models``, by role.
            servers: of ``reward_servers``, by role.

        Raises:
            ConfigError: the target would read ahead for two of them.
        """
        roles = {place: role for role, (place, _) in reading_models(trio).items()}
        made = []
        for place, (stage, head, verifier) in enumerate(zip(trio.stages, heads, verifiers, strict=True)):
            role = roles.get(place, "reward")
            engine, server = (engines.get(role), servers.get(role)) if place in roles else (None, None)
            made.append(StepReward(trio, stage, place + 1 == len(trio.stages), role, engine, head, verifier, server))
        ahead = [stage.config.name for stage in made if stage.reads_ahead is not None]
        require(len(ahead) <= 1, f"the target reads ahead for one reward of a cascade, not for {' and '.join(ahead)}", "leave one away")
        return cls(tuple(made))

    @property
    def tracing(self) -> Tracing:
        """What the draft's steps must carry to be scored by any of them."""
        wanted = {stage.tracing for stage in self.stages}
        return "states" if "states" in wanted else "numbers" if "numbers" in wanted else "off"

    @property
    def ahead(self) -> bool:
        """Whether the target reads each drafted step for one of them."""
        return any(stage.reads_ahead is not None for stage in self.stages)

    def costs(self) -> tuple[StepCost, ...]:
        """What a step costs that all of them score; programs are left out."""
        prompt = Prompt.of("1+1", self.stages[0].trio.system)
        read = [stage for stage in self.stages if stage.engine is not None or stage.server is not None]
        return tuple(StepCost(stage.role, stage.query(prompt), stage.server.trips if stage.server else 0) for stage in read)

    def check(self, draft: Engine | None, target: Engine | None, able: Abilities) -> None:
        """As ``StepReward.check``, for all of them.

        Args:
            draft, target: as there.
            able: what the target can do, wherever it runs.

        Raises:
            ConfigError: it is to read steps ahead, and cannot.
        """
        for stage in self.stages:
            away = stage.reads_ahead is not None and not able.reads_ahead
            why = f"reward kind {stage.config.kind} asks the target how likely a drafted step is, which its server does not say"
            require(not away, why, "choose another --reward-kind, such as judge, or a target that runs here")
            stage.check(draft, target)

    def open(self, prompt: Prompt, reader: Callable[[], Reader], cancel: CancelToken | None = None) -> Reward:
        """The reward at a prompt: a cascade where there are several.

        Args:
            prompt, reader, cancel: as for ``StepReward.open``.

        Raises:
            ContextFull: the prompt does not fit a reward model's context.
        """
        if len(self.stages) == 1:
            return self.stages[0].open(prompt, reader, cancel)
        opened: list[Stage] = []
        try:
            for stage in self.stages:
                opened.append(Stage(stage.open(prompt, reader, cancel), stage.config.band(last=stage.last)))
        except BaseException:
            for made in opened:
                made.reward.close()
            raise
        return Cascade(opened)
