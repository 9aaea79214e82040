"""Tokens guessed ahead: who proposes them, and where guessing pays.

A token is drawn from the target's distribution with the target's own random number, whatever was guessed; a guess is kept
where the draw gives the same. The draft proposes with that same random number, and a draw takes the tokens in the order of
their ids, so two models of similar probabilities mostly draw the same (``runtime.sampler.Draws``). So the text is the target's
own, token for token, at any temperature (docs/decisions/0011).
"""

from __future__ import annotations

from rsd_local.config import Sampling
from rsd_local.decoding.writing import Writing, written
from rsd_local.roles import Hint, Latency, Stream, Writer
from rsd_local.segments import Scan
from rsd_local.steps import Step

PROPOSED = 3
"""Tokens that a draft proposes at a time where nobody says otherwise: with the target's own they are four rows, and where llama.cpp
lays weights out anew for a CPU, its kernels take rows by fours."""
_CHUNKS = (31, 15, 7, 3, 1)
_PRIOR_KEPT, _PRIOR_TRIED = 4.0, 5.0  # before anything is known, four guessed tokens of five hold


def speculate(
    target: Writer, draft: Writer, begun: Step, scan: Scan, limit: int, ahead: int, sampling: Sampling, stream: Stream, *, live: bool,
    most: int | None = None,
) -> Writing:  # fmt: skip
    """Write the rest of the target's step, or some of it, with the draft proposing tokens and the target drawing them in one batch each.

    Args:
        target: holds what of the step is begun.
        draft: at the start of the same step (``begin``) or anywhere within.
        begun: what of the step is written.
        scan: has been fed with that.
        limit: most tokens of the whole step.
        ahead: tokens to propose at a time.
        sampling: of both.
        stream: the target's, of the whole step.
        live: whether bytes are given as they come.
        most: tokens of the whole step from which on no more are proposed, None for all; what is written then ends as "mismatch".
    """
    step = begun
    while True:
        done = len(step.tokens)
        draft.correct(step)
        proposed = draft.start_writing(min(ahead, limit - done), None, sampling, stream, skip=done).result()
        hint = Hint(tuple(proposed.tokens), len(proposed.tokens), only=True)
        made = yield from written(target.start_writing(limit - done, scan, sampling, stream, hint, skip=done), live=live)
        step = step.then(made, scan.stopped)  # a stop string may have begun in what was written before
        if made.ended != "mismatch" or (most is not None and len(step.tokens) >= most):
            return step


def kept_share(kept: int, missed: int) -> float:
    """Of guessed tokens, the share that holds, in (0, 1).

    Args:
        kept: guesses that held so far.
        missed: those after which another token was written.
    """
    return (kept + _PRIOR_KEPT) / (kept + missed + _PRIOR_TRIED)


def chunk_that_pays(latency: Latency, kept_share: float) -> int:
    """How many guessed tokens to evaluate in one batch, 0 where guessing does not pay.

    A batch of c guesses gives (1 − s^(c+1)) / (1 − s) tokens, where s is the share of guesses that hold: it pays where
    that is more than the same time gives one by one. Unmeasured batch sizes are tried once.

    Args:
        latency: the measured times.
        kept_share: s, in [0, 1).
    """
    single = latency.seconds(1)
    best, most = 0, 1.0
    for chunk in _CHUNKS:
        batch = latency.seconds(chunk + 1)
        if batch is None or single is None:
            return 7
        gain = (1 - kept_share ** (chunk + 1)) / (1 - kept_share) * single / batch
        if gain > most:
            best, most = chunk, gain
    return best


def proposing_pays(target: Latency, draft: Latency, kept_share: float) -> bool:
    """Whether a draft that proposes tokens makes its target faster, by the measured times of both; False if unknown."""
    gain = gain_of_proposing(target, draft, kept_share, PROPOSED)
    return gain is not None and gain > 1


def gain_of_proposing(target: Latency, proposer: Latency, kept_share: float, proposed: int) -> float | None:
    """How many times faster a target is with tokens that are proposed to it, None where a time is unknown.

    Args:
        target: its times.
        proposer: those of what proposes, one token after another.
        kept_share: of the proposed tokens, those that hold, in [0, 1).
        proposed: tokens at a time.
    """
    single, batch, drafted = target.seconds(1), target.seconds(proposed + 1), proposer.seconds(1)
    if single is None or batch is None or drafted is None:
        return None
    tokens = (1 - kept_share ** (proposed + 1)) / (1 - kept_share)
    return tokens * single / (batch + proposed * drafted)
