"""Tiny GGUF models with a multi-token head (MTP): one whose memory is attention alone, and one with a recurrent layer.

Weights are random, so the head's guesses are mostly wrong. Where they are to be right, attention and feed-forward layers add nothing,
and the head looks at the token alone: then it says what the model says behind the same token.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny import CONTEXT, TEMPLATE, VOCABULARY, _add_vocabulary

WIDTH, HEADS, KV_HEADS, HEAD, HIDDEN, TRUNK = 32, 2, 1, 16, 48, 2
EXPERTS = 2
KINDS = {"attention": "glm4moe", "hybrid": "qwen35"}


class _File:
    """Collects the tensors of one file."""

    def __init__(self, out: gguf.GGUFWriter, seed: int, right: bool) -> None:
        self.out, self._chance, self._right = out, np.random.default_rng(seed), right

    def random(self, name: str, *shape: int) -> None:
        values = self._chance.standard_normal(shape) / shape[-1] ** 0.5
        adds = name.endswith(("attn_output.weight", "ssm_out.weight", "ffn_down.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight"))
        self.out.add_tensor(name, (values * (0.0 if self._right and adds else 1.0)).astype(np.float32))

    def ones(self, name: str, width: int, sign: float = 1.0) -> None:
        self.out.add_tensor(name, np.full(width, sign, np.float32))

    def head(self, block: str) -> None:
        if self._right:
            self.out.add_tensor(f"{block}nextn.eh_proj.weight", np.eye(WIDTH, 2 * WIDTH, dtype=np.float32))
        else:
            self.random(f"{block}nextn.eh_proj.weight", WIDTH, 2 * WIDTH)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            self.ones(f"{block}nextn.{name}.weight", WIDTH)


def write_mtp_model(
    path: Path, kind: str = "attention", seed: int = 0, *, right: bool = False, head: bool = True, experts: bool = True
) -> Path:
    """Writes a model and returns its path.

    Args:
        path: of the file.
        kind: of ``KINDS``, what its memory is.
        seed: of the weights; the head's come last, so models with and without one are the same but for it.
        right: whether the head guesses what the model writes.
        head: whether it has one.
        experts: whether the head of the kind ``attention`` has them; without them llama.cpp ends the process that uses it.
    """
    arch = KINDS[kind]
    out = gguf.GGUFWriter(path, arch)
    out.add_name(f"tiny mtp {kind}")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(TRUNK + head)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(VOCABULARY))
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_key_length(HEAD)
    out.add_value_length(HEAD)
    out.add_feed_forward_length(HIDDEN)
    out.add_rope_dimension_count(HEAD)
    if head:
        out.add_uint32(f"{arch}.nextn_predict_layers", 1)
    _add_vocabulary(out, VOCABULARY, TEMPLATE)
    file = _File(out, seed, right)
    file.random("token_embd.weight", len(VOCABULARY), WIDTH)
    file.random("output.weight", len(VOCABULARY), WIDTH)
    file.ones("output_norm.weight", WIDTH)
    if kind == "attention":
        _attention(file, head, experts)
    else:
        _hybrid(file, head)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def _attention(file: _File, head: bool, experts: bool) -> None:
    out = file.out
    out.add_expert_count(EXPERTS)
    out.add_expert_used_count(EXPERTS)
    out.add_expert_shared_count(1)
    out.add_expert_feed_forward_length(HIDDEN)
    dense = TRUNK if experts else TRUNK + 1
    out.add_leading_dense_block_count(dense)
    for layer in range(TRUNK + head):
        block = f"blk.{layer}."
        _norms(file, block)
        _query_key_value(file, block, HEADS * HEAD)
        if layer < dense:
            _feed_forward(file, block)
        else:
            file.random(f"{block}ffn_gate_inp.weight", EXPERTS, WIDTH)
            file.ones(f"{block}exp_probs_b.bias", EXPERTS)
            for name, shape in (("gate", (HIDDEN, WIDTH)), ("up", (HIDDEN, WIDTH)), ("down", (WIDTH, HIDDEN))):
                file.random(f"{block}ffn_{name}_exps.weight", EXPERTS, *shape)
                file.random(f"{block}ffn_{name}_shexp.weight", *shape)
        if layer == TRUNK:
            file.head(block)


def _hybrid(file: _File, head: bool) -> None:
    out, state, keys, values = file.out, 16, 1, 2
    out.add_array("qwen35.rope.dimension_sections", [2, 2, 2, 2])
    sizes = {"conv_kernel": 4, "inner_size": state * values, "state_size": state, "time_step_rank": values, "group_count": keys}
    for name, size in sizes.items():
        out.add_uint32(f"qwen35.ssm.{name}", size)
    out.add_uint32("qwen35.full_attention_interval", TRUNK)
    for layer in range(TRUNK + head):
        block = f"blk.{layer}."
        _norms(file, block)
        if layer == 0:
            mixed = 2 * state * keys + state * values
            file.random(f"{block}attn_qkv.weight", mixed, WIDTH)
            file.random(f"{block}attn_gate.weight", state * values, WIDTH)
            file.random(f"{block}ssm_conv1d.weight", mixed, 4)
            file.random(f"{block}ssm_dt.bias", values)
            file.ones(f"{block}ssm_a", values, -1.0)
            file.random(f"{block}ssm_beta.weight", values, WIDTH)
            file.random(f"{block}ssm_alpha.weight", values, WIDTH)
            file.ones(f"{block}ssm_norm.weight", state)
            file.random(f"{block}ssm_out.weight", WIDTH, state * values)
        else:
            _query_key_value(file, block, 2 * HEADS * HEAD)
        _feed_forward(file, block)
        if layer == TRUNK:
            file.head(block)


def _norms(file: _File, block: str) -> None:
    for name in ("attn_norm", "post_attention_norm"):
        file.ones(f"{block}{name}.weight", WIDTH)


def _query_key_value(file: _File, block: str, query: int) -> None:
    file.random(f"{block}attn_q.weight", query, WIDTH)
    file.random(f"{block}attn_k.weight", KV_HEADS * HEAD, WIDTH)
    file.random(f"{block}attn_v.weight", KV_HEADS * HEAD, WIDTH)
    file.random(f"{block}attn_output.weight", WIDTH, HEADS * HEAD)
    for name in ("attn_q_norm", "attn_k_norm"):
        file.ones(f"{block}{name}.weight", HEAD)


def _feed_forward(file: _File, block: str) -> None:
    file.random(f"{block}ffn_gate.weight", HIDDEN, WIDTH)
    file.random(f"{block}ffn_up.weight", HIDDEN, WIDTH)
    file.random(f"{block}ffn_down.weight", WIDTH, HIDDEN)
