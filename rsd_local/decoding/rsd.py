"""Reward-guided speculative decoding (arXiv 2501.19324)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
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
from rsd_local.roles import Pending, PendingStep, Reward, Writer
from rsd_local.steps import UNCHECKED, Score, Step

if TYPE_CHECKING:
    from rsd_local.decoding.auto import Chooser

NOT_DRAFTED = Score(None, skipped=True)
ROUTED = Score(None, "first token", skipped=True)
"""Of a step that the draft was not sure how to begin, so that it went to the target at once."""


def rsd(prompt: Prompt, trio: OpenTrio, params: Params, chooser: Chooser | None = None) -> Generator[Event, None, None]:
    """Answer a prompt by reward-guided speculative decoding (algorithm 1 of the paper).

    Yields a ``Drafted`` for each step of the draft, a ``StepDone`` for each accepted one, and a final ``Finished``; where the
    trio shows text, ``TextWritten`` before them. Leaving early gives every cache back. Where the reward has nothing to check in
    the whole answer, and unchecked steps are the target's, nothing is drafted but what the target cannot afford.

    Args:
        prompt, trio, params: as of every strategy.
        chooser: says of each step whether it is drafted, and how the target writes (``auto``); None: each one is.

    Raises:
        ContextFull: the prompt does not fit one of the contexts. A solution that outgrows one just ends.
        VerifierFailed: a verifier does not work.
        RemoteError: the target's server failed, and the trio does not say that the draft's best step stands then.
    """
    with ExitStack() as opened:
        solution = Solution(params.limits, trio.segmenter)
        draft = opened.enter_context(closing(trio.writer("draft", prompt, traced=True)))
        target = opened.enter_context(closing(trio.writer("target", prompt)))
        target.begin()
        ahead = Ahead(target, Draws(params, prompt.turn, solution), owns=False)
        reward = opened.enter_context(closing(trio.reward(prompt, ahead)))
        steps = Steps(draft, ahead, reward, solution, trio, params, prompt.turn, chooser)
        while solution.reason is None:
            with solution.growing(draft, target):
                yield from steps.next()
        if chooser is not None:
            chooser.end()
        yield solution.finished({"draft": draft.counters(), "target": target.counters()}, reward.counters())


@dataclass(frozen=True, slots=True)
class Drafting:
    """What came of the draft's try at a place.

    Attributes:
        step: None where nothing was drafted.
        score: of it, or why there is none.
        decision: what follows.
    """

    step: Step | None = None
    score: Score = UNCHECKED
    decision: Decision = Decision.REWRITE


class Steps:
    """The steps of one answer, one after another.

    Args:
        draft, ahead, reward: at the end of the solution; ``ahead`` has the target's writer.
        solution: so far.
        trio: of these.
        params: of the answer.
        turn: of the conversation.
        chooser: see ``rsd``.
    """

    def __init__(
        self, draft: Writer, ahead: Ahead, reward: Reward, solution: Solution, trio: OpenTrio, params: Params, turn: int,
        chooser: Chooser | None,
    ) -> None:  # fmt: skip
        self._draft, self._target, self._reward, self._solution = draft, ahead.writer, reward, solution
        self._trio, self._params, self._turn, self._chooser = trio, params, turn, chooser
        weighting = params.weighting
        self._policy = WeightingPolicy(weighting, params.sampling.seed, turn)
        self._decides = weighting.unchecked == "accept" or weighting.kind == "constant" or reward.can_check  # of drafted steps
        self._drafts = self._decides or weighting.target_budget < 1
        sure = chooser is None and not weighting.route_entropy
        self._next_step = DraftAhead(draft, reward, solution, params, turn, wanted=self._decides and sure)
        if chooser is not None:
            chooser.watch(solution, draft, ahead.writer, reward)
        self._rewritten = TargetSteps(ahead, draft, reward, solution, trio, params, turn, chooser, drafts=self._drafts)
        self._history = so_far(solution)
        self._tried: list[tuple[Step, Score]] = []  # of the draft, at this place
        self._rejected: Rejected | None = None

    def next(self) -> Iterator[Event]:
        """A try at the next step: afterwards it is there, or the draft tries again."""
        made = yield from self._drafted()
        self._solution.count(made.score)
        if made.step is not None and made.decision is Decision.KEEP:
            yield from self._keep(made.step, made.score)
            return
        if made.step is not None:
            self._take_back(made.step, made.score)
            self._rejected = Rejected(made.step.text, made.score.value, len(made.step.tokens))
        if made.decision is Decision.REDRAFT:
            self._history = replace(self._history, attempts=self._history.attempts + 1)
            return
        place = self._solution.steps
        try:
            yield from self._rewritten.write(made.step, made.score, self._rejected, to_the_end=made.decision is Decision.HAND_OVER)
        except RemoteError as error:
            if error.role or self._trio.on_failure != "draft" or not self._drafts:
                raise
            self._target.forget()
            if self._solution.steps == place:  # otherwise a step of those that the target was to write to the end
                yield from self._stand_in()
        self._new_place(self._history.rewritten + 1)

    def _drafted(self) -> Generator[Event, None, Drafting]:
        """The draft's step with its score and what the policy says of it, unless nothing is to be drafted here."""
        first, affords = not self._history.attempts, self._policy.affords(self._history)
        if self._chooser is not None and first and self._drafts:
            chosen = self._chooser.step(draft=self._decides, target=affords)
            yield chosen
            if chosen.way != "draft":
                return Drafting(score=NOT_DRAFTED if self._decides else UNCHECKED)
        if affords and not self._decides:
            return Drafting()
        if first and self._params.weighting.route_entropy and self._policy.routes(self._draft.entropy(), self._history):
            return Drafting(score=ROUTED)
        step, scoring = yield from self._draft_step(self._history.attempts, self._next_step.take())
        with self._next_step.behind(step):
            yield Drafted(self._solution.steps, step.text)
            score = scoring.result()
            decision = decide(self._policy, step, score, self._solution, self._history)
        if decision is not Decision.KEEP:
            self._next_step.end(kept=False)
        return Drafting(step, score, decision)

    def _draft_step(self, attempt: int, begun: PendingStep | None = None) -> Generator[Event, None, tuple[Step, Pending[Score]]]:
        return draft_step(self._draft, self._reward, self._solution, self._trio, self._params, self._turn, attempt, begun)

    def _keep(self, step: Step, score: Score) -> Iterator[Event]:
        """The draft's step is accepted."""
        yield self._solution.accept(step, "draft", score, rejected=self._rejected)
        self._go_on(step)
        self._new_place()

    def _go_on(self, step: Step) -> None:
        """The models are at the end of an accepted step of the draft."""
        if not self._next_step.running:
            self._draft.begin()
        try:
            if self._solution.reason is None:
                self._target.correct(step)
                self._target.begin()
        except Exception:  # such as a full context: this step stands, and none comes behind it
            self._next_step.end(kept=False)
            self._draft.begin()
            raise
        self._next_step.end(kept=True)

    def _take_back(self, step: Step, score: Score) -> None:
        """The draft's step is not accepted."""
        self._tried.append((step, score))
        self._draft.forget()
        if not step.blank:
            self._reward.forget()

    def _stand_in(self) -> Iterator[Event]:
        """The best of the steps that the draft tried, in place of the target's, whose server failed."""
        if not self._tried:
            step, scoring = yield from self._draft_step(0)
            self._take_back(step, scoring.result())
        step, score = max(self._tried, key=lambda one: rank(one[1]))  # of equals the first
        self._draft.correct(step)
        if not step.blank:
            self._reward.read(step)
        yield self._solution.accept(step, "draft", score, target_failed=True)
        self._go_on(step)

    def _new_place(self, rewritten: int = 0) -> None:
        self._history, self._rejected, self._tried = so_far(self._solution, rewritten), None, []


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
