"""The devices that this build of llama.cpp can compute on, and what it says of the CPU."""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from typing import Any, Literal

from llama_cpp import llama_cpp as C

_KINDS: dict[int, Literal["cpu", "gpu"]] = {0: "cpu", 1: "gpu", 2: "gpu"}  # ggml_backend_dev_type; others only help


@dataclass(frozen=True, slots=True)
class Device:
    """One device.

    Attributes:
        name: llama.cpp's, CUDA0 for example.
        description: the maker's.
        kind: integrated GPUs count as GPUs.
        free, total: bytes of memory; of the CPU, the machine's.
    """

    name: str
    description: str
    kind: Literal["cpu", "gpu"]
    free: int
    total: int


def devices() -> list[Device]:
    """All devices of this build; empty where its library does not tell."""
    try:
        count = _function("ggml_backend_dev_count", ctypes.c_size_t)()
        get = _function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
        name = _function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
        about = _function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
        kind = _function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
        size = ctypes.POINTER(ctypes.c_size_t)
        memory = _function("ggml_backend_dev_memory", None, ctypes.c_void_p, size, size)
    except AttributeError:
        return []
    found = []
    for index in range(count):
        device, free, total = get(index), ctypes.c_size_t(), ctypes.c_size_t()
        if kind(device) in _KINDS:
            memory(device, ctypes.byref(free), ctypes.byref(total))
            called, said = (text.decode("utf-8", "replace") for text in (name(device), about(device)))
            found.append(Device(called, said, _KINDS[kind(device)], free.value, total.value))
    return found


def cpu_features() -> list[str]:
    """The instruction sets and options that this build of llama.cpp uses here."""
    said = C.llama_print_system_info().decode("utf-8", "replace")
    pairs = (part.rpartition(":")[2].partition("=") for part in said.split("|"))
    return [name.strip() for name, _, value in pairs if value.strip() not in ("", "0")]


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml, which llama_cpp does not bind."""
    function = C._lib[name]  # an object of its own: setting types here changes nobody else's
    function.restype, function.argtypes = result, arguments
    return function


def llama_version() -> str | None:
    """llama.cpp's own version and the commit of ggml that were built; None where the library does not tell."""
    said = []
    for name in ("llama_version", "ggml_commit"):
        with contextlib.suppress(AttributeError, KeyError):
            function = C._lib[name]
            function.restype, function.argtypes = ctypes.c_char_p, ()
            said.append((function() or b"").decode("utf-8", "replace"))
    return " ".join(filter(None, said)) or None
