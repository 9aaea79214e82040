"""What the algorithms ask of a model that writes and of a reward, whether it runs here or on another machine."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from rsd_local.steps import Reading, Score, Step

if TYPE_CHECKING:
    import numpy as np

    from rsd_local.config import Sampling
    from rsd_local.events import Counters, Role
    from rsd_local.segments import Scan

T_co = TypeVar("T_co", covariant=True)

DRAFT, TARGET, POLICY = 0, 1, 2
"""Who draws from a random stream."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The random numbers of one try at one step: no other step, role or turn changes them.

    Attributes:
        seed: of the question.
        role: ``DRAFT``, ``TARGET`` or ``POLICY``.
        turn: of the conversation, from 0.
        step: of the solution, from 0.
        attempt: at this step, from 0.
    """

    seed: int
    role: int
    turn: int = 0
    step: int = 0
    attempt: int = 0

    def generator(self, skip: int = 0) -> np.random.Generator:
        """A generator at the number behind the first ``skip`` ones; one number belongs to one token."""
        import numpy as np

        key = (self.role, self.turn, self.step, self.attempt)
        bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key))
        return np.random.Generator(bits.advance(skip) if skip else bits)


@dataclass(frozen=True, slots=True)
class Hint:
    """A guess of what will be written. It changes what the writing costs, never what is written.

    Attributes:
        tokens: the guess, in the vocabulary that draft and target share.
        chunk: the most of them in one batch.
        only: whether writing ends with the first token that the guess does not have.
        own: whether it is the writer's own guess, so in its own vocabulary.
    """

    tokens: tuple[int, ...] = ()
    chunk: int = 16
    only: bool = False
    own: bool = False


NO_HINT = Hint()


class Pending(Protocol[T_co]):
    """Something that was started."""

    def result(self) -> T_co:
        """Waits for it."""

    def cancel(self) -> None:
        """Ends it; ``result`` then raises Cancelled, unless it was done already."""


class PendingStep(Pending[Step], Protocol):
    """A step that is being written."""

    def texts(self) -> Iterator[bytes]:
        """The bytes of each token as it is written, those of a stop string too, until the step ends for whatever reason."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What not every writer can do; a reward or a strategy that needs it is refused where a trio is opened without.

    Attributes:
        verifies: evaluates a hint ahead, several tokens in one batch.
        reads_ahead: says of each token of a step that another model wrote how likely it was (``Writer.read_ahead``).
        writes_ahead: writes a step behind one that may be taken back yet (``Writer.start_ahead``).
        devices: of this machine that it computes on, such as cpu; none for a model that runs on another one.
    """

    verifies: bool = False
    reads_ahead: bool = False
    writes_ahead: bool = False
    devices: frozenset[str] = frozenset()


class Latency(Protocol):
    """How long a writer's batches take."""

    def seconds(self, rows: int) -> float | None:
        """The expected seconds of a batch of so many rows, None where that is not known."""


class Guesser(Protocol):
    """A multi-token head of a writer's own model (MTP): it guesses what the writer writes next."""

    @property
    def latency(self) -> Latency:
        """How long its batches take."""

    def guess(self, most: int, sampling: Sampling, stream: Stream, *, skip: int = 0) -> list[int]:
        """At most so many tokens behind what stands, drawn as the writer will; none where it has not evaluated all but the last of that."""


