"""The target's steps in place of the draft's: written, checked where it may try again, and read by the draft and the reward."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsd_local.config import Params
from rsd_local.decoding.ahead import Ahead
from rsd_local.decoding.candidates import rank, start_score
from rsd_local.decoding.fallback import Fallbacks
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.writing import shown
from rsd_local.events import Event, Rejected
from rsd_local.roles import Reward, Writer
from rsd_local.steps import UNCHECKED, Score, Step, Trace

if TYPE_CHECKING:
    from rsd_local.decoding.auto import Chooser


@dataclass(frozen=True, slots=True)
class Checked:
    """A step of the target.

    Attributes:
        step: the step.
        score: its own, None where it was not checked.
        tries: how many further ones were written.
        held: whether the reward holds the step already.
    """

    step: Step
    score: Score | None = None
    tries: int = 0
    held: bool = False


class TargetSteps:
    """Writes the target's steps of one answer.

    Args:
        ahead: with the target's writer, at the solution's end or behind a step that it has read there.
        draft, reward: at the solution's end.
        solution: so far; it takes the steps.
        trio: of all of these.
        params: of the answer.
        turn: of the conversation.
        chooser: says how the target writes (``auto``); None: as ``fallback`` says.
        drafts: whether the draft writes at all; otherwise neither it nor the reward need to read along.
    """

    def __init__(
        self, ahead: Ahead, draft: Writer, reward: Reward, solution: Solution, trio: OpenTrio, params: Params, turn: int,
        chooser: Chooser | None, *, drafts: bool,
    ) -> None:  # fmt: skip
        self._target, self._draft, self._reward = ahead.writer, draft, reward
        self._solution, self._trio, self._params, self._drafts = solution, trio, params, drafts
        self._fallbacks = Fallbacks(ahead, draft, trio, params, turn, chooser)

    def write(self, step: Step | None, score: Score, rejected: Rejected | None, *, to_the_end: bool) -> Iterator[Event]:
        """The target's step at this place, and all that follow where it writes to the end.

        Args:
            step: what the draft wrote here and was not accepted, None where it wrote nothing.
            score: of that.
            rejected: what the event tells of it.
            to_the_end: whether the target writes all the rest.
        """
        solution, first = self._solution, True
        while solution.reason is None and (first or to_the_end):
            written = yield from shown(self._fallbacks.write(step if first else None, solution), self._trio, solution, "target")
            made = Checked(written)
            if self._params.search.retries and self._drafts:
                made = yield from self._checked(written)
            own: dict[str, Any] = {"own_reward": made.score and made.score.value, "retries": made.tries}
            drafted, replaced = (score, rejected) if first else (UNCHECKED, None)
            yield solution.accept(made.step, "target", drafted, rejected=replaced, **own)
            self._target.begin()
            if solution.reason is None and self._drafts:
                self._draft.correct(made.step)
                self._draft.begin()
                if not made.held:
                    self._reward.read(made.step)
            first = False

    def _checked(self, step: Step) -> Generator[Event, None, Checked]:
        """A step that the target has written, where it passes or there is nothing to check.

        Otherwise the best of it and of further ones, of which the first that passes ends the search.
        """
        target, reward, solution = self._target, self._reward, self._solution
        tried: list[tuple[Step, Score]] = []
        for attempt in range(self._params.search.retries + 1):
            if attempt:
                target.forget()
                step = yield from shown(self._fallbacks.again(attempt, solution), self._trio, solution, "target", attempt)
            score = start_score(reward, replace(step, trace=step.trace or Trace.empty())).result()
            tried.append((step, score))
            unchecked = score.value is None and not score.failed
            threshold = self._params.weighting.threshold if score.threshold is None else score.threshold
            if unchecked or rank(score) >= threshold:
                return Checked(step, score, attempt, held=not step.blank)
            reward.forget()
            if score.failed:
                break  # a check that does not work says nothing of the next try either
        best, score = max(tried, key=lambda one: rank(one[1]))  # of equals the first
        if best is not step:
            target.correct(best)
        return Checked(best, score, len(tried) - 1)
