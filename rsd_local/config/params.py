"""What one question's run depends on besides the trio: sampling, weighting, limits and sizes of searches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from rsd_local.config.checks import require, require_choice

WeightingKind = Literal["step", "constant", "clip", "ratio", "logistic"]
Aggregate = Literal["last", "min", "product"]
Fallback = Literal["auto", "on", "off"]
Ways = tuple[Literal["draft", "target", "speculate"], ...]
Strategy = Literal["rsd", "target", "draft", "speculative", "majority", "best-of-n", "step-best-of-n", "beam", "auto"]
Unchecked = Literal["accept", "target"]
StopAfter = Literal["never", "code-block"]
ThinkMode = Literal["auto", "on", "off"]
TemplateValue = str | bool | int | float | None
_AGAIN = 0.7
_GRAMMAR = 1 << 18
_TEMPLATES_OWN = ("messages", "add_generation_prompt", "bos_token", "eos_token")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 is greedy, and then nothing else matters but the penalties.
        top_k: the most likely tokens that are kept, 0 for all.
        top_p: the smallest set of likely tokens whose probability reaches this is kept.
        min_p: tokens below this share of the most likely one's probability are dropped.
        seed: of one question; its stream never depends on what else is in a batch.
        repeat_penalty: divides a positive logit of a token that was written lately and multiplies a negative one; 1 for none.
        presence_penalty: subtracted from the logit of each token that was written lately.
        frequency_penalty: subtracted for each time that it was written.
        penalty_last_n: how many tokens count as lately; 0 switches the penalties off.
        grammar: that the answer follows, in GBNF with a rule ``root``; empty for none. A thought before the answer is free of it.
            ``json_schema_to_grammar`` makes one of a JSON schema.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    grammar: str = ""

    def __post_init__(self) -> None:
        require(0.0 <= self.temperature <= 5.0, f"temperature {self.temperature} is outside 0 to 5")
        require(self.top_k >= 0, f"top_k {self.top_k} is negative")
        require(0.0 < self.top_p <= 1.0, f"top_p {self.top_p} is outside 0 to 1, 0 left out")
        require(0.0 <= self.min_p <= 1.0, f"min_p {self.min_p} is outside 0 to 1")
        require(0 <= self.seed < 2**64, f"seed {self.seed} is outside 0 to 2^64 - 1")
        require(
            0.01 <= self.repeat_penalty <= 100, f"repeat_penalty {self.repeat_penalty} is outside 0.01 to 100", "1 is none, 1.1 is usual"
        )
        require(-2 <= self.presence_penalty <= 2, f"presence_penalty {self.presence_penalty} is outside -2 to 2")
        require(-2 <= self.frequency_penalty <= 2, f"frequency_penalty {self.frequency_penalty} is outside -2 to 2")
        require(self.penalty_last_n >= 0, f"penalty_last_n {self.penalty_last_n} is negative", "0 switches the penalties off")
        require(len(self.grammar) <= _GRAMMAR, f"a grammar of {len(self.grammar):,} characters is longer than {_GRAMMAR:,}")

    @property
    def again(self) -> Sampling:
        """How a further try at the same step is drawn: at temperature 0.7 where the first one was greedy, or all would be the same."""
        return replace(self, temperature=_AGAIN) if self.temperature == 0 else self


@dataclass(frozen=True, slots=True)
class Weighting:
    """The weighting function ω of a reward (paper, section 3 and table 1).

    Attributes:
        kind: ``step`` 1(r ≥ δ), ``constant`` p, ``clip`` min(1, max(0, r)), ``ratio`` max(0, r/(1+r)),
            ``logistic`` 1/(1+e^(−α(r−δ))).
        threshold: δ of ``step`` and ``logistic``.
        probability: p of ``constant``.
        steepness: α of ``logistic``.
        redrafts: how often the draft tries again before the target writes a step, drawing by ``Sampling.again``.
        hand_over: after so many places in a row whose step the target had to write, it writes all the rest; 0 for never.
        unchecked: what becomes of a step of which the reward had nothing to check: it is accepted, or the target writes it.
        route_entropy: the target writes a step for which the draft's first token would be drawn from more entropy than this, in nats,
            and the draft does not begin it (GlimpRouter, arXiv 2601.05110); 0 for never.
        target_budget: the most that the target may write, one step excepted, as a share of the answer's tokens so far; a step that it
            cannot afford is the draft's.
    """

    kind: WeightingKind = "step"
    threshold: float = 0.7
    probability: float = 0.5
    steepness: float = 10.0
    redrafts: int = 0
    hand_over: int = 0
    unchecked: Unchecked = "accept"
    route_entropy: float = 0.0
    target_budget: float = 1.0

    def __post_init__(self) -> None:
        require_choice(self.kind, WeightingKind, "weighting")
        require_choice(self.unchecked, Unchecked, "unchecked")
        require(0.0 <= self.threshold <= 1.0, f"threshold {self.threshold} is outside 0 to 1")
        require(0.0 <= self.probability <= 1.0, f"probability {self.probability} is outside 0 to 1")
        require(0.0 < self.steepness < math.inf, f"steepness {self.steepness} is not above 0")
        require(0 <= self.redrafts <= 64, f"redrafts {self.redrafts} is outside 0 to 64")
        require(0 <= self.hand_over <= 1000, f"hand_over {self.hand_over} is outside 0 to 1000")
        require(0.0 <= self.route_entropy < math.inf, f"route_entropy {self.route_entropy} is not at least 0")
        require(0.0 <= self.target_budget <= 1.0, f"target_budget {self.target_budget} is outside 0 to 1")
        require(self.target_budget == 1 or not self.hand_over, "hand_over beside a target_budget", "give one of them")


@dataclass(frozen=True, slots=True)
class Limits:
    """Where one question ends at the latest; no two questions share a limit.

    Attributes:
        tokens: of the solution, in the vocabulary of whoever wrote each step.
        steps: of the solution.
        step_tokens: of one step; a longer one is cut there and judged as it is.
        repeats: how often in a row one step, or one cycle of steps, ends the solution; 0 for never.
        stop: texts that end the solution; they are no part of it.
        stop_after: whether the solution ends with its first accepted code block; blocks for a shell and for output are none.
    """

    tokens: int = 2048
    steps: int = 100
    step_tokens: int = 512
    repeats: int = 3
    stop: tuple[str, ...] = ()
    stop_after: StopAfter = "never"

    def __post_init__(self) -> None:
        for name in ("tokens", "steps", "step_tokens"):
            require(getattr(self, name) >= 1, f"a limit of {getattr(self, name)} {name.replace('_', ' ')} is below 1")
        require(self.repeats == 0 or self.repeats >= 2, f"repeats {self.repeats} is neither 0 (never) nor 2 or more")
        object.__setattr__(self, "stop", tuple(self.stop))
        require_choice(self.stop_after, StopAfter, "stop_after")


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
            like single rows, at most 3 (``Sequence.exact_rows``), and 3 where no batch is.
        fallback: whether the target evaluates a rejected step ahead and keeps what it would have written itself
            (``rsd``), and the guesses of its own multi-token head; ``auto`` where a measured rule says that it pays.
        retries: how often the target tries again where its own step fails its check, of which the best one stays (``rsd``), drawing
            by ``Sampling.again``.
        ways: how the steps of an earlier answer came about, to make it again (``auto``); further steps are chosen anew.
    """

    candidates: int = 1
    samples: int = 8
    beams: int = 2
    branches: int = 4
    aggregate: Aggregate = "last"
    speculate: int = 0
    fallback: Fallback = "auto"
    retries: int = 0
    ways: Ways = ()

    def __post_init__(self) -> None:
        require(0 <= self.speculate <= 64, f"speculate {self.speculate} is outside 0 to 64")
        require(0 <= self.retries <= 64, f"retries {self.retries} is outside 0 to 64")
        for name in ("candidates", "samples", "beams", "branches"):
            require(1 <= getattr(self, name) <= 64, f"{name} {getattr(self, name)} is outside 1 to 64")
        require_choice(self.aggregate, Aggregate, "aggregate")
        require_choice(self.fallback, Fallback, "fallback")
        object.__setattr__(self, "ways", tuple(self.ways))
        for way in self.ways:
            require_choice(way, get_args(Ways)[0], "way")


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether models think before they answer, and how their chat templates are asked.

    Attributes:
        mode: ``auto`` as each template has it by itself; ``on`` and ``off`` tell the template, and open or close the thought where
            it cannot be told.
        budget: tokens behind which a thought is closed at the end of a step; 0 for none.
        effort: ``reasoning_effort`` for templates that know it, such as low, medium or high; empty for their own.
        template: further variables of the template, by name.
        scored: every so many steps of a thought are scored, the others are accepted; 0 for none: a reward that was not trained on
            thoughts then sees the answer only.
    """

    mode: ThinkMode = "auto"
    budget: int = 0
    effort: str = ""
    template: tuple[tuple[str, TemplateValue], ...] = ()
    scored: int = 1

    def __post_init__(self) -> None:
        require_choice(self.mode, ThinkMode, "think")
        require(0 <= self.budget <= 10_000_000, f"think_budget {self.budget} is outside 0 to 10,000,000")
        require(0 <= self.scored <= 1000, f"score_thoughts {self.scored} is outside 0 to 1000", "1 scores each step of a thought, 0 none")
        given = self.template.items() if isinstance(self.template, Mapping) else self.template
        object.__setattr__(self, "template", tuple((str(name), value) for name, value in given))
        for name, value in self.template:
            require(name.isidentifier() and name not in _TEMPLATES_OWN, f"template variable {name!r} cannot be set")
            plain = value is None or isinstance(value, str | bool | int | float)
            require(plain, f"template variable {name} is {value!r}", "give a text, a number, true or false")

    @property
    def variables(self) -> tuple[tuple[str, TemplateValue], ...]:
        """What the template is given."""
        asked: dict[str, TemplateValue] = {} if self.mode == "auto" else dict.fromkeys(("enable_thinking", "thinking"), self.mode == "on")
        asked |= {"reasoning_effort": self.effort} if self.effort else {}
        return tuple((asked | dict(self.template)).items())


@dataclass(frozen=True, slots=True)
class Params:
    """Everything that one question's run depends on besides the trio and the strategy."""

    sampling: Sampling = field(default_factory=Sampling)
    weighting: Weighting = field(default_factory=Weighting)
    limits: Limits = field(default_factory=Limits)
    search: Search = field(default_factory=Search)
    thinking: Thinking = field(default_factory=Thinking)


def sequences_needed(strategy: Strategy, search: Search) -> int:
    """How many sequences one question of a strategy holds at once in the draft and in the reward model."""
    if strategy in ("majority", "best-of-n", "step-best-of-n"):
        return search.samples + 1
    if strategy == "beam":
        return search.beams * (search.branches + 1)
    return search.candidates + 1 if strategy in ("rsd", "auto") and search.candidates > 1 else 1


def default_temperature(strategy: Strategy, search: Search) -> float:
    """0.7 for a strategy that tries several things, which would all be the same at 0; 0 for every other."""
    return (
        0.7
        if strategy in ("majority", "best-of-n", "step-best-of-n", "beam") or (strategy in ("rsd", "auto") and search.candidates > 1)
        else 0.0
    )
