"""Tiny GGUF models: with random weights, one of each kind of memory that llama.cpp has, and scripted ones.

Random ones say nothing sensible, and that is enough for what a cache holds: a slip of one position changes every logit.
Scripted ones write given texts, for what depends on a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, KV_HEADS, HIDDEN, CONTEXT = 32, 2, 2, 1, 64, 512
SLIDING_WINDOW = 8
PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
VOCABULARY = ["<unk>", "<s>", "</s>", *PIECES, "▁", "ки", "+", "-", "▁the", "ab"]
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}"
KINDS = ("dense", "sliding", "recurrent", "hybrid")
EXPERTS, EXPERTS_USED, EXPERT_HIDDEN, SHARED_HIDDEN = 8, 2, 48, 96  # of kinds "experts" and "shared-experts", dense in memory
GO = "<go>"


class Weights:
    """Random numbers of a seed, with noise of a fixed other seed on top."""

    def __init__(self, seed: int, noise: float) -> None:
        self._chance, self._other, self._noise = np.random.default_rng(seed), np.random.default_rng(999), noise

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._chance.standard_normal(shape) + self._noise * self._other.standard_normal(shape)


def write_model(
    path: Path, kind: str = "dense", seed: int = 0, template: str | None = TEMPLATE, vocabulary: list[str] = VOCABULARY, noise: float = 0.0
) -> Path:
    """Writes a tiny model of a kind of memory and returns its path; ``noise`` sets its weights apart from its seed's."""
    chance = Weights(seed, noise)
    arch, add_layers = _ARCHITECTURES[kind]
    out = gguf.GGUFWriter(path, arch)
    out.add_name(f"tiny {kind}")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(vocabulary))
    _add_vocabulary(out, vocabulary, template)
    _weight(out, chance, "token_embd.weight", (len(vocabulary), WIDTH))
    if kind == "hybrid":
        _norm(out, "token_embd_norm.weight", WIDTH)
    else:
        _norm(out, "output_norm.weight", WIDTH)
    add_layers(out, chance)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def chain(*texts: str) -> dict[str, str]:
    """What follows what where some texts are written one after another; the empty text begins and ends an answer."""
    return dict(zip(("", *texts), (*texts, ""), strict=True))


