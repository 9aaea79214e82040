"""Whether attention is fused where nobody says so: what the rule gives, for which roles, and that llama.cpp does it."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rsd_local
from rsd_local import Reasoner, Trio
from rsd_local.capacities import capacities
from rsd_local.config import CacheType, FlashAttention, RoleConfig
from rsd_local.fit.memory import Footprint
from rsd_local.gguf_header import read_header
from rsd_local.runtime import attention
from rsd_local.runtime.attention import faster_attention
from rsd_local.runtime.llama import C

AVX512 = b"CPU : AVX = 1 | AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | "
OTHERS = (b"CPU : AVX = 1 | AVX2 = 1 | ", b"CPU : NEON = 1 | ARM_FMA = 1 | ", b"")


def asked(flash: FlashAttention = "auto", cache_type: CacheType = "f16", layers: int = -1) -> FlashAttention:
    config = RoleConfig(Path("m.gguf"), gpu_layers=layers, flash_attention=flash, cache_type=cache_type)
    made = faster_attention(config)
    assert replace(made, flash_attention=flash) == config, "nothing else changes"
    return made.flash_attention


def test_with_avx512_attention_is_not_fused_unless_the_cache_or_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(C, "llama_print_system_info", lambda: AVX512)
    monkeypatch.setattr(attention, "supports_gpu", lambda: False)
    assert asked() == asked(cache_type="f32") == asked("off") == "off"
    assert asked("on") == "on"
    assert asked(cache_type="q8_0") == asked(cache_type="q4_0") == asked(cache_type="bf16") == "auto"
    monkeypatch.setattr(attention, "supports_gpu", lambda: True)
    assert asked() == "auto" and asked(layers=0) == "off" and asked("off") == "off"


@pytest.mark.parametrize("info", OTHERS)
def test_on_other_cpus_llama_cpp_decides(monkeypatch: pytest.MonkeyPatch, info: bytes) -> None:
    monkeypatch.setattr(C, "llama_print_system_info", lambda: info)
    assert asked() == "auto" and asked("off") == "off"


@pytest.mark.parametrize("info", [AVX512, *OTHERS])
def test_draft_and_reward_are_faster_and_the_target_stays_exact(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, info: bytes
) -> None:
    """As it is asked for, as llama.cpp does it, and as it is planned."""
    monkeypatch.setattr(C, "llama_print_system_info", lambda: info)
    monkeypatch.setattr(attention, "supports_gpu", lambda: False)
    role = RoleConfig(tiny["dense"], ctx_size=4096, threads=1, trusted=True)
    trio = Trio(role, role, role, reward_kind="judge", parallel=4)
    with caplog.at_level(logging.INFO, "rsd_local.llama"), Reasoner.open(trio) as reasoner:
        told = {name: engine.about() for name, engine in reasoner.engines().items()}
    taken = [float(size) * 2**20 for size in re.findall(r"CPU compute buffer size = +([0-9.]+) MiB", caplog.text)]
    planned = {
        name: Footprint.of(read_header(role.path), capacity, on_gpu=False).compute for name, capacity in capacities(trio, (None,)).items()
    }
    scores = 128 * 4 * 4096 * 4  # of one head and a batch of 128 rows, for all four sequences
    assert len(taken) >= 3 and set(told) == set(planned) == {"draft", "target", "reward"}
    for name in told:
        plain = info == AVX512 and name != "target"
        assert f"flash attention {'off' if plain else 'auto'}" in told[name]
    assert sum(size > 2 * scores for size in taken) == (2 if info == AVX512 else 0)
    assert (planned["draft"] > planned["target"]) == (planned["reward"] > planned["target"]) == (info == AVX512)
    assert min(planned.values()) >= min(taken) and max(planned.values()) >= max(taken)


@pytest.mark.parametrize(("name", "cache_type"), [("abacus", "f16"), ("smollm2", "f32")])
def test_behind_any_text_the_targets_guesses_are_rounded_like_single_rows(smollm2: Path, name: str, cache_type: CacheType) -> None:
    """What is claimed by a trial behind a few tokens; attention that is not fused breaks it behind 20 or 45."""
    file = smollm2 if name == "smollm2" else Path(rsd_local.__file__).parent / "abacus/models/abacus-target.gguf"
    role = RoleConfig(file, 256, cache_type=cache_type, threads=1, trusted=True)
    with Reasoner.open(Trio(role, role, reward_kind="confidence", reuse=False)) as reasoner:
        engine = reasoner.engines()["target"]

        def after(parts: list[list[int]]) -> np.ndarray:
            sequence = engine.sequence()
            for part in parts:
                sequence.append(part)
                logits = sequence.read_logits().result()
            sequence.close()
            return logits

        sequence = engine.sequence()
        exact = sequence.exact_rows(8)
        sequence.close()
        assert exact > 1, "there is something to try"
        for length in (20, 45, 130, 200):
            tokens = np.random.default_rng(length).integers(3, 200, length + exact).tolist()
            single = [[token] for token in tokens[length:]]
            for rows in range(2, exact + 1):
                together = after([tokens[:length], tokens[length : length + rows]])
                assert np.array_equal(together, after([tokens[:length], *single[:rows]])), (length, rows)
