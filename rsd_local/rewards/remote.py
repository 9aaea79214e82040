"""Rewards whose model is on a server: steps are noted here, and each score is a request that has a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from rsd_local.errors import Closed, RemoteError
from rsd_local.events import CancelToken, Counters, Role, total
from rsd_local.remote import Asked, Call
from rsd_local.rewards.reading import PendingScore, PendingScores, as_score, one_by_one
from rsd_local.roles import RewardAbilities
from rsd_local.steps import SKIPPED, Score, Step

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Noted:
    """A step of an answer, and its tokens at the server once they were asked for."""

    step: Step
    tokens: list[int] | None = None


class Question(Protocol):
    """One prompt at a server that scores its steps. Several threads may use it."""

    @property
    def whole(self) -> bool:
        """Whether several steps are scored with one request."""

    def prepare(self, call: Call, counters: Counters) -> None:
        """Ask for the tokens that stand before the first step.

        Args:
            call: the requests, to end them.
            counters: of the answer.

        Raises:
            ContextFull: they do not fit the server's context.
        """

    def read_ahead(self, slot: int, call: Call, counters: Counters) -> None:
        """Let the server evaluate them before a score is wanted, where that is of use.

        Args:
            slot: of the server, −1 for any.
            call, counters: as for ``prepare``.
        """

    def scores(self, steps: Sequence[Noted], asked: Sequence[int], slot: int, call: Call, counters: Counters) -> list[float]:
        """The rewards of some steps, NaN where the model gave no number.

        Args:
            steps: of the answer, up to the last one that is asked for.
            asked: their places, ascending.
            slot, call, counters: as for ``read_ahead``.

        Raises:
            ContextFull: they do not fit the server's context.
            RemoteError: what went wrong.
        """

    def take_slot(self) -> int:
        """One of the server's slots; −1 where there is none."""

    def give_slot(self, slot: int) -> None:
        """Give it back."""


class RemoteReward:
    """Scores one answer's steps at a server. See ``roles.Reward``.

    Args:
        question: the prompt there.
        by: the reward's name in scores.
        cancel: ends whatever is asked.
        role: of its model in counters.
        parameters: of the model.
        family: counters of all that were forked from the same; this one's are added.
        steps: so far.
    """

    can_check = True

    def __init__(
        self, question: Question, by: str, cancel: CancelToken | None, role: Role, parameters: int, family: list[Counters],
        steps: tuple[Noted, ...] = (),
    ) -> None:  # fmt: skip
        self._question, self._by, self._cancel, self._role, self._parameters = question, by, cancel, role, parameters
        self._family, self._counters = family, Counters(parameters=parameters)
        family.append(self._counters)
        self._steps, self._before, self._closed = steps, steps, False
        self._slot = question.take_slot()
        self._ahead: Asked[None] | None = None
        self._last: Asked[list[float]] | None = None

    @classmethod
    def open(cls, question: Question, by: str, cancel: CancelToken | None, role: Role, parameters: int) -> Self:
        """A scorer at a prompt, which the server begins to evaluate.

        Raises:
            ContextFull: it does not fit the server's context.
            RemoteError: the server fails.
            Cancelled: ``cancel`` was called.
        """
        made = cls(question, by, cancel, role, parameters, [])
        try:
            made._ask(lambda call: question.prepare(call, made._counters)).result()
            slot = made._slot
            made._ahead = made._ask(lambda call: question.read_ahead(slot, call, made._counters))
        except BaseException:
            made.close()
            raise
        return made

    @property
    def abilities(self) -> RewardAbilities:
        """It computes on no device of this machine."""
        return RewardAbilities(whole=self._question.whole)

    def start_score(self, step: Step) -> PendingScore:
        """Begin to score the next step."""
        self.read(step)
        asked = self._scores(self._steps, [len(self._steps) - 1])
        return PendingScore(lambda: as_score(asked.result()[0], self._by), self._stopping(asked))

    def start_scores(self, steps: list[Step], asked: Set[int]) -> PendingScores:
        """Begin to score steps, in one request where the server can."""
        if not self._question.whole or not asked:
            return one_by_one(self, steps, asked)
        first = len(self._steps)
        noted = (*self._steps, *map(Noted, steps[: max(asked) + 1]))
        places = sorted(asked)
        made = self._scores(noted, [first + place for place in places])

        def finish() -> list[Score]:
            found = dict(zip(places, made.result(), strict=True))
            self._steps = noted
            return [as_score(found[place], self._by) if place in found else SKIPPED for place in range(len(steps))]

        return PendingScores(finish, self._stopping(made))

    def forget(self) -> None:
        """Take back the step that was scored last."""
        self._steps = self._before

    def read(self, step: Step) -> None:
        """Note an accepted step without a score."""
        self._before = self._steps
        self._steps = (*self._steps, Noted(step))

    def settle(self) -> None:
        """There is nothing to evaluate: the server reads what is noted with the next score."""

    def fork(self) -> Self:
        """Another scorer that goes on from here, in a slot of its own, which reads what stands anew."""
        return type(self)(self._question, self._by, self._cancel, self._role, self._parameters, self._family, self._steps)

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""
        self._steps, fork._steps = fork._steps, self._steps
        self._before, fork._before = fork._before, self._before
        self._slot, fork._slot = fork._slot, self._slot
        self._ahead, fork._ahead = fork._ahead, self._ahead

    def counters(self) -> dict[Role, Counters]:
        """What was evaluated so far, by this one and all that were forked from the same."""
        return {self._role: total(self._family)}

    def close(self) -> None:
        """End what is asked, and give the slot back."""
        if self._closed:
            return
        self._closed = True
        for asked in (self._ahead, self._last):
            if asked is not None:
                asked.cancel()
        self._question.give_slot(self._slot)

    def _scores(self, steps: tuple[Noted, ...], places: list[int]) -> Asked[list[float]]:
        if self._closed:
            raise Closed("the reward was closed")
        slot = self._slot

        def work(call: Call) -> list[float]:
            return self._question.scores(steps[: places[-1] + 1], places, slot, call, self._counters)

        self._last = self._ask(work, behind=self._ahead)
        return self._last

    def _stopping(self, asked: Asked[list[float]]) -> Callable[[], None]:
        """What ends a score, and what it waits for."""
        ahead = self._ahead

        def stop() -> None:
            asked.cancel()
            if ahead is not None:
                ahead.cancel()

        return stop

    def _ask(self, work: Callable[[Call], T], behind: Asked[None] | None = None) -> Asked[T]:
        """Ask in a thread, with its time and traffic counted.

        Args:
            work: asks.
            behind: is waited for first; where it failed, this meets that too.
        """
        counters = self._counters

        def counted(call: Call) -> T:
            if behind is not None:
                behind.wait()
            began, before = time.perf_counter(), counters.seconds
            try:
                with nullcontext() if self._cancel is None else self._cancel.calling(call.cancel):
                    return work(call)
            except RemoteError as error:
                error.role = self._role
                raise
            finally:
                counters.rounds += call.traffic.rounds
                counters.sent_bytes += call.traffic.sent
                counters.received_bytes += call.traffic.received
                counters.waiting_seconds += max(0.0, time.perf_counter() - began - (counters.seconds - before))

        return Asked(counted, "rsd-remote-reward")
