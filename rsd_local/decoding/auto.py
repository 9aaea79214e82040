"""RSD where it pays: for each step the way that was the fastest so far, by what each cost and gave.

All ways give what the trio's policy accepts: a step of the draft that its reward lets stand, or the target's own, which is the same
text whether tokens were guessed for it or not. A program that checks makes steps better, not only cheaper, so there RSD stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from rsd_local.config import Params
from rsd_local.decoding.rsd import rsd
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.way_costs import PIECE, WayCosts
from rsd_local.events import Chosen, Event, Way
from rsd_local.prompt import Prompt
from rsd_local.roles import Reward, Writer
from rsd_local.steps import Step

_DRAFTED: tuple[Way, ...] = ("draft",)
_SPAN = 4 * PIECE  # tokens of a step that the fastest way writes before another may be tried again


@dataclass(frozen=True, slots=True)
class Piece:
    """How the target goes on.

    Attributes:
        way: ``target`` or ``speculate``.
        most: tokens after which another way may be tried, None for never.
        told: the event of that, None where it was told already.
    """

    way: Way
    most: int | None
    told: Chosen | None


@dataclass(frozen=True, slots=True)
class _Spent:
    """Seconds so far.

    Attributes:
        clock: without pauses; always 0 where other questions are answered too, whose batches it would have.
        batches: of this question's, and of a model on a server those of the way there and back.
    """

    clock: float
    batches: float

    def until(self, later: _Spent) -> float:
        """What was spent in between; a pause hides batches that went on in it."""
        return max(later.clock - self.clock, later.batches - self.batches)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Something that is being measured.

    Attributes:
        way: it goes.
        spent, tokens: before it.
        counts: whether its cost is its own, and not the prompt's too.
    """

    way: Way
    spent: _Spent
    tokens: int
    counts: bool


