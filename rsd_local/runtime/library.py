"""Loads llama.cpp's library, and refuses one whose structs are not those of the Python bindings.

llama.cpp has no stable ABI: a field that is added shifts all behind it, and C then reads and writes beside what Python made.
``LLAMA_CPP_LIB_PATH``, which makes llama-cpp-python load another library than its own, is how the two come apart.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rsd_local.errors import EngineError

_ROOM = 4096  # bytes for a struct of any library
# What llama.cpp's own functions have put there for years (llama_context_default_params in src/llama-context.cpp, and
# llama_model_default_params in src/llama-model.cpp), before and behind the places where fields come and go.
CONTEXT_DEFAULTS: Mapping[str, int | float] = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_threads": 4, "n_threads_batch": 4, "rope_scaling_type": -1,
    "pooling_type": -1, "attention_type": -1, "yarn_ext_factor": -1.0, "yarn_orig_ctx": 0, "type_k": 1, "type_v": 1,
    "embeddings": 0, "offload_kqv": 1,
}  # fmt: skip
MODEL_DEFAULTS: Mapping[str, int | float] = {"n_gpu_layers": -1, "split_mode": 1, "main_gpu": 0, "vocab_only": 0, "use_extra_bufts": 1}


def load() -> Any:
    """The module ``llama_cpp.llama_cpp``, once its library is found to fit.

    Raises:
        EngineError: there is none, it cannot be loaded, lacks a function, or lays out a struct in another way.
    """
    try:
        from llama_cpp import llama_cpp
    except (OSError, RuntimeError, AttributeError, ImportError) as error:  # what llama-cpp-python lets through
        raise _refused(f"cannot be loaded: {error}") from None
    for function, type_, defaults in (
        (llama_cpp.llama_context_default_params, llama_cpp.llama_context_params, CONTEXT_DEFAULTS),
        (llama_cpp.llama_model_default_params, llama_cpp.llama_model_params, MODEL_DEFAULTS),
    ):
        if why := struct_differs(_returned(function), type_, defaults, pointers_set=()):
            raise _refused(f"does not fit llama-cpp-python {_version()}: {why}")
    _check_batch(llama_cpp)
    return llama_cpp


def _check_batch(llama_cpp: Any) -> None:
    """A batch is given to every decode by value: its arrays have to be where Python looks for them."""
    made = _returned(llama_cpp.llama_batch_init, ctypes.c_int32(1), ctypes.c_int32(0), ctypes.c_int32(1))
    arrays = ("token", "pos", "n_seq_id", "seq_id", "logits")
    if why := struct_differs(made, llama_cpp.llama_batch, {"n_tokens": 0}, pointers_set=arrays):
        raise _refused(f"does not fit llama-cpp-python {_version()}: {why}")
    llama_cpp.llama_batch_free(llama_cpp.llama_batch.from_buffer_copy(made[0]))


def struct_differs(
    returned: tuple[bytes, int | None], type_: type[ctypes.Structure], values: Mapping[str, int | float], pointers_set: tuple[str, ...]
) -> str:
    """Why a struct that C returned is not the one that Python knows; empty where nothing speaks against it.

    Args:
        returned: its bytes and how many of them C wrote, where that is known.
        type_: as the bindings have it.
        values: what some fields must hold; a field that this version of the bindings does not have is left out.
        pointers_set: fields that must hold an address; other pointers must hold none.
    """
    name, (data, size) = type_.__name__, returned
    fields = {field[0]: field[1] for field in type_._fields_}
    for field, wanted in values.items():
        if field in fields and (found := _number(type_, field, data)) != wanted:
            return f"{name}.{field} is {found}, not {wanted}"
    for field, kind in fields.items():
        raw = _raw(type_, field, data)
        if kind is ctypes.c_bool and raw not in (b"\0", b"\1"):
            return f"{name}.{field} is {raw[0]}, neither false nor true"
        if _is_pointer(kind) and any(raw) != (field in pointers_set):
            return f"{name}.{field} is {'no address' if field in pointers_set else 'an address'}"
    last: Any = getattr(type_, type_._fields_[-1][0])
    if size is not None and not last.offset < size <= ctypes.sizeof(type_):
        return f"{name} has {size} bytes, not {ctypes.sizeof(type_)}"
    return ""


def _returned(function: Any, *arguments: Any) -> tuple[bytes, int | None]:
    """What a C function returns as a struct of whatever size, and the bytes that it wrote, where the machine lets us see them."""
    if platform.machine().lower() not in ("x86_64", "amd64") or ctypes.sizeof(ctypes.c_void_p) != 8:
        as_room = _as(function, ctypes.c_ubyte * _ROOM, arguments)
        return bytes(as_room(*arguments).whole), None
    # Both calling conventions of this processor pass the place for a large result as a first argument that C does not show.
    fills = []
    for fill in (b"\xa5", b"\x5a"):
        place = ctypes.create_string_buffer(fill * _ROOM, _ROOM)
        kinds: list[Any] = [ctypes.c_void_p, *(type(argument) for argument in arguments)]
        ctypes.CFUNCTYPE(ctypes.c_void_p, *kinds)(_address(function))(ctypes.addressof(place), *arguments)
        fills.append(place.raw)
    written = [number for number, (one, other) in enumerate(zip(*fills, strict=True)) if one == other]
    return fills[0], written[-1] + 1 if written else 0


def _as(function: Any, whole: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    room = type("Room", (ctypes.Structure,), {"_fields_": [("whole", whole)]})
    made: Callable[..., Any] = ctypes.CFUNCTYPE(room, *(type(argument) for argument in arguments))(_address(function))
    return made


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _raw(type_: type[ctypes.Structure], field: str, data: bytes) -> bytes:
    place: Any = getattr(type_, field)
    return data[place.offset : place.offset + place.size]


def _number(type_: type[ctypes.Structure], field: str, data: bytes) -> int | float:
    kind: Any = next(entry[1] for entry in type_._fields_ if entry[0] == field)
    return kind.from_buffer_copy(_raw(type_, field, data)).value if kind is not ctypes.c_bool else _raw(type_, field, data)[0]


def _is_pointer(kind: Any) -> bool:
    return kind is ctypes.c_void_p or issubclass(kind, ctypes._Pointer | ctypes._CFuncPtr)  # type: ignore[attr-defined]


def _refused(why: str) -> EngineError:
    folder = os.environ.get("LLAMA_CPP_LIB_PATH")
    which = f"llama.cpp's library in {folder}" if folder else "llama.cpp's library"
    fix = "unset LLAMA_CPP_LIB_PATH" if folder else "pip install --force-reinstall --no-cache-dir llama-cpp-python"
    return EngineError(f"{which} {why}", hint=fix)


def _version() -> str:
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return "of an unknown version"
