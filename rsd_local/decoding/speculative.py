"""Token-level speculative decoding (Leviathan et al., arXiv 2211.17192): the target's own text, drafted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

from rsd_local.config import Params
from rsd_local.decoding.speculation import PROPOSED, Proposer, Verifier, speculate
from rsd_local.decoding.steps import Solution, Step
from rsd_local.decoding.trio import OpenTrio
from rsd_local.errors import ConfigError
from rsd_local.events import CancelToken, Event, StepDone

_NOTHING = Step([], b"", "length")


def speculative(question: str, trio: OpenTrio, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Answers one question as the target would, with ``params.search.speculate`` tokens drafted at a time.

    At temperature 0 the text is the target's own, above it each token has the target's distribution. llama.cpp rounds wide
    batches otherwise than the single rows that the target has alone (docs/decisions/0002). So the first token is written
    without a draft, for drafted tokens would share the prompt's batch, and unless told otherwise no more tokens are drafted
    than leave a batch of this model, on this machine, rounded like single rows.

    Raises:
        ConfigError: draft and target have different vocabularies, or one of them cannot forget single tokens.
        ContextFull: the question does not fit.
    """
    if not (trio.same_tokens and trio.draft.can_cut and trio.target.can_cut):
        raise ConfigError(
            "speculative decoding needs a draft and a target of one vocabulary, and no recurrent model",
            hint="choose a draft of the target's family, or another strategy",
        )
    with ExitStack() as opened:
        proposer, verifier = Proposer(params.sampling, (0,)), Verifier(params.sampling, (1,))
        drafter = opened.enter_context(closing(trio.writer("draft", question, params.sampling)))
        expert = opened.enter_context(closing(trio.writer("target", question, params.sampling, verifier)))
        ahead = params.search.speculate or expert.sequence.exact_rows(PROPOSED + 1) - 1 or PROPOSED
        solution = Solution(params.limits)
        while solution.reason is None:
            with solution.growing():
                drafter.begin()
                expert.begin()
                step = expert.start_writing(1, cancel)() if solution.steps == 0 else _NOTHING
                if step.ended == "length" and len(step.tokens) < solution.room:
                    step = speculate(expert, drafter, proposer, step, solution.room, ahead, cancel)
                drafter.replace(step.tokens)
                text = solution.add(step)
                yield StepDone(solution.steps - 1, "target", text, None, len(step.tokens), 0.0)
        yield solution.finished({"draft": drafter.counters(), "target": expert.counters()})
