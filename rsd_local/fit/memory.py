"""What a model with its context needs in memory, told from the header of its file."""

from __future__ import annotations

from dataclasses import dataclass

from rsd_local.config import RoleConfig
from rsd_local.gguf_header import Header
from rsd_local.runtime.sizes import Sizes

_CACHE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes of one number in the cache."""
_VOCABULARY_BYTES = 180
"""Bytes that llama.cpp keeps of a token besides its embedding: its text, its score, and its place in three tables."""
_BESIDE = 8 << 20
"""Bytes of everything else: threads, batches, the outputs that are read."""


@dataclass(frozen=True, slots=True)
class RoleCapacity:
    """What a role is to hold: its model and where that runs, and how many sequences at once."""

    config: RoleConfig
    slots: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a header says of a model's layers.

    Attributes:
        width: n_embd.
        inner: the widest feed-forward part.
        vocabulary: tokens.
        trained_context: tokens.
        kept: numbers that each layer keeps of a token: its keys and values.
    """

    width: int
    inner: int
    vocabulary: int
    trained_context: int
    kept: tuple[int, ...]

    @classmethod
    def of(cls, header: Header) -> Shape:
        """The shape of a language model."""
        name = header.metadata.get("general.architecture")

        def numbers(key: str) -> tuple[int, ...]:
            value = header.metadata.get(f"{name}.{key}")
            return tuple(max(0, one) if isinstance(one, int) else 0 for one in (value if isinstance(value, tuple) else (value,))) or (0,)

        def number(key: str, usual: int = 0) -> int:
            return max(numbers(key)) or usual

        # A layer has tensors: what a damaged header claims beyond them costs nothing here.
        layers, heads = min(max(1, number("block_count")), len(header.tensors) + 1), max(1, number("attention.head_count"))
        usual = number("embedding_length") // heads
        each = number("attention.key_length", usual) + number("attention.value_length", usual)
        keys = numbers("attention.head_count_kv")
        keys = keys * layers if len(keys) == 1 else keys[:layers]
        if f"{name}.attention.head_count_kv" not in header.metadata:
            keys = (heads,) * layers
        table = next((tensor.shape for tensor in header.tensors if tensor.name == "token_embd.weight"), (0,))
        return cls(
            number("embedding_length"),
            number("feed_forward_length"),
            table[-1],
            number("context_length", 1 << 30),
            tuple(each * count for count in keys),
        )


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that one role needs.

    Attributes:
        blocks: weights of each layer.
        head: weights behind the last layer, which go to a GPU with the first layer that goes.
        table: token embeddings and the vocabulary, which stay in the machine's memory.
        tied: whether the table is the head too; then a GPU gets a copy of it.
        caches: keys and values of each layer.
        compute: what one batch needs while it is worked on.
    """

    blocks: tuple[int, ...]
    head: int
    table: int
    tied: bool
    caches: tuple[int, ...]
    compute: int

    @classmethod
    def of(cls, header: Header, capacity: RoleCapacity, *, on_gpu: bool) -> Footprint:
        """The footprint of a role; a recurrent layer's state, a few megabytes, is not counted.

        Args:
            header: of the role's file.
            capacity: what the role is to hold.
            on_gpu: whether there is a GPU.
        """
        shape, config = Shape.of(header), capacity.config
        sizes = Sizes.of(config, capacity.slots, shape.trained_context, on_gpu=on_gpu and config.gpu_layers != 0)
        blocks, head, table = [0] * len(shape.kept), 0, shape.vocabulary * _VOCABULARY_BYTES
        for tensor in header.tensors:
            kind, _, rest = tensor.name.partition(".")
            layer = rest.partition(".")[0]
            if kind == "blk" and layer.isdecimal() and int(layer) < len(blocks):
                blocks[int(layer)] += tensor.size
            elif kind == "token_embd":
                table += tensor.size
            else:
                head += tensor.size
        tied = all(tensor.name != "output.weight" for tensor in header.tensors)
        caches = tuple(int(sizes.cells * kept * _CACHE_BYTES[config.cache_type]) for kept in shape.kept)
        # The larger of two moments, in 32-bit floats: the feed-forward part with the mask beside it, or the logits.
        layer_rows = sizes.rows * (6 * sizes.cells + 4 * (2 * shape.inner + 4 * shape.width))
        logits = 4 * sizes.outputs * shape.vocabulary
        return cls(tuple(blocks), head, table, tied, caches, max(layer_rows, logits) + _BESIDE)

    @property
    def weights(self) -> int:
        """Bytes of the whole file, with the vocabulary."""
        return sum(self.blocks) + self.head + self.table

    @property
    def cache(self) -> int:
        """Bytes of all layers' keys and values."""
        return sum(self.caches)

    @property
    def read(self) -> int:
        """Bytes of weights that each token reads: all but the table where that is no head."""
        return sum(self.blocks) + (self.table if self.tied else self.head)
