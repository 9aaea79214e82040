"""Tokens guessed ahead: what is drawn, and where guessing pays."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from rsd_local.config import Sampling
from rsd_local.decoding.steps import Step, Writer
from rsd_local.events import CancelToken
from rsd_local.runtime import Guess, Pace, Sampler, distribution

Proposal = tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""A token, and the ids and probabilities that it was drawn from."""

PROPOSED = 4  # tokens that a draft proposes at a time where nobody says otherwise
_CHUNKS = (31, 15, 7, 3, 1)


class Proposer:
    """Draws a draft's tokens and keeps what each was drawn from."""

    def __init__(self, sampling: Sampling, stream: tuple[int, ...] = ()) -> None:
        self._sampling, self._chance = sampling, np.random.default_rng((sampling.seed, *stream))
        self.made: list[Proposal] = []

    def draw(self, logits: npt.NDArray[np.float32]) -> int:
        """One token of logits (n_vocab,)."""
        ids, probabilities = distribution(logits, self._sampling)
        token = int(ids[_place(probabilities, self._chance.random())])
        self.made.append((token, ids, probabilities))
        return token


class Verifier:
    """Draws a target's tokens against a draft's proposals (Leviathan et al., arXiv 2211.17192, algorithm 1).

    A proposal x drawn from q is kept with probability min(1, p(x)/q(x)); otherwise the token is drawn from the residual
    max(0, p − q), normalized. What is drawn is distributed as p, whatever q is.
    """

    def __init__(self, sampling: Sampling, stream: tuple[int, ...] = ()) -> None:
        self._sampling, self._chance = sampling, np.random.default_rng((sampling.seed, *stream))
        self._proposals: deque[Proposal] = deque()

    def expect(self, proposals: list[Proposal]) -> None:
        """The proposals that the next draws stand against, in order; earlier ones are forgotten."""
        self._proposals = deque(proposals)

    def draw(self, logits: npt.NDArray[np.float32]) -> int:
        """One token of logits (n_vocab,); the first that is not its proposal ends the proposals."""
        ids, target = distribution(logits, self._sampling)
        if not self._proposals:
            return int(ids[_place(target, self._chance.random())])
        token, drafted, draft = self._proposals.popleft()
        p, q = np.zeros(len(logits)), np.zeros(len(logits))
        p[ids], q[drafted] = target, draft
        if self._chance.random() * q[token] < p[token]:
            return token
        self._proposals.clear()
        residual = np.maximum(p - q, 0.0)
        return _place(residual / residual.sum(), self._chance.random())


def _place(probabilities: npt.NDArray[np.float64], chance: float) -> int:
    """The index that a uniform number in [0, 1) falls on; never one of probability zero."""
    reached = np.cumsum(probabilities)
    return int(np.searchsorted(reached, chance * reached[-1], side="right"))


def speculate(
    expert: Writer, drafter: Writer, proposer: Proposer | Sampler, begun: Step, limit: int, ahead: int, cancel: CancelToken | None
) -> Step:
    """Writes the rest of the target's step, with the draft proposing tokens and the target drawing in one batch each.

    Args:
        expert: the target; it holds what of the step is begun.
        drafter: the draft, at the start of the same step (``begin``) or anywhere within.
        proposer: draws the draft's tokens; what a ``Proposer`` drew is told to a target that verifies.
        begun: what of the step stands.
        limit: tokens of the whole step.
        ahead: tokens to propose at a time.
        cancel: ends both.
    """
    tokens, raw = list(begun.tokens), begun.raw
    while True:
        drafter.replace(tokens)
        if isinstance(proposer, Proposer):
            proposer.made.clear()
        proposed = drafter.start_writing(min(ahead, limit - len(tokens)), cancel, until=b"", sampler=proposer)()
        if isinstance(proposer, Proposer) and isinstance(expert.sampler, Verifier):
            expert.sampler.expect(proposer.made)
        guess = Guess(proposed.tokens, len(proposed.tokens), only=True, before=raw)
        made = expert.start_writing(limit - len(tokens), cancel, guess=guess)()
        tokens, raw = tokens + made.tokens, raw + made.raw
        if made.ended != "mismatch":
            return Step(tokens, raw, made.ended)


def chunk_that_pays(pace: Pace, kept_share: float) -> int:
    """How many guessed tokens to evaluate in one batch, 0 where guessing does not pay.

    A batch of c guesses gives (1 − s^(c+1)) / (1 − s) tokens, where s is the share of guesses that hold: it pays where
    that is more than the same time gives one by one. A size that was never seen is tried.

    Args:
        pace: the engine's measured times.
        kept_share: s, in [0, 1).
    """
    single = pace.of(1)
    best, most = 0, 1.0
    for chunk in _CHUNKS:
        batch = pace.of(chunk + 1)
        if batch is None or single is None:
            return 7
        gain = (1 - kept_share ** (chunk + 1)) / (1 - kept_share) * single / batch
        if gain > most:
            best, most = chunk, gain
    return best


def proposing_pays(target: Pace, draft: Pace, kept_share: float) -> bool:
    """Whether a draft that proposes tokens makes its target faster, by the measured times of both; False if unknown."""
    single, batch, drafted = target.of(1), target.of(PROPOSED + 1), draft.of(1)
    if single is None or batch is None or drafted is None:
        return False
    tokens = (1 - kept_share ** (PROPOSED + 1)) / (1 - kept_share)
    return tokens * single > batch + PROPOSED * drafted
