"""The three models, how the reward is read, and how the models are asked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rsd_local.config.checks import from_home, require, require_choice
from rsd_local.config.params import (
    Limits,
    Params,
    Search,
    StopAfter,
    Strategy,
    TemplateValue,
    Thinking,
    ThinkMode,
    Unchecked,
    Weighting,
)
from rsd_local.config.remote import AnyRole, OnFailure, RemoteRole, require_model
from rsd_local.config.rewards import MOST_REWARDS, NEEDS_HEAD, TAKES_MODEL, Checker, RewardConfig, TagLayout
from rsd_local.config.roles import RoleConfig
from rsd_local.config.tuned import TunedFigures

ROLES = ("draft", "target", "reward")
SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."
Task = Literal["any", "math", "arithmetic"]
SandboxLevel = Literal["auto", "strict"]
OnVerifierError = Literal["error", "target"]


@dataclass(frozen=True, slots=True)
class Trio:
    """The three models, how the reward is read, and how the models are asked.

    Attributes:
        reward: None for kinds that need no third model: then ``judge`` and ``digit`` use the target's weights, or its server.
        reward_kind: ``tag-logits`` and ``value-head`` for a process reward model, ``prm`` for one whose server has its head too,
            ``judge`` and ``digit`` for any instruct model, ``confidence`` for the draft's own, ``likelihood`` (``-least``,
            ``-running``) and ``contrast`` for what the target says while it reads a step ahead, ``read-out`` for a head fitted on
            the draft's or target's states, ``verifier`` for a program that checks; several with commas between them are a cascade,
            see ``RewardConfig``.
        layout: the text that a tag-logits model was trained on.
        head: the file of a value-head or read-out.
        verifier, tests, schema, code_file: see ``RewardConfig``.
        rewards: the cascade with a model and a band for each, in place of the keys above: ``[[reward]]`` in a file.
        threshold: the trio's own δ, used where the caller names none; 1 where the last reward is a verifier, otherwise 0.7.
        threshold_from: where δ comes from, for people; empty where nobody measured it.
        tuned: what ``rsd tune`` saw at that δ; None where it did not, or an earlier version chose it.
        system: the system prompt of draft and target, empty for none.
        task: ``arithmetic`` sends questions through abacus' reader, which refuses everything else; ``math`` is any question, and in a
            chat too the system prompt that asks for steps and a boxed answer.
        machine: the memory that it was put together for, for people; ``rsd list`` groups by it.
        about: what it is and is for, for people.
        expect: what gain to expect, for people, and whether that was measured.
        strategy: the algorithm, where the caller names none.
        unchecked, stop_after, redrafts, retries: see ``Weighting``, ``Limits`` and ``Search``; where the caller names none.
        think, think_budget, reasoning_effort, template_kwargs, score_thoughts: see ``Thinking``; where the caller names none.
        run_code: whether programs that a model wrote, and those that a verifier names, may be run. No file can say so.
        sandbox: ``strict`` refuses to run a program that cannot be kept from files and network.
        on_verifier_error: whether a verifier that does not work ends the answer, or the target writes the step.
        on_failure: where the target's server fails: whether that ends the answer, or the draft's best step stands.
        delimiter: where steps end, see ``segments.Segmenter``.
        parallel: prompts answered at once; each takes its own share of every context.
        queue: how many more may wait for their turn.
        reuse: whether a prompt goes on from what earlier ones left in the caches. Without it, batches have the shapes that they
            have for a prompt alone, whatever came before.
        width: sequences that one question may hold in the draft and in the reward model, for strategies that try more
            than one thing (``sequences_needed``).
        fit_check: whether a trio that needs more memory than is free is refused before it is loaded.
    """

    draft: AnyRole
    target: AnyRole
    reward: AnyRole | None = None
    reward_kind: str = "tag-logits"
    layout: TagLayout = "math-shepherd"
    head: Path | None = None
    threshold: float = math.nan
    threshold_from: str = ""
    tuned: TunedFigures | None = None
    system: str = SYSTEM_PROMPT
    task: Task = "any"
    machine: str = ""
    about: str = ""
    expect: str = ""
    parallel: int = 1
    width: int = 1
    strategy: Strategy = "rsd"
    delimiter: str = "paragraph"
    queue: int = 256
    reuse: bool = True
    verifier: str | Checker = ""
    tests: Path | None = None
    schema: Path | None = None
    code_file: str = "solution.py"
    rewards: tuple[RewardConfig, ...] = ()
    unchecked: Unchecked = "accept"
    stop_after: StopAfter = "never"
    redrafts: int = 0
    retries: int = 0
    think: ThinkMode = "auto"
    think_budget: int = 0
    reasoning_effort: str = ""
    template_kwargs: dict[str, TemplateValue] = dataclasses.field(default_factory=dict)
    score_thoughts: int = 1
    run_code: bool = False
    sandbox: SandboxLevel = "auto"
    on_verifier_error: OnVerifierError = "error"
    on_failure: OnFailure = "error"
    fit_check: bool = True

    def __post_init__(self) -> None:
        for role in ROLES:
            if (model := getattr(self, role)) is not None or role != "reward":
                require_model(model, role)
        object.__setattr__(self, "rewards", tuple(self.rewards))
        require(isinstance(self.template_kwargs, Mapping), "template_kwargs is no table", "give {name = value}")
        object.__setattr__(self, "template_kwargs", dict(self.template_kwargs))
        for name in ("head", "tests", "schema"):
            given = getattr(self, name)
            object.__setattr__(self, name, given and from_home(given))
        require(self.tuned is None or isinstance(self.tuned, TunedFigures), "tuned is no table", "rsd tune writes it")
        require_choice(self.task, Task, "task")
        require_choice(self.strategy, Strategy, "strategy")
        require_choice(self.sandbox, SandboxLevel, "sandbox")
        require_choice(self.on_verifier_error, OnVerifierError, "on_verifier_error")
        require_choice(self.on_failure, OnFailure, "on_failure")
        self._check_remote()
        require(0 <= self.queue <= 1_000_000, f"queue {self.queue} is outside 0 to 1,000,000")
        require(1 <= self.parallel <= 64, f"parallel {self.parallel} is outside 1 to 64")
        require(1 <= self.parallel * self.width <= 256, f"{self.parallel} questions of {self.width} sequences are more than 256")
        last = self.stages[-1]
        if math.isnan(self.threshold):
            object.__setattr__(self, "threshold", (1.0 if last.kind == "verifier" else 0.7) if last.upper is None else last.upper)
        self.params()  # checks the rest

    def _check_remote(self) -> None:
        """Refuses rewards that look into a draft which is on a server; whether a target's server can be looked into is asked there."""
        for stage in self.stages:
            away = stage.kind in _LOOKS_INTO_DRAFT and stage.model is None and isinstance(self.draft, RemoteRole)
            fix = "choose another --reward-kind, such as judge"
            require(not away, f"reward kind {stage.kind} needs a draft that runs here, and this one is on a server", fix)

    @property
    def stages(self) -> tuple[RewardConfig, ...]:
        """The rewards in the order in which they are asked."""
        single = {entry.name: entry.default for entry in dataclasses.fields(Trio) if entry.name in _SINGLE}
        if self.rewards:
            given = [name for name, usual in single.items() if getattr(self, name) != usual]
            require(not given, f"{', '.join(given)} beside a list of rewards", "put it into one of its [[reward]] tables")
            stages = self.rewards
        else:
            kinds = [kind.strip() for kind in self.reward_kind.split(",")]
            require(
                self.reward is None or not {*kinds}.isdisjoint(TAKES_MODEL),
                f"reward kind {self.reward_kind} takes no reward model",
                "leave --reward away",
            )
            fine = self.head is None or not {*kinds}.isdisjoint(NEEDS_HEAD)
            require(fine, f"reward kind {self.reward_kind} takes no head", "leave --head away, or choose read-out or value-head")
            checks = [self.verifier, self.tests, self.schema] != ["", None, None]
            require(not checks or "verifier" in kinds, f"reward kind {self.reward_kind} takes no verifier", "choose --reward-kind verifier")
            stages = tuple(self._stage(kind) for kind in kinds)
        require(len(stages) <= MOST_REWARDS, f"{len(stages)} rewards are more than {MOST_REWARDS}")
        return stages

    def _stage(self, kind: str) -> RewardConfig:
        settings: dict[str, Any] = {"kind": kind, "layout": self.layout}
        if kind in TAKES_MODEL:
            settings["model"] = self.reward
        if kind in NEEDS_HEAD:
            settings["head"] = self.head
        if kind == "verifier":
            settings |= {name: getattr(self, name) for name in ("verifier", "tests", "schema", "code_file")}
        return RewardConfig(**settings)

    @property
    def files(self) -> tuple[Path, ...]:
        """All models', adapters' and heads' files."""
        models = [one for one in (self.draft, self.target, *(stage.model for stage in self.stages)) if isinstance(one, RoleConfig)]
        beside = [*(model.lora for model in models), *(stage.head for stage in self.stages)]
        return tuple(dict.fromkeys([*(model.path for model in models), *(file for file in beside if file is not None)]))

    def with_models(self, change: Callable[[RoleConfig], RoleConfig], roles: Container[str] = ROLES) -> Trio:
        """The same with the models of some roles changed, ``reward`` standing for those of all rewards; those on servers stay.

        Args:
            change: gives a model's settings anew.
            roles: whose.
        """
        changed: dict[str, Any] = {
            role: change(getattr(self, role)) for role in ROLES if role in roles and isinstance(getattr(self, role), RoleConfig)
        }
        if "reward" in roles:
            changed["rewards"] = [
                dataclasses.replace(stage, model=change(stage.model)) if isinstance(stage.model, RoleConfig) else stage
                for stage in self.rewards
            ]
        return dataclasses.replace(self, **changed)

    def params(self) -> Params:
        """What a run takes where the caller says nothing."""
        return Params(
            weighting=Weighting(threshold=self.threshold, redrafts=self.redrafts, unchecked=self.unchecked),
            limits=Limits(stop_after=self.stop_after),
            search=Search(retries=self.retries),
            thinking=Thinking(
                self.think, self.think_budget, self.reasoning_effort, tuple(self.template_kwargs.items()), self.score_thoughts
            ),
        )


_LOOKS_INTO_DRAFT = ("confidence", "contrast")
"""Kinds of reward that need the probabilities of the draft's tokens; a read-out's head says whose states it needs."""

_SINGLE = ("reward", "reward_kind", "layout", "head", "verifier", "tests", "schema", "code_file")
"""Settings of a trio with one reward, or with a short list of kinds."""
