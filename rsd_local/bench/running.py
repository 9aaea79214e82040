"""Questions that are being answered, kept on the disk: what a process that died was at, so that it does not die of it for ever."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from pathlib import Path

RUNNING = "running.jsonl"
SUSPECT, GIVEN_UP = 2, 3
"""Deaths of the process during a question, from which on it is answered alone, and not answered any more."""


class Running:
    """The questions that were begun, a line each. A run that ends by itself takes its lines out again; one that is killed cannot.

    So a question has a line for each run that died while it was answered, others that were in flight beside it too: those with
    ``SUSPECT`` lines are answered one at a time, which tells the one that is to blame.

    Args:
        folder: of the bench.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / RUNNING, threading.Lock()
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._before = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = self._path.read_text(encoding="utf-8")
            self._before = text[: text.rfind("\n") + 1]  # without a line that the end has torn
            if self._before != text:
                self._path.write_text(self._before, encoding="utf-8")
        for line in self._before.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                made = json.loads(line)
                self._deaths[made["id"], made["strategy"]] += 1

    def deaths(self, item: str, strategy: str) -> int:
        """How many runs died while this question was being answered."""
        return self._deaths[item, strategy]

    def begin(self, item: str, strategy: str) -> None:
        """Notes that a question is being answered; a folder that cannot be written to is noticed by its results."""
        line = json.dumps({"id": item, "strategy": strategy}) + "\n"
        with self._lock, contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(line)

    def end(self, *, finished: bool) -> None:
        """Takes this run's lines out again, of a finished one all of them."""
        with self._lock, contextlib.suppress(OSError):
            if self._before and not finished:
                self._path.write_text(self._before, encoding="utf-8")
            else:
                self._path.unlink(missing_ok=True)