class Writer(Protocol):
    """A draft or target at one prompt and the accepted steps behind it."""

    @property
    def abilities(self) -> Abilities:
        """What it can do."""

    @property
    def latency(self) -> Latency:
        """How fast it was so far."""

    @property
    def guesser(self) -> Guesser | None:
        """What of its own guesses its tokens, where it has that."""

    def begin(self) -> None:
        """Start a step here: the place that ``forget`` goes back to."""

    def start_writing(
        self,
        limit: int,
        until: Scan | None,
        sampling: Sampling,
        stream: Stream,
        hint: Hint = NO_HINT,
        *,
        skip: int = 0,
        reading: Reading | None = None,
    ) -> PendingStep:
        """Go on writing until the segmenter ends the step, the text ends, or ``limit`` tokens are written.

        Args:
            limit: most tokens, at least 1.
            until: where the step stands in the text so far; None ends at no delimiter.
            sampling: how tokens are drawn.
            stream: of the draws.
            hint: a guess of the tokens.
            skip: draws of the stream that belong to tokens of this step written before.
            reading: of a step that was read ahead here with the same draws: what the two have in common stays in the cache.
        """

    def start_ahead(self, limit: int, until: Scan | None, sampling: Sampling, stream: Stream) -> PendingStep:
        """As ``start_writing``, behind the step written last, which may be taken back yet. Then only ``end_ahead`` may follow."""

    def end_ahead(self, *, kept: bool) -> None:
        """Say whether the step before the one written ahead was accepted.

        Args:
            kept: if so, it is as if the step had been begun now; otherwise it is ended and taken back, and the place that ``forget``
                goes back to is the one before.
        """

    def entropy(self) -> float:
        """In nats, of what the next token would be drawn from at temperature 1."""

    def read_ahead(self, step: Step, draws: tuple[Sampling, Stream] | None = None, *, tokens: bool, state: bool) -> Pending[Reading]:
        """Evaluate a step of the other model in place of everything since ``begin``; it is then noted as by ``correct``.

        An end-of-text token is not read.

        Args:
            step: it.
            draws: how this model would have drawn each token; None where nobody asks what it would have written.
            tokens: whether the trace has log-probabilities and entropies.
            state: whether the trace has the state after the step's last token.
        """

    def read(self, step: Step) -> None:
        """Begin a step and note one of the other model as it; it is evaluated together with the next one to write."""

    def correct(self, step: Step) -> None:
        """Note a step in place of everything since ``begin``, keeping the cached common prefix."""

    def forget(self) -> None:
        """Take back everything since ``begin``."""

    def pieces(self, tokens: list[int]) -> list[bytes]:
        """The bytes of each token; an end-of-text token has none."""

    def exact_rows(self, most: int) -> int:
        """Up to how many tokens, at most ``most``, share a batch and get bit for bit the logits that they get one by one."""

    def fork(self) -> Self:
        """Another writer that goes on from here and shares the cache."""

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""

    def settle(self) -> None:
        """Evaluate what is noted, so that forks share it."""

    def counters(self) -> Counters:
        """What was evaluated and written, by this one and all that were forked from the same."""

    def spent(self) -> float:
        """Seconds of those batches so far, of a model on a server with the way there and back; what is on its way is not waited for."""

    def close(self) -> None:
        """Give the cache back."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """What scoring a step costs.

    Attributes:
        role: of the model that reads it.
        query: tokens that it is asked behind the step, each time anew.
        trips: requests to its server; 0 where the model runs here.
    """

    role: Role
    query: int = 0
    trips: int = 0


@dataclass(frozen=True, slots=True)
class RewardAbilities:
    """What a reward can do.

    Attributes:
        whole: scores all steps of a finished answer in one pass (``Reward.start_scores``); otherwise one after another.
        immediate: gives a score as soon as it is asked, so that there is nothing to wait for.
        devices: of this machine that it computes on, such as cpu; none for programs and for models on another one.
    """

    whole: bool = False
    immediate: bool = False
    devices: frozenset[str] = frozenset()


class Reader(Protocol):
    """A target that reads the steps of one answer ahead, for rewards that look at what it says of them."""

    @property
    def devices(self) -> frozenset[str]:
        """Of this machine that it computes on."""

    def read(self, step: Step, *, tokens: bool, state: bool) -> Pending[Reading]:
        """Begin to read the next step, which is provisional until the next call; ``forget`` takes it back, anything else accepts it.

        Args:
            step: it.
            tokens: whether the reading has each token's log-probability and entropy.
            state: whether it has the state after the last one.
        """

    def note(self, step: Step) -> None:
        """Note an accepted step that was not read."""

    def forget(self) -> None:
        """Take back the step that was read last."""

    def settle(self) -> None:
        """Evaluate what is noted, so that forks share it."""

    def fork(self) -> Self:
        """Another one that goes on from here and shares the cache."""

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""

    def counters(self) -> Counters | None:
        """What was evaluated, None where a target that writes too counts it."""

    def close(self) -> None:
        """Give the cache back, where it is nobody else's."""


class Reward(Protocol):
    """Scores the steps of one answer. The prompt and the accepted steps stay in its cache."""

    @property
    def abilities(self) -> RewardAbilities:
        """What it can do."""

    @property
    def can_check(self) -> bool:
        """Whether some step of this answer may get a score; false where it is known that there is nothing to check."""

    def start_score(self, step: Step) -> Pending[Score]:
        """Begin to score the next step, which is provisional until the next call.

        ``forget`` takes it back, anything else accepts it.
        """

    def start_scores(self, steps: list[Step], asked: Set[int]) -> Pending[list[Score]]:
        """Begin to score steps that are all there already; afterwards it can only be closed.

        Args:
            steps: all further ones of the answer, none of them blank.
            asked: the places of those that are to be scored; of the others the score is ``SKIPPED``.

        Returns:
            One score for each step.

        Raises:
            ContextFull: they do not fit the context; where it reads them in one pass, nothing of them was noted.
        """

    def forget(self) -> None:
        """Take back the step that was scored last."""

    def read(self, step: Step) -> None:
        """Note an accepted step without a score; it is evaluated together with the next one."""

    def settle(self) -> None:
        """Evaluate what is noted, so that forks share it."""

    def fork(self) -> Self:
        """Another scorer that goes on from here and shares the cache."""

    def adopt(self, fork: Self) -> None:
        """Go on where a fork has come to; the fork gets what this one had."""

    def counters(self) -> dict[Role, Counters]:
        """What was evaluated, by the role of each model, by this one and all that were forked from the same."""

    def close(self) -> None:
        """Give the cache back."""
