"""Mixtures of experts, and attention that is not fused: what is counted is what llama.cpp computes and takes."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

import pytest
import tiny as sizes
from conftest import EngineMaker
from tiny import write_model

from rsd_local.config import RoleConfig, Sampling
from rsd_local.fit import RoleCapacity
from rsd_local.fit.memory import Footprint, Shape
from rsd_local.gguf_header import Header, Tensor, Value, active_parameters, longest_context, parameters, read_header
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws

BESIDE = 8 << 20  # bytes that a plan adds for what no layer needs


def header(arch: str, metadata: dict[str, Value], tensors: dict[str, tuple[int, ...]]) -> Header:
    """A header without a file."""
    made = {"general.architecture": arch} | {f"{arch}.{key}": value for key, value in metadata.items()}
    return Header(3, made, tuple(Tensor(name, shape, 2 * math.prod(shape), 1) for name, shape in tensors.items()), 0, {}, 0, ())


def mixtral() -> Header:
    """Mixtral 8x7B as it was published: 32 layers of 4,096, 8 experts of 14,336 of which 2 are used, 8 of 32 heads for keys."""
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (4096, 32000),
        "output.weight": (4096, 32000),
        "output_norm.weight": (4096,),
    }
    for layer in range(32):
        block = {name: (4096, rows) for name, rows in (("attn_q", 4096), ("attn_k", 1024), ("attn_v", 1024), ("attn_output", 4096))}
        block |= {"attn_norm": (4096,), "ffn_norm": (4096,), "ffn_gate_inp": (4096, 8)}  # type: ignore[dict-item]
        block |= {"ffn_gate_exps": (4096, 14336, 8), "ffn_up_exps": (4096, 14336, 8), "ffn_down_exps": (14336, 4096, 8)}  # type: ignore[dict-item]
        tensors |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    metadata: dict[str, Value] = {"block_count": 32, "embedding_length": 4096, "feed_forward_length": 14336, "context_length": 32768}
    metadata |= {"attention.head_count": 32, "attention.head_count_kv": 8, "expert_count": 8, "expert_used_count": 2}
    return header("llama", metadata, tensors)


def test_the_published_numbers_of_mixtral_come_out() -> None:
    made = mixtral()
    outside = 2 * 32000 * 4096 + 4096
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 2 * 4096
    assert parameters(made) == outside + 32 * (attention + 4096 * 8 + 8 * 3 * 4096 * 14336) == 46_702_792_704
    assert active_parameters(made) == outside + 32 * (attention + 4096 * 8 + 2 * 3 * 4096 * 14336) == 12_879_925_248
    plan = Footprint.of(made, RoleCapacity(RoleConfig(Path("m.gguf"), ctx_size=4096), 1), on_gpu=False)
    assert plan.read == 2 * (active_parameters(made) - 32000 * 4096), "a token reads the active weights, and one row of the table"
    assert plan.weights > 2 * parameters(made) and plan.cache == 4096 * 32 * 2 * 1024 * 2


def test_experts_used_can_differ_by_layer_and_shared_ones_serve_every_token() -> None:
    tensors = {f"blk.{layer}.ffn_{name}": shape for layer in (0, 1) for name, shape in (
        ("up_exps.weight", (10, 20, 4)), ("up_exps.bias", (20, 4)), ("up_shexp.weight", (10, 7)), ("gate_inp.weight", (10, 4)),
    )}  # fmt: skip
    made = header("any", {"expert_used_count": (1, 3)}, tensors)
    shared = 2 * (70 + 40)
    assert parameters(made) == shared + 2 * (800 + 80) and active_parameters(made) == shared + 200 + 600 + 20 + 60
    for unclear in ({}, {"expert_used_count": 0}, {"expert_used_count": "two"}, {"expert_used_count": True}, {"expert_used_count": 99}):
        assert active_parameters(header("any", unclear, tensors)) == parameters(made), unclear  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["dense", "sliding", "recurrent", "hybrid", "experts", "shared-experts"])
def test_llama_cpp_counts_as_many_weights(kind: str, tmp_path: Path, open_engine: EngineMaker) -> None:
    path = write_model(tmp_path / "m.gguf", kind)
    engine, made = open_engine(path), read_header(path)
    assert parameters(made) == engine.model.n_params
    idle = 0
    if "experts" in kind:
        idle = sizes.LAYERS * (sizes.EXPERTS - sizes.EXPERTS_USED) * 3 * sizes.WIDTH * sizes.EXPERT_HIDDEN
    assert active_parameters(made) == engine.model.active_params == engine.model.n_params - idle
    sequence = engine.sequence([5, 6, 7])
    sequence.generate(Draws(Sampling(), Stream(0, TARGET)), 2).future.result()
    assert sequence.counters.parameters == engine.model.active_params, "FLOPs are of active weights"


@pytest.mark.parametrize("kind", ["dense", "sliding", "experts", "shared-experts"])
@pytest.mark.parametrize("fused", ["on", "off"])
@pytest.mark.parametrize(("slots", "context"), [(1, 16384), (4, 8192)])
def test_a_batch_takes_what_the_plan_says(
    kind: str, fused: str, slots: int, context: int, tmp_path: Path, open_engine: EngineMaker, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "m.gguf", kind)
    with caplog.at_level(logging.INFO, "rsd_local.llama"):
        open_engine(path, slots=slots, ctx_size=context, flash_attention=fused)
    said = max(float(size) * 2**20 for size in re.findall(r"CPU compute buffer size = +([0-9.]+) MiB", caplog.text))
    config = RoleConfig(path, ctx_size=context, flash_attention=fused, cache_type="f32")  # type: ignore[arg-type]
    planned = Footprint.of(read_header(path), RoleCapacity(config, slots), on_gpu=False).compute
    # Of a batch's mask more is planned than is used, the whole of it where attention is fused; never less.
    assert said - BESIDE / 8 <= planned - BESIDE <= said * (1.5 if fused == "off" else 12), (said, planned)


def test_where_attention_is_not_fused_its_scores_are_planned() -> None:
    made = Shape.of(mixtral())
    config = RoleConfig(Path("m.gguf"))
    assert made.head_sizes == (128, 128) and made.fuses(config, on_gpu=True) and made.fuses(config, on_gpu=False)
    odd = Shape.of(header("llama", {"attention.head_count": 2, "embedding_length": 32}, {}))
    assert odd.head_sizes == (16, 16) and odd.fuses(config, on_gpu=False) and not odd.fuses(config, on_gpu=True)
    assert odd.fuses(RoleConfig(Path("m.gguf"), flash_attention="on"), on_gpu=True)
    for shape in (made, odd):
        assert not shape.fuses(RoleConfig(Path("m.gguf"), flash_attention="off"), on_gpu=False)
    assert not Shape.of(header("grok", {}, {})).fuses(RoleConfig(Path("m.gguf"), flash_attention="on"), on_gpu=False)
    on, off = (
        Footprint.of(mixtral(), RoleCapacity(RoleConfig(Path("m.gguf"), ctx_size=8192, flash_attention=fused), 2), on_gpu=False).compute  # type: ignore[arg-type]
        for fused in ("auto", "off")
    )
    rows, cells = 128 + 2 + 32, 2 * 8192
    assert off - BESIDE == rows * (4 * cells * 33 + 24 * 4096) and on < off / 3


def test_rope_scaling_stretches_what_a_model_was_trained_for() -> None:
    stretched = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32768}
    for metadata, tokens in (
        ({"context_length": 512}, 512),
        ({"context_length": 32768} | stretched, 131072),
        ({"context_length": 131072} | stretched, 131072),
        ({"context_length": 4096, "rope.scaling.factor": 2.0}, 8192),
        ({"context_length": 4096, "rope.scaling.type": "none", "rope.scaling.factor": 2.0}, 4096),
        ({"context_length": 4096, "rope.scaling.factor": float("nan")}, 4096),
        ({}, 0),
    ):  # fmt: skip
        assert longest_context(header("any", metadata, {})) == tokens, metadata  # type: ignore[arg-type]
