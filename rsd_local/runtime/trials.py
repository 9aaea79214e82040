"""What a model does here that no list of names or kernels would tell for long: found by trying it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_cpp import llama_cpp as C

from rsd_local.config import Sampling
from rsd_local.errors import DecodeFailed
from rsd_local.roles import Stream
from rsd_local.runtime.batch import Batch
from rsd_local.runtime.outputs import Outputs
from rsd_local.runtime.sampler import Draws, Floats

if TYPE_CHECKING:
    from rsd_local.runtime.engine import Engine
    from rsd_local.runtime.trace import Tracing

_PREFIX = 8  # tokens before the batches


class Rounding:
    """Which batches give bit for bit the logits that their tokens get one by one. For the device's thread only.

    Args:
        context: llama.cpp's, of an engine that can cut its cache.
        batch, outputs: the engine's own.
        n_vocab: of the model.
    """

    def __init__(self, context: Any, batch: Batch, outputs: Outputs, n_vocab: int) -> None:
        self._context, self._batch, self._outputs, self._n_vocab = context, batch, outputs, n_vocab
        self.known: dict[int, int] = {}

    def exact_rows(self, slot: int, most: int) -> int:
        """Up to how many rows, at most ``most``, every batch is exact; tried once, in an empty slot."""
        if most not in self.known:
            try:
                self.known[most] = self._try(slot, most)
            finally:
                C.llama_memory_seq_rm(C.llama_get_memory(self._context), slot, -1, -1)
        return self.known[most]

    def _try(self, slot: int, most: int) -> int:
        tokens = np.random.default_rng(0).integers(self._n_vocab, size=_PREFIX + most).tolist()
        rest = tokens[_PREFIX:]
        self._decode(slot, 0, tokens[:_PREFIX])
        single = [self._decode(slot, _PREFIX + place, [token])[0] for place, token in enumerate(rest)]
        for rows in range(2, most + 1):
            C.llama_memory_seq_rm(C.llama_get_memory(self._context), slot, _PREFIX, -1)
            if not np.array_equal(self._decode(slot, _PREFIX, rest[:rows]), single[:rows]):
                return rows - 1
        return most

    def _decode(self, slot: int, position: int, tokens: list[int]) -> list[Floats]:
        self._batch.clear()
        self._batch.add(slot, position, tokens, len(tokens))
        status = C.llama_decode(self._context, self._batch.struct)
        if status != 0:
            raise DecodeFailed(f"a trial of {len(tokens)} rows could not be decoded, llama.cpp's status is {status}")
        C.llama_synchronize(self._context)
        return [self._outputs.logits(row).copy() for row in range(len(tokens))]


def states_beside_logits(engine: Engine) -> bool:
    """Whether a pass that gives hidden states gives logits too: for some kinds llama.cpp leaves those out. A sequence must be free."""
    logits: list[Floats] = []

    class Looking(Draws):
        def draw(self, row: Floats, context: Sequence[int] = ()) -> int:
            logits.append(row.copy())
            return 0

    steps: list[tuple[int, Tracing]] = [(0, "off"), (1, "states"), (1, "off")]
    for token, tracing in steps:  # logits that are left out are those of the pass before
        sequence = engine.sequence()
        sequence.append([token])
        sequence.generate(Looking(Sampling(), Stream(0, 0)), 1, tracing=tracing).future.result()
        sequence.close()
    before, traced, plain = logits
    return bool(np.abs(traced - plain).max() < np.abs(traced - before).max() / 2)
