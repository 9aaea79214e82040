"""Steps of a solution: who writes them, what they are, and when a solution ends."""

from __future__ import annotations

import codecs
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rsd_local.answers import boxed
from rsd_local.config import Limits
from rsd_local.errors import Cancelled, ContextFull
from rsd_local.events import CancelToken, Counters, Finished, FinishReason, Role, total
from rsd_local.runtime import Drawer, EndOfStep, Engine, Guess, Pool, Sequence, Trace, Tracing

DELIMITER = b"\n\n"
NO_GUESS = Guess()


@dataclass(frozen=True, slots=True)
class Step:
    """What one model wrote in one go.

    Attributes:
        tokens: in its author's vocabulary, an end-of-text token included.
        raw: their bytes, the delimiter included.
        ended: by the delimiter, the end of the text, a length limit or the context's end.
        trace: what its writer let be seen, where it was asked to.
    """

    tokens: list[int]
    raw: bytes
    ended: EndOfStep
    trace: Trace | None = None

    @property
    def text(self) -> str:
        """The bytes as text; a character cut by a limit becomes U+FFFD."""
        return self.raw.decode("utf-8", "replace")

    @property
    def blank(self) -> bool:
        """Whether nothing stands in it that could be judged: the text ended at once."""
        return not self.raw.strip()


Writing = Callable[[], Step]
"""Waits for a step that was started."""


class Writer:
    """A draft or target at one question: its sequence, and the draws of its tokens.

    Args:
        sequence: holds the question's tokens.
        sampler: draws this writer's tokens.
        family: sequences of all writers that were forked from the same; this one's is added.
        same_tokens: whether steps by the other model can be read by their tokens.
        tracing: what trace its steps are to carry.
    """

    def __init__(self, sequence: Sequence, sampler: Drawer, family: list[Sequence], *, same_tokens: bool, tracing: Tracing) -> None:
        self.sequence, self.sampler, self.same_tokens, self._tracing = sequence, sampler, same_tokens, tracing
        self._family = family
        self._before = len(sequence)
        family.append(sequence)

    @classmethod
    def open(cls, engines: Pool, prompt: list[int], sampler: Drawer, *, same_tokens: bool, tracing: Tracing = "off") -> Writer:
        """A writer at a question's tokens.

        Raises:
            ContextFull: they do not fit.
        """
        sequence = engines.sequence()
        try:
            sequence.append(prompt)
        except ContextFull:
            sequence.close()
            raise
        sequence.counters.opening_tokens = len(prompt)
        return cls(sequence, sampler, [], same_tokens=same_tokens, tracing=tracing)

    @property
    def engine(self) -> Engine:
        """That of its sequence."""
        return self.sequence.engine

    def begin(self) -> None:
        """Says that a step starts here: the place that ``forget`` and ``replace`` go back to."""
        self._before = len(self.sequence)
        self.sequence.mark()

    def start_writing(
        self, limit: int, cancel: CancelToken | None, *, until: bytes = DELIMITER, guess: Guess = NO_GUESS, sampler: Drawer | None = None
    ) -> Writing:
        """Goes on writing; the outcome ends with the delimiter, the text's end, or after ``limit`` tokens.

        Draws come from ``sampler`` where one is given: then nothing is traced, and this writer's own stream stays as it is.
        """
        tracing = self._tracing if sampler is None else "off"
        writing = self.sequence.generate(sampler or self.sampler, limit, until=until, guess=guess, tracing=tracing, cancel=cancel)

        def finish() -> Step:
            made = writing.result()
            return Step(made.tokens, made.text, made.ended, made.trace)

        return finish

    def write_step(self, limit: int, cancel: CancelToken | None, *, guess: Guess = NO_GUESS) -> Step:
        """Begins a step and writes it to its end."""
        self.begin()
        return self.start_writing(limit, cancel, guess=guess)()

    def forget(self) -> None:
        """Takes back the step that was written last; the cache is as before it."""
        self.sequence.truncate(self._before)

    def read(self, step: Step) -> None:
        """Notes a step of the other model; it is evaluated together with the next one to write."""
        self.begin()
        self.replace(self.tokens_of(step))

    def tokens_of(self, step: Step) -> list[int]:
        """A step of the other model in this one's vocabulary."""
        return step.tokens if self.same_tokens else self.engine.model.tokenize(step.text, continues=True)

    def correct(self, step: Step) -> None:
        """Notes the step of the other model that stands in place of one's own."""
        if self.same_tokens:
            self.replace(step.tokens)
        else:
            self.forget()
            self.read(step)

    def replace(self, tokens: list[int]) -> None:
        """Lets these tokens stand where the step began; what the cache holds of them already is kept."""
        self.sequence.replace(self._before, tokens)

    def fork(self, sampler: Drawer) -> Writer:
        """Another writer that goes on from here with draws of its own and shares the cache."""
        return Writer(self.sequence.fork(), sampler, self._family, same_tokens=self.same_tokens, tracing=self._tracing)

    def settle(self, cancel: CancelToken | None) -> None:
        """Begins a step and evaluates what stands but for its last token, so that forks share it."""
        self.begin()
        self.sequence.prefill(cancel).result()

    def adopt(self, fork: Writer) -> None:
        """Goes on where a fork has come to; the fork gets what this one had."""
        self.sequence, fork.sequence = fork.sequence, self.sequence

    def discard(self) -> None:
        """Forgets what was written since the step's start, and gives the cache back, also while it is still being written."""
        if self.sequence.request is None:
            self.forget()
        self.close()

    def counters(self) -> Counters:
        """What was evaluated and written so far, by this one and all that were forked from the same."""
        return total(sequence.counters for sequence in self._family)

    def close(self) -> None:
        """Gives the cache back."""
        self.sequence.close()


