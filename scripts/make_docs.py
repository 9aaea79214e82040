"""Writes the parts of the docs that are what the program prints, or checks that they are up to date.

    python scripts/make_docs.py [--check]

Figures that take long are not made here: eval_abacus.py, bench_engine.py and rsd bench print those.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
QUESTION = "(37+48)*6-129"


def example() -> str:
    """What ``rsd solve`` prints on a terminal, without the seconds, which differ from run to run."""
    call = [sys.executable, "-c", "from rsd_local.cli import main; main()", "solve", QUESTION]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    steps = re.sub(r" +[0-9.]+ s$", "", done.stderr, flags=re.MULTILINE)
    return f'```console\n$ rsd solve "{QUESTION}"\n{steps}{done.stdout}```\n'


def placed(text: str, mark: str, content: str) -> str:
    """The text with new content between ``<!-- MARK -->`` and the next ``<!-- end -->``."""
    head, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    if not (begin and end):
        sys.exit(f"no place marked '{mark}'")
    return head + begin + content + end + tail


def main() -> None:
    """Writes or checks."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="change nothing; exit with 1 where something is out of date")
    chosen = arguments.parse_args()
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = placed(old, "solve example", example())
    if old == new:
        return
    if chosen.check:
        sys.exit("README.md is out of date: run python scripts/make_docs.py")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
