"""The runtime: models, engines and sequences over llama.cpp. Nothing else of the package imports ``llama_cpp``."""

# First: it refuses a library that does not fit, before anything else calls that.
from rsd_local.runtime.llama import repacks_safely, supports_gpu

# isort: split
from rsd_local.runtime.chat import HOLE, Part, Text, around, opening_tokens, opens_thought, prompt_tokens, render_chat, tokens_of
from rsd_local.runtime.engine import Engine
from rsd_local.runtime.latency import LatencyModel
from rsd_local.runtime.model import Model, Progress
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.text_model import TextModel
from rsd_local.runtime.trace import Tracing
from rsd_local.runtime.writer import LocalWriter

__all__ = [
    "HOLE",
    "Draws",
    "Engine",
    "Floats",
    "LatencyModel",
    "LocalWriter",
    "Model",
    "Part",
    "Progress",
    "Sequence",
    "Text",
    "TextModel",
    "Tracing",
    "around",
    "opening_tokens",
    "opens_thought",
    "prompt_tokens",
    "render_chat",
    "repacks_safely",
    "supports_gpu",
    "tokens_of",
]
