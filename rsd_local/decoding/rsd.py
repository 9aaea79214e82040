"""Reward-guided speculative decoding (arXiv 2501.19324)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from rsd_local.config import Params
from rsd_local.decoding.ahead import Ahead, Draws
from rsd_local.decoding.candidates import draft_step, rank
from rsd_local.decoding.drafting import DraftAhead
from rsd_local.decoding.policy import Decision, History, Policy, WeightingPolicy
from rsd_local.decoding.solution import Solution
from rsd_local.decoding.target_steps import TargetSteps
from rsd_local.decoding.trio import OpenTrio
from rsd_local.errors import RemoteError
from rsd_local.events import Drafted, Event, Rejected
from rsd_local.prompt import Prompt
from rsd_local.roles import Reward, Writer
from rsd_local.steps import UNCHECKED, Score, Step

if TYPE_CHECKING:
    from rsd_local.decoding.auto import Chooser

NOT_DRAFTED = Score(None, skipped=True)
Tried = tuple[Step, Score]
ROUTED = Score(None, "first token", skipped=True)
"""Of a step that the draft was not sure how to begin, so that it went to the target at once."""


def rsd(prompt: Prompt, trio: OpenTrio, params: Params, chooser: Chooser | None = None) -> Iterator[Event]:
    """Answer a prompt by reward-guided speculative decoding (algorithm 1 of the paper).

    Yields a ``Drafted`` for each step of the draft, a ``StepDone`` for each accepted one, and a final ``Finished``; where the
    trio shows text, ``TextWritten`` before them. Leaving early gives every cache back. Where the reward has nothing to check in
    the whole answer, and unchecked steps are the target's, nothing is drafted.

    Args:
        prompt, trio, params: as of every strategy.
        chooser: says of each step whether it is drafted (``auto``); None: each one is.

    Raises:
        ContextFull: the prompt does not fit one of the contexts. A solution that outgrows one just ends.
        VerifierFailed: a verifier does not work.
        RemoteError: the target's server failed, and the trio does not say that the draft's best step stands then.
    """
    policy = WeightingPolicy(params.weighting, params.sampling.seed, prompt.turn)
    with ExitStack() as opened:
        solution = Solution(params.limits, trio.segmenter)
        history = so_far(solution)
        draft = opened.enter_context(closing(trio.writer("draft", prompt, traced=True)))
        target = opened.enter_context(closing(trio.writer("target", prompt)))
        target.begin()
        ahead = Ahead(target, Draws(params, prompt.turn, solution), owns=False)
        reward = opened.enter_context(closing(trio.reward(prompt, ahead)))
        rejected: Rejected | None = None
        tried: list[Tried] = []  # of the draft, at this place
        drafts = params.weighting.unchecked == "accept" or params.weighting.kind == "constant" or reward.can_check
        sure = chooser is None and not params.weighting.route_entropy
        next_step = DraftAhead(draft, reward, solution, params, prompt.turn, wanted=drafts and sure)
        rewritten = TargetSteps(ahead, draft, reward, solution, trio, params, prompt.turn, drafts=drafts)
        while solution.reason is None:
            with solution.growing(draft, target):
                step, score, decision, way = None, UNCHECKED, Decision.REWRITE, "draft"
                if chooser is not None and drafts and not history.attempts:
                    chosen = chooser.choose(solution, draft, target, reward)
                    yield chosen
                    way = chosen.way
                if way != "draft":
                    score = NOT_DRAFTED
                elif drafts and params.weighting.route_entropy and not history.attempts and policy.routes(draft.entropy(), history):
                    score = ROUTED
                elif drafts:
                    begun = next_step.take()
                    step, scoring = yield from draft_step(draft, reward, solution, trio, params, prompt.turn, history.attempts, begun)
                    with next_step.behind(step):
                        yield Drafted(solution.steps, step.text)
                        score = scoring.result()
                        decision = decide(policy, step, score, solution, history)
                    next_step.end(kept=decision is Decision.KEEP)
                solution.count(score)
                if step is not None and decision is Decision.KEEP:
                    yield solution.accept(step, "draft", score, rejected=rejected)
                    if not next_step.running:
                        draft.begin()
                    if solution.reason is None:
                        target.correct(step)
                        target.begin()
                    history, rejected, tried = so_far(solution), None, []
                    continue
                if step is not None:
                    tried.append((step, score))
                    rejected = Rejected(step.text, score.value, len(step.tokens))
                    draft.forget()
                    if not step.blank:
                        reward.forget()
                if decision is Decision.REDRAFT:
                    history = replace(history, attempts=history.attempts + 1)
                    continue
                hand_over, proposes = decision is Decision.HAND_OVER, way == "speculate"
                place = solution.steps
                try:
                    yield from rewritten.write(step, score, rejected, to_the_end=hand_over, proposes=proposes)
                except RemoteError:
                    if trio.on_failure != "draft" or not drafts:
                        raise
                    target.forget()
                    if solution.steps == place:  # otherwise a step of those that the target was to write to the end
                        if not tried:
                            step, scoring = yield from draft_step(draft, reward, solution, trio, params, prompt.turn)
                            tried.append((step, scoring.result()))
                            draft.forget()
                            if not step.blank:
                                reward.forget()
                        yield from instead(tried, draft, target, reward, solution)
                history, rejected, tried = so_far(solution, history.rewritten + 1), None, []
        yield solution.finished({"draft": draft.counters(), "target": target.counters()}, reward.counters())


def instead(tried: list[Tried], draft: Writer, target: Writer, reward: Reward, solution: Solution) -> Iterator[Event]:
    """The best of the steps that the draft tried, in place of the target's, whose server failed."""
    step, score = max(tried, key=lambda one: rank(one[1]))  # of equals the first
    draft.correct(step)
    if not step.blank:
        reward.read(step)
    yield solution.accept(step, "draft", score, target_failed=True)
    draft.begin()
    if solution.reason is None:
        target.correct(step)
        target.begin()


def so_far(solution: Solution, rewritten: int = 0) -> History:
    """What a policy is told before a step is tried for the first time."""
    return History(solution.steps, 0, rewritten, solution.tokens, solution.target_tokens)


def decide(policy: Policy, step: Step, score: Score, solution: Solution, history: History) -> Decision:
    """What the policy says of a step; one of white space alone stands for nothing that it could judge.

    The draft ending its text there is believed where the solution has its answer; otherwise the target has a look. A stop string
    ends the solution, whoever wrote it.
    """
    if step.ended == "stop" and step.blank:
        return Decision.KEEP
    if step.blank:
        return Decision.KEEP if step.ended == "end" and solution.answer is not None else Decision.REWRITE
    return policy.decide(step, score, history)