class Solution:
    """The steps that stand, the limits of their question, and why it ended: ``reason``, None while it goes on."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._raw = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._seen: Counter[bytes] = Counter()
        self.steps = 0
        self.tokens = 0
        self.reason: FinishReason | None = None

    @property
    def room(self) -> int:
        """Tokens that the next step may take."""
        return min(self._limits.step_tokens, self._limits.tokens - self.tokens)

    @property
    def text(self) -> str:
        """The whole solution so far."""
        return self._raw.decode("utf-8", "replace")

    @property
    def answer(self) -> str | None:
        """What stands in the last ``\\boxed{}``."""
        return boxed(self.text)

    def add(self, step: Step) -> str:
        """Takes a step that stands, and sets the reason where the solution ends with it; returns the text that is new.

        A character that a limit cut in two belongs to the step that completes it.
        """
        self._raw += step.raw
        self.steps += 1
        self.tokens += len(step.tokens)
        self._seen[step.raw.strip()] += 1
        if step.ended == "end":
            self.reason = "stop"
        elif step.ended == "context":
            self.reason = "context"
        elif self.tokens >= self._limits.tokens:
            self.reason = "length"
        elif self._seen[step.raw.strip()] >= self._limits.repeats:
            self.reason = "repetition"
        elif self.steps >= self._limits.steps:
            self.reason = "steps"
        return self._decoder.decode(step.raw, final=self.reason is not None)

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Around the work on one step: a cancel ends the solution, and so does a full context once there is a step."""
        try:
            yield
        except ContextFull:
            if self.steps == 0:
                raise
            self.reason = "context"
        except Cancelled:
            self.reason = "cancelled"

    def finished(self, counters: dict[Role, Counters], non_finite_rewards: int = 0) -> Finished:
        """The final event."""
        return Finished(self.reason or "stop", self.text, self.answer, counters, non_finite_rewards)


def finite(reward: float | None) -> float | None:
    """The reward, or None where there is none or it is no finite number."""
    return reward if reward is not None and math.isfinite(reward) else None
