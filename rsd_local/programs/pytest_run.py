"""Runs a user's tests with pytest inside the sandbox. By path: it imports nothing of this package.

Its job is two lines of standard input: a secret, and pytest's arguments as JSON. What pytest counted goes out over a pipe behind
the secret, so that code which ends the process early has passed nothing. It shares its process with the code: one that was written
to look for this file's own objects could change the counts.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


class Counts:
    """A plugin of pytest: counts tests."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        self.broken = self.left_out = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test's set-up, its call or its end is over; one that the code has skipped, or has said to fail as expected, fails."""
        expected = hasattr(report, "wasxfail") and "xfail" in report.keywords
        if report.failed or (report.when == "call" and report.skipped and not expected and not _skips_itself(report)):
            self.failed.add(report.nodeid)
        elif report.when == "call" and (report.passed or expected):
            self.passed.add(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        """A file has been read."""
        self.broken += bool(report.failed)
        self.left_out += bool(report.skipped)


def _skips_itself(report: Any) -> bool:
    """Whether a test was skipped where it stands."""
    place = report.longrepr[0] if isinstance(report.longrepr, tuple) else ""
    return not hasattr(report, "wasxfail") and os.path.realpath(place) == os.path.realpath(report.location[0])


def main() -> None:
    """Runs pytest in this folder, and reports."""
    secret, arguments = sys.stdin.readline().strip(), json.loads(sys.stdin.readline())
    pipe, write, leave = int(sys.argv[1]), os.write, os._exit
    if sys.platform == "win32":
        import msvcrt

        pipe = msvcrt.open_osfhandle(pipe, os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    sys.path.insert(0, os.getcwd())  # as python -m pytest has it
    sys.dont_write_bytecode = True
    sys.argv = ["pytest"]
    import pytest

    counts = Counts()
    code = int(pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[counts]))
    passed, failed = len(counts.passed - counts.failed), len(counts.failed)
    write(pipe, f"\n{secret} {code} {passed} {failed} {counts.broken} {counts.left_out}\n".encode())
    sys.stdout.flush()
    leave(0)


if __name__ == "__main__":
    main()
