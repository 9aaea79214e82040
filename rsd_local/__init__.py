"""rsd_local: reward-guided speculative decoding (arXiv 2501.19324) with quantized models on one's own machine.

Importing it loads neither numpy nor llama.cpp; ``Reasoner`` does, when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsd_local.config import Limits, Params, RoleConfig, Sampling, Search, Trio, Weighting
from rsd_local.errors import RSDError
from rsd_local.events import CancelToken, Counters, Drafted, Event, Finished, Rejected, Result, StepDone
from rsd_local.toml_settings import read_trio

if TYPE_CHECKING:
    from rsd_local.reasoner import Reasoner

__version__ = "0.1.0"

__all__ = [
    "CancelToken",
    "Counters",
    "Drafted",
    "Event",
    "Finished",
    "Limits",
    "Params",
    "RSDError",
    "Reasoner",
    "Rejected",
    "Result",
    "RoleConfig",
    "Sampling",
    "Search",
    "StepDone",
    "Trio",
    "Weighting",
    "__version__",
    "read_trio",
]


def __getattr__(name: str) -> object:
    if name == "Reasoner":
        from rsd_local.reasoner import Reasoner

        return Reasoner
    raise AttributeError(f"module 'rsd_local' has no attribute {name!r}")
