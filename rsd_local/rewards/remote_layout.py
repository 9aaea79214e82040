"""A layout of a reward read at a llama-server: the same text as of a model here, and the same number out of it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import numpy as np

from rsd_local.errors import ContextFull
from rsd_local.events import Counters
from rsd_local.remote import Call, ReadingEngine, answer_shares, token_states
from rsd_local.remote.api import Timing
from rsd_local.rewards.judge import Digit
from rsd_local.rewards.layouts import Layout, TwoTokens
from rsd_local.rewards.remote import Noted
from rsd_local.runtime import Floats

_LEAST = 1e-38  # the smallest share that a float has


class LayoutQuestion:
    """One prompt's text at a llama-server; see ``remote.Question``.

    Args:
        engine: of the server.
        make: the layout at the prompt, which asks the server for tokens.
        states: whether it reads states, which a server gives of all tokens at once; otherwise shares of the next one.

    Attributes:
        whole: the same.
    """

    def __init__(self, engine: ReadingEngine, make: Callable[[], Layout], *, states: bool) -> None:
        self._engine, self._make, self.whole = engine, make, states
        self._made: tuple[Layout, list[int]] | None = None
        self._used = set[int]()  # slots that were asked already
        self._lock = threading.Lock()

    def prepare(self, call: Call, counters: Counters) -> None:
        """The tokens of the opening."""
        with self._engine.over(call):
            layout, opening = self._ready()
        counters.opening_tokens = len(opening)
        self._fits(len(opening) + len(layout.query))

    def read_ahead(self, slot: int, call: Call, counters: Counters) -> None:
        """Evaluate the opening, where a cache keeps it."""
        _, opening = self._ready()
        if not self.whole and opening:
            timing = self._engine.llama.evaluate(opening, slot, call, reuse=self._engine.reuse)
            counters.cached_tokens = min(timing.cached, len(opening))
            self._took(timing, slot, counters)

    def scores(self, steps: Sequence[Noted], asked: Sequence[int], slot: int, call: Call, counters: Counters) -> list[float]:
        """See ``remote.Question``: a request for states, or one for the shares of the answers."""
        engine, made = self._engine, list[int]()
        with engine.over(call):
            layout, opening = self._ready()
            ends = dict[int, int]()
            made += opening
            for place, one in enumerate(steps):
                if one.tokens is None:
                    one.tokens = layout.step(place, one.step)
                made += one.tokens
                ends[place] = len(made) - 1
        self._fits(len(made) + len(layout.query))
        if self.whole:
            states = token_states(engine.llama, made, call)
            counters.evaluated_tokens += len(made)
            counters.prompt_tokens += len(made)
            counters.decode_calls += 1
            return [layout.reward(states[ends[place]]) for place in asked]
        assert isinstance(layout, TwoTokens | Digit)
        made += layout.query
        reuse = engine.reuse or slot in self._used
        shares, timing = answer_shares(engine.llama, made, layout.answers, slot, call, reuse=reuse)
        self._took(timing, slot, counters)
        return [layout.reward(_logits(layout.answers, shares))]

    def take_slot(self) -> int:
        """One of the server's slots; of one that gives states there is no cache."""
        return -1 if self.whole else self._engine.take_slot()

    def give_slot(self, slot: int) -> None:
        """Give it back."""
        self._engine.give_slot(slot)

    def _ready(self) -> tuple[Layout, list[int]]:
        with self._lock:
            if self._made is None:
                layout = self._make()
                self._made = layout, layout.opening()
            return self._made

    def _fits(self, tokens: int) -> None:
        """Whether so many tokens have room in the server's context."""
        engine = self._engine
        if tokens >= engine.context:
            raise ContextFull(
                f"{engine.name}: {tokens} tokens have no room in the context of {engine.context} that {engine.config.url} has",
                hint="shorten the question, or start the server with a larger --ctx-size",
            )

    def _took(self, timing: Timing, slot: int, counters: Counters) -> None:
        self._used.add(slot)
        counters.evaluated_tokens += timing.read
        counters.prompt_tokens += timing.read
        counters.decode_calls += 1
        counters.seconds += timing.seconds


def _logits(answers: Sequence[int], shares: Sequence[float]) -> Floats:
    """Logits of a vocabulary (max(answers) + 1,) in which the answers have these shares."""
    made = np.full(max(answers) + 1, -np.inf, np.float32)
    made[list(answers)] = [share if math.isnan(share) else math.log(max(share, _LEAST)) for share in shares]
    return made
