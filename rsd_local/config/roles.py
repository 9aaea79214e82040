"""One role's model file, and where it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsd_local.config.checks import from_home, require, require_choice
from rsd_local.config.ollama import model_path

FlashAttention = Literal["auto", "on", "off"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]


@dataclass(frozen=True, slots=True)
class RoleConfig:
    """One role's model file and where it runs.

    Attributes:
        path: the GGUF file, or ``ollama:NAME`` for the one that Ollama keeps under a name; it becomes the file's path.
        ctx_size: tokens that one question may take in this model; 0 is the model's own limit, at most 4,096.
        gpu_layers: layers on the GPU; −1 is all, "auto" as many as fit beside the other roles'; without effect where
            llama.cpp was built without a GPU.
        main_gpu: the device that holds what is not split.
        tensor_split: shares of the model by device, empty to leave it to llama.cpp.
        flash_attention: whether attention is fused.
        cache_type: the type of keys and values; a quantized one needs flash attention.
        threads: CPU threads of the engine; 0 is the number of physical cores that the process may use.
        trusted: loads the file without a rehearsal.
        lora: a LoRA adapter as a GGUF file, which this role alone computes with: roles on one file share its weights all the same.
        lora_scale: what its effect is multiplied by.
    """

    path: Path
    ctx_size: int = 0
    gpu_layers: int | Literal["auto"] = "auto"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    flash_attention: FlashAttention = "auto"
    cache_type: CacheType = "f16"
    threads: int = 0
    trusted: bool = False
    lora: Path | None = None
    lora_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", model_path(self.path))
        object.__setattr__(self, "lora", None if self.lora is None else from_home(self.lora))
        object.__setattr__(self, "lora_scale", float(self.lora_scale))
        object.__setattr__(self, "tensor_split", tuple(float(share) for share in self.tensor_split))
        require(self.ctx_size >= 0, f"ctx_size {self.ctx_size} is negative")
        layers: object = self.gpu_layers
        counted = isinstance(layers, int) and not isinstance(layers, bool) and layers >= -1
        require(counted or layers == "auto", f"gpu_layers {layers!r} is no number from -1 (all) on, nor auto")
        require(self.main_gpu >= 0, f"main_gpu {self.main_gpu} is negative")
        require(0 <= self.threads <= 512, f"threads {self.threads} is outside 0 to 512")
        shares = self.tensor_split
        require(all(0 <= share < math.inf for share in shares), f"tensor_split {shares} has a negative share")
        require(math.isfinite(self.lora_scale), f"lora_scale {self.lora_scale} is no finite number")
        require(self.lora is not None or self.lora_scale == 1.0, "lora_scale without an adapter", "name its file (lora)")
        require_choice(self.flash_attention, FlashAttention, "flash_attention")
        require_choice(self.cache_type, CacheType, "cache_type")

    @property
    def layers_on_gpu(self) -> int:
        """``gpu_layers`` as a number; −1 is all, and so is "auto" where nobody has made a plan."""
        return -1 if self.gpu_layers == "auto" else self.gpu_layers

    @property
    def placement(self) -> tuple[object, ...]:
        """Equal for roles that can share their weights."""
        return (self.path.resolve(), self.gpu_layers, self.main_gpu, self.tensor_split)
