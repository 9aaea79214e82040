"""Questions in a row, each with the ones before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from types import TracebackType
from typing import Literal, Protocol

from rsd_local.config import Params, Trio
from rsd_local.errors import ContextFull
from rsd_local.events import CancelToken, Event, Result, StepDone
from rsd_local.prompt import Prompt
from rsd_local.run import Run, collect

HistoryRule = Literal["drop", "error"]
"""What becomes of a conversation that no longer fits: its oldest turns are dropped, or the question is refused."""

_LEAST_FREE, _FREE_AFTER_DROP = 4, 2
"""Which part of a context a conversation leaves for an answer: a quarter, and a half once turns were dropped."""


class Answers(Protocol):
    """What a conversation needs of a reasoner."""

    @property
    def config(self) -> Trio:
        """The trio that is asked."""
        ...

    def run(self, prompt: Prompt, params: Params | None = None, *, cancel: CancelToken | None = None, text: bool = True) -> Run:
        """Answer a prompt."""
        ...

    def read_prompt(self, prompt: Prompt) -> Prompt:
        """The prompt as the models are given it."""
        ...

    def leaves_room(self, prompt: Prompt, tokens: int, share: int) -> bool:
        """Whether each context has room for an answer behind a prompt."""
        ...


class Conversation:
    """Questions in a row, each a longer prompt than the one before, whose beginning is still in the caches.

    It fits as long as every model's context has room for the next answer: ``Limits.tokens``, or a quarter of the context where
    that is less. When it no longer fits, its oldest turns are dropped until half of the context is free, and the models evaluate
    what stays again. A question that does not fit by itself is refused, and nothing is dropped.

    Attributes:
        turns: questions and the answers to them, as far as they were accepted and not dropped.
    """

    def __init__(self, reasoner: Answers, params: Params | None, history: HistoryRule) -> None:
        self._reasoner, self._params, self._history = reasoner, params, history
        self.turns: list[tuple[str, str]] = []

    @property
    def config(self) -> Trio:
        """The trio that is asked."""
        return self._reasoner.config

    def prompt(self, question: str, params: Params | None = None) -> Prompt:
        """What the models are asked: the conversation so far, as much of it as fits, with another question.

        ``len(turns) - prompt(…).turn`` turns will be dropped with the next answer.

        Args:
            question: the next one.
            params: of its answer; the conversation's own where left out.

        Raises:
            QuestionRefused: the question cannot be taken.
            ContextFull: the conversation no longer fits, and ``history`` is ``error``.
        """
        whole = self._after(0, question)
        if not self.turns or self._reasoner.read_prompt(whole).turn == 0:  # where each question stands for itself
            return whole
        limit = (params or self._params or self.config.params()).limits.tokens

        def fits(dropped: int, share: int) -> bool:
            return self._reasoner.leaves_room(self._after(dropped, question), limit, share)

        if fits(0, _LEAST_FREE):
            return whole
        if self._history == "error":
            raise ContextFull(
                f"the conversation no longer fits: {len(self.turns)} turns and this question leave too little room for an answer",
                hint="start anew (/clear), let the oldest turns go (--history drop), or give a larger --ctx-size",
            )
        for share in (_FREE_AFTER_DROP, _LEAST_FREE):
            dropped = bisect_left(range(len(self.turns)), True, key=partial(fits, share=share))
            if dropped < len(self.turns):
                return self._after(dropped, question)
        return self._after(len(self.turns), question)

    def _after(self, dropped: int, question: str) -> Prompt:
        """The turns behind the first ``dropped`` ones, and a question."""
        turns = self.turns[dropped:]
        asked = [question for question, _ in turns] + [question]
        prompt = Prompt.of(asked[0], self.config.system)
        for (_, answer), following in zip(turns, asked[1:], strict=True):
            prompt = prompt.then(answer.replace("\0", "\ufffd"), following)  # a model may write what a prompt must not hold
        return prompt

    @contextmanager
    def _noted(self, prompt: Prompt) -> Iterator[list[str]]:
        steps: list[str] = []
        dropped = len(self.turns) - prompt.turn
        try:
            yield steps
        finally:
            if steps:
                del self.turns[:dropped]
                self.turns.append((prompt.question, "".join(steps)))

    def stream(
        self, question: str, params: Params | None = None, *, cancel: CancelToken | None = None, text: bool = False
    ) -> Iterator[Event]:
        """Answer the next question; arguments, events and errors as ``Reasoner.run``.

        A cancel, or leaving early, keeps the accepted steps.
        """
        prompt = self.prompt(question, params)
        return self._events(prompt, self._reasoner.run(prompt, params or self._params, cancel=cancel, text=text))

    def _events(self, prompt: Prompt, run: Run) -> Iterator[Event]:
        with closing(run), self._noted(prompt) as steps:
            for event in run:
                if isinstance(event, StepDone) and event.part == "answer":  # what was thought is no part of what was said
                    steps.append(event.text)
                yield event

    def solve(self, question: str, params: Params | None = None, *, cancel: CancelToken | None = None) -> Result:
        """As ``stream``, to the end."""
        return collect(self.stream(question, params, cancel=cancel))

    def clear(self) -> None:
        """Forget what was said."""
        self.turns.clear()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """There is nothing to give back."""
