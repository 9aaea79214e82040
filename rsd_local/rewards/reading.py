"""A reward that a model reads out of a step's text, where and how a layout says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rsd_local.events import CancelToken, Counters, Role, total
from rsd_local.rewards.layouts import Layout
from rsd_local.runtime import Engine, Sequence
from rsd_local.steps import Score, Step


@dataclass(frozen=True, slots=True)
class PendingScore:
    """A score that is being read."""

    finish: Callable[[], Score]
    stop: Callable[[], None]

    def result(self) -> Score:
        """Wait for the score."""
        return self.finish()

    def cancel(self) -> None:
        """End it within one batch."""
        self.stop()


def as_score(value: float, by: str) -> Score:
    """A reward's number as a score; one that is no finite number has failed."""
    return Score(value, by) if math.isfinite(value) else Score(None, by, failed=True)


class ReadReward:
    """Scores one answer's steps; only the new step's tokens, and a query behind it, are evaluated. See ``roles.Reward``.

    Args:
        layout: the text that is read, and where.
        sequence: holds the layout's opening and the steps so far.
        family: sequences of all that were forked from the same; this one's is added.
        by: the reward's name in scores.
        cancel: ends whatever it reads.
        steps: that it has read.
        role: of its model in counters.
    """

    can_check = True

    def __init__(
        self,
        layout: Layout,
        sequence: Sequence,
        family: list[Sequence],
        by: str,
        cancel: CancelToken | None,
        steps: int = 0,
        role: Role = "reward",
    ) -> None:
        self._role = role
        self._layout, self._sequence, self._family, self._by, self._cancel, self._steps = layout, sequence, family, by, cancel, steps
        self._before = len(sequence)
        family.append(sequence)

    @classmethod
    def open(cls, engine: Engine, layout: Layout, by: str, cancel: CancelToken | None, role: Role = "reward") -> Self:
        """A scorer at a layout's opening.

        Raises:
            ContextFull: it does not fit.
        """
        sequence = engine.sequence(layout.opening())
        sequence.counters.opening_tokens = len(sequence)
        return cls(layout, sequence, [], by, cancel, role=role)

    def start_score(self, step: Step) -> PendingScore:
        """Begin to score the next step; its query, if any, is rolled back once it is read."""
        self.read(step)
        after = len(self._sequence)
        if self._layout.query:
            self._sequence.mark()
            self._sequence.append(self._layout.query)
        read = self._sequence.start_reading(hidden=self._layout.hidden, cancel=self._cancel)

        def finish() -> Score:
            values = read.future.result()
            self._sequence.truncate(after)
            return as_score(self._layout.reward(values), self._by)

        return PendingScore(finish, read.cancel)

    def forget(self) -> None:
        """Take back the step that was scored last."""
        self._sequence.truncate(self._before)
        self._steps -= 1

    def read(self, step: Step) -> None:
        """Note an accepted step without a score."""
        self._before = len(self._sequence)
        self._sequence.mark()
        self._sequence.append(self._layout.step(self._steps, step))
        self._steps += 1

    def settle(self) -> None:
        """Evaluate what is noted but for its last token, so that forks share it."""
        self._sequence.prefill(self._cancel).result()

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the cache."""
        return type(self)(self._layout, self._sequence.fork(), self._family, self._by, self._cancel, self._steps, self._role)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self._sequence, fork._sequence = fork._sequence, self._sequence
        self._steps, fork._steps = fork._steps, self._steps
        self._before, fork._before = fork._before, self._before

    def counters(self) -> dict[Role, Counters]:
        """What was evaluated so far, by this one and all that were forked from the same."""
        return {self._role: total(sequence.counters for sequence in self._family)}

    def close(self) -> None:
        """Give the cache back."""
        self._sequence.close()
