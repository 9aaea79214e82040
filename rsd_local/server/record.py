"""What stays of an answer when it is done: its line in the run log, and its part in the watch for drift."""

from __future__ import annotations

import dataclasses
import datetime
import time
from typing import TYPE_CHECKING, Any

from rsd_local.config import Trio, Weighting
from rsd_local.errors import RSDError
from rsd_local.events import Result, StepDone
from rsd_local.prompt import Prompt
from rsd_local.server.drift import DriftWatch
from rsd_local.server.errors import code_of
from rsd_local.server.usage import Account, Times, finite

if TYPE_CHECKING:
    from rsd_local.run_log.folder import Row, RunLog
    from rsd_local.server.models import Job

_WORDS = ("kind", "unchecked", "stop_after", "aggregate", "fallback", "mode", "effort")
"""Settings whose value is one of a few words; other texts, such as stop strings, are somebody's own."""


class Recorder:
    """Writes answers down, and watches what they say of a tuned trio. It is called from one thread.

    Args:
        trio: that is served.
        log: where lines go; None for nowhere.
        texts: whether lines have texts.
    """

    def __init__(self, trio: Trio, log: RunLog | None = None, *, texts: bool = False) -> None:
        self._log, self._texts = log, texts
        self._watched: Weighting | None = None
        self.drift: DriftWatch | None = None
        if trio.tuned is not None:
            self.drift = DriftWatch(trio.tuned)
            self._watched = dataclasses.replace(trio.params().weighting, threshold=trio.tuned.threshold)

    def ended(self, number: str, job: Job, times: Times, account: Account | None, error: RSDError | None) -> None:
        """Take in an answer that came to its end.

        Args:
            number: the answer's id.
            job: the request.
            times: of it.
            account: None where it did not come to its last event.
            error: that it ended with; None for none, and where the client went away.
        """
        finished = account is not None and account.finished.reason != "cancelled" and error is None
        if self.drift is not None and account is not None and finished and job.strategy == "rsd" and job.params.weighting == self._watched:
            self.drift.note(account.steps)
        if self._log is not None:
            self._log.append(_row(number, job, times, account, error, texts=self._texts))

    def close(self) -> None:
        """Write what waits."""
        if self._log is not None:
            self._log.close()


def _row(number: str, job: Job, times: Times, account: Account | None, error: RSDError | None, *, texts: bool) -> Row:
    """An answer's line; names are those of a bench's lines where they say the same."""
    end = times.end or time.perf_counter()
    made: Row = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "id": number,
        "model": job.model,
        "strategy": job.strategy,
        "form": job.asked.form,
        "stream": job.asked.stream,
        "seed": job.params.sampling.seed,
        "settings": _settings(job),
        "finish_reason": None if error is not None else "cancelled",
        "error": None if error is None else code_of(error),
        "seconds": round(max(0.0, end - times.admitted), 4) if times.admitted else 0.0,
        "waiting_seconds": round(max(0.0, (times.admitted or end) - times.asked), 4),
        "first_text_seconds": round(times.first - times.asked, 4) if times.first else None,
        "tokens": 0,
        "n_steps": 0,
        "steps": [],
        "counters": {},
        "flops": {},
    }
    if account is not None:
        finished = account.finished
        result = Result(finished.answer, finished.text, finished.reason, tuple(account.steps), finished.counters)
        made |= {} if error is not None else {"finish_reason": finished.reason}
        made |= {
            "tokens": account.completion_tokens,
            "n_steps": len(account.steps),
            "steps": [_step(step, texts=texts) for step in account.steps],
            "counters": {role: dataclasses.asdict(counters) for role, counters in finished.counters.items()},
            "flops": {"paper": result.paper_flops, "full": result.full_flops},
            "unchecked": finished.unchecked_steps,
            "decided_by": finished.decided_by,
        }
        if texts:
            made |= {"answer": finished.answer, "text": finished.text} | ({"thought": finished.thought} if finished.thought else {})
    return made | ({"messages": _messages(job.prompt)} if texts else {})


def _settings(job: Job) -> dict[str, Any]:
    """The settings of an answer that are numbers or words of ours: nothing that somebody wrote."""
    made: dict[str, Any] = {}
    for name in ("sampling", "weighting", "limits", "search", "thinking"):
        known = dataclasses.asdict(getattr(job.params, name))
        made[name] = {key: value for key, value in known.items() if key != "seed" and (key in _WORDS or isinstance(value, int | float))}
    return made


def _step(step: StepDone, *, texts: bool) -> dict[str, Any]:
    gone = step.rejected
    made: dict[str, Any] = {
        "author": step.author,
        "reward": finite(step.reward),
        "tokens": step.tokens,
        "seconds": round(step.seconds, 4),
    }
    made |= {"rejected": {"reward": finite(gone.reward), "tokens": gone.tokens}} if gone is not None else {}
    made |= {"reward_by": step.reward_by} if step.reward_by else {}
    made |= {"part": step.part} if step.part != "answer" else {}
    if texts:
        made["text"] = step.text
        if gone is not None:
            made["rejected"]["text"] = gone.text
    return made


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]
