"""What a model with its context needs in memory, told from the header of its file."""

from __future__ import annotations

from dataclasses import dataclass

from rsd_local.config import RoleConfig
from rsd_local.gguf_header import Header, active_share, experts_used
from rsd_local.runtime.sizes import Sizes

_CACHE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes of one number in the cache."""
_VOCABULARY_BYTES = 180
"""Bytes that llama.cpp keeps of a token besides its embedding: its text, its score, and its place in three tables."""
_FUSED_ON_GPUS = {(size, size) for size in (64, 80, 96, 112, 128, 256)} | {(192, 128), (320, 256), (576, 512)}
"""Sizes of a head's key and value for which CUDA and Metal have kernels of flash attention."""
_BESIDE = 8 << 20
"""Bytes of everything else: threads, batches, the outputs that are read."""


@dataclass(frozen=True, slots=True)
class RoleCapacity:
    """What a role is to hold: its model and where that runs, and how many sequences at once.

    Attributes:
        config: of the model.
        slots: sequences.
        reads_states, shares_prefixes: see ``runtime.Engine``.
    """

    config: RoleConfig
    slots: int
    reads_states: bool = False
    shares_prefixes: bool = True


@dataclass(frozen=True, slots=True)
class Shape:
    """What a header says of a model's layers.

    Attributes:
        width: n_embd.
        inner: numbers of one token in the widest feed-forward part; of a mixture of experts, of all experts that it uses.
        heads: of attention, in the layer with most.
        head_sizes: numbers of one head's key and of its value.
        window: tokens that a sliding window sees; 0 without one.
        never_fuses: whether llama.cpp computes its attention without flash attention, whatever is asked for.
        vocabulary: tokens.
        trained_context: tokens.
        kept: numbers that each layer keeps of a token: its keys and values.
    """

    width: int
    inner: int
    vocabulary: int
    trained_context: int
    kept: tuple[int, ...]
    heads: int
    head_sizes: tuple[int, int]
    window: int
    never_fuses: bool

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
        sizes = number("attention.key_length", usual), number("attention.value_length", usual)
        keys = numbers("attention.head_count_kv")
        keys = keys * layers if len(keys) == 1 else keys[:layers]
        if f"{name}.attention.head_count_kv" not in header.metadata:
            keys = (heads,) * layers
        # Of a hybrid every n-th layer has attention (qwen35, qwen3next), as llama.cpp counts them from 1.
        every = number("full_attention_interval", 1)
        keys = tuple(0 if (layer + 1) % every else count for layer, count in enumerate(keys))
        table = next((tensor.shape for tensor in header.tensors if tensor.name == "token_embd.weight"), (0,))
        return cls(
            number("embedding_length"),
            max(number("feed_forward_length"), *_expert_rows(header)),
            table[-1],
            number("context_length", 1 << 30),
            tuple(sum(sizes) * count for count in keys),
            heads,
            sizes,
            number("attention.sliding_window"),
            name == "grok",
        )

    def fuses(self, config: RoleConfig, *, on_gpu: bool) -> bool:
        """Whether attention is computed without all its scores in memory (flash attention).

        llama.cpp leaves it out where a setting says so, for Grok, and on a GPU for heads of sizes without a kernel.
        """
        if config.flash_attention == "off" or self.never_fuses:
            return False
        return config.flash_attention == "on" or not on_gpu or self.head_sizes in _FUSED_ON_GPUS


