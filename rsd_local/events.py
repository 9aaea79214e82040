"""What a run tells while it goes, what it leaves at its end, and the token that stops it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Literal

Author = Literal["draft", "target"]
Role = Literal["draft", "target", "reward"]
FinishReason = Literal["stop", "length", "steps", "repetition", "context", "cancelled"]


class CancelToken:
    """Stops a run from any thread; once cancelled it stays so."""

    def __init__(self) -> None:
        self._flag = threading.Event()

    def cancel(self) -> None:
        """Asks the run to stop; it does within one batch."""
        self._flag.set()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._flag.is_set()


@dataclass(slots=True)
class Counters:
    """What one role did for one question.

    Attributes:
        parameters: N, the model's number of weights.
        prompt_tokens: tokens evaluated that this model did not write itself.
        opening_tokens: those of them that stood before the first step (the question).
        generated_tokens: tokens written, discarded ones included.
        discarded_tokens: those of them that a rejection threw away.
        evaluated_tokens: rows that went through the model, of every kind.
        ahead_tokens: those of them that were a guess of what would be written.
        kept_tokens: those of the guess that were written.
        missed_guesses: times that something else was written than guessed.
        decode_calls: batches that held a row of this role.
        seconds: time of those batches, shared by rows among the questions in them; of an engine of one thread that of its processor.
    """

    parameters: int = 0
    prompt_tokens: int = 0
    opening_tokens: int = 0
    generated_tokens: int = 0
    discarded_tokens: int = 0
    evaluated_tokens: int = 0
    ahead_tokens: int = 0
    kept_tokens: int = 0
    missed_guesses: int = 0
    decode_calls: int = 0
    seconds: float = 0.0

    def add(self, other: Counters) -> None:
        """Adds another sequence's figures of the same model."""
        self.parameters = other.parameters
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def since(self, before: Counters) -> Counters:
        """What was added after an earlier state of these counters."""
        return replace(self, **{name: getattr(self, name) - getattr(before, name) for name in _SUMMED})


def total(parts: Iterable[Counters]) -> Counters:
    """The sum of counters of one model."""
    whole = Counters()
    for part in parts:
        whole.add(part)
    return whole


_SUMMED = [entry.name for entry in fields(Counters) if entry.name != "parameters"]


@dataclass(frozen=True, slots=True)
class Drafted:
    """A step that the draft has written and that is about to be scored; whether it stands, ``StepDone`` says.

    Attributes:
        index: from 0.
        text: as written.
    """

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A draft step that did not stand."""

    text: str
    reward: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """One step that stands.

    Attributes:
        index: from 0.
        author: who wrote it.
        text: as written, the blank line at its end included.
        reward: of the draft's candidate for this place, in [0, 1]: of this step where the draft wrote it, of the
            rejected one where the target did; None where nothing was judged or the reward was no finite number.
        tokens: in its author's vocabulary.
        seconds: from the end of the step before to the end of this one.
        rejected: what the target replaced.
    """

    index: int
    author: Author
    text: str
    reward: float | None
    tokens: int
    seconds: float
    rejected: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a run: why, what it wrote, and what it cost."""

    reason: FinishReason
    text: str
    answer: str | None
    counters: dict[Role, Counters]
    non_finite_rewards: int = 0


Event = Drafted | StepDone | Finished


@dataclass(frozen=True, slots=True)
class Result:
    """One question's outcome.

    Attributes:
        answer: the content of the last ``\\boxed{}``, None where there is none.
        text: the whole solution.
        counters: raw figures by role.
        non_finite_rewards: rewards that were no numbers, none of which was accepted.
    """

    answer: str | None
    text: str
    finish_reason: FinishReason
    steps: tuple[StepDone, ...]
    counters: dict[Role, Counters] = field(repr=False)
    non_finite_rewards: int = 0

    @property
    def paper_flops(self) -> float:
        """2·N per generated token, discarded ones and the reward model's tokens after the question included."""
        generated = sum(2.0 * c.parameters * c.generated_tokens for c in self.counters.values())
        judged = self.counters.get("reward", Counters())
        return generated + 2.0 * judged.parameters * max(0, judged.prompt_tokens - judged.opening_tokens)

    @property
    def full_flops(self) -> float:
        """2·N per token evaluated by any model, questions and catch-up included."""
        return sum(2.0 * c.parameters * c.evaluated_tokens for c in self.counters.values())

    @property
    def target_share(self) -> float:
        """The share of steps that the target wrote, NaN where there is no step."""
        return sum(step.author == "target" for step in self.steps) / len(self.steps) if self.steps else math.nan
