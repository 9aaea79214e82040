"""A step's Python code against the examples in the prompt, or against tests of the user's own."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from rsd_local.events import CancelToken
from rsd_local.programs.answers import last_function, step_code
from rsd_local.programs.asked import AskedCode, asked_code
from rsd_local.programs.check import check_python
from rsd_local.programs.example import Example
from rsd_local.programs.examples import read_examples
from rsd_local.programs.syntax import parsed
from rsd_local.programs.test_files import read_test_file
from rsd_local.prompt import Prompt
from rsd_local.sandbox import Bounds, Sandbox


class PythonTests:
    """Runs a step's code, behind that of the steps before; the reward is the share of examples that it passes.

    Args:
        sandbox: where it runs.
        tests: a Python file with ``assert`` lines, ``test_…`` functions or a ``def check(candidate)``, in place of the prompt's
            examples.
        bounds: of one check.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, sandbox: Sandbox, tests: Path | None = None, *, bounds: Bounds | None = None) -> None:
        self._sandbox, self._bounds = sandbox, bounds or Bounds()
        self._tests = read_test_file(tests) if tests else None

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None) -> float | None:
        """The share of examples passed, 1.0 only where the code came to their end; 0.0 where no block compiles.

        None where the step has no Python code, or the prompt no example.
        """
        code = step_code(steps, step)
        if not code.here:
            return None
        asked, examples = _read(prompt.question)
        if self._tests is not None:
            function = asked.names[-1] if asked.names else last_function((*code.before, *code.here))
            examples = self._tests.of(function)
        if not examples:
            return None
        blocks = [block for block in code.here if parsed(block) is not None]  # a snippet that is cut short stands in nobody's way
        if not blocks:
            return 0.0
        verdict = check_python(
            blocks,
            examples,
            self._sandbox,
            before=code.before,
            preamble=asked.preamble,
            names=asked.names,
            bounds=self._bounds,
            cancel=cancel,
        )
        return 1.0 if verdict.complete else verdict.passed / (verdict.total + (verdict.passed == verdict.total))

    def checks(self, prompt: Prompt) -> bool:
        """Whether there is an example to run."""
        return self._tests is not None or bool(_read(prompt.question)[1])

    def close(self) -> None:
        """Nothing runs beside this process."""


@lru_cache(256)
def _read(question: str) -> tuple[AskedCode, tuple[Example, ...]]:
    asked = asked_code(question)
    return asked, read_examples(question, asked)