def _expert_rows(header: Header) -> list[int]:
    """The numbers of one token in each layer's feed-forward part of experts: those of all that it uses, and the shared ones'.

    Gate, up and their product are there at once (a dense part has two of them), then the results of all experts.
    """
    rows = dict[str, int]()
    for tensor in header.tensors:
        _, layer, name = [*tensor.name.split(".", 2), "", ""][:3]
        if name in ("ffn_down_exps.weight", "ffn_down_shexp.weight"):
            used = experts_used(header, int(layer)) if name == "ffn_down_exps.weight" and layer.isdecimal() else 1
            inner, width = (*tensor.shape, 1)[:2]
            rows[layer] = rows.get(layer, 0) + used * max(3 * inner // 2, width)
    return [0, *rows.values()]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that one role needs, with the context that they are for.

    Attributes:
        context: tokens of one question.
        blocks: weights of each layer.
        head: weights behind the last layer, which go to a GPU with the first layer that goes.
        table: token embeddings and the vocabulary, which stay in the machine's memory.
        tied: whether the table is the head too; then a GPU gets a copy of it.
        caches: keys and values of each layer.
        compute: what one batch needs while it is worked on.
        read: weights that each token reads: all but the table where that is no head, of experts those that it uses.
        adapters: weights of a LoRA adapter, of each layer; those outside of layers count with the last one.
    """

    context: int
    blocks: tuple[int, ...]
    head: int
    table: int
    tied: bool
    caches: tuple[int, ...]
    compute: int
    read: int
    adapters: tuple[int, ...] = ()

    @classmethod
    def of(cls, header: Header, capacity: RoleCapacity, *, on_gpu: bool, adapter: Header | None = None) -> Footprint:
        """The footprint of a role; a recurrent layer's state, a few megabytes, is not counted.

        Args:
            header: of the role's file.
            capacity: what the role is to hold.
            on_gpu: whether there is a GPU.
            adapter: of its LoRA adapter, None without one.
        """
        shape, config = Shape.of(header), capacity.config
        on_gpu = on_gpu and config.gpu_layers != 0
        sizes = Sizes.of(config, capacity.slots, shape.trained_context, on_gpu=on_gpu, reads_states=capacity.reads_states)
        blocks, head, table, active = [0] * len(shape.kept), 0, shape.vocabulary * _VOCABULARY_BYTES, 0
        for tensor in header.tensors:
            kind, _, rest = tensor.name.partition(".")
            layer = rest.partition(".")[0]
            if kind == "blk" and layer.isdecimal() and int(layer) < len(blocks):
                blocks[int(layer)] += tensor.size
                active += round(tensor.size * active_share(header, tensor))
            elif kind == "token_embd":
                table += tensor.size
            else:
                head += tensor.size
        tied = all(tensor.name != "output.weight" for tensor in header.tensors)
        caches = tuple(int(sizes.cells * kept * _CACHE_BYTES[config.cache_type]) for kept in shape.kept)
        # The largest of three moments, in 32-bit floats: the feed-forward part or the attention, with the mask beside it, or the logits.
        apart = shape.window or not capacity.shares_prefixes  # then each sequence has a cache and scores of its own
        cells = sizes.context if apart else sizes.cells
        forward = sizes.rows * (6 * cells + 4 * (2 * shape.inner + 4 * shape.width))
        scores = 0 if shape.fuses(config, on_gpu=on_gpu) else sizes.rows * (4 * cells * (shape.heads + 1) + 4 * 6 * shape.width)
        logits = 4 * sizes.outputs * shape.vocabulary
        copied = logits if capacity.reads_states else 0  # for reading; otherwise a few rows
        compute = max(forward, scores, logits) + copied + _BESIDE
        adapters, read = [0] * len(blocks), active + (table if tied else head)
        for tensor in () if adapter is None else adapter.tensors:
            layer = tensor.name.removeprefix("blk.").partition(".")[0]
            adapters[int(layer) if layer.isdecimal() and int(layer) < len(adapters) else -1] += tensor.size
        return cls(sizes.context, tuple(blocks), head, table, tied, caches, compute, read + sum(adapters), tuple(adapters))

    @property
    def weights(self) -> int:
        """Bytes of the whole file, with the vocabulary."""
        return sum(self.blocks) + self.head + self.table

    @property
    def adapter(self) -> int:
        """Bytes of the LoRA adapter."""
        return sum(self.adapters)

    @property
    def cache(self) -> int:
        """Bytes of all layers' keys and values."""
        return sum(self.caches)
