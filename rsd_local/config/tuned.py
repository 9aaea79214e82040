"""What ``rsd tune`` saw at the threshold that it wrote."""

from __future__ import annotations

from dataclasses import dataclass

from rsd_local.config.checks import require


@dataclass(frozen=True, slots=True)
class TunedFigures:
    """The share of the draft's steps that were accepted when a threshold was chosen; ``rsd serve`` watches whether it stays so.

    Attributes:
        threshold: δ that it belongs to; at another one it says nothing.
        acceptance: the share, 0 to 1.
        steps: of how many steps of the draft.
    """

    threshold: float
    acceptance: float
    steps: int

    def __post_init__(self) -> None:
        require(0.0 <= self.threshold <= 1.0, f"threshold {self.threshold} is outside 0 to 1")
        require(0.0 <= self.acceptance <= 1.0, f"acceptance {self.acceptance} is outside 0 to 1")
        require(self.steps >= 1, f"steps {self.steps} is below 1")