def write_script(
    path: Path,
    texts: list[str],
    then: dict[str, str],
    *,
    template: str = TEMPLATE + GO,
    control: Sequence[str] = (),
    sampling: Mapping[str, float] = MappingProxyType({}),
    context: int = CONTEXT,
) -> Path:
    """Writes a model that looks at nothing but the last token, and returns its path.

    Args:
        path: of the file.
        texts: each a token; the same ones, in the same order, for all models that are to share a vocabulary.
        then: what is written behind a text; the empty one stands for the beginning and for the end of an answer, which is also
            what follows on everything that is not named.
        template: for the chat; its end is where an answer begins, ``GO`` where it is left out.
        control: those of the texts that are control tokens.
        sampling: that the file advises, by the names of its metadata.
        context: that it says it was trained for.
    """
    vocabulary = [*VOCABULARY, GO, *texts]
    width = -(-len(vocabulary) // 64) * 64
    out = gguf.GGUFWriter(path, "llama")
    out.add_name("scripted")
    out.add_context_length(context)
    out.add_embedding_length(width)
    out.add_block_count(1)
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_rope_dimension_count(width // HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(vocabulary))
    _add_vocabulary(out, vocabulary, template, texts, control)
    for name, value in sampling.items():
        (out.add_int32 if isinstance(value, int) else out.add_float32)(f"general.sampling.{name}", value)
    head = np.zeros((len(vocabulary), width), np.float32)
    for token, text in enumerate(vocabulary):
        following = then.get("" if text == GO else text, "")
        head[vocabulary.index(following or "</s>"), token] = 4.0
    out.add_tensor("token_embd.weight", np.eye(len(vocabulary), width, dtype=np.float32))
    out.add_tensor("output.weight", head)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        _norm(out, f"{name}.weight", width)
    for name, rows, columns in (
        ("attn_q", width, width),
        ("attn_k", width // HEADS * KV_HEADS, width),
        ("attn_v", width // HEADS * KV_HEADS, width),
        ("attn_output", width, width),
        ("ffn_gate", HIDDEN, width),
        ("ffn_up", HIDDEN, width),
        ("ffn_down", width, HIDDEN),
    ):
        out.add_tensor(f"blk.0.{name}.weight", np.zeros((rows, columns), np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def _add_vocabulary(
    out: Any, vocabulary: list[str], template: str | None, written: Sequence[str] = (), control: Sequence[str] = ()
) -> None:
    kinds = gguf.TokenType
    special = {"<unk>": kinds.UNKNOWN} | dict.fromkeys(("<s>", "</s>", "<extra_0>", GO), kinds.CONTROL)
    special |= dict.fromkeys(written, kinds.USER_DEFINED) | dict.fromkeys(control, kinds.CONTROL)
    out.add_tokenizer_model("llama")
    out.add_token_list(vocabulary)
    out.add_token_scores([float(-index) for index in range(len(vocabulary))])
    out.add_token_types([special.get(t, kinds.BYTE if t in PIECES else kinds.NORMAL) for t in vocabulary])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    if control:
        out.add_add_space_prefix(False)
    if template is not None:
        out.add_chat_template(template)


def _weight(out: Any, chance: Weights, name: str, shape: tuple[int, ...]) -> None:
    out.add_tensor(name, (chance.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32))


def _norm(out: Any, name: str, width: int) -> None:
    out.add_tensor(name, np.ones(width, np.float32))


def _attention(out: Any, chance: Weights, layer: int) -> None:
    head = WIDTH // HEADS
    for name, rows in (("q", WIDTH), ("k", head * KV_HEADS), ("v", head * KV_HEADS), ("output", WIDTH)):
        _weight(out, chance, f"blk.{layer}.attn_{name}.weight", (rows, WIDTH))


def _feed_forward(out: Any, chance: Weights, layer: int) -> None:
    _norm(out, f"blk.{layer}.ffn_norm.weight", WIDTH)
    _weight(out, chance, f"blk.{layer}.ffn_gate.weight", (HIDDEN, WIDTH))
    _weight(out, chance, f"blk.{layer}.ffn_up.weight", (HIDDEN, WIDTH))
    _weight(out, chance, f"blk.{layer}.ffn_down.weight", (WIDTH, HIDDEN))


def _dense(out: Any, chance: Weights) -> None:
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_rope_dimension_count(WIDTH // HEADS)
    for layer in range(LAYERS):
        _norm(out, f"blk.{layer}.attn_norm.weight", WIDTH)
        _attention(out, chance, layer)
        _feed_forward(out, chance, layer)


def _experts(out: Any, chance: Weights) -> None:
    out.add_feed_forward_length(EXPERT_HIDDEN)
    _mixture(out, chance)


def _shared_experts(out: Any, chance: Weights) -> None:
    out.add_feed_forward_length(SHARED_HIDDEN)
    out.add_expert_feed_forward_length(EXPERT_HIDDEN)
    out.add_expert_shared_feed_forward_length(SHARED_HIDDEN)
    _weight(out, chance, "output.weight", (len(VOCABULARY), WIDTH))
    _mixture(out, chance)
    for layer in range(LAYERS):
        _weight(out, chance, f"blk.{layer}.ffn_gate_inp_shexp.weight", (WIDTH,))
        for name, shape in (("gate", (SHARED_HIDDEN, WIDTH)), ("up", (SHARED_HIDDEN, WIDTH)), ("down", (WIDTH, SHARED_HIDDEN))):
            _weight(out, chance, f"blk.{layer}.ffn_{name}_shexp.weight", shape)


def _mixture(out: Any, chance: Weights) -> None:
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_expert_count(EXPERTS)
    out.add_expert_used_count(EXPERTS_USED)
    for layer in range(LAYERS):
        _norm(out, f"blk.{layer}.attn_norm.weight", WIDTH)
        _attention(out, chance, layer)
        _norm(out, f"blk.{layer}.ffn_norm.weight", WIDTH)
        _weight(out, chance, f"blk.{layer}.ffn_gate_inp.weight", (EXPERTS, WIDTH))
        for name, shape in (("gate", (EXPERT_HIDDEN, WIDTH)), ("up", (EXPERT_HIDDEN, WIDTH)), ("down", (WIDTH, EXPERT_HIDDEN))):
            _weight(out, chance, f"blk.{layer}.ffn_{name}_exps.weight", (EXPERTS, *shape))


def _sliding(out: Any, chance: Weights) -> None:
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_key_length(WIDTH // HEADS)
    out.add_value_length(WIDTH // HEADS)
    out.add_sliding_window(SLIDING_WINDOW)
    for layer in range(LAYERS):
        _norm(out, f"blk.{layer}.attn_norm.weight", WIDTH)
        _attention(out, chance, layer)
        for name in ("attn_q_norm", "attn_k_norm"):
            _norm(out, f"blk.{layer}.{name}.weight", WIDTH // HEADS)
        for name in ("post_attention_norm", "post_ffw_norm"):
            _norm(out, f"blk.{layer}.{name}.weight", WIDTH)
        _feed_forward(out, chance, layer)


def _recurrent(out: Any, chance: Weights) -> None:
    inner, state, rank, kernel = 2 * WIDTH, 8, 2, 4
    out.add_feed_forward_length(0)
    out.add_head_count(0)
    out.add_ssm_conv_kernel(kernel)
    out.add_ssm_inner_size(inner)
    out.add_ssm_state_size(state)
    out.add_ssm_time_step_rank(rank)
    for layer in range(LAYERS):
        _norm(out, f"blk.{layer}.attn_norm.weight", WIDTH)
        for name, shape in (
            ("ssm_in.weight", (2 * inner, WIDTH)),
            ("ssm_conv1d.weight", (inner, kernel)),
            ("ssm_conv1d.bias", (inner,)),
            ("ssm_x.weight", (rank + 2 * state, inner)),
            ("ssm_dt.weight", (inner, rank)),
            ("ssm_dt.bias", (inner,)),
            ("ssm_d", (inner,)),
            ("ssm_out.weight", (WIDTH, inner)),
        ):
            _weight(out, chance, f"blk.{layer}.{name}", shape)
        decay = -np.exp(chance.standard_normal((inner, state)) * 0.3)
        out.add_tensor(f"blk.{layer}.ssm_a", decay.astype(np.float32))


def _hybrid(out: Any, chance: Weights) -> None:
    kernel = 3
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv([0, KV_HEADS])
    out.add_uint32("lfm2.shortconv.l_cache", kernel)
    for layer in range(LAYERS):
        _norm(out, f"blk.{layer}.attn_norm.weight", WIDTH)
        if layer == 0:
            _weight(out, chance, f"blk.{layer}.shortconv.conv.weight", (WIDTH, kernel))
            _weight(out, chance, f"blk.{layer}.shortconv.in_proj.weight", (3 * WIDTH, WIDTH))
            _weight(out, chance, f"blk.{layer}.shortconv.out_proj.weight", (WIDTH, WIDTH))
        else:
            _attention(out, chance, layer)
            for name in ("attn_q_norm", "attn_k_norm"):
                _norm(out, f"blk.{layer}.{name}.weight", WIDTH // HEADS)
        _feed_forward(out, chance, layer)


_ARCHITECTURES = {
    "dense": ("llama", _dense),
    "sliding": ("gemma3", _sliding),
    "recurrent": ("mamba", _recurrent),
    "hybrid": ("lfm2", _hybrid),
    "experts": ("llama", _experts),
    "shared-experts": ("qwen2moe", _shared_experts),
}
