"""The target's step in place of a rejected one, with what the rejected one is worth.

The target evaluates the rejected step's tokens in batches and keeps the beginning that it would itself have written: each
token is drawn from the target given what stands before it, from the same random stream as without the hint, so the hint
decides what is evaluated ahead and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rsd_local.config import Params
from rsd_local.decoding.ahead import Ahead
from rsd_local.decoding.own_guesses import NOTHING, OwnGuesses
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.speculation import PROPOSED, chunk_that_pays, kept_share, proposing_pays, speculate
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.writing import Writing, written
from rsd_local.roles import NO_HINT, TARGET, Hint, Stream, Writer
from rsd_local.segments import Scan
from rsd_local.steps import Step

if TYPE_CHECKING:
    from rsd_local.decoding.auto import Chooser

_FORCED_CHUNK = 7  # guessed tokens in a batch where the rule would not guess


class Fallbacks:
    """Writes the target's steps of one answer.

    Args:
        ahead: with the target's writer, which may have read the rejected step.
        draft: proposes further tokens where that pays too.
        trio: theirs.
        params: of the answer.
        turn: of the conversation.
        chooser: says who guesses (``auto``); None: what the measured batches say.
    """

    def __init__(self, ahead: Ahead, draft: Writer, trio: OpenTrio, params: Params, turn: int, chooser: Chooser | None = None) -> None:
        self._ahead, self._target, self._draft = ahead, ahead.writer, draft
        self._trio, self._params, self._turn, self._chooser = trio, params, turn, chooser
        hints = trio.shared_tokens > 0 and self._target.abilities.verifies
        self._mode = params.search.fallback if hints else "off"
        self._own = OwnGuesses.of(self._target, params.search.fallback)

    def write(self, rejected: Step | None, solution: Solution) -> Writing:
        """The target's own step at the solution's end; the draft stands at that step's start.

        Args:
            rejected: what the draft wrote there, None where it wrote nothing.
            solution: so far.
        """
        target, live, sampling = self._target, self._trio.shows_text, self._params.sampling
        stream = Stream(sampling.seed, TARGET, self._turn, solution.steps)
        scan, limit = solution.scan(), solution.room
        reading, hint = self._ahead.taken(rejected), self._hint(rejected)
        own = self._own if self._own is not None and self._own.beats(self._draft.latency, self._kept_share) else None
        chooser = self._chooser if own is None else None
        if reading is None:
            target.forget()
        else:
            hint = Hint(only=hint.only)
        step = NOTHING
        if reading is not None or hint.tokens or chooser is None:
            hint = replace(hint, only=hint.only or own is not None or chooser is not None)
            step = yield from written(target.start_writing(limit, scan, sampling, stream, hint, reading=reading), live=live)
            if step.ended != "mismatch":
                return step
        if own is not None:
            return (yield from own.write(step, scan, limit, sampling, stream, live=live))
        if chooser is not None:
            return (yield from self._in_pieces(chooser, step, scan, limit, stream))
        return (yield from speculate(target, self._draft, step, scan, limit, PROPOSED, sampling, stream, live=live))

    def _in_pieces(self, chooser: Chooser, begun: Step, scan: Scan, limit: int, stream: Stream) -> Writing:
        """The rest of a step, each piece of it by the way that is the fastest so far, or is tried."""
        step, live, sampling = begun, self._trio.shows_text, self._params.sampling
        while True:
            done, piece = len(step.tokens), chooser.piece(step)
            if piece.told is not None:
                yield piece.told
            most = limit if piece.most is None else min(limit, done + piece.most)
            if piece.way == "speculate":
                step = yield from speculate(self._target, self._draft, step, scan, limit, PROPOSED, sampling, stream, live=live, most=most)
            else:
                made = yield from written(self._target.start_writing(most - done, scan, sampling, stream, skip=done), live=live)
                step = step.then(made, scan.stopped)
            if step.ended not in ("mismatch", "length") or len(step.tokens) >= limit:
                return step

    def again(self, attempt: int, solution: Solution) -> Writing:
        """Another try of the target at the step that it wrote last and has forgotten.

        Args:
            attempt: from 1.
            solution: so far.
        """
        sampling = self._params.sampling.again
        stream = Stream(sampling.seed, TARGET, self._turn, solution.steps, attempt)
        pending = self._target.start_writing(solution.room, solution.scan(), sampling, stream)
        return written(pending, live=self._trio.shows_text)

    def _hint(self, rejected: Step | None) -> Hint:
        """What of the rejected step is evaluated ahead, and whether the draft proposes more once the target leaves it."""
        if self._mode == "off" or rejected is None:
            return NO_HINT
        latency, kept = self._target.latency, self._kept_share
        chunk = chunk_that_pays(latency, kept)
        if not chunk and self._mode == "auto":
            return NO_HINT
        only = proposing_pays(latency, self._draft.latency, kept)
        return Hint(tuple(rejected.tokens), chunk or _FORCED_CHUNK, only=only)

    @property
    def _kept_share(self) -> float:
        """Of the tokens that were guessed for the target, those that held."""
        counters = self._target.counters()
        return kept_share(counters.kept_tokens, counters.missed_guesses)
