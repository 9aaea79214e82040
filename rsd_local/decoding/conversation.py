"""Several questions in a row to one trio: what was said stays in every cache, and a turn evaluates only what is new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from rsd_local.config import Params
from rsd_local.decoding.rsd import Standing, answer
from rsd_local.decoding.steps import Writer
from rsd_local.decoding.trio import OpenTrio
from rsd_local.errors import ContextFull
from rsd_local.events import CancelToken, Counters, Event, Finished, Role
from rsd_local.rewards import Reward
from rsd_local.runtime import next_turn_tokens


@dataclass(slots=True)
class _Turn:
    """The three models at one question, where its answer begins in each writer, and the steps of it that stand."""

    writer: Writer
    judge: Reward
    expert: Writer
    standing: list[Standing] = field(default_factory=list)
    begins: dict[Role, int] = field(init=False)

    def __post_init__(self) -> None:
        self.begins = {"draft": len(self.writer.sequence), "target": len(self.expert.sequence)}

    def close(self) -> None:
        for part in (self.writer, self.judge, self.expert):
            part.close()


class Conversation:
    """Answers questions by RSD, each in the light of those before.

    A reward that knows only single questions (process reward models of the tag and the value-head kind) is asked about
    each turn for itself; every other one remembers too. An arithmetic trio takes each question for itself.

    Args:
        trio: its engines must have a sequence free each.
        params: sampling and limits; ``turn`` may be given others, but the random streams go on from the first turn.
    """

    def __init__(self, trio: OpenTrio, params: Params) -> None:
        self._trio, self._sampling = trio, params.sampling
        self._now: _Turn | None = None

    def turn(self, question: str, params: Params, cancel: CancelToken | None = None) -> Iterator[Event]:
        """The events of one answer, as ``rsd`` gives them; counters are this turn's own.

        Leaving early, and a cancel, keep the steps that stood until then.

        Raises:
            ContextFull: the question does not fit behind what was said; the conversation is as before.
        """
        before: dict[Role, Counters] = {}
        if self._now is not None and self._trio.config.task == "any":
            now = self._next(self._now, question)
            before = {"draft": now.writer.counters(), "target": now.expert.counters()}
            if now.judge is self._now.judge:
                before["reward"] = now.judge.counters()
            self._now = now
        else:
            self.clear()
            now = self._now = self._first(question)
        for event in answer(now.writer, now.judge, now.expert, params, cancel, now.standing):
            if isinstance(event, Finished):
                spent = {role: counters.since(before[role]) if role in before else counters for role, counters in event.counters.items()}
                event = replace(event, counters=spent)
            yield event

    def clear(self) -> None:
        """Forgets what was said, and gives every cache back."""
        if self._now is not None:
            self._now.close()
        self._now = None

    def _first(self, question: str) -> _Turn:
        writer = self._trio.writer("draft", question, self._sampling, tracing=self._trio.rewards.tracing)
        try:
            judge = self._trio.judge(question)
        except ContextFull:
            writer.close()
            raise
        try:
            return _Turn(writer, judge, self._trio.writer("target", question, self._sampling))
        except ContextFull:
            writer.close()
            judge.close()
            raise

    def _next(self, last: _Turn, question: str) -> _Turn:
        """The three models at the next question, behind the steps that stand."""
        ends: dict[Writer, int] = {}
        try:
            writers: dict[Role, Writer] = {"draft": last.writer, "target": last.expert}
            for role, writer in writers.items():
                said = [token for author, step in last.standing for token in (step.tokens if author == role else writer.tokens_of(step))]
                if said and writer.engine.model.is_end(said[-1]):
                    said.pop()  # the template has an end of its own
                writer.sequence.replace(last.begins[role], said)
                ends[writer] = len(writer.sequence)
                writer.sequence.append(next_turn_tokens(writer.engine.model, self._trio.config.messages(question), question))
            steps = [step.text for _, step in last.standing if not step.blank]
            judge = last.judge
            if not judge.go_on(steps, question):
                judge.close()  # first, for it may have the only sequence; no later turn needs it either
                judge = self._trio.judge(question)
        except ContextFull:
            for writer, end in ends.items():
                writer.sequence.truncate(end)
            raise
        return _Turn(last.writer, judge, last.expert)
