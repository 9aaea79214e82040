"""Running Python code against checks, in the sandbox."""

from __future__ import annotations

import ast
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from rsd_local.errors import VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.programs.asked import defined_names
from rsd_local.programs.example import Example
from rsd_local.programs.syntax import parsed
from rsd_local.sandbox import Bounds, Outcome, Sandbox, python

_HARNESS = "harness.py"
_FILES = (_HARNESS, "comparison.py")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What checks said of code.

    Attributes:
        passed: checks that the code passed.
        total: checks.
        complete: whether all passed, and the end was reached.
        error: in one line why not, in words of the code itself: for people, no ground for a decision.
        results: for each check whether it passed.
    """

    passed: int
    total: int
    complete: bool
    error: str = ""
    results: tuple[bool, ...] = ()


def check_python(
    code: Sequence[str],
    examples: Sequence[Example],
    sandbox: Sandbox,
    *,
    before: Sequence[str] = (),
    preamble: str = "",
    names: Iterable[str] = (),
    bounds: Bounds | None = None,
    cancel: CancelToken | None = None,
) -> Verdict:
    """Runs code and then each check of it, all in one process of the sandbox.

    Args:
        code: the blocks that are judged. Of those that define a function of the checks the last must run without an error, or
            the last one of all; errors of the others are passed over, as they may be lines that show how it is used.
        examples: the checks; each runs in names of its own.
        sandbox: where it runs.
        before: blocks that run before it, whose errors are passed over.
        preamble: of the prompt; the checks see its names, not what the code makes of them.
        names: of the functions that the code is to define, besides those in the examples.
        bounds: of the process, 10 seconds by default; a check may take half of the time that is left.
        cancel: ends it early.

    Raises:
        VerifierFailed: Python did not start in the sandbox.
        Cancelled: ``cancel`` was called.
    """
    bounds = bounds or Bounds()
    wanted = sorted({*names, *(name for example in examples for name in example.names)})
    tokens = [secrets.token_hex(16) for _ in examples]
    begin, end, why = (secrets.token_hex(16) for _ in range(3))
    job = {"preamble": preamble, "names": wanted, "begin": begin, "end": end, "why": why, "seconds": 0.9 * bounds.seconds}
    job |= {"blocks": _blocks(before, code, wanted), "cases": _cases(examples, tokens)}
    outcome = sandbox.run(
        python([_HARNESS, "{pipe}"], packages=True),
        files={name: (files("rsd_local.programs") / name).read_bytes() for name in _FILES},
        told=json.dumps(job).encode(),
        bounds=bounds,
        cancel=cancel,
    )
    said = set(outcome.said.decode("utf-8", "replace").split("\n"))
    if begin not in said:  # no line of the code has run yet
        words = outcome.stderr.decode("utf-8", "replace").strip().split("\n")[-1] or f"it ended by {outcome.ended}"
        raise VerifierFailed(f"Python does not start in the sandbox: {words[:200]}", hint="rsd doctor shows what the sandbox can do")
    results = tuple(token in said for token in tokens)
    complete = all(results) and end in said
    return Verdict(sum(results), len(results), complete, "" if complete else _error(outcome, said, why), results)


def _blocks(before: Sequence[str], code: Sequence[str], names: Sequence[str]) -> list[dict[str, object]]:
    needed = _needed(code, names)
    judged = [{"code": block, "needed": place == needed} for place, block in enumerate(code)]
    return [{"code": block, "needed": False} for block in before] + judged


def _cases(examples: Sequence[Example], tokens: Sequence[str]) -> list[dict[str, object]]:
    return [
        {"source": one.source, "expected": one.expected, "setup": one.setup, "printed": one.printed, "token": token}
        for one, token in zip(examples, tokens, strict=True)
    ]


def _needed(code: Sequence[str], names: Sequence[str]) -> int:
    """The place of the block that must run without an error."""
    defining = [place for place, block in enumerate(code) if (tree := parsed(block)) and set(names) & _defined(tree)]
    return defining[-1] if defining else len(code) - 1


def _defined(tree: ast.Module) -> set[str]:
    return set(defined_names(tree.body))


def _error(outcome: Outcome, said: set[str], why: str) -> str:
    for line in said:
        if line.startswith(why):
            try:
                return str(json.loads(line[len(why) :]))
            except ValueError:
                break
    if outcome.ended == "time":
        return "it took too long"
    if outcome.ended == "output":
        return "it wrote too much"
    return f"it ended with {outcome.exit_code} before the last check"
