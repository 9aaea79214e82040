"""What becomes of a scored step: the paper's weighting functions (arXiv 2501.19324, section 3) as policies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from rsd_local.config import Weighting
from rsd_local.roles import POLICY, Stream
from rsd_local.steps import Score, Step


class Decision(Enum):
    """What is done with a draft step."""

    KEEP = "keep"
    REWRITE = "rewrite"  # the target writes this step
    REDRAFT = "redraft"  # the draft tries again
    HAND_OVER = "hand over"  # the target writes this step and all that follow


@dataclass(frozen=True, slots=True)
class History:
    """What happened in this answer so far.

    Attributes:
        steps: accepted.
        attempts: draft steps that were rejected at this place before.
        rewritten: places in a row, up to here, whose step the target wrote.
        tokens, target_tokens: of the accepted steps, and of those that the target wrote.
    """

    steps: int = 0
    attempts: int = 0
    rewritten: int = 0
    tokens: int = 0
    target_tokens: int = 0


class Policy(Protocol):
    """Decides step by step; what is random comes from a stream of its own."""

    def routes(self, entropy: float, history: History) -> bool:
        """Whether the target writes a step before the draft has begun it.

        Args:
            entropy: in nats, of the draft's first token there.
            history: so far.
        """

    def affords(self, history: History) -> bool:
        """Whether the target may write the next step, taken to be as long as those so far."""

    def decide(self, step: Step, score: Score, history: History) -> Decision:
        """What to do with a draft step."""


@dataclass(frozen=True, slots=True)
class WeightingPolicy:
    """Keeps a step with the probability ω(r).

    A rejected one goes back to the draft ``redrafts`` times, then to the target, which writes everything from the
    ``hand_over``-th place in a row on that the draft did not manage. What the target cannot afford within ``target_budget`` is kept,
    unless its score failed.

    Args:
        weighting: the function and these two numbers.
        seed: of the question.
        turn: of the conversation.
    """

    weighting: Weighting
    seed: int
    turn: int = 0

    def routes(self, entropy: float, history: History) -> bool:
        """Where the entropy is above ``route_entropy`` and the target can afford a step as long as those so far."""
        return 0 < self.weighting.route_entropy < entropy and self.affords(history)

    def affords(self, history: History) -> bool:
        """Whether a step as long as those so far leaves the target's share within ``target_budget``."""
        return self._affords(max(1, history.tokens // max(1, history.steps)), history)

    def _affords(self, tokens: int, history: History) -> bool:
        """Whether the target's share of the answer stays within its budget with so many tokens more of its own."""
        return history.target_tokens + tokens <= self.weighting.target_budget * (history.tokens + tokens)

    def decide(self, step: Step, score: Score, history: History) -> Decision:
        """KEEP by a draw with probability ω(r), δ being that of the reward that decided where it has one.

        A step of which there was nothing to check is kept, or the target's affair: another draft would be checked no better. One
        that was not to be checked is kept. A constant weight takes it like any other. One whose score failed is the target's at once,
        whatever the budget: nobody knows what it is worth, nor would another draft's check work.
        """
        weighting = self.weighting
        if not score.failed:
            always = weighting.kind == "constant"
            if not always and (score.skipped or (score.value is None and weighting.unchecked == "accept")):
                return Decision.KEEP
            if always or score.value is not None:
                own = weighting if score.threshold is None else replace(weighting, threshold=score.threshold)
                stream = Stream(self.seed, POLICY, self.turn, history.steps, history.attempts)
                if stream.generator().random() < weight(own, score.value or 0.0):
                    return Decision.KEEP
                if history.attempts < weighting.redrafts:
                    return Decision.REDRAFT
            if not self._affords(len(step.tokens), history):
                return Decision.KEEP
        if weighting.hand_over and history.rewritten + 1 >= weighting.hand_over:
            return Decision.HAND_OVER
        return Decision.REWRITE


def weight(weighting: Weighting, reward: float) -> float:
    """ω(r): how likely a draft step of reward r is kept; 0 for a reward that is no finite number."""
    if not math.isfinite(reward):
        return 0.0
    match weighting.kind:
        case "constant":
            return weighting.probability
        case "step":
            return float(reward >= weighting.threshold)
        case "clip":
            return min(1.0, max(0.0, reward))
        case "ratio":
            return max(0.0, reward / (1.0 + reward)) if reward > -1.0 else 0.0
        case "logistic":
            return 1.0 / (1.0 + math.exp(min(-weighting.steepness * (reward - weighting.threshold), 700.0)))
