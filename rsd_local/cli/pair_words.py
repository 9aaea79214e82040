"""What ``rsd pair`` found, for people: lines of at most 80 columns, and as an object."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsd_local.catalogue.folders import ModelFile, ModelFolders
    from rsd_local.fit.pairs import Candidate, Left, Pair

NAME = 35  # characters of the column of names
HEADING = f"{'#':>2}  {'role':<8}{'model':<{NAME}}{'weights':>10}{'ratio':>6}{'memory':>8}{'at best':>9}"


def pair_lines(number: int, pair: Pair) -> tuple[str, str]:
    """A pair's lines in the table: its draft and its target."""
    draft, target = (f"{role:<8}{shortened(one.file.name):<{NAME}}{_weights(one):>10}" for role, one in pair.roles)
    figures = f"{_times(pair.ratio):>6}{pair.memory / 1e9:>5.1f} GB{_times(pair.gain):>9}"
    return f"{number:>2}  {draft}", f"    {target}{figures}"


def shortened(name: str, longest: int = NAME - 1) -> str:
    """A name in one line, without its middle where it is too long: its end tells the quantization."""
    name = "".join(sign if sign.isprintable() else "\ufffd" for sign in name)
    if len(name) <= longest:
        return name
    end = longest * 2 // 5
    return f"{name[: longest - end - 1]}…{name[-end:]}"


def as_object(found: ModelFolders, pairs: Sequence[Pair], left: Sequence[Left], free: int, written: str | None) -> dict[str, Any]:
    """All that was found, for JSON."""
    return {
        "folders": list(map(str, found.folders)),
        "free": free,
        "pairs": [_pair_object(pair) for pair in pairs],
        "left": [_file_object(one.file) | {"reason": one.reason} for one in left],
        "problems": found.problems,
        "written": written,
    }


def _pair_object(pair: Pair) -> dict[str, Any]:
    roles = {
        role: _file_object(one.file) | {"weights": one.weights, "active_weights": one.active, "bytes": one.size} for role, one in pair.roles
    }
    return {**roles, "ratio": pair.ratio, "memory": pair.memory, "times_as_fast_at_best": pair.gain, "notes": list(pair.notes)}


def _file_object(file: ModelFile) -> dict[str, Any]:
    return dataclasses.asdict(file) | {"path": str(file.path)}


def _weights(model: Candidate) -> str:
    """A model's weights, in millions or billions; of a mixture of experts those of one token before all."""
    whole = _count(model.weights)
    return whole if model.active == model.weights else f"{_count(model.active)[:-2]}/{whole}"


def _count(weights: int) -> str:
    return f"{weights / 1e9:.1f} B" if weights >= 950e6 else f"{weights / 1e6:.0f} M" if weights >= 950e3 else f"{weights / 1e3:.0f} K"


def _times(factor: float) -> str:
    return f"×{factor:.1f}" if factor < 99.5 else f"×{factor:.0f}"
