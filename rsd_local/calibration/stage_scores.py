"""What every reward of a trio says of the steps of the draft's own solutions: what the bands of a cascade are chosen from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

from rsd_local.config import Params
from rsd_local.decoding.ahead import Ahead
from rsd_local.decoding.solution import Solution
from rsd_local.errors import Cancelled, Closed, ConfigError, ContextFull, RSDError
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.questions import question_pool, question_seed
from rsd_local.events import CancelToken
from rsd_local.open_trio import LocalTrio
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.roles import DRAFT, Reward, Stream
from rsd_local.steps import Score, Step

StepScores = tuple[Score, ...]
"""What each reward says of one step, in the order in which they are asked."""
Watch = Callable[[str, int, int], None]
"""Told a part's name, how many questions of it are done, and of how many."""


def collect(
    reasoner: Reasoner, items: Sequence[Item], params: Params, seed: int, cancel: CancelToken, watch: Watch
) -> list[list[StepScores] | None]:
    """What all rewards say of the draft's own solution of each question; None where it ended in an error.

    Raises:
        Cancelled: ``cancel`` was called.
        RSDError: all of them did; the first error.
    """
    made: list[list[StepScores] | None] = [None for _ in items]
    errors: list[RSDError] = []

    def one(place: int) -> list[StepScores]:
        sampling = replace(params.sampling, seed=question_seed(seed, place))
        trio = reasoner.trio.bound(cancel, params, shows_text=False)
        return scored_steps(trio, reasoner.read_prompt(items[place].question), replace(params, sampling=sampling))

    with question_pool(reasoner.config.parallel, cancel) as pool:
        jobs = {pool.submit(one, place): place for place in range(len(items))}
        for number, future in enumerate(as_completed(jobs), 1):
            try:
                made[jobs[future]] = future.result()
            except (Cancelled, Closed, ConfigError):
                raise
            except RSDError as error:
                errors.append(error)
            watch("all rewards", number, len(items))
    if len(errors) == len(items):
        raise errors[0]
    return made


def scored_steps(trio: LocalTrio, prompt: Prompt, params: Params) -> list[StepScores]:
    """The scores of every step that the draft writes where each of its steps is accepted, those of white space alone left out.

    Args:
        trio: bound to one run.
        prompt: as the models are asked.
        params: sampling and limits.

    Raises:
        ContextFull: the prompt does not fit one of the contexts.
        VerifierFailed: a verifier does not work, and the trio does not say that the target writes the step then.
        Cancelled: the run was cancelled.
    """
    steps: list[Step] = []
    with ExitStack() as opened:
        draft = opened.enter_context(closing(trio.writer("draft", prompt, traced=True)))
        rewards = [
            opened.enter_context(closing(stage.open(prompt, lambda: Ahead(trio.writer("target", prompt)), trio.cancel)))
            for stage in trio.rewards.stages
        ]
        solution = Solution(params.limits, trio.segmenter)
        while solution.reason is None:
            with solution.growing(draft):
                draft.begin()
                stream = Stream(params.sampling.seed, DRAFT, prompt.turn, solution.steps)
                step = draft.start_writing(solution.room, solution.scan(), params.sampling, stream).result()
                if not step.blank:
                    steps.append(step)
                solution.accept(step, "draft")
        if solution.reason == "cancelled":
            raise Cancelled("cancelled")
        return list(zip(*(_scores(reward, steps) for reward in rewards), strict=False))


def _scores(reward: Reward, steps: list[Step]) -> list[Score]:
    """Of the steps from the first one on, as many as fit the context of who reads them."""
    scores: list[Score] = []
    if not reward.abilities.whole:
        with suppress(ContextFull):
            for step in steps:
                scores.append(reward.start_score(step).result())
        return scores
    for count in range(len(steps), 0, -1):
        with suppress(ContextFull):  # then nothing of them was noted
            return reward.start_scores(steps[:count], frozenset(range(count))).result()
    return scores
