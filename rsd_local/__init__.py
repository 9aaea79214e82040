"""rsd_local: reward-guided speculative decoding (arXiv 2501.19324) with quantized models on one's own machine.

Importing it loads neither numpy nor llama.cpp; ``Reasoner`` does, when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rsd_local.config import Limits, Params, RewardConfig, RoleConfig, Sampling, Search, Trio, Weighting
from rsd_local.errors import RSDError
from rsd_local.events import CancelToken, Counters, Drafted, Event, Finished, Rejected, Result, StepDone, TextWritten
from rsd_local.prompt import Message, Prompt
from rsd_local.toml_settings import read_trio

if TYPE_CHECKING:
    from rsd_local.reasoner import Conversation, Reasoner
    from rsd_local.run import Run

__version__ = "0.2.0"

__all__ = [
    "CancelToken",
    "Conversation",
    "Counters",
    "Drafted",
    "Event",
    "Finished",
    "Limits",
    "Message",
    "Params",
    "Prompt",
    "RSDError",
    "Reasoner",
    "Rejected",
    "Result",
    "RewardConfig",
    "RoleConfig",
    "Run",
    "Sampling",
    "Search",
    "StepDone",
    "TextWritten",
    "Trio",
    "Weighting",
    "__version__",
    "read_trio",
]


_LAZY = {"Reasoner": "rsd_local.reasoner", "Conversation": "rsd_local.reasoner", "Run": "rsd_local.run"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rsd_local' has no attribute {name!r}")
