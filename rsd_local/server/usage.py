"""What an answer cost: OpenAI's usage, llama-server's timings, and a summary of the steps."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from rsd_local.events import Counters, Finished, Result, StepDone
from rsd_local.server.models import Job

_FINISH = {"stop": "stop", "length": "length", "steps": "length", "context": "length", "repetition": "length"}
"""Why an answer ended, in OpenAI's words; ``rsd.finish_reason`` has ours."""
_COUNTED = {
    "parameters": "parameters",
    "prompt_n": "opening_tokens",
    "cache_n": "cached_tokens",
    "evaluated_n": "evaluated_tokens",
    "generated_n": "generated_tokens",
    "discarded_n": "discarded_tokens",
    "batches": "decode_calls",
    "seconds": "seconds",
    "waiting_seconds": "waiting_seconds",
}


def finite(value: float | None) -> float | None:
    """The number, None where it is none that JSON knows."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(slots=True)
class Times:
    """When what happened, by one clock in seconds.

    Attributes:
        asked: the request was read.
        admitted: its run began.
        first: the first text was written.
        end: the answer was done.
    """

    asked: float
    admitted: float = 0.0
    first: float = 0.0
    end: float = 0.0


@dataclass(slots=True)
class Account:
    """What is known of an answer at its end.

    Attributes:
        job: the request.
        steps: that were accepted.
        finished: the last event.
        times: of it.
    """

    job: Job
    steps: list[StepDone]
    finished: Finished
    times: Times
    writer: Counters = field(init=False)

    def __post_init__(self) -> None:
        counters = self.finished.counters
        self.writer = counters.get("target") or counters.get("draft") or Counters()

    @property
    def finish_reason(self) -> str:
        """In OpenAI's words."""
        return _FINISH.get(self.finished.reason, "stop")

    @property
    def completion_tokens(self) -> int:
        """Tokens of the accepted steps."""
        return sum(step.tokens for step in self.steps)

    @property
    def drafted(self) -> tuple[int, int] | None:
        """Tokens that the draft wrote for the target, and those of them that are in the answer; None where it did not."""
        counters = self.finished.counters
        if "draft" not in counters or "target" not in counters:
            return None
        written = counters["draft"].generated_tokens
        return written, max(0, written - counters["draft"].discarded_tokens)

    def usage(self) -> dict[str, Any]:
        """OpenAI's ``usage``; the prompt counts in the target's vocabulary, or in the draft's where that answers alone."""
        prompt, completion = self.writer.opening_tokens, self.completion_tokens
        written, kept = self.drafted or (0, 0)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.writer.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": sum(step.tokens for step in self.steps if step.part == "thought"),
                "accepted_prediction_tokens": kept,
                "rejected_prediction_tokens": written - kept,
                "audio_tokens": 0,
            },
        }

    def timings(self) -> dict[str, Any]:
        """llama-server's ``timings``."""
        times, cached = self.times, self.writer.cached_tokens
        read, wrote = max(0, self.writer.opening_tokens - cached), self.completion_tokens
        first = times.first or times.end
        made: dict[str, Any] = {"cache_n": cached}
        for name, count, seconds in (("prompt", read, first - times.admitted), ("predicted", wrote, times.end - first)):
            milliseconds = max(0.0, 1000 * seconds)
            made |= {
                f"{name}_n": count,
                f"{name}_ms": milliseconds,
                f"{name}_per_token_ms": milliseconds / count if count else 0.0,
                f"{name}_per_second": 1000 * count / milliseconds if milliseconds else 0.0,
            }
        if self.drafted is not None:
            made["draft_n"], made["draft_n_accepted"] = self.drafted
        return made

    def summary(self) -> dict[str, Any]:
        """The end of ``rsd``: why it ended, who wrote it, and what each model did."""
        end, params = self.finished, self.job.params
        result = Result(end.answer, end.text, end.reason, tuple(self.steps), end.counters)
        return {
            "finish_reason": end.reason,
            "answer": end.answer,
            "strategy": self.job.strategy,
            "threshold": params.weighting.threshold,
            "seed": params.sampling.seed,
            "target_share": finite(result.target_share),
            "flops": {"paper": result.paper_flops, "full": result.full_flops},
            "decided_by": end.decided_by,
            "unchecked_steps": end.unchecked_steps,
            "roles": {role: roles_figures(counters) for role, counters in end.counters.items()},
        }


def roles_figures(counters: Counters) -> dict[str, Any]:
    """What one model did for an answer, in llama-server's manner of naming."""
    known = dataclasses.asdict(counters)
    return {name: known[source] for name, source in _COUNTED.items()}


def step_object(step: StepDone, *, rejected: bool) -> dict[str, Any]:
    """An accepted step, as ``rsd`` has it.

    Args:
        step: it.
        rejected: whether the step that it replaced is told.
    """
    made: dict[str, Any] = {
        "step": step.index,
        "author": step.author,
        "reward": finite(step.reward),
        "part": step.part,
        "tokens": step.tokens,
        "seconds": step.seconds,
        "reward_by": step.reward_by,
        "replaced": step.rejected is not None,
        "target_failed": step.target_failed,
    }
    if rejected:
        gone = step.rejected
        made["rejected"] = gone and {"text": gone.text, "reward": finite(gone.reward), "tokens": gone.tokens}
    return made
