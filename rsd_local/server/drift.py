"""Whether the draft's steps are still accepted as often as when ``rsd tune`` chose the threshold.

The rule: a check takes the answers since the last check, at least ``ANSWERS`` of them with at least ``STEPS`` steps of the draft. Their
share of accepted steps differs where the 99 % interval of its difference to what tune saw leaves 0 out (``differ``), with the steps of
both divided by the design effect that these answers have, for steps of one answer are alike. It is drift once ``IN_A_ROW`` checks, which
have no answer in common, differ to the same side.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from rsd_local.config import TunedFigures
from rsd_local.evaluation.ratios import Ratio, differ
from rsd_local.events import StepDone, acceptance

log = logging.getLogger("rsd_local.server.drift")

ANSWERS = 50
"""That a check takes at least."""
STEPS = 200
"""Of the draft, that it takes at least."""
IN_A_ROW = 2
"""Checks that must differ."""


class DriftWatch:
    """Compares the acceptance share of late answers with what tune saw. It is called from one thread.

    Args:
        tuned: what tune saw.
    """

    def __init__(self, tuned: TunedFigures) -> None:
        self.tuned = tuned
        self.drift = False
        self.checks = 0
        self._late: deque[tuple[int, int]] = deque()  # answers of the last check, and those since
        self._since = 0  # of them
        self._beyond = 0  # checks in a row that differ, negative for those below
        self._warned = False

    @property
    def expected(self) -> float:
        """The share that tune saw."""
        return self.tuned.acceptance

    @property
    def recent(self) -> float | None:
        """The share of the answers of the last check and since; None where the draft wrote no step yet."""
        return Ratio.of(self._late).value

    def note(self, steps: Iterable[StepDone]) -> None:
        """Take an answer in, and check where there are enough."""
        accepted, drafted = acceptance(steps)
        self.add(accepted, drafted)

    def add(self, accepted: int, drafted: int) -> None:
        """As ``note``, with an answer's accepted steps and all that the draft wrote."""
        if not drafted:
            return
        self._late.append((accepted, drafted))
        self._since += 1
        late = list(self._late)[-self._since :]
        if self._since >= ANSWERS and sum(count for _, count in late) >= STEPS:
            self._since = 0
            self._late = deque(late)
            self._check(Ratio.of(late))

    def _check(self, late: Ratio) -> None:
        share, effect = late.value, late.design_effect
        assert share is not None
        self.checks += 1
        differs = differ(share, late.below / effect, self.tuned.acceptance, self.tuned.steps / effect)
        side = (1 if share > self.tuned.acceptance else -1) if differs else 0
        self._beyond = self._beyond + side if self._beyond * side > 0 else side
        if abs(self._beyond) >= IN_A_ROW:
            self.drift = True
        elif not side:
            self.drift = False
        if self.drift and not self._warned:
            self._warned = True
            log.warning(
                "the draft's steps are accepted %s often than when the threshold was chosen: %.1f %% of the last %d, "
                "%.1f %% of %d then; rsd tune chooses it anew",
                "more" if side > 0 else "less", 100 * share, late.below, 100 * self.expected, self.tuned.steps,
            )  # fmt: skip