class Chooser:
    """Chooses the ways of one answer's steps, and where the target writes those of a step's pieces.

    Args:
        way_costs: of all answers.
        steps: the ways to a step that there are.
        pieces: those of them in which the target writes.
        replayed: the ways of an earlier answer's steps, which are gone again.
    """

    def __init__(self, way_costs: WayCosts, steps: tuple[Way, ...], pieces: tuple[Way, ...], replayed: tuple[Way, ...] = ()) -> None:
        self._costs, self._steps, self._pieces, self._replayed = way_costs, steps, pieces, replayed
        self._way: Way | None = None  # of the last step
        self._told: Way | None = None  # last, of its pieces too
        self._drafted: _Begun | None = None  # the draft's step, with what the target writes in its place
        self._piece: _Begun | None = None
        self._paused = 0.0
        self._read = dict.fromkeys((*steps, *pieces), 0)  # tokens of the answer that the models of each way have read
        self._solution: Solution
        self._draft: Writer
        self._target: Writer
        self._reward: Reward

    def watch(self, solution: Solution, draft: Writer, target: Writer, reward: Reward) -> None:
        """Take what the steps are made of."""
        self._solution, self._draft, self._target, self._reward = solution, draft, target, reward

    def step(self, *, draft: bool, target: bool) -> Chosen:
        """The way of the next step; whoever it asks has then evaluated what stands, so that the step's cost is its own.

        What the target had not read of drafted steps is those steps' cost; one on a server has nearly all of it, and waiting for the rest
        would be a round trip of its own. A first step by the way that is the fastest anyhow goes without: the prompt is then read with the
        step, in one batch less, and nobody learns from it.

        Args:
            draft, target: whether it may be drafted, and whether the target may write it; one of them at least.
        """
        before, came = self._way, self._close()
        steps = _DRAFTED if not target else self._steps if draft else self._pieces
        tokens = self._solution.tokens
        unread: dict[Way, int] = {way: tokens - read for way, read in self._read.items() if way != "target"}
        self._way = way = (self._replay if target else None) or self._costs.choose(steps, unread)
        counts = before is not None or not self._costs.prefers(way, steps)
        if counts and way != before:
            away = not self._target.abilities.devices  # on a server, which reads what stands while the draft writes on
            if way != "draft" and (before is None or (before == "draft" and not away)):
                self._target.begin()
                self._target.settle()
                read = self._spent()
                if before == "draft":
                    self._costs.charge(before, came.until(read))
                came = read
            if way != "target":
                self._draft.begin()
                self._draft.settle()
            if way == "draft":
                self._reward.settle()
        begun = _Begun(way, self._spent(), tokens, counts)
        self._costs.caught_up(way, 0 if way == before else unread.get(way, 0), came.until(begun.spent))
        self._note_read(way, tokens)
        self._drafted, self._piece = (begun, None) if way == "draft" else (None, begun)
        return self._tell(way)

    def piece(self, begun: Step) -> Piece:
        """How the target goes on in a step: at first by the step's way, then, and in place of a drafted step, by any of its own.

        Args:
            begun: what of the step is written.
        """
        tokens = self._solution.tokens + len(begun.tokens)
        piece = self._piece
        if piece is None or piece.tokens != tokens:
            now = self._spent()
            self._close_piece(tokens, now)
            piece = self._open_piece(tokens, begun, now)
        if len(self._pieces) == 1 or self._replay is not None:
            return Piece(piece.way, None, self._told_now(piece.way))
        sure = piece.counts and self._costs.prefers(piece.way, self._pieces)
        return Piece(piece.way, _SPAN if sure else PIECE, self._told_now(piece.way))

    def end(self) -> None:
        """The answer is written."""
        self._close()

    @property
    def _replay(self) -> Way | None:
        place = self._solution.steps
        return self._replayed[place] if place < len(self._replayed) else None

    def _open_piece(self, tokens: int, begun: Step, now: _Spent) -> _Begun:
        unread = tokens - self._read.get("speculate", tokens)
        way: Way = "target" if self._replay else self._costs.choose(self._pieces, {"speculate": unread})
        if way == "speculate" and unread:
            self._draft.correct(begun)
            self._draft.settle()
            read = self._spent()
            self._costs.caught_up(way, unread, now.until(read))
            now = read
        self._piece = piece = _Begun(way, now, tokens, counts=True)
        return piece

    def _close_piece(self, tokens: int, now: _Spent) -> None:
        piece, self._piece = self._piece, None
        if piece is not None and tokens > piece.tokens:
            self._note(piece, tokens, now)
            self._note_read(piece.way, tokens)

    def _close(self) -> _Spent:
        """Notes what was being measured at the end of a step, and says what was spent so far."""
        now, tokens = self._spent(), self._solution.tokens
        self._close_piece(tokens, now)
        if self._drafted is not None:
            self._note(self._drafted, tokens, now)
            self._drafted = None
        return now

    def _note(self, begun: _Begun, tokens: int, now: _Spent) -> None:
        if begun.counts:
            self._costs.note(begun.way, tokens - begun.tokens, begun.spent.until(now))
        else:
            self._costs.passed(begun.spent.until(now))

    def _note_read(self, way: Way, tokens: int) -> None:
        for one in self._read:
            if one == way or way == "draft":
                self._read[one] = tokens

    def _told_now(self, way: Way) -> Chosen | None:
        return None if way == self._told else self._tell(way)

    def _tell(self, way: Way) -> Chosen:
        self._told = way
        return Chosen(self._solution.steps, way, self._costs.costs((*self._steps, *self._pieces)))

    def _spent(self) -> _Spent:
        scored = sum(one.seconds + (one.waiting_seconds if one.rounds else 0.0) for one in self._reward.counters().values())
        return _Spent(self._now() - self._paused, self._draft.spent() + self._target.spent() + scored)

    def _now(self) -> float:
        return self._costs.clock() if self._costs.clock is not None else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While whoever reads the events has one: that time belongs to no way."""
        began = self._now()
        try:
            yield
        finally:
            self._paused += self._now() - began


def auto(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt by RSD, by the target alone or by the target with guessed tokens, whichever is the fastest, step by step.

    Yields a ``Chosen`` before each step, and where the target goes another way within one, besides the events of ``rsd``.

    Raises:
        ContextFull: the prompt does not fit one of the contexts.
        VerifierFailed: a verifier does not work.
    """
    pieces: tuple[Way, ...] = ("speculate", "target") if trio.speculates else ("target",)
    chooser = Chooser(trio.way_costs, ("draft",) if trio.checked else ("draft", *pieces), pieces, params.search.ways)
    with closing(rsd(prompt, trio, params, chooser)) as events:
        for event in events:
            with chooser.paused():
                yield event
