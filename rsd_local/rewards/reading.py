"""A reward that a model reads out of a step's text, where and how a layout says."""

from __future__ import annotations

from typing import Self

from rsd_local.errors import ContextFull
from rsd_local.events import CancelToken, Counters, total
from rsd_local.rewards.base import Scoring
from rsd_local.rewards.layouts import Layout
from rsd_local.runtime import Pool, Sequence, Trace


class ReadReward:
    """Scores one question's steps; only the new step's tokens, and a query behind it, are evaluated."""

    def __init__(self, layout: Layout, sequence: Sequence, family: list[Sequence], steps: int = 0) -> None:
        self._layout, self._sequence, self._family, self._steps = layout, sequence, family, steps
        self._before = self._begins = len(sequence)
        family.append(sequence)

    @classmethod
    def open(cls, engines: Pool, layout: Layout) -> ReadReward:
        """A scorer at a layout's question.

        Raises:
            ContextFull: the question does not fit.
        """
        sequence = engines.sequence()
        try:
            sequence.append(layout.opening())
        except ContextFull:
            sequence.close()
            raise
        sequence.counters.opening_tokens = len(sequence)
        return cls(layout, sequence, [])

    def start_score(self, step: str, trace: Trace | None = None, cancel: CancelToken | None = None) -> Scoring:
        """Begins to score the next step; its query, if any, is rolled back once it is read. The trace is not looked at."""
        self.read(step)
        after = len(self._sequence)
        if self._layout.query:
            self._sequence.mark()
            self._sequence.append(self._layout.query)
        reading = self._sequence.read_hidden(cancel) if self._layout.hidden else self._sequence.read_logits(cancel)

        def finish() -> float:
            values = reading.result()
            self._sequence.truncate(after)
            return self._layout.reward(values)

        return finish

    def forget(self) -> None:
        """Takes back the step that was scored last."""
        self._sequence.truncate(self._before)
        self._steps -= 1

    def read(self, step: str) -> None:
        """Notes a step that stands without a score."""
        self._before = len(self._sequence)
        self._sequence.mark()
        self._sequence.append(self._layout.step(self._steps, step.strip()))
        self._steps += 1

    def go_on(self, steps: list[str], question: str) -> bool:
        """Goes on with another question behind these steps, where the layout has a way to ask it."""
        asked = self._layout.another(question)
        if asked is None:
            return False
        said = [token for index, step in enumerate(steps) for token in self._layout.step(index, step.strip())]
        self._sequence.replace(self._begins, said)
        self._sequence.append(asked)
        self._before = self._begins = len(self._sequence)
        self._steps = 0
        return True

    def settle(self, cancel: CancelToken | None = None) -> None:
        """Evaluates what stands but for its last token, so that forks share it."""
        self._sequence.prefill(cancel).result()

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the cache."""
        return type(self)(self._layout, self._sequence.fork(), self._family, self._steps)

    def adopt(self, fork: Self) -> None:
        """Goes on where a fork has come to; the fork gets what this one had."""
        self._sequence, fork._sequence = fork._sequence, self._sequence
        self._steps, fork._steps = fork._steps, self._steps
        self._before, fork._before = fork._before, self._before

    def counters(self) -> Counters:
        """What was evaluated so far, by this one and all that were forked from the same."""
        return total(sequence.counters for sequence in self._family)

    def close(self) -> None:
        """Gives the cache back."""
        self._sequence.close()
