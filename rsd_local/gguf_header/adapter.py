"""LoRA adapters as GGUF files (llama.cpp's ``convert_lora_to_gguf.py``): what they say of themselves, against their base model.

A pair ``W.lora_a`` and ``W.lora_b`` adds scale · alpha / rank · B A to the weights W, or scale · B A where alpha is missing or 0
(``src/llama-adapter.h`` of llama.cpp). Shapes are as in ``Tensor``, so W is (in, out), A is (in, rank) and B (rank, out).
"""

from __future__ import annotations

import math
from pathlib import Path

from rsd_local.errors import BadAdapter, ModelNotFound, NotAModel
from rsd_local.gguf_header.header import Header, Refused, Tensor
from rsd_local.gguf_header.reader import read_part
from rsd_local.gguf_header.rules import NOT_MULTIPLIED

_A, _B, _NORM = ".lora_a", ".lora_b", "_norm.weight"
_TABLE, _OUTPUT = "token_embd.weight", "output.weight"
_OTHER_BASE = "give the model that it was trained on, or another adapter"


def is_adapter(header: Header) -> bool:
    """Whether a file says that it is an adapter, and no model."""
    return header.metadata.get("general.type") == "adapter"


def require_model(header: Header) -> None:
    """Refuse an adapter where a model is wanted.

    Raises:
        NotAModel: with what to do.
    """
    if is_adapter(header):
        raise NotAModel(f"{header.files[0]} is an adapter and no model", hint="name its base model, and this file as its --lora")


def read_adapter(path: Path) -> Header:
    """Read a LoRA adapter's header; what it says is checked by ``check_adapter``.

    Raises:
        ModelNotFound: there is no such file, or it cannot be read.
        BadAdapter: it is no GGUF file, or breaks a rule of the format.
    """
    if not path.exists():
        raise ModelNotFound(f"no LoRA adapter {path}", hint="check the path")
    try:
        return read_part(path)
    except NotAModel as error:
        raise BadAdapter(str(error), hint="llama.cpp's convert_lora_to_gguf.py makes a GGUF file of a PEFT adapter") from None


def check_adapter(adapter: Header, base: Header) -> None:
    """Refuse what is no LoRA adapter for a model, before llama.cpp sees it, which ends the process on some of it.

    Args:
        adapter: of ``read_adapter``.
        base: of the model, with the tensors of all its parts.

    Raises:
        BadAdapter: with the cause.
    """
    try:
        _check_metadata(adapter, base)
        _check_tensors(adapter, base)
    except Refused as why:
        raise BadAdapter(f"{adapter.files[0]} is no LoRA adapter for {base.files[0].name}: {why}", hint=_OTHER_BASE) from None


def _check_metadata(adapter: Header, base: Header) -> None:
    said = adapter.metadata
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if said.get(key) != wanted:
            raise Refused(f"its {key} is {said[key]!r}, not {wanted!r}" if key in said else f"it has no {key}")
    own, other = (header.metadata.get("general.architecture") for header in (adapter, base))
    if own != other:
        raise Refused(f"it is for the architecture {own}, and the model is of {other}")
    if "adapter.alora.invocation_tokens" in adapter.metadata:
        raise Refused("it is an activated one (aLoRA), which works from certain tokens of a prompt on; that is not supported")
    alpha = said.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise Refused(f"its adapter.lora.alpha is {alpha!r}")
    parts = said.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise Refused(f"it is one of {parts} parts, of which llama.cpp reads one")


def _check_tensors(adapter: Header, base: Header) -> None:
    halves = {tensor.name: tensor for tensor in adapter.tensors if not tensor.name.endswith(_NORM)}  # llama.cpp leaves norms out
    known = {tensor.name: tensor for tensor in base.tensors}
    names = dict.fromkeys(name.removesuffix(_A).removesuffix(_B) for name in halves)
    if not names:
        raise Refused("it changes no weights")
    for name in names:
        if name in halves:
            raise Refused(f"its tensor {name!r} is no half of a pair {_A}, {_B}")
        if not {name + _A, name + _B} <= halves.keys():
            raise Refused(f"it has but half of the pair for {name!r}")
        if name not in known:
            raise Refused(f"it changes {name!r}, which the model does not have")
        if name == _TABLE and _OUTPUT not in known:
            raise Refused(f"it changes {name!r}, which is the model's output too; llama.cpp cannot apply that")
        first, second = halves[name + _A], halves[name + _B]
        _check_pair(known[name], first, second)


def _check_pair(weights: Tensor, first: Tensor, second: Tensor) -> None:
    for half in (first, second):
        if half.type in NOT_MULTIPLIED:
            raise Refused(f"its tensor {half.name!r} is of a type that cannot be multiplied")
    base, a, b = (tensor.shape + (1,) * (4 - len(tensor.shape)) for tensor in (weights, first, second))
    if weights.name == _TABLE:  # looked up, so A stands for itself: (rank, tokens), and B is (rank, width)
        fine = (a[1], b[1], a[0]) == (base[1], base[0], b[0])
    else:
        fine = (a[0], b[1], a[1]) == (base[0], base[1], b[0])
    if not fine or not a[2:] == b[2:] == base[2:]:
        raise Refused(f"its pair for {weights.name!r} has the shapes {first.shape} and {second.shape}, and the model's is {weights.shape}")
