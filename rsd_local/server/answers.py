"""Events of a run as OpenAI's objects: a whole answer, or chunks of it.

A chunk is never taken back, so its text is accepted text: what the target writes where nothing can reject it, and steps of the draft
once they are accepted. What a text may still lose, as the beginning of a stop string, is held back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rsd_local.config import RemoteRole
from rsd_local.events import Drafted, Event, Finished, StepDone, TextWritten
from rsd_local.server import VERSION
from rsd_local.server.models import Job
from rsd_local.server.usage import Account, Times, step_object
from rsd_local.steps import Part

_STREAMED = ("rsd", "auto", "target", "draft", "speculative")
"""Strategies that write one answer from its beginning to its end."""


@dataclass(slots=True)
class Shown:
    """What of one part of an answer was given, and what is held back."""

    given: str = ""
    held: str = ""

    def take(self, text: str, stops: tuple[str, ...]) -> str:
        """What of a text can be given, with what was held back before it.

        Args:
            text: what came to the part.
            stops: stop strings, whose beginnings are held back.
        """
        whole = self.held + text
        keep = max((_overlap(whole, stop) for stop in stops), default=0)
        out, self.held = whole[: len(whole) - keep], whole[len(whole) - keep :]
        self.given += out
        return out

    def rest(self, final: str) -> str:
        """What is left to give of the part as it is at the end; nothing where it is no continuation of what was given."""
        out = final[len(self.given) :] if final.startswith(self.given) else ""
        self.given, self.held = self.given + out, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """How many characters at a text's end may begin a stop string."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class Answer:
    """Makes the objects of one answer.

    Args:
        job: the request.
        number: of the answer, for its ``id``.
        asked: when the request was read, by ``time.perf_counter``.
    """

    def __init__(self, job: Job, number: str, asked: float) -> None:
        self._job, self._chat = job, job.asked.form == "chat"
        self._about = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{number}",
            "created": int(time.time()),
            "model": job.model,
            "system_fingerprint": f"rsd-local-{VERSION}",
        }
        self._parts: dict[Part, Shown] = {"thought": Shown(), "answer": Shown()}
        self._written = ""  # of the step that is being written, what was taken before it was accepted
        self._steps: list[StepDone] = []
        self.times = Times(asked)
        self.account: Account | None = None
        self._live = job.strategy in ("target", "draft", "speculative")
        trio = job.reasoner.config
        may_fail = isinstance(trio.target, RemoteRole) and trio.on_failure == "draft"
        self._target_stands = job.strategy in _STREAMED and job.params.search.retries == 0 and not may_fail

    @property
    def id(self) -> str:
        """As clients have it."""
        return str(self._about["id"])

    def first(self) -> dict[str, Any]:
        """The chunk that a stream begins with."""
        return self._chunk({"role": "assistant", "content": ""}) if self._chat else self._chunk("")

    def waiting(self, place: int) -> dict[str, Any]:
        """A chunk that says how many runs have to end before this one begins."""
        return self._chunk({} if self._chat else "", {"waiting": place})

    def note(self, event: Event) -> None:
        """Take an event in, for ``account`` and the times."""
        now = time.perf_counter()
        self.times.admitted = self.times.admitted or now
        if isinstance(event, TextWritten | StepDone) and not self.times.first:
            self.times.first = now
        if isinstance(event, StepDone):
            self._steps.append(event)
        elif isinstance(event, Finished):
            self.times.end = now
            self.account = Account(self._job, self._steps, event, self.times)

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks that an event gives; the last ones come with ``Finished``."""
        if isinstance(event, TextWritten):
            yield from self._text(event)
        elif isinstance(event, Drafted) and self._job.asked.extension.drafts:
            yield self._chunk({} if self._chat else "", {"step": event.index, "author": "draft", "drafted": True})
        elif isinstance(event, StepDone):
            yield from self._step(event)
        elif isinstance(event, Finished):
            yield from self._end(event)

    def whole(self) -> dict[str, Any]:
        """The answer as one object, once its last event was noted."""
        assert self.account is not None
        end, rejected = self.account.finished, self._job.asked.extension.rejected
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.account.finish_reason, "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": end.text, "refusal": None}
            choice["message"] |= {"reasoning_content": end.thought} if end.thought else {}
        else:
            choice["text"] = end.text
        steps = [step_object(step, rejected=rejected) | {"text": step.text} for step in self._steps]
        return {
            **self._about,
            "object": "chat.completion" if self._chat else "text_completion",
            "choices": [choice],
            "usage": self.account.usage(),
            "timings": self.account.timings(),
            "rsd": self.account.summary() | {"steps": steps},
        }

    def _text(self, event: TextWritten) -> Iterator[dict[str, Any]]:
        where = {"step": event.index, "author": event.author}
        if self._is_certain(event):
            self._written += event.text
            if text := self._given(event.part, event.text):
                yield self._delta(event.part, text, where)
        elif self._job.asked.extension.drafts:
            yield self._chunk({} if self._chat else "", {**where, "attempt": event.attempt, "part": event.part, "draft": event.text})

    def _is_certain(self, event: TextWritten) -> bool:
        """Whether what is written is accepted as it is: of a model that answers alone, and of the target where it tries once.

        Where the draft's step stands if the target's server fails, a step of that one is certain once it is done.
        """
        return self._live or (event.author == "target" and self._target_stands)

    def _step(self, event: StepDone) -> Iterator[dict[str, Any]]:
        rest = event.text.removeprefix(self._written)
        self._written = ""
        text = self._given(event.part, rest)
        yield self._delta(event.part, text, step_object(event, rejected=self._job.asked.extension.rejected) | {"done": True})

    def _given(self, part: Part, text: str) -> str:
        """What of a text can be given; an answer behind a thought begins without white space."""
        shown = self._parts[part]
        if part == "answer" and not shown.given and (self._parts["thought"].given or self._parts["thought"].held):
            text, shown.held = (shown.held + text).lstrip(), ""
        return shown.take(text, self._job.params.limits.stop)

    def _end(self, event: Finished) -> Iterator[dict[str, Any]]:
        assert self.account is not None
        finals: tuple[tuple[Part, str], ...] = (("thought", event.thought), ("answer", event.text))
        for part, final in finals:
            if rest := self._parts[part].rest(final):
                yield self._delta(part, rest, None)
        last = self._chunk({} if self._chat else "", self.account.summary(), finish_reason=self.account.finish_reason)
        if self._job.asked.include_usage:
            yield last
            last = self._chunk(None) | {"usage": self.account.usage()}
        yield last | {"timings": self.account.timings()}

    def _delta(self, part: Part, text: str, about: dict[str, Any] | None) -> dict[str, Any]:
        name = "reasoning_content" if part == "thought" else "content"
        return self._chunk(({name: text} if text else {}) if self._chat else text, about)

    def _chunk(
        self, delta: dict[str, Any] | str | None, about: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        """One chunk; without a delta it has no choice."""
        content = {"text": delta} if isinstance(delta, str) else {"delta": delta}
        choices = [] if delta is None else [{"index": 0, **content, "finish_reason": finish_reason, "logprobs": None}]
        made = {**self._about, "object": "chat.completion.chunk" if self._chat else "text_completion", "choices": choices}
        made |= {"usage": None} if self._job.asked.include_usage else {}
        return made | ({"rsd": about} if about is not None else {})
