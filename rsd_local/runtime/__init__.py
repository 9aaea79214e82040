"""The runtime: models, engines and sequences over llama.cpp. Nothing else of the package imports ``llama_cpp``."""

from rsd_local.runtime.chat import prompt_tokens
from rsd_local.runtime.engine import Engine
from rsd_local.runtime.latency import LatencyModel
from rsd_local.runtime.llama import physical_cores, repacks_safely, supports_gpu
from rsd_local.runtime.model import Model, Progress
from rsd_local.runtime.sampler import Draws, Floats
from rsd_local.runtime.sequence import Sequence
from rsd_local.runtime.trace import Tracing
from rsd_local.runtime.writer import LocalWriter

__all__ = [
    "Draws",
    "Engine",
    "Floats",
    "LatencyModel",
    "LocalWriter",
    "Model",
    "Progress",
    "Sequence",
    "Tracing",
    "physical_cores",
    "prompt_tokens",
    "repacks_safely",
    "supports_gpu",
]
