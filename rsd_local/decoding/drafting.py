"""Drafting ahead: while a reward that computes elsewhere looks at a step, the draft writes the next one behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rsd_local.config import Params
from rsd_local.decoding.solution import Solution
from rsd_local.roles import DRAFT, Abilities, PendingStep, Reward, RewardAbilities, Stream, Writer
from rsd_local.steps import Step


def can_draft_ahead(draft: Abilities, reward: RewardAbilities) -> bool:
    """Whether the draft can write while the reward is waited for without slowing it: no device computes for both."""
    return draft.writes_ahead and not reward.immediate and draft.devices.isdisjoint(reward.devices)


class DraftAhead:
    """The draft's next step, begun before it is known whether the one before is accepted.

    It has the random numbers that it would have later, so it is the same step; where it must go, it leaves nothing behind but time
    and ``Counters.unused_tokens``.

    Args:
        draft, reward: at the end of the solution.
        solution: so far.
        params: of the answer.
        turn: of the conversation.
        wanted: whether the next step is the draft's for sure where this one is accepted.
    """

    def __init__(self, draft: Writer, reward: Reward, solution: Solution, params: Params, turn: int, *, wanted: bool) -> None:
        self._draft, self._solution, self._params, self._turn = draft, solution, params, turn
        self._possible = wanted and params.search.candidates == 1 and can_draft_ahead(draft.abilities, reward.abilities)
        self._pending: PendingStep | None = None

    @property
    def running(self) -> bool:
        """Whether a step was begun that nobody has taken."""
        return self._pending is not None

    @contextmanager
    def behind(self, step: Step) -> Iterator[None]:
        """Write what comes behind a step while the block waits for its score; where the block fails, it is taken back.

        Nothing is begun behind a step that ends the solution, or that is blank and is not scored.
        """
        solution = self._solution
        if self._possible and not step.blank and solution.reason_after(step) is None:
            stream = Stream(self._params.sampling.seed, DRAFT, self._turn, solution.steps + 1)
            self._pending = self._draft.start_ahead(solution.room_after(step), solution.scan_after(step), self._params.sampling, stream)
        try:
            yield
        except Exception:
            self.end(kept=False)
            raise

    def end(self, *, kept: bool) -> None:
        """Say whether the step before was accepted; otherwise what was begun is taken back."""
        if self._pending is not None:
            self._draft.end_ahead(kept=kept)
            self._pending = self._pending if kept else None

    def take(self) -> PendingStep | None:
        """The step that is being written at this place, None where none was begun."""
        pending, self._pending = self._pending, None
        return pending
