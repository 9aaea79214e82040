"""The runtime: models, engines and sequences over llama.cpp. Nothing else of the package imports ``llama_cpp``."""

from rsd_local.runtime.chat import HOLE, Part, Text, around, opening_tokens, prompt_tokens, render_chat, tokens_of
from rsd_local.runtime.engine import Engine
from rsd_local.runtime.llama import physical_cores, repacks_safely, supports_gpu
from rsd_local.runtime.model import Model, Progress
from rsd_local.runtime.pace import Pace
from rsd_local.runtime.pool import Holding, Pool
from rsd_local.runtime.requests import EndOfStep, Generated, Guess
from rsd_local.runtime.sampler import Drawer, Floats, Sampler, distribution, greedy
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.trace import Trace, Tracing

__all__ = [
    "HOLE",
    "Drawer",
    "EndOfStep",
    "Engine",
    "Floats",
    "Generated",
    "Guess",
    "Holding",
    "Model",
    "Pace",
    "Part",
    "Pool",
    "Progress",
    "Sampler",
    "Sequence",
    "Text",
    "Trace",
    "Tracing",
    "around",
    "distribution",
    "greedy",
    "opening_tokens",
    "physical_cores",
    "prompt_tokens",
    "render_chat",
    "repacks_safely",
    "supports_gpu",
    "tokens_of",
]
