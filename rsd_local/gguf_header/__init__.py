"""A bounded reader of GGUF headers: a damaged or hostile file is refused here, before llama.cpp sees it."""

from rsd_local.gguf_header.header import BLOCKS, Array, Header, Tensor, Value
from rsd_local.gguf_header.parts import part_names, parts, read_header

__all__ = ["BLOCKS", "Array", "Header", "Tensor", "Value", "part_names", "parts", "read_header"]
