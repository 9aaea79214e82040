"""What a run tells while it goes, what it leaves at its end, and the token that stops it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Literal

from rsd_local.steps import Part

Author = Literal["draft", "target"]
Role = Literal["draft", "target", "reward", "reward-2", "reward-3", "reward-4"]
"""Whose model it is; of the rewards of a cascade each that asks a model of its own has one."""
Way = Literal["draft", "target", "speculate"]
"""How a step comes about: the draft writes it and a reward decides, the target writes it, or it does with tokens that the draft guesses."""
FinishReason = Literal["stop", "length", "steps", "repetition", "context", "cancelled"]


class CancelToken:
    """Stops a run from any thread; once cancelled it stays so."""

    def __init__(self) -> None:
        self._cancelled = False
        self._lock = threading.RLock()  # a signal handler may cancel while this thread is inside
        self._callbacks: dict[int, Callable[[], None]] = {}

    def cancel(self) -> None:
        """Ask the run to stop; it does within one batch. Callbacks are called in this thread, each once."""
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call ``callback`` when the token is cancelled while the block runs, at once where it is already.

        Args:
            callback: wakes what waits inside the block, in whatever thread cancels; it must not wait itself.
        """
        with self._lock:
            self._callbacks[id(callback)] = callback
            late = self._cancelled
        try:
            if late:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.pop(id(callback), None)


@dataclass(slots=True)
class Counters:
    """What one role did for one question.

    Attributes:
        parameters: N, the number of weights that a token meets: all of the model's, of a mixture of experts the active ones.
        prompt_tokens: tokens evaluated that this model did not write itself.
        opening_tokens: tokens that stood before the first step (the prompt).
        cached_tokens: those of them that an earlier sequence had left in the cache, and that were not evaluated again.
        generated_tokens: tokens written, discarded ones included.
        discarded_tokens: those of them that a rejection threw away.
        unused_tokens: tokens written behind a step that was not accepted in the end, while its reward was waited for; neither generated
            nor discarded ones.
        evaluated_tokens: rows that went through the model, of every kind.
        ahead_tokens: those of them that were a guess of what would be written.
        kept_tokens: those of the guess that were written.
        missed_guesses: times that another token was written than guessed.
        decode_calls: batches that held a row of this role.
        seconds: time of those batches, shared by rows among the questions in them; of an engine of one thread that of its processor.
        waiting_seconds: of its requests, in which no batch held a row of them; of a model on a server those of the way there and back.
        rounds: requests to its server.
        sent_bytes, received_bytes: of those requests and their answers.
    """

    parameters: int = 0
    prompt_tokens: int = 0
    opening_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    discarded_tokens: int = 0
    unused_tokens: int = 0
    evaluated_tokens: int = 0
    ahead_tokens: int = 0
    kept_tokens: int = 0
    missed_guesses: int = 0
    decode_calls: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    rounds: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def add(self, other: Counters) -> None:
        """Adds another sequence's figures of the same model."""
        self.parameters = other.parameters
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def total(parts: Iterable[Counters]) -> Counters:
    """The sum of counters of one model."""
    whole = Counters()
    for part in parts:
        whole.add(part)
    return whole


_SUMMED = [entry.name for entry in fields(Counters) if entry.name != "parameters"]


