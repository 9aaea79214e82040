"""The verifier ``regex``: a pattern that must, or must not, occur in a step."""

from __future__ import annotations

import re
import time

from rsd_local.config import require
from rsd_local.errors import Cancelled, ConfigError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.segments.matching import REACH, pattern

_PART = 32  # characters in which a match may begin, and then go on for REACH
_SECONDS = 5.0  # of one search


class Pattern:
    r"""A step passes (1.0) where a pattern occurs in it, otherwise it does not (0.0).

    The syntax is Python's; ``^`` and ``$`` are the ends of lines, and upper and lower case differ unless it begins with ``(?i)``. As
    for delimiters of steps, a pattern that some text could make take for ever is refused. A pattern sees 128 characters or more from
    where its match begins; the match of a longer one may not be found.

    Args:
        text: the pattern; behind a ``!``, one that must not occur. A pattern that begins with an exclamation mark is written ``\!…``.

    Raises:
        ConfigError: it is no pattern, could take too long, or is found in an empty text.
    """

    immediate = True

    def __init__(self, text: str) -> None:
        self._forbidden = text.startswith("!")
        source = text[1:] if self._forbidden else text
        require(bool(source), "the verifier regex has no pattern", r"as in regex:\\boxed or regex:!TODO")
        try:
            self._pattern: re.Pattern[str] = pattern(source).pattern
        except ConfigError as error:
            message = str(error).replace(f"delimiter 're:{source}'", f"pattern {source!r}").replace("pattern of a delimiter", "pattern")
            raise ConfigError(message, hint=error.hint.replace("as in 're:", "as in 'regex:")) from None

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None = None) -> float | None:
        """The reward of a step, 0.0 or 1.0.

        Raises:
            VerifierFailed: the search took longer than 5 seconds.
            Cancelled: ``cancel`` was called.
        """
        return 0.0 if self._found(step, cancel) == self._forbidden else 1.0

    def checks(self, prompt: Prompt) -> bool:
        """Always true."""
        return True

    def close(self) -> None:
        """There is nothing to end."""

    def _found(self, step: str, cancel: CancelToken | None) -> bool:
        """Whether it occurs; the text is searched part by part, for a search through all of it has no limit."""
        until = time.monotonic() + _SECONDS
        for start in range(0, max(1, len(step)), _PART):
            end = start + _PART + REACH
            match = self._pattern.search(step, start, end)
            # At an end that is none, $ and \b match too: it must be found with more text behind it as well.
            if match and (match.end() < end or end >= len(step) or self._pattern.match(step, match.start(), end + REACH)):
                return True
            if cancel is not None and cancel.cancelled:
                raise Cancelled("the check of a step was cancelled")
            if time.monotonic() > until:
                message = f"the search for {self._pattern.pattern!r} in {len(step):,} characters took longer than {_SECONDS:g} seconds"
                raise VerifierFailed(message, hint="a pattern with fewer repeats, or shorter steps")
        return False
