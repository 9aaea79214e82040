"""Where a step ends, and which part of the answer it belongs to.

``Segmenter`` is the setting, ``Scan`` the place in one answer; ``markup`` knows what stands open there, ``matching`` searches
what a user gave as a delimiter.
"""

from rsd_local.segments.segmenter import DELIMITERS, Cut, Scan, Segmenter, joint

__all__ = ["DELIMITERS", "Cut", "Scan", "Segmenter", "joint"]
