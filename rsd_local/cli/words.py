"""Values and sizes as people read them: as a TOML file has them, never as Python prints them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any


def in_words(value: Any) -> str:
    """A setting's value as a TOML file has it, texts without their quotation marks; ``not set`` for None."""
    return str(value) or '""' if isinstance(value, str | Path) else _toml(value)


def gigabytes(size: float) -> str:
    """A number of bytes in GB (10^9), with MB below a tenth of one."""
    return f"{size / 1e9:.1f} GB" if size >= 95e6 else f"{size / 1e6:.0f} MB" if size >= 950e3 else f"{size / 1e6:.1f} MB"


def _toml(value: Any) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return str(value)
        case int() | float():
            return repr(value)
        case str() | Path():
            return json.dumps(str(value), ensure_ascii=False)
        case list() | tuple():
            return "[" + ", ".join(_toml(one) for one in value) + "]"
        case dict():
            given = ", ".join(f"{key} = {_toml(one)}" for key, one in value.items() if one is not None)
            return f"{{ {given} }}" if given else "{}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        usual = {entry.name: entry.default for entry in dataclasses.fields(value)}
        return _toml({name: one for name, usually in usual.items() if (one := getattr(value, name)) != usually})
    return json.dumps(getattr(value, "__name__", type(value).__name__))
