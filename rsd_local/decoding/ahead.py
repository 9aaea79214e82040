"""Reading ahead: the target evaluates a drafted step in its own cache once, to score it, to compare it with its own draws, and to keep it.

The target has to read a step anyway, if it stands. Where it (or what is read out of it) is the reward, that one pass is all that it
evaluates: an accepted step is in its cache already, and of a rejected one the beginning that equals its own draws stays there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from rsd_local.config import Params
from rsd_local.decoding.solution import Solution
from rsd_local.events import Counters
from rsd_local.roles import TARGET, Pending, Stream, Writer
from rsd_local.steps import Reading, Step


@dataclass(frozen=True, slots=True)
class Draws:
    """How the target would write the next step of an answer itself.

    Attributes:
        params: of the answer.
        turn: of the conversation.
        solution: so far.
    """

    params: Params
    turn: int
    solution: Solution

    @property
    def stream(self) -> Stream:
        """The random numbers of that step."""
        return Stream(self.params.sampling.seed, TARGET, self.turn, self.solution.steps)


class Ahead:
    """Reads steps with a target's writer; see ``roles.Reader``. The same step is read once, whoever asks again.

    Args:
        writer: of the target, at the end of the solution so far.
        draws: how it would write itself, where what it writes is to go on from what it has read; None where it only reads.
        owns: whether nobody else writes with it; otherwise whoever does keeps it at the solution's end.
    """

    def __init__(self, writer: Writer, draws: Draws | None = None, *, owns: bool = True) -> None:
        self.writer, self._draws, self._owns = writer, draws, owns
        self._step: Step | None = None
        self._pending: Pending[Reading] | None = None

    @property
    def devices(self) -> frozenset[str]:
        """Of this machine that the target computes on."""
        return self.writer.abilities.devices

    def read(self, step: Step, *, tokens: bool, state: bool) -> Pending[Reading]:
        """Begin to read the next step."""
        if self._pending is None or self._step is not step:
            if self._owns:
                self.writer.begin()
            draws = self._draws
            drawn = None if draws is None or draws.params.search.fallback == "off" else (draws.params.sampling, draws.stream)
            self._step, self._pending = step, self.writer.read_ahead(step, drawn, tokens=tokens, state=state)
        return self._pending

    def taken(self, step: Step | None) -> Reading | None:
        """The reading of a step that the target is to replace, where it says what the target would have written."""
        pending, read = self._pending, self._step
        self._step = self._pending = None
        if pending is None or step is None or read is not step:
            return None
        reading = pending.result()
        return reading if reading.own else None

    def note(self, step: Step) -> None:
        """Note an accepted step that was not read ahead."""
        if self._owns and self._step is not step:
            self.writer.read(step)
        self._step, self._pending = step, None

    def forget(self) -> None:
        """Take back the step that was read last."""
        if self._owns and self._step is not None:
            self.writer.forget()
            self._step = self._pending = None

    def settle(self) -> None:
        """Begin a step, and evaluate what is noted, so that forks share it.

        A step that was read and not accepted is still there where somebody else writes, who would have gone on from it; it goes now.
        """
        if self._owns:
            self.writer.begin()
        else:
            self.writer.forget()
            self._step = self._pending = None
        self.writer.settle()

    def fork(self) -> Self:
        """Another one that goes on from here and shares the cache."""
        return type(self)(self.writer.fork(), self._draws)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self.writer.adopt(fork.writer)
        self._step, fork._step = fork._step, self._step
        self._pending, fork._pending = fork._pending, self._pending

    def counters(self) -> Counters | None:
        """What was evaluated, where nobody else counts it."""
        return self.writer.counters() if self._owns else None

    def close(self) -> None:
        """Give the cache back, where it is nobody else's."""
        if self._owns:
            self.writer.close()
