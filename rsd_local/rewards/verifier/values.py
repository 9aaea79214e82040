"""What a verifier may answer."""

from __future__ import annotations

import math
from numbers import Real

from rsd_local.errors import VerifierFailed


def reward_of(value: object, verifier: str) -> float | None:
    """The reward that a verifier answered.

    Args:
        value: a number in [0, 1], numpy's included, a truth value (True is 1, False is 0), or None for nothing to check.
        verifier: its name, for the message.

    Raises:
        VerifierFailed: it is something else.
    """
    if value is None:
        return None
    if type(value).__name__ in ("bool", "bool_"):  # numpy's own is no bool
        return 1.0 if value else 0.0
    number = math.nan
    if isinstance(value, Real):
        try:
            number = float(value)
        except (OverflowError, ValueError, TypeError):
            number = math.inf
    if not 0.0 <= number <= 1.0:
        hint = "a verifier answers with a number from 0 to 1, or None (null) where there is nothing to check"
        raise VerifierFailed(f"{verifier} answered {_shown(value)}, which is no reward", hint=hint)
    return number


def _shown(value: object) -> str:
    """Somebody else's value on one line."""
    try:
        return short(repr(value))
    except Exception:  # a number of too many digits, an object whose text cannot be had
        return f"a value of type {type(value).__name__} that has no text"


def short(text: str, length: int = 80) -> str:
    """A text on one line, its end cut off where it is longer."""
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def said(error: BaseException) -> str:
    """An exception of somebody else's code on one line."""
    try:
        text = str(error)
    except Exception:  # an exception whose text cannot be had
        text = ""
    return short(f"{type(error).__name__}: {text}".rstrip(": "), 200)