@dataclass(frozen=True, slots=True)
class TextWritten:
    """Text as it is written, before anybody knows whether it is accepted; a later ``StepDone`` of the same index has what was.

    Attributes:
        index: of the step, from 0.
        author: who writes it.
        text: what came to it.
        attempt: how often this author tried before at this step; a new try begins with an empty text.
        part: of the answer.
    """

    index: int
    author: Author
    text: str
    attempt: int = 0
    part: Part = "answer"


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the next step is to come about, or what is left of one that the target writes (``auto``).

    Attributes:
        index: of the step, from 0.
        way: that was chosen.
        seconds: a token of each way so far, by the clock, or of batches alone where several questions are answered at once; ways
            that were not measured yet are missing.
    """

    index: int
    way: Way
    seconds: dict[Way, float]


@dataclass(frozen=True, slots=True)
class Drafted:
    """A step that the draft has written and whose reward is being read; whether it is accepted, ``StepDone`` says.

    Attributes:
        index: from 0.
        text: as written.
    """

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A draft step that was not accepted; ``reward`` is None where there was none, or no number."""

    text: str
    reward: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """One accepted step.

    Attributes:
        index: from 0.
        author: who wrote it.
        text: as written, the delimiter included, without the tags of a thought.
        reward: of the draft's candidate for this place, in [0, 1]: of this step where the draft wrote it, of the
            rejected one where the target did; None where nothing was checked, or the reward failed.
        tokens: in its author's vocabulary.
        seconds: from the end of the step before to the end of this one, without the time that the caller took between events.
        rejected: the last draft step that the target replaced.
        part: of the answer.
        reward_by: which reward decided, empty where nothing was checked.
        reward_failed: whether the reward gave no number.
        own_reward: of the target's step itself, where it was checked; None otherwise.
        retries: how often the target tried again.
        target_failed: whether the draft's step stands because the target's server failed.
    """

    index: int
    author: Author
    text: str
    reward: float | None
    tokens: int
    seconds: float
    rejected: Rejected | None = None
    part: Part = "answer"
    reward_by: str = ""
    reward_failed: bool = False
    own_reward: float | None = None
    retries: int = 0
    target_failed: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a run: why, what it wrote, and what it cost.

    Attributes:
        text: the solution without its thought.
        thought: what was thought before it, empty for nothing.
        non_finite_rewards: rewards that were no numbers; none of those steps was accepted.
        unchecked_steps: steps that the reward had nothing to check of.
        decided_by: how many draft steps each reward decided about, by its name.
    """

    reason: FinishReason
    text: str
    answer: str | None
    counters: dict[Role, Counters]
    non_finite_rewards: int = 0
    unchecked_steps: int = 0
    decided_by: dict[str, int] = field(default_factory=dict)
    thought: str = ""


def acceptance(steps: Iterable[StepDone]) -> tuple[int, int]:
    """How many places of an answer have a step of the draft, and at how many the draft had written one at all.

    Where the draft tried several times, that is one place. A step that the target wrote before the draft did is none.
    """
    accepted = replaced = 0
    for step in steps:
        accepted += step.author == "draft"
        replaced += step.author == "target" and step.rejected is not None
    return accepted, accepted + replaced


Event = TextWritten | Chosen | Drafted | StepDone | Finished


@dataclass(frozen=True, slots=True)
class Result:
    """One question's outcome.

    Attributes:
        answer: the content of the last ``\\boxed{}``, None where there is none.
        text: the whole solution, without its thought.
        thought: what was thought before it, empty for nothing.
        counters: raw figures by role.
        non_finite_rewards: rewards that were no numbers; none of those steps was accepted.
        unchecked_steps: steps that the reward had nothing to check of.
        decided_by: how many draft steps each reward decided about, by its name.
        ways: how each step came about, where that was chosen (``auto``).
    """

    answer: str | None
    text: str
    finish_reason: FinishReason
    steps: tuple[StepDone, ...]
    counters: dict[Role, Counters] = field(repr=False)
    non_finite_rewards: int = 0
    unchecked_steps: int = 0
    decided_by: dict[str, int] = field(default_factory=dict)
    thought: str = ""
    ways: tuple[Way, ...] = ()

    @property
    def paper_flops(self) -> float:
        """2·N per generated token, discarded ones and the reward model's tokens after the question included.

        Tokens written while a reward was waited for and then not used are not: the paper's draft waits, and how many there are depends
        on the time that the reward takes. ``full_flops`` has them.
        """
        generated = sum(2.0 * c.parameters * c.generated_tokens for c in self.counters.values())
        return generated + sum(
            2.0 * c.parameters * max(0, c.prompt_tokens + c.cached_tokens - c.opening_tokens)
            for role, c in self.counters.items()
            if role not in ("draft", "target")
        )

    @property
    def full_flops(self) -> float:
        """2·N per token evaluated by any model, questions and catch-up included."""
        return sum(2.0 * c.parameters * c.evaluated_tokens for c in self.counters.values())

    @property
    def target_share(self) -> float:
        """The share of steps that the target wrote, NaN where there is no step."""
        return sum(step.author == "target" for step in self.steps) / len(self.steps) if self.steps else math.nan
