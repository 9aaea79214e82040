"""The open models of one run, as the algorithms see them: they need not know where a model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rsd_local.config import OnFailure
from rsd_local.decoding.ahead import Ahead
from rsd_local.events import Author
from rsd_local.prompt import Prompt
from rsd_local.roles import Reward, Writer
from rsd_local.segments import Segmenter

if TYPE_CHECKING:
    from rsd_local.decoding.way_costs import WayCosts


class OpenTrio(Protocol):
    """What a run works with."""

    @property
    def segmenter(self) -> Segmenter:
        """Where steps end."""

    @property
    def shared_tokens(self) -> int:
        """How many tokens, from the first on, mean the same to draft and target; 0 for two vocabularies."""

    @property
    def speculates(self) -> bool:
        """Whether the draft can guess the target's tokens: both have one vocabulary and can forget single ones."""

    @property
    def checked(self) -> bool:
        """Whether a program checks steps."""

    @property
    def on_failure(self) -> OnFailure:
        """What becomes of an answer whose target's server fails."""

    @property
    def way_costs(self) -> WayCosts:
        """What each way to a step cost so far."""

    @property
    def shows_text(self) -> bool:
        """Whether the run gives ``TextWritten`` events."""

    def writer(self, role: Author, prompt: Prompt, *, traced: bool = False) -> Writer:
        """The draft or the target at a prompt.

        Args:
            role: which.
            prompt: as the models are asked.
            traced: whether its steps carry the trace that the reward needs.

        Raises:
            NoChatTemplate: the model cannot be asked.
            ContextFull: the prompt does not fit its context.
        """

    def reward(self, prompt: Prompt, ahead: Ahead | None = None) -> Reward:
        """The reward at a prompt.

        Args:
            prompt: as the models are asked.
            ahead: reads with the target that also writes; None for rewards that read in a cache of their own.

        Raises:
            ContextFull: the prompt does not fit its context.
        """
