"""How large an engine's context and batches are."""

from __future__ import annotations

from dataclasses import dataclass

from rsd_local.config import RoleConfig

DEFAULT_CONTEXT = 4096
_CPU_CHUNK, _GPU_CHUNK = 128, 512  # tokens of one prefill batch: a cancel waits for one batch at most
_AHEAD = 32  # rows for guesses in one batch, of all sequences together
_STATES = 128  # rows that give an output in one batch, where states of whole texts are read


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one engine.

    Attributes:
        context: tokens of one sequence.
        slots: sequences.
        chunk: tokens of one prefill batch.
        reads_states: whether hidden states of whole texts are read, in batches in which every row gives an output.
    """

    context: int
    slots: int
    chunk: int
    reads_states: bool = False

    @classmethod
    def of(cls, config: RoleConfig, slots: int, trained_context: int, *, on_gpu: bool, reads_states: bool = False) -> Sizes:
        """The sizes that a role's settings give with a model that was trained on so many tokens."""
        context = config.ctx_size or min(trained_context, DEFAULT_CONTEXT)
        return cls(context, slots, _GPU_CHUNK if on_gpu else _CPU_CHUNK, reads_states)

    @property
    def cells(self) -> int:
        """Tokens that the cache holds, of all sequences together."""
        return self.context * self.slots

    @property
    def rows(self) -> int:
        """The most rows of a batch."""
        return self.chunk + self.slots + _AHEAD

    @property
    def outputs(self) -> int:
        """The most rows of a batch that give an output."""
        return self.slots + (_STATES if self.reads_states else _AHEAD)
