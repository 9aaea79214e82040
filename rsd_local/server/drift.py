"""Whether the draft's steps are still accepted as often as when ``rsd tune`` chose the threshold.

The rule: a check takes the answers since the last check, at least ``ANSWERS`` of them with at least ``STEPS`` steps of the draft. Their
share of accepted steps differs where the 99 % interval of its difference to what tune saw leaves 0 out (``differ``), with the steps of
both divided by the design effect that these answers have, for steps of one answer are alike. It is drift once ``IN_A_ROW`` checks, which
have no answer in common, differ to the same side.
"""

from __future__ import annotations

import logging
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
        self._last, self._since = Ratio(), Ratio()  # the answers of the last check, and those since
        self._beyond = 0  # checks in a row that differ, negative for those below
        self._warned = False

    @property
    def expected(self) -> float:
        """The share that tune saw."""
        return self.tuned.acceptance

    @property
    def recent(self) -> float | None:
        """The share of the answers of the last check and since; None where the draft wrote no step yet."""
        drafted = self._last.below + self._since.below
        return (self._last.above + self._since.above) / drafted if drafted else None

    def note(self, steps: Iterable[StepDone]) -> None:
        """Take an answer in, and check where there are enough."""
        accepted, drafted = acceptance(steps)
        self.add(accepted, drafted)

    def add(self, accepted: int, drafted: int) -> None:
        """As ``note``, with an answer's accepted steps and all that the draft wrote."""
        self._since.add(accepted, drafted)
        if self._since.answers >= ANSWERS and self._since.below >= STEPS:
            self._last, self._since = self._since, Ratio()
            self._check(self._last)

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
