"""Token-level speculative decoding: the target's own text, drafted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

from rsd_local.config import Params
from rsd_local.decoding.own_guesses import NOTHING, OwnGuesses
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.speculation import PROPOSED, kept_share, speculate
from rsd_local.decoding.trio import OpenTrio
from rsd_local.decoding.writing import Writing, shown, written
from rsd_local.errors import ConfigError
from rsd_local.events import Event
from rsd_local.prompt import Prompt
from rsd_local.roles import TARGET, Stream, Writer


def speculative(prompt: Prompt, trio: OpenTrio, params: Params) -> Iterator[Event]:
    """Answer a prompt as the target would, with ``params.search.speculate`` tokens drafted at a time.

    The text is the target's own, token for token. llama.cpp rounds wide batches otherwise than the single rows that the
    target has alone (docs/decisions/0002). So the first token is written without a draft, for drafted tokens would share the
    prompt's batch, and unless told otherwise no more tokens are drafted than leave a batch of this model, on this machine,
    rounded like single rows.

    Raises:
        ConfigError: draft and target have different vocabularies, or one of them cannot forget single tokens.
        ContextFull: the prompt does not fit.
    """
    with ExitStack() as opened:
        draft = opened.enter_context(closing(trio.writer("draft", prompt)))
        target = opened.enter_context(closing(trio.writer("target", prompt)))
        if not (trio.shared_tokens and draft.abilities.verifies and target.abilities.verifies):
            raise ConfigError(
                "speculative decoding needs a draft and a target of one vocabulary, and no recurrent model",
                hint="choose a draft of the target's family, or another strategy",
            )
        ahead = params.search.speculate or target.exact_rows(PROPOSED + 1) - 1 or PROPOSED
        own = OwnGuesses.of(target, params.search.fallback)
        solution = Solution(params.limits, trio.segmenter)
        while solution.reason is None:
            with solution.growing(draft, target):
                stream = Stream(params.sampling.seed, TARGET, prompt.turn, solution.steps)
                draft.begin()
                target.begin()
                step = yield from shown(_step(target, draft, own, ahead, solution, trio, params, stream), trio, solution, "target")
                draft.correct(step)
                yield solution.accept(step, "target")
        yield solution.finished({"draft": draft.counters(), "target": target.counters()})


def _step(
    target: Writer, draft: Writer, own: OwnGuesses | None, ahead: int, solution: Solution, trio: OpenTrio, params: Params, stream: Stream
) -> Writing:
    """One step; the first token of all is written without a draft, and the target's own head guesses where that pays more."""
    step, scan, limit, sampling, live = NOTHING, solution.scan(), solution.room, params.sampling, trio.shows_text
    if solution.steps == 0:
        step = yield from written(target.start_writing(1, scan, sampling, stream), live=live)
        if step.ended != "length" or limit == 1:
            return step
    counters = target.counters()
    if own is not None and own.beats(draft.latency, kept_share(counters.kept_tokens, counters.missed_guesses)):
        return (yield from own.write(step, scan, limit, sampling, stream, live=live))
    return (yield from speculate(target, draft, step, scan, limit, ahead, sampling, stream, live=live))
