"""rsd_local: reward-guided speculative decoding (arXiv 2501.19324) with quantized models on one's own machine.

Importing it loads nothing but this file; each name is loaded when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsd_local.config import Limits, Params, RemoteRole, RewardConfig, RoleConfig, Sampling, Search, Trio, Weighting
    from rsd_local.conversation import Conversation
    from rsd_local.errors import RSDError
    from rsd_local.events import CancelToken, Chosen, Counters, Drafted, Event, Finished, Rejected, Result, StepDone, TextWritten
    from rsd_local.json_grammar import json_schema_to_grammar
    from rsd_local.prompt import Message, Prompt
    from rsd_local.reasoner import Reasoner
    from rsd_local.run import Run
    from rsd_local.toml_settings import read_trio

__version__ = "0.2.0"

__all__ = [
    "CancelToken",
    "Conversation",
    "Counters",
    "Chosen",
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
    "RemoteRole",
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
    "json_schema_to_grammar",
    "read_trio",
]

_PLACES = {
    "config": "Limits Params RemoteRole RewardConfig RoleConfig Sampling Search Trio Weighting",
    "errors": "RSDError",
    "events": "CancelToken Chosen Counters Drafted Event Finished Rejected Result StepDone TextWritten",
    "json_grammar": "json_schema_to_grammar",
    "prompt": "Message Prompt",
    "conversation": "Conversation",
    "reasoner": "Reasoner",
    "run": "Run",
    "toml_settings": "read_trio",
}
_LAZY = {name: module for module, names in _PLACES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'rsd_local' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"rsd_local.{_LAZY[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
