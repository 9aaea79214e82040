"""A conversation as a Markdown file."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rsd_local.cli.text import printable
from rsd_local.errors import ConfigError
from rsd_local.events import Result

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)", re.MULTILINE)


def markdown(title: str, said: Iterable[tuple[str, Result]]) -> str:
    """Questions as quotations, each with its answer below."""
    parts = [f"# {title}"]
    for number, (question, result) in enumerate(said, 1):
        quoted = "\n".join(f"> {line}".rstrip() for line in printable(question).splitlines())
        answer = printable(result.text).strip("\n")
        parts += [f"## Question {number}", quoted, _closed(answer)]
        if result.finish_reason != "stop":
            parts.append(f"*The answer ends here: {result.finish_reason}.*")
    return "\n\n".join(parts) + "\n"


def _closed(text: str) -> str:
    """The text with an end for a code block that was cut, so that it does not take in what follows."""
    opened = ""
    for fence in _FENCE.findall(text):
        if not opened:
            opened = fence
        elif fence[0] == opened[0] and len(fence) >= len(opened):
            opened = ""
    return f"{text}\n{opened}" if opened else text


def save(file: Path, text: str) -> None:
    """Writes a new file, whole or not at all.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.part") if file.name else file
    made = False
    try:
        if file.exists() or file.is_symlink():
            raise ConfigError(f"{file} is there already", hint="give another name")
        with unfinished.open("x", encoding="utf-8", errors="replace") as out:
            made = True
            out.write(text)
        os.replace(unfinished, file)
        made = False
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{file} cannot be written: {why or error}", hint="give another name or folder") from None
    finally:
        if made:
            with contextlib.suppress(OSError):
                unfinished.unlink()
