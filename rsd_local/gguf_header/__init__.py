"""A bounded reader of GGUF headers: a damaged or hostile file is refused here, before llama.cpp sees it."""

from rsd_local.gguf_header.adapter import check_adapter, is_adapter, read_adapter, require_model
from rsd_local.gguf_header.facts import active_parameters, active_share, experts_used, longest_context, parameters
from rsd_local.gguf_header.header import BLOCKS, Array, Header, Tensor, Value
from rsd_local.gguf_header.parts import part_names, parts, read_header
from rsd_local.gguf_header.reader import KnownTexts

__all__ = [
    "BLOCKS",
    "Array",
    "Header",
    "KnownTexts",
    "Tensor",
    "Value",
    "active_parameters",
    "active_share",
    "check_adapter",
    "experts_used",
    "is_adapter",
    "longest_context",
    "parameters",
    "part_names",
    "parts",
    "read_adapter",
    "read_header",
    "require_model",
]
