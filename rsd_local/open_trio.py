"""A trio whose models run here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from rsd_local.config import Trio
from rsd_local.events import Author, CancelToken, Role
from rsd_local.fit import RoleCapacity, make_plan
from rsd_local.prompt import Prompt
from rsd_local.rewards import Head, Rewards, load_head, reward_config
from rsd_local.roles import Reward
from rsd_local.runtime import Engine, LocalWriter, Model, Tracing, prompt_tokens
from rsd_local.runtime.devices import devices
from rsd_local.segments import Segmenter

LoadProgress = Callable[[Role, float], None]


@dataclass(frozen=True, slots=True)
class LocalTrio:
    """The engines that write, and what scores; see ``decoding.OpenTrio``.

    Attributes:
        config: how the models are asked and the reward is read.
        shared_tokens: how many tokens, from the first on, mean the same to draft and target.
        cancel: ends whatever is opened.
    """

    config: Trio
    draft: Engine
    target: Engine
    rewards: Rewards
    shared_tokens: int
    segmenter: Segmenter
    shows_text: bool = False
    cancel: CancelToken | None = None

    @classmethod
    def open(cls, config: Trio, opening: ExitStack, progress: LoadProgress | None = None) -> LocalTrio:
        """Load the models; roles on one file with one placement share its weights.

        Args:
            config: the trio.
            opening: closes what was opened.
            progress: called with a role and its loaded share, 0 to 1.

        Raises:
            ModelError: a file is missing, damaged, or not right for its role; a head belongs to another model.
            DoesNotFit: there is not memory enough; nothing was loaded.
            EngineError: a context cannot be made.
        """
        segmenter = Segmenter(config.delimiter)
        models: dict[tuple[object, ...], Model] = {}
        engines: dict[Role, Engine] = {}
        head = load_head(config)
        for role, capacity in placed(capacities(config, head)).items():
            where = capacity.config.placement
            if where not in models:
                report = None if progress is None else _bind(progress, role)
                models[where] = Model(capacity.config, report)
                opening.callback(models[where].close)
            engines[role] = Engine(models[where], capacity.config, capacity.slots, role, reuse=config.reuse)
            opening.callback(engines[role].close)
        draft, target = engines["draft"], engines["target"]
        for engine in (draft, target):
            prompt_tokens(engine.model, Prompt.of("1+1", config.system))
        rewards = Rewards(config, engines.get("reward"), head)
        rewards.check(draft)
        return cls(config, draft, target, rewards, draft.model.common_tokens(target.model), segmenter)

    def bound(self, cancel: CancelToken, stop: tuple[str, ...], *, shows_text: bool) -> LocalTrio:
        """The same for one run: ended by a token, and with stop strings of its own."""
        return replace(self, cancel=cancel, segmenter=replace(self.segmenter, stop=stop), shows_text=shows_text)

    def engines(self) -> dict[Role, Engine]:
        """The engines by role; a reward that the draft's own trace gives has none."""
        made: dict[Role, Engine] = {"draft": self.draft, "target": self.target}
        return made if self.rewards.engine is None else made | {"reward": self.rewards.engine}

    def writer(self, role: Author, prompt: Prompt, *, traced: bool = False, tracing: Tracing = "off") -> LocalWriter:
        """The draft or the target at a prompt.

        Args:
            role: which.
            prompt: as the models are asked.
            traced: whether its steps carry the trace that the reward needs.
            tracing: a trace for other ends.

        Raises:
            NoChatTemplate: the model cannot be asked.
            ContextFull: the prompt does not fit its context.
        """
        engine = self.draft if role == "draft" else self.target
        engine.check_fits(sum(len(message.content.encode("utf-8", "replace")) for message in prompt.messages))
        tokens = prompt_tokens(engine.model, prompt)
        tracing = self.rewards.tracing if traced else tracing
        return LocalWriter.open(engine, tokens, shared=self.shared_tokens, tracing=tracing, cancel=self.cancel)

    def reward(self, prompt: Prompt) -> Reward:
        """The reward at a prompt.

        Raises:
            ContextFull: the prompt does not fit its context.
        """
        return self.rewards.open(prompt, self.cancel)


def capacities(config: Trio, head: Head | None) -> dict[Role, RoleCapacity]:
    """What a trio opens, by role."""
    reward, wide = reward_config(config, head), config.parallel * config.width
    roles: dict[Role, RoleCapacity] = {
        "draft": RoleCapacity(config.draft, wide),
        "target": RoleCapacity(config.target, config.parallel),
    }
    return roles if reward is None else roles | {"reward": RoleCapacity(reward, wide)}


def placed(roles: dict[Role, RoleCapacity]) -> dict[Role, RoleCapacity]:
    """The roles with the layers that go to the GPU as numbers.

    Raises:
        DoesNotFit: there is not memory enough for all of them.
    """
    found = devices()
    if not found:  # this build of llama.cpp does not tell
        return roles
    plan = make_plan(roles, found)
    plan.check()
    return {one.role: replace(roles[one.role], config=one.config) for one in plan.roles}


def _bind(progress: LoadProgress, role: Role) -> Callable[[float], None]:
    return lambda share: progress(role, share)
