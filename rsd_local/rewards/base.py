"""What rewards share."""

from __future__ import annotations

import math


def sigmoid(value: float) -> float:
    """1 / (1 + e^−value), NaN where the value is no finite number."""
    return 1.0 / (1.0 + math.exp(min(-value, 700.0))) if math.isfinite(value) else math.nan
