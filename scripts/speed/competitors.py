"""Who can have a turn, by name."""

from __future__ import annotations

from collections.abc import Callable

from speed import ours, rivals
from speed.turn import Result, Turn

TURNS: dict[str, Callable[[Turn], Result]] = {
    "bare": ours.bare,
    "open trio": ours.open_trio,
    "target": ours.target,
    "rsd": ours.rsd,
    "long": ours.long,
    "memory": ours.memory,
    "server": rivals.target,
    "re-prompting, embeddings": rivals.embeddings,
    "re-prompting, completion": rivals.completion,
}
