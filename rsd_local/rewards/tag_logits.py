"""The reward of a process reward model with tags: softmax over ``+`` and ``-`` where the layout says to read."""

from __future__ import annotations

from rsd_local.config import TagLayout
from rsd_local.events import CancelToken, Counters
from rsd_local.rewards.base import share
from rsd_local.rewards.layouts import make_layout
from rsd_local.runtime import Engine


class TagLogits:
    """Scores one question's steps; only the new step's tokens are evaluated."""

    def __init__(self, engine: Engine, layout: TagLayout, question: str) -> None:
        self._layout = make_layout(layout, engine.model, question)
        self._sequence = engine.sequence()
        try:
            self._sequence.append(self._layout.opening())
        except BaseException:
            self._sequence.close()
            raise
        self._opening = len(self._sequence)
        self._steps = 0
        self._before = self._opening

    def score(self, step: str, cancel: CancelToken | None = None) -> float:
        """The reward of the next step."""
        self.read(step)
        logits = self._sequence.read_logits(cancel).result()
        self._sequence.counters.opening_tokens = self._opening
        return share(float(logits[self._layout.good]), float(logits[self._layout.bad]))

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

    def counters(self) -> Counters:
        """What was evaluated so far."""
        return self._sequence.take_counters()

    def close(self) -> None:
        """Gives the cache back."""
        self._sequence.close()
