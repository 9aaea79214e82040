"""Heads: small safetensors files that turn a hidden state into a reward, and say which model they belong to.

Each carries a digest of its numbers, and a read-out the SHA-256 of the model file that it was fitted on: the states of
another quantization are other states.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from rsd_local.errors import BadHead, ConfigError, ModelNotFound
from rsd_local.hashes import known_sha256
from rsd_local.rewards.base import sigmoid
from rsd_local.rewards.features import FEATURES, PARTS, width_of
from rsd_local.runtime import Floats

Tensors = dict[str, npt.NDArray[np.float32]]
HeadLayout = Literal["skywork", "qwen-prm", "trl"]
_OUTPUTS: dict[HeadLayout, int] = {"skywork": 1, "qwen-prm": 2, "trl": 2}
_LARGEST = 1 << 30  # bytes; the head of a 72B model has 0.27 GB


@dataclass(frozen=True, slots=True)
class ValueHead:
    """Linear layers with a ReLU between them, of a published process reward model.

    Attributes:
        layout: the text that the model was trained on.
        layers: weights (out, in) and biases (out,), the first one's ``in`` the model's n_embd.
        separator: of layout trl, the text behind each step that the model was trained with.
        bos: of layout trl, whether the tokenizer that it was trained with has a beginning-of-text token.
    """

    layout: HeadLayout
    layers: tuple[tuple[Floats, Floats], ...]
    separator: str = "\n\n"
    bos: bool = False

    def matches(self, n_embd: int) -> bool:
        """Whether it can be applied to states of so many numbers."""
        return bool(self.layers[0][0].shape[1] == n_embd)

    def outputs(self, hidden: Floats) -> Floats:
        """The last layer's outputs for a hidden state (n_embd,)."""
        for place, (weight, bias) in enumerate(self.layers):
            hidden = weight @ (np.maximum(hidden, 0) if place else hidden) + bias
        return hidden

    def save(self, path: Path) -> None:
        """Writes the file.

        Raises:
            ConfigError: it cannot be written.
        """
        tensors = {
            f"{place}.{name}": part for place, pair in enumerate(self.layers) for name, part in zip(("weight", "bias"), pair, strict=True)
        }
        said = {"separator": self.separator, "bos": str(self.bos)} if self.layout == "trl" else {}
        _write(path, tensors, {"kind": "value-head", "layout": self.layout, **said})


@dataclass(frozen=True, slots=True)
class ReadOut:
    """A logistic head on standardized features of a step.

    Attributes:
        role: whose states it reads; of the target the last one only.
        parts: the features, in order, see ``features``.
        weight, mean, scale: (d,).
        bias: of the logistic function's argument.
        model: the file name of the model that it was fitted on.
        model_sha256: of that file.
        about: how it was fitted: labels, regularization, figures.
        lora_sha256: of the LoRA adapter that the model had, empty for none.
        lora_scale: of that.
    """

    role: Literal["draft", "target"]
    parts: tuple[str, ...]
    weight: Floats
    mean: Floats
    scale: Floats
    bias: float
    model: str
    model_sha256: str
    about: dict[str, Any] = field(default_factory=dict)
    lora_sha256: str = ""
    lora_scale: float = 1.0

    def reward(self, features: Floats) -> float:
        """The probability of a good step given its features (d,), NaN where they are no finite numbers."""
        return sigmoid(float(((features - self.mean) / self.scale) @ self.weight) + self.bias)

    def matches(self, n_embd: int) -> bool:
        """Whether it can be applied to states of so many numbers."""
        return width_of(self.parts, n_embd) == self.weight.size

    def check(self, model: Path, lora: Path | None = None, lora_scale: float = 1.0) -> None:
        """Refuses another model file, and another LoRA adapter.

        Raises:
            ModelNotFound: one cannot be read.
            BadHead: it is not the one that the head was fitted on.
        """
        try:
            digest, adapted = known_sha256(model), known_sha256(lora) if lora else ""
        except OSError as error:
            raise ModelNotFound(f"{error.filename or model}: {error.strerror or error}", hint="check the path") from None
        if digest == self.model_sha256 and (adapted, lora_scale) != (self.lora_sha256, self.lora_scale):
            there = "another LoRA adapter, or at another scale" if self.lora_sha256 else "no LoRA adapter"
            raise BadHead(f"the read-out was fitted on {self.model} with {there}", hint="fit one for this with rsd train-reward")
        if digest != self.model_sha256:
            raise BadHead(
                f"the read-out was fitted on {self.model}, and {model.name} is another file",
                hint="fit one for this model with rsd train-reward; another quantization counts as another model",
            )

    def save(self, path: Path) -> None:
        """Writes the file.

        Raises:
            ConfigError: it cannot be written.
        """
        tensors = {"weight": self.weight, "mean": self.mean, "scale": self.scale, "bias": np.array([self.bias], np.float32)}
        said = {"role": self.role, "parts": ",".join(self.parts), "model": self.model, "model_sha256": self.model_sha256}
        said["features"] = str(FEATURES)
        if self.lora_sha256:
            said |= {"lora_sha256": self.lora_sha256, "lora_scale": str(self.lora_scale)}
        _write(path, tensors, {"kind": "read-out", **said, "about": json.dumps(self.about)})


