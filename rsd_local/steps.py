"""A step of a solution, what its writer let be seen of it, and what a reward says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

EndOfStep = Literal["delimiter", "end", "stop", "block", "length", "context", "mismatch"]
Part = Literal["thought", "answer"]
THOUGHT_BEGIN, THOUGHT_END = b"<think>", b"</think>"
"""A thought's tags in the bytes of a step, whoever wrote it."""
THOUGHT_TAGS = (THOUGHT_BEGIN.decode(), THOUGHT_END.decode())
"""The same as texts."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model let be seen while it wrote: one row for each token.

    Attributes:
        hidden: (n, n_embd), the state after the final norm that each token was drawn from; (n, 0) where none is kept.
        log_probabilities: (n,), natural, of each token among the whole vocabulary at temperature 1.
        entropies: (n,), in nats, of what each was drawn from.
        after: (n_embd,), the state after the last token; None where the text ended with that one.
    """

    hidden: Floats
    log_probabilities: Floats
    entropies: Floats
    after: Floats | None = None

    @classmethod
    def empty(cls) -> Trace:
        """Of a step whose writer lets nothing be seen."""
        import numpy as np

        return cls(np.zeros((0, 0), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32))

    @property
    def end(self) -> Floats:
        """The state (n_embd,) after the last token of text: an end-of-text token is none."""
        last: Floats = self.hidden[-1] if self.after is None else self.after
        return last

    def rows(self, first: int, last: int) -> Trace:
        """The rows from ``first`` up to ``last``, that one left out."""
        after = self.hidden[last] if last < len(self.hidden) else self.after
        return Trace(self.hidden[first:last], self.log_probabilities[first:last], self.entropies[first:last], after)


@dataclass(frozen=True, slots=True)
class Step:
    """What one model wrote in one go. It travels whole: nothing is stripped from it and put back later.

    Attributes:
        tokens: in its author's vocabulary, an end-of-text token included.
        raw: their bytes, the delimiter included; a character that a limit cut continues in the next step.
        ended: by the delimiter, an end-of-text token, a stop string (cut off), the code block that ends the answer, a length
            limit, the context's end, or the first token that a hint did not have.
        trace: what its writer let be seen, where it was asked to.
        part: of the answer that it belongs to.
        takes_back: bytes at the end of the steps before that belong to a stop string which this one completed.
    """

    tokens: list[int]
    raw: bytes
    ended: EndOfStep
    trace: Trace | None = None
    part: Part = "answer"
    takes_back: int = 0

    def then(self, rest: Step, stopped: int | None = None) -> Step:
        """This step with what was written behind it as one, without a trace.

        Args:
            rest: it; its end and its part are the whole's.
            stopped: where a stop string begins in the bytes of both, which is cut off.
        """
        raw = (self.raw + rest.raw)[:stopped]
        return Step(self.tokens + rest.tokens, raw, rest.ended, part=rest.part, takes_back=rest.takes_back)

    @property
    def text(self) -> str:
        """The bytes as text, without the tags of a thought; a character that a limit cut becomes U+FFFD."""
        return self.shown.decode("utf-8", "replace")

    @property
    def shown(self) -> bytes:
        """The bytes without the tags of a thought and the white space that belongs to them."""
        return self.raw[slice(*inside_tags(self.raw))] if self.part == "thought" else self.raw

    @property
    def blank(self) -> bool:
        """Whether nothing stands in it that could be judged."""
        return not self.raw.strip()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of a step that another one wrote, from one pass over its tokens.

    Attributes:
        trace: one row for each of the step's tokens in this model's vocabulary, as if it had written them; only its state after the
            last token where nothing else was asked for.
        own: what it would have written there itself, up to the first token that the step does not have.
        kept: how many of ``own`` the step has.
    """

    trace: Trace
    own: tuple[int, ...] = ()
    kept: int = 0


def inside_tags(raw: bytes) -> tuple[int, int]:
    """Where what is thought begins and ends in the bytes of a step of a thought."""
    first = len(raw) - len(raw.lstrip())
    first = first + len(THOUGHT_BEGIN) if raw.startswith(THOUGHT_BEGIN, first) else 0
    first += first > 0 and raw.startswith(b"\n", first)
    last = raw.rfind(THOUGHT_END)
    return first, len(raw) if last < first else last


def outside_thought(raw: bytes) -> bytes:
    """What of an answer is no thought: all behind the last end of one, nothing where one was not ended."""
    return b"" if raw.rfind(THOUGHT_BEGIN) > raw.rfind(THOUGHT_END) else raw.rpartition(THOUGHT_END)[2]


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward says of a step.

    Attributes:
        value: in [0, 1]; None where there was nothing to check, or the reward failed.
        by: which reward decided.
        failed: whether the reward gave no number; a step that was not checked has not failed.
        threshold: of the reward that decided, None for the run's own.
        skipped: whether it was not asked, as of a step of a thought that is only read.
    """

    value: float | None
    by: str = ""
    failed: bool = False
    threshold: float | None = None
    skipped: bool = False


UNCHECKED = Score(None)
SKIPPED = Score(None, skipped=True)
