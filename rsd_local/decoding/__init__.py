"""The algorithms, as generators of events: no llama.cpp, no input or output, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rsd_local.config import Params, Strategy
from rsd_local.decoding.alone import draft_alone, target_alone
from rsd_local.decoding.auto import auto
from rsd_local.decoding.beam import beam
from rsd_local.decoding.best_of_n import best_of_n
from rsd_local.decoding.majority import majority
from rsd_local.decoding.rsd import rsd
from rsd_local.decoding.speculative import speculative
from rsd_local.decoding.step_best_of_n import step_best_of_n
from rsd_local.decoding.trio import OpenTrio
from rsd_local.events import Event
from rsd_local.prompt import Prompt

Algorithm = Callable[[Prompt, OpenTrio, Params], Iterator[Event]]

STRATEGIES: dict[Strategy, Algorithm] = {
    "rsd": rsd,
    "target": target_alone,
    "draft": draft_alone,
    "speculative": speculative,
    "majority": majority,
    "best-of-n": best_of_n,
    "step-best-of-n": step_best_of_n,
    "beam": beam,
    "auto": auto,
}

__all__ = ["STRATEGIES", "Algorithm", "OpenTrio"]
