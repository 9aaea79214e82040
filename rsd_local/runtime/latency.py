"""How long a batch takes, learnt from the batches that were decoded."""

from __future__ import annotations

from dataclasses import dataclass

_DROPPED = 2  # the first batches of an engine: they read weights from the disk and set threads up
_FADE = 0.98  # what a measurement counts for once the next one of its size is there
_LOAD = 0.1  # of a new measurement in the running mean of what other requests have in a batch


@dataclass(slots=True)
class _Size:
    """Faded sums over batches of one size, in powers of two."""

    weight: float = 0.0
    rows: float = 0.0
    seconds: float = 0.0


class LatencyModel:
    """The time of a batch by its rows: a line between the mean points of the sizes that were seen, each a power of two.

    Between one row and a prompt's batch there is always a line, so that a size which was never seen has a time too. Below the
    smallest size a batch costs as much as there: a pass over the weights.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}
        self._dropped, self._others = 0, 0.0

    def note(self, rows: int, seconds: float, requests: int = 1) -> None:
        """Take one batch's time.

        Args:
            rows: of the batch.
            seconds: that it took.
            requests: that shared it.
        """
        if self._dropped < _DROPPED:
            self._dropped += 1
            return
        size = self._sizes.setdefault((rows - 1).bit_length(), _Size())
        size.weight, size.rows, size.seconds = size.weight * _FADE + 1, size.rows * _FADE + rows, size.seconds * _FADE + seconds
        self._others += _LOAD * (rows * (requests - 1) / requests - self._others)

    def seconds(self, rows: int) -> float | None:
        """The expected seconds of a batch in which one request has so many rows, beside those that others mostly have in it.

        None where nothing is known, or only one size and not this one.
        """
        wanted = rows + self._others
        points = sorted((size.rows / size.weight, size.seconds / size.weight) for size in self._sizes.values())
        if not points or (len(points) == 1 and wanted > 2 * points[0][0]):
            return None
        if wanted <= points[0][0] or len(points) == 1:
            return points[0][1]
        above = next((place for place, (at, _) in enumerate(points) if at >= wanted), len(points) - 1)
        (first, low), (last, high) = points[above - 1], points[above]
        return max(low, low + (high - low) * (wanted - first) / (last - first))
