"""Steps of a solution: who writes them, what they are, and when a solution ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rsd_local.answers import boxed
from rsd_local.config import Limits
from rsd_local.events import CancelToken, Counters, FinishReason
from rsd_local.runtime import Engine, Sampler
from rsd_local.runtime.sequence import EndOfStep

DELIMITER = b"\n\n"


@dataclass(frozen=True, slots=True)
class Step:
    """What one model wrote in one go.

    Attributes:
        tokens: in its author's vocabulary, an end-of-text token included.
        raw: their bytes, the delimiter included.
        ended: by the delimiter, the end of the text, a length limit or the context's end.
    """

    tokens: list[int]
    raw: bytes
    ended: EndOfStep

    @property
    def text(self) -> str:
        """The bytes as text; a character cut by a limit becomes U+FFFD."""
        return self.raw.decode("utf-8", "replace")

    @property
    def blank(self) -> bool:
        """Whether nothing stands in it that could be judged: the text ended at once."""
        return not self.raw.strip()


class Writer:
    """A draft or target at one question: its sequence, and the draws of its tokens.

    Args:
        engine: the model's.
        prompt: the question's tokens.
        sampler: of this question.
        same_tokens: whether steps by the other model can be read by their tokens.
    """

    def __init__(self, engine: Engine, prompt: list[int], sampler: Sampler, *, same_tokens: bool) -> None:
        self._model, self._sampler, self._same_tokens = engine.model, sampler, same_tokens
        self._sequence = engine.sequence()
        try:
            self._sequence.append(prompt)
        except BaseException:
            self._sequence.close()
            raise
        self._opening = self._before = len(prompt)

    def write_step(self, limit: int, cancel: CancelToken | None) -> Step:
        """Writes until the delimiter completes, the text ends, or ``limit`` tokens are written."""
        self._before = len(self._sequence)
        self._sequence.mark()
        made = self._sequence.generate(self._sampler, limit, until=DELIMITER, cancel=cancel).result()
        self._sequence.counters.opening_tokens = self._opening
        return Step(made.tokens, made.text, made.ended)

    def forget(self) -> None:
        """Takes back the step that was written last; the cache is as before it."""
        self._sequence.truncate(self._before)

    def read(self, step: Step) -> None:
        """Notes a step of the other model; it is evaluated together with the next one to write."""
        tokens = step.tokens if self._same_tokens else self._model.tokenize(step.text, continues=True)
        self._sequence.append(tokens)

    def counters(self) -> Counters:
        """What was evaluated and written so far."""
        return self._sequence.take_counters()

    def close(self) -> None:
        """Gives the cache back."""
        self._sequence.close()


class Solution:
    """The steps that stand, and the limits of their question."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._raw = bytearray()
        self._seen: Counter[bytes] = Counter()
        self.steps = 0
        self.tokens = 0

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

    def add(self, step: Step) -> FinishReason | None:
        """Takes a step that stands; returns why the solution ends with it, None where it goes on."""
        self._raw += step.raw
        self.steps += 1
        self.tokens += len(step.tokens)
        self._seen[step.raw.strip()] += 1
        if step.ended == "end":
            return "stop"
        if step.ended == "context":
            return "context"
        if self.tokens >= self._limits.tokens:
            return "length"
        if self._seen[step.raw.strip()] >= self._limits.repeats:
            return "repetition"
        return "steps" if self.steps >= self._limits.steps else None
