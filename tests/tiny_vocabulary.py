"""Tiny GGUF models whose vocabularies are the point: each kind of token, and each pre-tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

WIDTH = 32
KIND = gguf.TokenType
SIGNS = [chr(code) for code in range(33, 127)]


def write_spm(
    path: Path,
    template: str | None = None,
    *,
    normal: Sequence[str] = (),
    control: Sequence[str] = (),
    user: Sequence[str] = (),
    space: bool = True,
) -> Path:
    """A SentencePiece vocabulary: bytes, single signs, and the given tokens, of which ``normal`` ones merge in their order.

    ``space`` says whether a space is put before every text.
    """
    kinds = {"<unk>": KIND.UNKNOWN, "<s>": KIND.CONTROL, "</s>": KIND.CONTROL} | dict.fromkeys(control, KIND.CONTROL)
    kinds |= dict.fromkeys(user, KIND.USER_DEFINED)
    hexes = [f"<0x{byte:02X}>" for byte in range(256)]
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *control,
        *user,
        *hexes,
        "▁",
        *normal,
        *(sign for sign in SIGNS if sign not in (*normal, *control, *user)),
    ]
    out = _begin(path, len(words), "llama", template)
    out.add_token_list(words)
    out.add_token_scores([-float(place) for place in range(len(words))])
    out.add_token_types([kinds.get(word, KIND.BYTE if word in hexes else KIND.NORMAL) for word in words])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    out.add_add_space_prefix(space)
    _end(out, len(words))
    return path


def write_bpe(
    path: Path, pre: str, template: str | None = None, *, control: Sequence[str] = ("<|end|>",), user: Sequence[str] = ()
) -> Path:
    """A byte-level BPE vocabulary with one merge, whose pre-tokenizer is ``pre``."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    words = [*control, *user, *(letters[byte] for byte in range(256)), "aa"]
    out = _begin(path, len(words), "gpt2", template)
    out.add_tokenizer_pre(pre)
    out.add_token_list(words)
    out.add_token_types([*[KIND.CONTROL] * len(control), *[KIND.USER_DEFINED] * len(user), *[KIND.NORMAL] * 257])
    out.add_token_merges(["a a"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    out.add_add_bos_token(False)
    _end(out, len(words))
    return path


def _begin(path: Path, words: int, kind: str, template: str | None) -> gguf.GGUFWriter:
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(512)
    out.add_embedding_length(WIDTH)
    out.add_block_count(1)
    out.add_feed_forward_length(WIDTH)
    out.add_head_count(2)
    out.add_head_count_kv(2)
    out.add_rope_dimension_count(WIDTH // 2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(words)
    out.add_tokenizer_model(kind)
    if template is not None:
        out.add_chat_template(template)
    return out


def _end(out: gguf.GGUFWriter, words: int) -> None:
    chance = np.random.default_rng(0)
    out.add_tensor("token_embd.weight", chance.standard_normal((words, WIDTH)).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        out.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        out.add_tensor(f"blk.0.{name}.weight", chance.standard_normal((WIDTH, WIDTH)).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
