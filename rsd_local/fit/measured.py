"""What RSD gains on this machine, from a few seconds of each model's own batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from rsd_local.config import Sampling
from rsd_local.errors import BadAnswer
from rsd_local.events import Role
from rsd_local.fit.speed import STEP
from rsd_local.remote import Call, Ended, PoolingEngine, ReadingEngine, RemoteEngine, Wanted, token_states
from rsd_local.roles import StepCost
from rsd_local.runtime import Engine, Sequence

_PROMPT = 256  # tokens
_SINGLES, _READS = 12, 5
_LEAVE = "leave --measure away"
_FIRST = 300  # the tokens are these and the following ones: of what they say no time depends


@dataclass(frozen=True, slots=True)
class Speed:
    """How long one engine's batches take.

    Attributes:
        decode: seconds of a batch of one token; 0 of a model that is asked for states or rewards alone.
        read: seconds of a batch of a step.
        prefill: seconds of a token in a prompt.
        trip: seconds of the way to its server and back; 0 of a model that runs here.
    """

    decode: float
    read: float
    prefill: float
    trip: float = 0.0


def measure(engine: Engine, step: int = STEP) -> Speed:
    """Times an engine: a prompt, a dozen single tokens and a few steps. Nothing else may run on its device meanwhile.

    Args:
        engine: with a free sequence.
        step: tokens of a step.

    Raises:
        NoSlot: all its sequences are in use.
        ContextFull: its context is too small for that.
    """
    vocabulary, room = engine.model.n_vocab, engine.context - _SINGLES - _READS * step - 10

    with closing(engine.sequence(_tokens(8, vocabulary))) as sequence:
        read(sequence)  # the first batch reads weights from the disk
        prompt = timed(sequence, _tokens(max(step, min(_PROMPT, room)), vocabulary))
        singles = [timed(sequence, _tokens(1, vocabulary)) for _ in range(_SINGLES)]
        steps = [timed(sequence, _tokens(step, vocabulary)) for _ in range(_READS)]
    return Speed(statistics.median(singles), statistics.median(steps), prompt / max(step, min(_PROMPT, room)))


def measure_server(engine: RemoteEngine | PoolingEngine, step: int = STEP) -> Speed:
    """Times a model on a server, as it times itself, and the way there and back.

    Args:
        engine: it.
        step: tokens of a step.

    Raises:
        RemoteError: it does not answer, or what it says of its time says nothing.
    """
    if isinstance(engine, PoolingEngine):
        said = [{"role": "user", "content": "1 " * (_PROMPT // 2)}, {"role": "assistant", "content": f"1{PoolingEngine.tag}"}]
        return _whole(lambda: engine.rows(said, 1, Call())[1], engine.ping)
    server, vocabulary = engine.server, engine.facts.vocabulary or 4 * _FIRST
    if isinstance(engine, ReadingEngine) and engine.states:
        few = [min(_FIRST, vocabulary // 2)] * min(_PROMPT, engine.context // 2)
        return _whole(lambda: len(token_states(engine.llama, few, Call())), lambda: server.tokenize("1"))
    slot = engine.take_slot()
    try:
        asks = server.facts if engine.facts.texts else lambda: server.tokenize("1")  # OpenAI's API tokenizes nothing
        trips = [_taken(asks) for _ in range(_READS)]
        room = max(1, engine.context - _SINGLES - _READS * step - 10)
        tokens = _tokens(min(_PROMPT, room), vocabulary)
        prompt = server.evaluate(tokens, slot, Call(), reuse=False)
        reads = []
        for _ in range(_READS):
            tokens += tokens[:step]
            reads.append(server.evaluate(tokens, slot, Call(), reuse=True).reading)
        wanted = Wanted(tokens, _SINGLES, (), Sampling(), 0, slot, past_end=True)
        end = next(one.timing for one in [*server.write(wanted, Call())] if isinstance(one, Ended))
    finally:
        engine.give_slot(slot)
    if end.written < 2:
        raise BadAnswer(f"{server.url} wrote {end.written} of {_SINGLES} tokens: too few to time", hint=_LEAVE)
    speed = Speed(end.writing / (end.written - 1), statistics.median(reads), prompt.reading / max(1, prompt.read), statistics.median(trips))
    if min(speed.decode, speed.read, speed.prefill) <= 0:
        raise BadAnswer(f"{server.url} says that its work takes no time", hint=_LEAVE)
    return speed


def _tokens(count: int, vocabulary: int) -> list[int]:
    """Tokens of any vocabulary."""
    return [min(_FIRST, vocabulary // 2) + place % max(1, vocabulary // 4) for place in range(count)]


def _whole(evaluate: Callable[[], int], ping: Callable[[], object]) -> Speed:
    """Of a server without a cache, where a step costs all that stands before it, too: here ``_PROMPT`` tokens or so.

    Args:
        evaluate: a text, and says how many tokens it has.
        ping: asks for nothing.
    """
    trip, tokens = statistics.median([_taken(ping) for _ in range(_READS)]), evaluate()
    whole = max(1e-6, statistics.median([_taken(evaluate) for _ in range(3)]) - trip)
    return Speed(0.0, whole, whole / max(1, tokens), trip)


def _taken(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read(sequence: Sequence) -> None:
    """Evaluate what a sequence holds."""
    sequence.read_logits().result()


def timed(sequence: Sequence, tokens: list[int]) -> float:
    """Seconds of the batches that evaluate some tokens."""
    before = sequence.counters.seconds
    sequence.append(tokens)
    read(sequence)
    return sequence.counters.seconds - before


def gain_of(speeds: Mapping[Role, Speed], rewards: tuple[StepCost, ...], *, ahead: bool, length: int = STEP) -> Callable[[float], float]:
    """How many times as fast as the target alone RSD is, by the share of drafted steps that stand.

    Args:
        speeds: by role.
        rewards: the models that score each step; none where that costs nothing.
        ahead: whether the target reads each drafted step for its reward; otherwise it reads those that stand.
        length: tokens of a step, as it was measured.

    Returns:
        A function of that share, 0 to 1. Counted are: the draft's tokens; each reward's reading of the step and its query, and of
        what the target wrote instead; the target's reading; of a rejected step its tokens by the target and the draft's reading
        of them. What the target keeps of a rejected step is not. A target on a server reads what stands while the draft writes on, which
        costs nothing here, and each of its steps costs the way there and back; so does each request to a reward's server.
    """
    draft, target = speeds["draft"], speeds["target"]
    scored = sum(
        speeds[reward.role].read + reward.query * speeds[reward.role].prefill + reward.trips * speeds[reward.role].trip
        for reward in rewards
    )
    noted = sum(speeds[reward.role].read for reward in rewards)

    def gain(accepted: float) -> float:
        rejected = 1 - accepted
        reading = 0.0 if target.trip else target.read * (1 if ahead else accepted)
        written = target.trip + length * target.decode
        step = length * draft.decode + scored + reading + draft.trip + rejected * (written + draft.read + noted)
        return length * target.decode / step

    return gain
