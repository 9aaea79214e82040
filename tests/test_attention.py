"""Whether attention is fused where nobody says so: what the rule gives, and that llama.cpp does it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from rsd_local.config import CacheType, FlashAttention, RoleConfig
from rsd_local.fit import RoleCapacity
from rsd_local.fit.memory import Footprint, Shape
from rsd_local.gguf_header import read_header
from rsd_local.runtime import Engine, Model
from rsd_local.runtime.attention import flash_attention
from rsd_local.runtime.llama import C

AVX512 = b"CPU : AVX = 1 | AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | "
OTHERS = (b"CPU : AVX = 1 | AVX2 = 1 | ", b"CPU : NEON = 1 | ARM_FMA = 1 | ", b"")


def asked(flash: FlashAttention = "auto", cache_type: CacheType = "f16", *, on_gpu: bool = False) -> FlashAttention:
    return flash_attention(RoleConfig(Path("m.gguf"), flash_attention=flash, cache_type=cache_type), on_gpu=on_gpu)


def test_on_a_cpu_with_avx512_attention_is_not_fused_unless_the_cache_or_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "llama_print_system_info", lambda: AVX512)
    assert asked() == asked(cache_type="f32") == asked("off", "f16", on_gpu=True) == "off"
    assert asked("on") == "on"
    assert asked(cache_type="q8_0") == asked(cache_type="q4_0") == asked(cache_type="bf16") == asked(on_gpu=True) == "auto"


@pytest.mark.parametrize("info", OTHERS)
def test_on_other_cpus_llama_cpp_decides(monkeypatch: pytest.MonkeyPatch, info: bytes) -> None:
    monkeypatch.setattr(C, "llama_print_system_info", lambda: info)
    assert asked() == "auto" and asked("off") == "off"


@pytest.mark.parametrize("info", [AVX512, *OTHERS])
def test_llama_cpp_does_what_is_said_and_planned(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, info: bytes
) -> None:
    monkeypatch.setattr(C, "llama_print_system_info", lambda: info)
    plain, config = info == AVX512, RoleConfig(tiny["dense"], ctx_size=4096, threads=1)
    model = Model(config)
    with caplog.at_level(logging.INFO, "rsd_local.llama"):
        engine = Engine(model, config, 4, "test")
        about = engine.about()
        engine.close()
    model.close()
    assert f"flash attention {'off' if plain else 'auto'}" in about
    taken = max(float(size) * 2**20 for size in re.findall(r"CPU compute buffer size = +([0-9.]+) MiB", caplog.text))
    scores = 128 * 4 * 4096 * 4  # of one head and a batch of 128 rows, for all four sequences
    assert (taken > 2 * scores) == plain
    planned = Footprint.of(read_header(tiny["dense"]), RoleCapacity(config, 4), on_gpu=False).compute
    assert planned >= taken and Shape.of(read_header(tiny["dense"])).fuses(config, on_gpu=False) == (not plain)
