"""Settings: frozen dataclasses that validate themselves, and the reader of a trio's TOML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from rsd_local.errors import ConfigError

ROLES = ("draft", "target", "reward")
SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."

FlashAttention = Literal["auto", "on", "off"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
RewardKind = Literal["tag-logits", "judge", "digit", "confidence", "read-out", "value-head"]
TagLayout = Literal["math-shepherd", "rlhflow"]
WeightingKind = Literal["step", "constant", "clip", "ratio", "logistic"]
Aggregate = Literal["last", "min", "product"]
Fallback = Literal["auto", "on", "off"]
Strategy = Literal["rsd", "target", "draft", "speculative", "majority", "best-of-n", "step-best-of-n", "beam"]


def require(fine: bool, message: str, hint: str = "") -> None:
    """Raises ConfigError with the message where ``fine`` is false."""
    if not fine:
        raise ConfigError(message, hint=hint)


def require_choice(value: str, choices: Any, name: str) -> None:
    """Raises ConfigError where ``value`` is none of a Literal's ``choices``."""
    known = get_args(choices)
    require(value in known, f"{name} {value!r} is unknown", hint=f"one of: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class RoleConfig:
    """One role's model file and where it runs.

    Attributes:
        path: the GGUF file.
        ctx_size: tokens that one question may take in this model; 0 is the model's own limit, at most 4,096.
        gpu_layers: layers on the GPU; −1 is all, "auto" as many as fit beside the other roles'; without effect where
            llama.cpp was built without a GPU.
        main_gpu: the device that holds what is not split.
        tensor_split: shares of the model by device, empty to leave it to llama.cpp.
        flash_attention: whether attention is fused.
        cache_type: the type of keys and values; a quantized one needs flash attention.
        threads: CPU threads of an engine; 0 is the number of physical cores.
        engines: contexts on the same weights that share the questions, each for two or more of them; 0 is as many as the cores
            hold. More than one pays where a model works best with fewer threads than there are cores: at some megabytes.
            On a GPU there is one.
        trusted: whether the file is loaded without having been tried in a process of its own, where a damaged one can end
            nothing but that process.
    """

    path: Path
    ctx_size: int = 0
    gpu_layers: int | Literal["auto"] = "auto"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    flash_attention: FlashAttention = "auto"
    cache_type: CacheType = "f16"
    threads: int = 0
    engines: int = 1
    trusted: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())
        object.__setattr__(self, "tensor_split", tuple(float(share) for share in self.tensor_split))
        require(self.ctx_size >= 0, f"ctx_size {self.ctx_size} is negative")
        layers: object = self.gpu_layers
        counted = isinstance(layers, int) and not isinstance(layers, bool) and layers >= -1
        require(counted or layers == "auto", f"gpu_layers {layers!r} is no number from -1 (all) on, nor auto")
        require(self.main_gpu >= 0, f"main_gpu {self.main_gpu} is negative")
        require(0 <= self.threads <= 512, f"threads {self.threads} is outside 0 to 512")
        require(0 <= self.engines <= 64, f"engines {self.engines} is outside 0 to 64")
        require(isinstance(self.trusted, bool), f"trusted {self.trusted!r} is neither true nor false")
        shares = self.tensor_split
        require(all(0 <= share < math.inf for share in shares), f"tensor_split {shares} has a negative share")
        require_choice(self.flash_attention, FlashAttention, "flash_attention")
        require_choice(self.cache_type, CacheType, "cache_type")

    @property
    def layers_on_gpu(self) -> int:
        """``gpu_layers`` as a number; −1 is all, and so is "auto" where nobody has made a plan."""
        return -1 if self.gpu_layers == "auto" else self.gpu_layers

    @property
    def placement(self) -> tuple[object, ...]:
        """Equal for roles that can share their weights."""
        return (self.path.resolve(), self.gpu_layers, self.main_gpu, self.tensor_split)


