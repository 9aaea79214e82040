"""From logits to a token: penalties, temperature, top-k, top-p, min-p, in this order, and one random number a token.

A vocabulary of 150,000 words is passed over a few times in float32, in buffers that stay. Where the filters leave few words,
these alone are sorted and weighed in float64; where they leave many, the weights of the others are set to 0.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rsd_local.config import Sampling
from rsd_local.errors import DecodeFailed
from rsd_local.roles import Stream

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BLOCK = 256  # words whose weights are summed in float32; the sums of blocks are added in float64
FEW = 4096  # words that are sorted and weighed in float64
_LAST_BITS = 2.0**26  # of the 53 that a random number has


def greedy(logits: Floats) -> int:
    """The most likely token; the first of equals.

    Raises:
        DecodeFailed: the model's logits are no numbers; −inf is fine for all but one token.
    """
    best = int(logits.argmax())  # of the first NaN, where there is one
    if not math.isfinite(logits[best]):
        raise DecodeFailed("the model's logits are not finite", hint="the file may be damaged: download it again")
    return best


class Constraint(Protocol):
    """What may be drawn next, such as a grammar's state."""

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""

    def narrowed(self, logits: Floats, temperature: float) -> Floats:
        """A copy of the logits with −inf for tokens that may not come next, and for such as hardly ever would."""

    def accept(self, token: int) -> None:
        """Go on behind a token that may come next."""


class Draws:
    """Draws the tokens of one step, each from its logits and one number u of a random stream.

    The tokens that the filters keep share [0, 1) in ascending order of their ids, each as much as its probability; the one
    whose part holds u is drawn (inverse transform sampling). So a draft and a target that draw with the same u get the same
    token wherever its parts overlap, which is most often where their probabilities are alike.

    Of a grammar, as in llama.cpp, the token is drawn first and looked at then: only where the grammar does not take it, another one
    is drawn from those that it takes. Most tokens are taken, and to look at all of them is slow.

    Args:
        sampling: how.
        stream: of the random numbers. Above temperature 0 each token takes exactly one; at 0 none is taken.
        skip: how many numbers of the stream belong to tokens drawn before.
        grammar: what may come next; it follows the draws.
    """

    def __init__(self, sampling: Sampling, stream: Stream, skip: int = 0, grammar: Constraint | None = None) -> None:
        self.sampling, self._grammar = sampling, grammar
        self._generator = stream.generator(skip) if sampling.temperature > 0 else None
        penalties = (sampling.repeat_penalty, sampling.presence_penalty, sampling.frequency_penalty)
        self._penalties = sampling.penalty_last_n > 0 and penalties != (1, 0, 0)

    def draw(self, logits: Floats, context: Sequence[int] = ()) -> int:
        """One token.

        Args:
            logits: (n_vocab,) of the model, not changed. A word of −inf is never drawn.
            context: the tokens before, the latest last, that penalties count.

        Raises:
            DecodeFailed: a logit is NaN or +inf, or none is above −inf.
        """
        if self._penalties and len(context):
            logits = penalized(logits, context, self.sampling)
        u = 0.0 if self._generator is None else self._generator.random()
        token = self._pick(logits, u)
        if self._grammar is not None:
            if not self._grammar.allows(token):
                # The number's last bits say nothing of the token that was refused.
                token = self._pick(self._grammar.narrowed(logits, self.sampling.temperature), math.fmod(u * _LAST_BITS, 1.0))
            self._grammar.accept(token)
        return token

    def pass_by(self, token: int) -> None:
        """Take note of a token that stands behind those that were drawn, and was given."""
        if self._grammar is not None:
            self._grammar.accept(token)

    def _pick(self, logits: Floats, u: float) -> int:
        best = greedy(logits)
        if self._generator is None:
            return best
        peak = float(logits[best])
        with np.errstate(over="ignore"):  # a logit far below the best becomes −inf
            few = narrow(logits, peak, self.sampling)
            return pick_among_few(*few, u) if few else pick_among_all(weigh_kept(logits, peak, self.sampling), u)