Head = ValueHead | ReadOut


def read_head(path: Path) -> Head:
    """Reads a head.

    Raises:
        BadHead: no such file, a damaged one, or no head.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.exists() and not path.is_file():  # to open a pipe is to wait for its other end
            raise BadHead(f"{path} is no regular file", hint="give a head's safetensors file")
        if path.stat().st_size > _LARGEST:
            raise BadHead(f"{path} is too large for a head")
        with safe_open(path, framework="numpy") as file:
            said: dict[str, str] = json.loads((file.metadata() or {}).get("rsd", "{}"))
            tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except OSError as error:
        raise BadHead(f"{path}: {error.strerror or error}", hint="give a file made by rsd train-reward or scripts/convert_prm.py") from None
    except (SafetensorError, TypeError, ValueError, KeyError) as error:
        raise BadHead(f"{path} is no safetensors file: {error}") from None
    if said.get("digest") != _digest(tensors):
        raise BadHead(f"{path} is damaged, or no head of rsd", hint="make or download it again")
    try:
        return _value_head(tensors, said) if said["kind"] == "value-head" else _read_out(tensors, said)
    except (KeyError, ValueError, IndexError) as error:
        raise BadHead(f"{path} is no head that this version can read: {error}") from None


def _value_head(tensors: Tensors, said: dict[str, str]) -> ValueHead:
    layers = tuple((tensors[f"{place}.weight"], tensors[f"{place}.bias"]) for place in range(len(tensors) // 2))
    layout = cast(HeadLayout, said["layout"])
    outputs, separator = _OUTPUTS[layout], said.get("separator", "\n\n")
    shaped = all(weight.ndim == 2 and bias.shape == weight.shape[:1] for weight, bias in layers)
    chained = all(above[0].shape[1] == below[0].shape[0] for below, above in pairwise(layers))
    if not (shaped and chained and layers[-1][0].shape[0] == outputs):
        raise ValueError("its layers do not fit together")
    if not separator:
        raise ValueError("it names no separator")
    return ValueHead(layout, layers, separator, said.get("bos") == "True")


def _read_out(tensors: Tensors, said: dict[str, str]) -> ReadOut:
    parts, role = tuple(said["parts"].split(",")), said["role"]
    size = tensors["weight"].size
    if said.get("features") != str(FEATURES):
        raise ValueError("it was fitted on the features of another version; fit it again with rsd train-reward")
    if said["kind"] != "read-out" or role not in ("draft", "target") or not set(parts) <= set(PARTS):
        raise ValueError(f"kind {said['kind']}, role {role}, features {said['parts']}")
    if any(tensors[name].shape != (size,) for name in ("weight", "mean", "scale")) or not (tensors["scale"] > 0).all():
        raise ValueError("its parts do not fit together")
    if role == "target" and parts != ("last",):
        raise ValueError("of the target only the last state can be read")
    vectors = tensors["weight"], tensors["mean"], tensors["scale"], float(tensors["bias"][0])
    adapter = said.get("lora_sha256", ""), float(said.get("lora_scale", "1"))
    model = said["model"], said["model_sha256"], json.loads(said["about"])
    return ReadOut(cast(Literal["draft", "target"], role), parts, *vectors, *model, *adapter)


def _write(path: Path, tensors: Tensors, said: dict[str, str]) -> None:
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
    # As one value: the library writes several in no order, and equal heads would be unequal files.
    metadata = {"rsd": json.dumps(said | {"digest": _digest(tensors)}, sort_keys=True)}
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_bytes(save(tensors, metadata))
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None


def _digest(tensors: Tensors) -> str:
    made = hashlib.sha256()
    for name in sorted(tensors):
        made.update(f"{name} {tensors[name].shape} {tensors[name].dtype}".encode())
        made.update(tensors[name].tobytes())
    return made.hexdigest()
