"""The sizes of a published model's layers, from which its memory can be told before its file is here."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rsd_local.config import require


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a model's layers, of one without experts, with the names that its ``config.json`` and the GGUF keys have for them.

    Attributes:
        layers: num_hidden_layers, block_count.
        width: hidden_size, embedding_length.
        feed_forward: intermediate_size, feed_forward_length.
        heads: num_attention_heads, attention.head_count.
        kv_heads: num_key_value_heads, attention.head_count_kv.
        head_size: head_dim, attention.key_length.
        vocabulary: vocab_size.
        full_attention_interval: every n-th layer has attention, the others are recurrent and keep nothing of a token; 1 where all have.
    """

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    full_attention_interval: int = 1

    def __post_init__(self) -> None:
        for entry in fields(self):
            value: object = getattr(self, entry.name)
            fine = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000_000
            require(fine, f"{entry.name} {value!r} is no number from 1 to 10,000,000")
