"""Rounds of turns, each noted as a JSON line once it is done, so that a stopped bench goes on where it was."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speed.turn import Result, Turn, play

Results = Mapping[str, Result]
"""Of one round, by competitor."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that each round gives.

    Attributes:
        label: what it is.
        value: from a round's results.
        bar: what it is to reach, None where it is only told.
        at_most: whether the bar is an upper one.
        unit: printed behind it.
    """

    label: str
    value: Callable[[Results], float]
    bar: float | None = None
    at_most: bool = False
    unit: str = ""

    def holds(self, value: float) -> bool | None:
        """Whether a number reaches the bar; None without one."""
        if self.bar is None:
            return None
        return value <= self.bar if self.at_most else value >= self.bar


@dataclass(frozen=True, slots=True)
class Case:
    """Competitors that take turns.

    Attributes:
        row: of the bench.
        name: of the models or settings.
        turns: by competitor.
        figures: that are told.
        most: rounds at most, however many are asked for; 0 for no such limit.
    """

    row: str
    name: str
    turns: Mapping[str, Turn]
    figures: tuple[Figure, ...]
    most: int = 0


def pace(result: Result) -> float:
    """Seconds a token."""
    return float(result["seconds"]) / float(result["tokens"])


def times_as_fast(one: str, other: str, bar: float | None = None, label: str = "") -> Figure:
    """How many times as fast one competitor is as another."""
    return Figure(label or f"{one}, of {other}", lambda results: pace(results[other]) / pace(results[one]), bar)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, least and greatest."""
    return statistics.median(values), min(values), max(values)


class Journal:
    """The file of finished rounds.

    Args:
        path: of it.
        where: machine and versions, which must be the same for rounds that go together.
    """

    def __init__(self, path: Path, where: Mapping[str, Any]) -> None:
        self._path, self._where = path, where

    def rounds(self, case: Case, count: int, tell: Tell) -> list[Results]:
        """So many rounds of a case: those that are noted, and further ones, in which the first turn is another one's each time.

        Raises:
            TurnFailed: a competitor ended with an error.
        """
        count = min(count, case.most) if case.most else count
        settings = self._settings(case)
        found = [one["results"] for one in self._lines() if one["settings"] == settings][:count]
        if found:
            tell(f"{case.row}, {case.name}: {len(found)} rounds of {count} are there")
        names = list(case.turns)
        for number in range(len(found), count):
            made: dict[str, Result] = {}
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                made[name] = play(case.turns[name])
                tell(f"{case.row}, {case.name}, round {number + 1}: {name} {1 / pace(made[name]):.2f} tokens/s")
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"row": case.row, "case": case.name, "settings": settings, "results": made}) + "\n")
            found.append(made)
        return found

    def _settings(self, case: Case) -> Any:
        """What must be equal for two rounds to be of the same case."""
        turns = {name: asdict(turn) for name, turn in case.turns.items()}
        files = {str(turn[key]) for turn in turns.values() for key in ("target", "draft", "reward")}
        sizes = {file: Path(file).stat().st_size for file in sorted(files) if file and Path(file).is_file()}
        made = {"row": case.row, "case": case.name, "turns": turns, "sizes": sizes, "where": dict(self._where)}
        return json.loads(json.dumps(made))

    def _lines(self) -> list[Any]:
        """The noted rounds; a line that was torn by a kill is passed over."""
        found: list[Any] = []
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return found