@dataclass(frozen=True, slots=True)
class Trio:
    """The three models, how the reward is read, and how the models are asked.

    Attributes:
        reward: None for kinds that need no third model: then ``judge`` and ``digit`` use the target's weights.
        reward_kind: ``tag-logits`` and ``value-head`` for a process reward model, ``judge`` and ``digit`` for any instruct
            model, ``confidence`` for the draft's own, ``read-out`` for a head fitted on the draft's or target's states.
        layout: the text that a tag-logits model was trained on.
        head: the file of a value-head or read-out.
        threshold: the trio's own δ, used where the caller names none.
        threshold_from: where δ comes from, for people; empty where nobody measured it.
        system: the system prompt of draft and target, empty for none.
        task: ``arithmetic`` sends questions through abacus' reader, which refuses everything else.
        machine: what it suits, for people.
        parallel: questions answered at once; each takes its own share of every context.
        width: sequences that one question may hold in the draft and in the reward model, for strategies that try more
            than one thing (``sequences_needed``).
    """

    draft: RoleConfig
    target: RoleConfig
    reward: RoleConfig | None = None
    reward_kind: RewardKind = "tag-logits"
    layout: TagLayout = "math-shepherd"
    head: Path | None = None
    threshold: float = 0.7
    threshold_from: str = ""
    system: str = SYSTEM_PROMPT
    task: Literal["any", "arithmetic"] = "any"
    machine: str = ""
    parallel: int = 1
    width: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", self.head and Path(self.head).expanduser())
        require_choice(self.reward_kind, RewardKind, "reward_kind")
        require_choice(self.layout, TagLayout, "layout")
        require_choice(self.task, Literal["any", "arithmetic"], "task")
        kind = self.reward_kind
        if kind in ("tag-logits", "value-head"):
            require(self.reward is not None, f"reward kind {kind} needs a reward model", "name its GGUF file (--reward)")
        if kind in ("confidence", "read-out"):
            require(self.reward is None, f"reward kind {kind} takes no reward model", "leave --reward away")
        needs_head = kind in ("value-head", "read-out")
        require(self.head is not None or not needs_head, f"reward kind {kind} needs a head", "name its safetensors file (--head)")
        require(self.head is None or needs_head, f"reward kind {kind} takes no head", "leave --head away, or choose read-out or value-head")
        require(0.0 <= self.threshold <= 1.0, f"threshold {self.threshold} is outside 0 to 1")
        require(1 <= self.parallel <= 64, f"parallel {self.parallel} is outside 1 to 64")
        require(1 <= self.parallel * self.width <= 256, f"{self.parallel} questions of {self.width} sequences are more than 256")

    def messages(self, question: str) -> list[dict[str, str]]:
        """The chat that draft and target are asked a question in."""
        asked = [{"role": "user", "content": question}]
        return [{"role": "system", "content": self.system}, *asked] if self.system else asked


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 is greedy, and then nothing else matters.
        top_k: the most likely tokens that are kept, 0 for all.
        top_p: the smallest set of likely tokens whose probability reaches this is kept.
        min_p: tokens below this share of the most likely one's probability are dropped.
        seed: of one question; its stream never depends on what else is in a batch.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(0.0 <= self.temperature <= 5.0, f"temperature {self.temperature} is outside 0 to 5")
        require(self.top_k >= 0, f"top_k {self.top_k} is negative")
        require(0.0 < self.top_p <= 1.0, f"top_p {self.top_p} is outside 0 to 1, 0 left out")
        require(0.0 <= self.min_p <= 1.0, f"min_p {self.min_p} is outside 0 to 1")
        require(0 <= self.seed < 2**64, f"seed {self.seed} is outside 0 to 2^64")


