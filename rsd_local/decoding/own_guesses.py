"""A target whose model has a multi-token head (MTP) guesses its own tokens, where that pays, and verifies them in its own batches.

A guess is kept where the target draws the same token with its own random number, as with a draft's: see ``decoding.speculation``.
"""

from __future__ import annotations

from rsd_local.config import Fallback, Sampling
from rsd_local.decoding.speculation import PROPOSED, gain_of_proposing, kept_share
from rsd_local.decoding.writing import Writing, written
from rsd_local.roles import NO_HINT, Guesser, Hint, Latency, Stream, Writer
from rsd_local.segments import Scan
from rsd_local.steps import Step

NOTHING = Step([], b"", "length")
_GUESSED = 4  # tokens at a time, which cost a head little


class OwnGuesses:
    """The guesses of one answer's target.

    Args:
        target: that writes.
        guesser: of it.
        mode: ``on`` guesses always, ``auto`` where the measured times say that it pays; it is tried until they are known.
    """

    def __init__(self, target: Writer, guesser: Guesser, mode: Fallback) -> None:
        self._target, self._guesser, self._mode = target, guesser, mode
        self._most = target.exact_rows(_GUESSED + 1) - 1 or _GUESSED
        self._kept = self._missed = 0

    @classmethod
    def of(cls, target: Writer, mode: Fallback) -> OwnGuesses | None:
        """Those of a target, where it has a head and ``mode`` is not ``off``; to be asked before the target writes."""
        return cls(target, target.guesser, mode) if target.guesser is not None and mode != "off" else None

    @property
    def pays(self) -> bool:
        """Whether to guess."""
        return self._mode == "on" or self._gain > 1

    def beats(self, draft: Latency, share: float) -> bool:
        """Whether it pays more than a draft that proposes.

        Args:
            draft: its times.
            share: of its guesses, those that hold.
        """
        other = gain_of_proposing(self._target.latency, draft, share, PROPOSED)
        return self._mode == "on" or self._gain > max(1.0, other or 0.0)

    def write(self, begun: Step, scan: Scan, limit: int, sampling: Sampling, stream: Stream, *, live: bool) -> Writing:
        """Write the rest of a step, guessing while it pays.

        Args:
            begun: what of the step is written.
            scan: has been fed with that.
            limit: most tokens of the whole step.
            sampling: of the target.
            stream: of the whole step.
            live: whether bytes are given as they come.
        """
        step = begun
        while True:
            done, hint = len(step.tokens), NO_HINT
            if self.pays:
                guessed = self._guesser.guess(min(self._most, limit - done), sampling, stream, skip=done)
                hint = Hint(tuple(guessed), len(guessed), only=True, own=True)
            made = yield from written(self._target.start_writing(limit - done, scan, sampling, stream, hint, skip=done), live=live)
            self._note(hint.tokens, made.tokens)
            step = step.then(made, scan.stopped)
            if made.ended != "mismatch":
                return step

    @property
    def _gain(self) -> float:
        gain = gain_of_proposing(self._target.latency, self._guesser.latency, kept_share(self._kept, self._missed), self._most)
        return 2.0 if gain is None else gain

    def _note(self, guessed: tuple[int, ...], made: list[int]) -> None:
        kept = next((place for place, (one, other) in enumerate(zip(guessed, made, strict=False)) if one != other), None)
        held = min(len(guessed), len(made)) if kept is None else kept
        self._kept, self._missed = self._kept + held, self._missed + (kept is not None)
