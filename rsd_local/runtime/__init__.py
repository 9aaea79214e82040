"""The runtime: models, engines and sequences over llama.cpp. Nothing else of the package imports ``llama_cpp``."""

from rsd_local.runtime.chat import chat_tokens, next_turn_tokens, render_chat, tokenize_chat, with_bos
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
    "Drawer",
    "EndOfStep",
    "Engine",
    "Floats",
    "Generated",
    "Guess",
    "Holding",
    "Model",
    "Pace",
    "Pool",
    "Progress",
    "Sampler",
    "Sequence",
    "Trace",
    "Tracing",
    "chat_tokens",
    "distribution",
    "greedy",
    "next_turn_tokens",
    "physical_cores",
    "render_chat",
    "repacks_safely",
    "supports_gpu",
    "tokenize_chat",
    "with_bos",
]
