"""How long a batch takes, learnt from the batches that were decoded."""

from __future__ import annotations

_WEIGHT = 0.2  # of a new measurement in the running mean


class LatencyModel:
    """Running means of an engine's decode times by the number of rows, in powers of two."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def note(self, rows: int, seconds: float) -> None:
        """Take one batch's time."""
        size = (rows - 1).bit_length()
        known = self._seconds.get(size, seconds)
        self._seconds[size] = known + _WEIGHT * (seconds - known)

    def seconds(self, rows: int) -> float | None:
        """The expected seconds of a batch of so many rows, None where none of that size was seen."""
        return self._seconds.get((rows - 1).bit_length())