@dataclass(frozen=True, slots=True)
class Weighting:
    """The weighting function ω of a reward (paper, section 3 and table 1).

    Attributes:
        kind: ``step`` 1(r ≥ δ), ``constant`` p, ``clip`` min(1, max(0, r)), ``ratio`` max(0, r/(1+r)),
            ``logistic`` 1/(1+e^(−α(r−δ))).
        threshold: δ of ``step`` and ``logistic``.
        probability: p of ``constant``.
        steepness: α of ``logistic``.
    """

    kind: WeightingKind = "step"
    threshold: float = 0.7
    probability: float = 0.5
    steepness: float = 10.0

    def __post_init__(self) -> None:
        require_choice(self.kind, WeightingKind, "weighting")
        require(0.0 <= self.threshold <= 1.0, f"threshold {self.threshold} is outside 0 to 1")
        require(0.0 <= self.probability <= 1.0, f"probability {self.probability} is outside 0 to 1")
        require(0.0 < self.steepness < math.inf, f"steepness {self.steepness} is not above 0")


@dataclass(frozen=True, slots=True)
class Limits:
    """Where one question ends at the latest; no two questions share a limit.

    Attributes:
        tokens: of the solution, in the vocabulary of whoever wrote each step.
        steps: of the solution.
        step_tokens: of one step; a longer one is cut there and judged as it is.
        repeats: how often one and the same step may stand in a solution.
    """

    tokens: int = 2048
    steps: int = 100
    step_tokens: int = 512
    repeats: int = 3

    def __post_init__(self) -> None:
        for limit in fields(self):
            require(getattr(self, limit.name) >= 1, f"limit {limit.name} {getattr(self, limit.name)} is below 1")


@dataclass(frozen=True, slots=True)
class Search:
    """The sizes of strategies that try more than one thing.

    Attributes:
        candidates: draft steps sampled at each place, of which the best one is judged (``rsd``).
        samples: solutions, or steps at each place, that are sampled (``majority``, ``best-of-n``, ``step-best-of-n``).
        beams: solutions that stay at each step (``beam``).
        branches: steps tried after each of them (``beam``).
        aggregate: how the rewards of a solution's steps become one (``best-of-n``).
        speculate: draft tokens verified in one batch of the target (``speculative``); 0: as many as leave its batches rounded
            like single rows, at most 4 (``Sequence.exact_rows``), and 4 where no batch is.
        fallback: whether the target evaluates a rejected step ahead and keeps what it would have written itself
            (``rsd``); ``auto`` where a measured rule says that it pays.
    """

    candidates: int = 1
    samples: int = 8
    beams: int = 2
    branches: int = 4
    aggregate: Aggregate = "last"
    speculate: int = 0
    fallback: Fallback = "auto"

    def __post_init__(self) -> None:
        require(0 <= self.speculate <= 64, f"speculate {self.speculate} is outside 0 to 64")
        for name in ("candidates", "samples", "beams", "branches"):
            require(1 <= getattr(self, name) <= 64, f"{name} {getattr(self, name)} is outside 1 to 64")
        require_choice(self.aggregate, Aggregate, "aggregate")
        require_choice(self.fallback, Fallback, "fallback")


@dataclass(frozen=True, slots=True)
class Params:
    """Everything that one question's run depends on besides the trio and the strategy."""

    sampling: Sampling = field(default_factory=Sampling)
    weighting: Weighting = field(default_factory=Weighting)
    limits: Limits = field(default_factory=Limits)
    search: Search = field(default_factory=Search)


def sequences_needed(strategy: Strategy, search: Search) -> int:
    """How many sequences one question of a strategy holds at once in the draft and in the reward model."""
    if strategy in ("majority", "best-of-n", "step-best-of-n"):
        return search.samples + 1
    if strategy == "beam":
        return search.beams * (search.branches + 1)
    return search.candidates + 1 if strategy == "rsd" and search.candidates > 1 else 1


def default_temperature(strategy: Strategy, search: Search) -> float:
    """0.7 for a strategy that tries several things, which would all be the same at 0; 0 for every other."""
    return 0.7 if strategy in ("majority", "best-of-n", "step-best-of-n", "beam") or (strategy == "rsd" and search.candidates > 1) else 0.0