class Scratch(threading.local):
    """Arrays of one thread that serve every token, so that none is allocated again."""

    def __init__(self) -> None:
        self._floats: dict[tuple[str, int], Floats] = {}
        self._masks: dict[int, Mask] = {}

    def floats(self, name: str, words: int) -> tuple[Floats, Floats]:
        """An array (blocks, BLOCK) that is 0 behind the vocabulary, and the part of it (n_vocab,) to write to."""
        key = (name, words)
        if key not in self._floats:
            self._floats[key] = np.zeros((-(-words // BLOCK), BLOCK), np.float32)
        held = self._floats[key]
        return held, held.reshape(-1)[:words]

    def from_on(self, logits: Floats, bound: np.float32) -> tuple[Mask, Mask]:
        """Where logits are at least ``bound``, as (blocks, BLOCK) and (n_vocab,)."""
        words = len(logits)
        if words not in self._masks:
            self._masks[words] = np.zeros((-(-words // BLOCK), BLOCK), np.bool_)
        held = self._masks[words]
        return held, np.greater_equal(logits, bound, out=held.reshape(-1)[:words])


SCRATCH = Scratch()


def block_sum(blocks: Floats, factors: Floats | Mask | None = None) -> float:
    """The sum of (blocks, BLOCK), of the products where there are factors; einsum starts no threads of BLAS."""
    return float((np.einsum("ij->i", blocks) if factors is None else np.einsum("ij,ij->i", blocks, factors)).sum(dtype=np.float64))


def penalized(logits: Floats, context: Sequence[int], sampling: Sampling) -> Floats:
    """A copy of the logits with penalties on the context's last tokens, which holds until the thread's next call.

    As ``llama_sampler_init_penalties`` of llama.cpp: a positive logit is divided by the repeat penalty and any other multiplied
    by it, then the presence penalty and, for each occurrence, the frequency penalty are subtracted.
    """
    _, copy = SCRATCH.floats("penalized", len(logits))
    copy[:] = logits
    recent = np.asarray(context[-sampling.penalty_last_n :], np.int64)
    ids, counts = np.unique(recent[(recent >= 0) & (recent < len(logits))], return_counts=True)
    found = copy[ids].astype(np.float64)
    found = np.where(found > 0, found / sampling.repeat_penalty, found * sampling.repeat_penalty)
    with np.errstate(over="ignore"):  # a logit near −FLT_MAX, as masks have it, becomes −inf
        copy[ids] = found - counts * sampling.frequency_penalty - sampling.presence_penalty
    return copy


def weigh(logits: Floats, peak: float, temperature: float) -> Floats:
    """exp((logit − peak) / temperature) in float32, (blocks, BLOCK), 0 behind the vocabulary; until the thread's next call."""
    blocks, weights = SCRATCH.floats("weights", len(logits))
    np.subtract(logits, np.float32(peak), out=weights)
    if temperature != 1:
        np.multiply(weights, np.float32(min(1 / temperature, 1e30)), out=weights)
    np.exp(weights, out=weights)
    return blocks


def weigh_exactly(logits: Floats, peak: float, temperature: float) -> Doubles:
    """exp((logit − peak) / temperature) in float64."""
    weights = logits.astype(np.float64)
    weights -= peak
    weights /= temperature
    return np.exp(weights, out=weights)


def narrow(logits: Floats, peak: float, sampling: Sampling) -> tuple[Ids, Doubles] | None:
    """The tokens that the filters keep, ascending, and their weights; None where they may be more than few."""
    total = 0.0
    if 0 < sampling.top_k < len(logits):
        ids = most_likely(logits, sampling.top_k) if sampling.top_k <= FEW else None
    elif len(logits) <= FEW:
        ids = np.arange(len(logits))
    else:
        if sampling.top_p < 1:
            total = block_sum(weigh(logits, peak, sampling.temperature))
        ids = candidates(logits, peak, total, sampling)
    if ids is None:
        return None
    values = logits[ids]
    weights = weigh_exactly(values, peak, sampling.temperature)
    if sampling.top_p < 1:
        kept = largest(values, prefix(weights, 0.0, total or float(weights.sum()), sampling.top_p))
        ids, weights = ids[kept], weights[kept]
    kept = weights >= sampling.min_p
    return ids[kept], weights[kept]


def candidates(logits: Floats, peak: float, total: float, sampling: Sampling) -> Ids | None:
    """Some tokens, ascending, among which are all that top-p and min-p keep; None where they may be more than few.

    For top-p a bound is guessed: tokens that weigh less than (1 − p) · total / m hold at most 1 − p of the total if there are at
    most m of them. Whether the others reach top-p is then checked.
    """
    weights = [sampling.min_p] if sampling.min_p > 0 else [(1 - sampling.top_p) * total / m for m in (64, 4096)] if total else []
    for weight in weights:
        _, mask = SCRATCH.from_on(logits, logit_of(weight, peak, sampling.temperature))
        if np.count_nonzero(mask) > FEW:
            break
        ids = np.flatnonzero(mask)
        if sampling.min_p > 0 or weigh_exactly(logits[ids], peak, sampling.temperature).sum() / total >= sampling.top_p:
            return ids
    return None


def weigh_kept(logits: Floats, peak: float, sampling: Sampling) -> Floats:
    """The weights of the whole vocabulary, see ``weigh``; 0 for what the filters drop."""
    blocks = weigh(logits, peak, sampling.temperature)
    weights = blocks.reshape(-1)[: len(logits)]
    if 0 < sampling.top_k < len(logits):
        weights *= largest(logits, sampling.top_k)
    if sampling.top_p < 1:
        weights *= covering(logits, blocks, peak, sampling)
    if sampling.min_p > 0:
        weights *= SCRATCH.from_on(logits, logit_of(sampling.min_p, peak, sampling.temperature))[1]
    return blocks


def covering(logits: Floats, blocks: Floats, peak: float, sampling: Sampling) -> Mask:
    """Where the smallest set stands whose weights reach top-p of all weights (blocks, BLOCK).

    Halves the range of logits that holds the set's last word until few words are left in it, and sorts those.
    """
    words, total = len(logits), block_sum(blocks)
    low = logit_of((1 - sampling.top_p) * total / words / 2, peak, sampling.temperature)  # all below it weigh less than 1 − p
    high = np.nextafter(np.float32(peak), np.float32(np.inf))
    within, above, mass = words, 0, 0.0  # words from low on; words from high on, and their weight
    while within - above > FEW and low < (middle := low + (high - low) / 2) < high:
        held, mask = SCRATCH.from_on(logits, middle)
        reached, count = block_sum(blocks, held), int(np.count_nonzero(mask))
        if reached / total >= sampling.top_p:
            low, within = middle, count
        else:
            high, above, mass = middle, count, reached
    between = logits[SCRATCH.from_on(logits, low)[1] & (logits < high)]
    count = prefix(weigh_exactly(between, peak, sampling.temperature), mass, total, sampling.top_p)
    return largest(logits, above + count, np.partition(between, -count)[-count])


def prefix(weights: Doubles, before: float, total: float, share: float) -> int:
    """How many of the greatest weights, added to ``before``, reach the share of the total; all where that is not reached."""
    descending = np.sort(weights)[::-1]
    reached = descending.cumsum()
    reached += before
    reached /= total  # of 20 equal words 19 reach 0.95: a quotient is rounded as the setting was
    return min(int(reached.searchsorted(share)) + 1, len(weights))


def most_likely(logits: Floats, count: int) -> Ids:
    """The ids of the ``count`` greatest logits, ascending; of equal ones the first."""
    rows = 64
    columns = len(logits) // rows
    if columns < 4 * count:
        return np.flatnonzero(largest(logits, count))
    maxima = logits[: rows * columns].reshape(rows, columns).max(axis=0)
    bound = np.partition(maxima, -count)[-count]  # so many maxima are not below it, and at least so many logits
    ids = np.flatnonzero(SCRATCH.from_on(logits, bound)[1])
    return ids[largest(logits[ids], count)]


def largest(values: Floats, count: int, least: np.float32 | None = None) -> Mask:
    """Where the ``count`` greatest values stand, of equal ones the first; ``least`` is the last of them, where it is known."""
    least = np.partition(values, -count)[-count] if least is None else least
    kept: Mask = values > least
    equal = np.flatnonzero(values == least)
    kept[equal[: count - np.count_nonzero(kept)]] = True
    return kept


def logit_of(weight: float, peak: float, temperature: float) -> np.float32:
    """The least float32 whose weight is not below this one."""
    exact = peak + temperature * math.log(weight)
    rounded = np.float32(exact)
    return rounded if rounded >= exact else np.nextafter(rounded, np.float32(np.inf))


def pick_among_few(ids: Ids, weights: Doubles, u: float) -> int:
    """The token whose part holds u among ascending ids with weights, see ``Draws``."""
    ends = weights.cumsum()
    return int(ids[owner(ends, u * float(ends[-1]))])


def pick_among_all(blocks: Floats, u: float) -> int:
    """The token whose part holds u among the vocabulary with weights (blocks, BLOCK), see ``Draws``."""
    ends = np.einsum("ij->i", blocks).cumsum(dtype=np.float64)
    place = u * float(ends[-1])
    block = owner(ends, place)
    inner = blocks[block].cumsum(dtype=np.float64)
    return block * BLOCK + owner(inner, place - (float(ends[block - 1]) if block else 0.0))


def owner(ends: Doubles, place: float) -> int:
    """The part that holds ``place``, of parts that end at ``ends``; the last that is not empty where rounding leads beyond."""
    part = int(ends.searchsorted(place, "right"))
    return part if part < len(ends) else int(ends.searchsorted(ends[-1]))
