"""Labels: how good each step of a draft's solution is, for a read-out to learn from."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from rsd_local.answers import boxed
from rsd_local.config import Params, require, require_choice
from rsd_local.decoding.sampled import continued
from rsd_local.decoding.solution import Solution
from rsd_local.evaluation.grading import Grader
from rsd_local.evaluation.items import Item
from rsd_local.open_trio import LocalTrio
from rsd_local.prompt import Prompt
from rsd_local.roles import DRAFT, TARGET, Stream, Writer
from rsd_local.steps import Step, outside_thought

Label = Literal["outcome", "mc", "advantage", "verifier", "gold"]
StepLabel = float | None
"""How good a step is, in [0, 1]; None where nobody knows, and the step is left out."""
_BEHIND_DRAFT, _BEHIND_TARGET = 0, 1
"""Whose step the draft goes on behind: the turn of its random streams, so that no two continuations share one."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """How steps are labelled.

    Attributes:
        label: ``outcome``: every step of a solution by the solution's answer. ``mc``: by the share of continuations from
            the step on that come to the right answer (Math-Shepherd's soft estimation, arXiv 2312.08935). ``advantage``: whether the
            target's own step would have been no better there, see ``Behind.advantages``. ``verifier``: by the trio's verifier.
            ``gold``: by a file, see ``calibration.gold``.
        continuations: of each step, for ``mc`` and ``advantage``.
    """

    label: Label = "outcome"
    continuations: int = 4

    def __post_init__(self) -> None:
        require_choice(self.label, Label, "label")
        require(1 <= self.continuations <= 64, f"continuations {self.continuations} is outside 1 to 64")

    @property
    def continues(self) -> bool:
        """Whether the draft goes on behind steps, which takes a temperature."""
        return self.label in ("mc", "advantage")

    @property
    def sequences(self) -> int:
        """Sequences of the draft that labels take."""
        return self.continuations + {"mc": 1, "advantage": 2}[self.label] if self.continues else 1


@dataclass(frozen=True, slots=True)
class Behind:
    """One sampled solution, and what comes of its steps when they are continued.

    Attributes:
        trio: whose draft goes on.
        prompt: as the models are asked.
        item: the question.
        number: of the sample.
        steps: of the solution, none of them blank.
        right: whether its answer is right.
        params: sampling and limits of the solution, and of what is written behind its steps.
        continuations: behind each step.
        grader: says which answers are right.
    """

    trio: LocalTrio
    prompt: Prompt
    item: Item
    number: int
    steps: list[Step]
    right: bool
    params: Params
    continuations: int
    grader: Grader

    def shares(self) -> list[float]:
        """Of right answers among the draft's continuations behind each step; behind the last one stands the answer itself."""
        with closing(self.trio.writer("draft", self.prompt)) as draft:
            made = []
            for place, step in enumerate(self.steps[:-1]):
                draft.read(step)
                made.append(self._share(draft, place, self.steps[: place + 1], _BEHIND_DRAFT))
        return [*made, float(self.right)]

    def advantages(self) -> list[float]:
        """For each step 1.0 where the target's own step at its place is no better, 0.0 where it is.

        Arbitrage (arXiv 2512.05033) asks at each place whether the target's step beats the draft's by a process reward model's
        score. Here a step's score is the share of right answers among the draft's continuations behind it. So behind the same steps
        of the draft, d is that share behind the draft's step and t that behind the step that the target writes there, and the label
        is 1.0 where d ≥ t. Of a step that ends the solution the share is 1 or 0, by its answer. Where d is 1, or the target writes the
        same text, the label is 1.0 and nothing is continued behind the target's step.

        A step takes up to 2 K continuations of the draft, K of them as for ``shares``, and one step of the target, which also reads
        the draft's steps up to there.
        """
        solution = Solution(self.params.limits, self.trio.segmenter)
        made = []
        with closing(self.trio.writer("draft", self.prompt)) as draft, closing(self.trio.writer("target", self.prompt)) as target:
            for place, step in enumerate(self.steps):
                draft.begin()
                draft.settle()
                with closing(draft.fork()) as before:
                    draft.read(step)
                    last = place + 1 == len(self.steps)
                    share = float(self.right) if last else self._share(draft, place, self.steps[: place + 1], _BEHIND_DRAFT)
                    made.append(float(share == 1.0 or self._as_good(share, target, before, place, solution)))
                target.read(step)
                solution.accept(step, "draft")
        return made

    def _as_good(self, share: float, target: Writer, draft: Writer, place: int, solution: Solution) -> bool:
        """Whether the draft's step is as good as the one that the target writes at its place.

        Args:
            share: of right answers behind the draft's.
            target, draft: at the steps before the place; the draft's is not needed any more.
            place: of the step.
            solution: of the steps before it.
        """
        target.begin()
        stream = Stream(self.params.sampling.seed, TARGET, 0, place, self.number)
        own = target.start_writing(max(1, solution.room), solution.scan(), self.params.sampling, stream).result()
        target.forget()
        if own.raw == self.steps[place].raw:
            return True
        steps = [*self.steps[:place], own]
        if own.ended != "delimiter":
            return share >= self._is_right(b"".join(step.raw for step in steps))
        draft.read(own)
        return share >= self._share(draft, place, steps, _BEHIND_TARGET)

    def _share(self, draft: Writer, place: int, steps: list[Step], turn: int) -> float:
        """Of right answers among continuations behind some steps, which the draft has read."""
        room = max(1, self.params.limits.tokens - sum(len(step.tokens) for step in steps))
        first = (self.number + 1) * self.continuations  # the attempts before are those of the samples themselves
        tries = [Stream(self.params.sampling.seed, DRAFT, turn, place + 1, first + attempt) for attempt in range(self.continuations)]
        text = b"".join(step.raw for step in steps)
        scan = self.trio.segmenter.start(steps=False)
        scan.feed(text)
        scan.begin()
        with continued(draft, tries, room, self.params.sampling, scan) as written:
            ends = [end.raw for end in written]
        return sum(self._is_right(text + end) for end in ends) / len(ends)

    def _is_right(self, raw: bytes) -> bool:
        whole = outside_thought(raw).decode("utf-8", "replace")
        return self.grader.grade_solution(self.item, whole, boxed(whole), self.trio.cancel).right


def verified(trio: LocalTrio, prompt: Prompt, steps: list[Step]) -> list[StepLabel]:
    """What the trio's verifier says of each step; None where it found nothing to check.

    Raises:
        VerifierFailed: it does not work, unless the trio lets the target write such steps: then the label is None.
    """
    with closing(trio.reward(prompt)) as reward:
        return [reward.start_score(step).result().value for step in steps]
