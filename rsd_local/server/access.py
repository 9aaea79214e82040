"""What is logged of requests: never a key, a header or a text."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("rsd_local.server.access")
_LONGEST = 200  # characters of a path


def access(facts: dict[str, Any]) -> None:
    """Log a request.

    Args:
        facts: by name: what is shown, in that order.
    """
    shown = " ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
    log.info("%s", shown, extra={"facts": facts})


def shown_path(raw: bytes) -> str:
    """A path as a client wrote it, in printable characters and cut."""
    text = raw.decode("latin-1")
    return "".join(one if " " < one < "\x7f" else "?" for one in text[:_LONGEST])


class JsonLines(logging.Formatter):
    """Formats each record as an object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        made: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        facts = getattr(record, "facts", None)
        made |= facts if isinstance(facts, dict) else {"message": record.getMessage()}
        if record.exc_info:
            made["exception"] = self.formatException(record.exc_info)
        return json.dumps(made, default=str)
