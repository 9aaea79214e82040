"""The target's step in place of a rejected one, with what the rejected one is worth.

The target evaluates the rejected step's tokens in batches and keeps the beginning that it would itself have written
(sample and match): each token is drawn from the target given what stands before it, from the same random stream as
without the guess, so the guess decides what is evaluated ahead and nothing else. The ratio test of speculative sampling
would be wrong here: a rejected step is no draw from the draft, it is a draw from the draft's rejected part.
"""

from __future__ import annotations

from rsd_local.config import Fallback, Sampling
from rsd_local.decoding.speculation import PROPOSED, chunk_that_pays, proposing_pays, speculate
from rsd_local.decoding.steps import Step, Writer
from rsd_local.events import CancelToken
from rsd_local.runtime import Guess, Sampler

_LIKELIEST = Sampler(Sampling())  # the best guess of any draw; and it takes nothing from the draft's own stream
_FORCED_CHUNK = 7  # guessed tokens in a batch where the rule would not guess
_PRIOR_KEPT, _PRIOR_TRIED = 4.0, 5.0  # before anything is known, four guessed tokens of five hold


class Fallbacks:
    """Writes the target's steps of one question.

    Args:
        expert: the target.
        drafter: the draft, which proposes further tokens where that pays too.
        mode: whether rejected steps are evaluated ahead.
    """

    def __init__(self, expert: Writer, drafter: Writer, mode: Fallback) -> None:
        self._expert, self._drafter = expert, drafter
        self._mode = mode if expert.same_tokens and expert.engine.can_cut else "off"

    def write(self, rejected: Step, limit: int, cancel: CancelToken | None) -> Step:
        """The target's own step, of at most ``limit`` tokens; the draft stands at the step's start or within it."""
        if self._mode == "off":
            return self._expert.write_step(limit, cancel)
        counters, pace = self._expert.counters(), self._expert.engine.pace
        kept = (counters.kept_tokens + _PRIOR_KEPT) / (counters.kept_tokens + counters.missed_guesses + _PRIOR_TRIED)
        chunk = chunk_that_pays(pace, kept)
        if not chunk and self._mode == "auto":
            return self._expert.write_step(limit, cancel)
        proposing = proposing_pays(pace, self._drafter.engine.pace, kept)
        step = self._expert.write_step(limit, cancel, guess=Guess(rejected.tokens, chunk or _FORCED_CHUNK, only=proposing))
        if step.ended != "mismatch":
            return step
        return speculate(self._expert, self._drafter, _LIKELIEST, step, limit, PROPOSED, cancel)
