"""The embedding API: open a trio, ask it from any number of threads, close it."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal

from rsd_local.admission import Admission
from rsd_local.config import Params, Strategy, Trio, require, require_choice, sequences_needed
from rsd_local.decoding import STRATEGIES
from rsd_local.errors import Closed, ContextFull
from rsd_local.events import CancelToken, Event, Result, Role, StepDone
from rsd_local.open_trio import LoadProgress, LocalTrio
from rsd_local.prompt import Prompt
from rsd_local.run import Run, collect
from rsd_local.runtime import Engine
from rsd_local.runtime.llama import check_process, was_forked
from rsd_local.toml_settings import read_trio

__all__ = ["Conversation", "HistoryRule", "LoadProgress", "Reasoner", "Run", "collect"]

HistoryRule = Literal["drop", "error"]
"""What becomes of a conversation that no longer fits: its oldest turns are dropped, or the question is refused."""


class Reasoner:
    """An open trio.

    Example:
        with Reasoner.open(trio) as reasoner:
            for event in reasoner.run("What is 2 + 3?"):
                ...

    Calls may come from many threads: up to ``trio.parallel`` prompts run at once, the others wait in the order of asking.
    """

    def __init__(self, trio: LocalTrio, opened: ExitStack) -> None:
        self.config, self.trio = trio.config, trio
        self._opened = opened
        self._admission = Admission(trio.config.parallel, trio.config.queue)
        self._runs: weakref.WeakSet[Run] = weakref.WeakSet()
        self._closing, self._freeing = threading.RLock(), threading.RLock()
        self._closed = False

    @classmethod
    def open(cls, config: Trio | str | Path, progress: LoadProgress | None = None) -> Reasoner:
        """Load the models; roles on one file with one placement share its weights.

        Args:
            config: the trio, its name in the catalogue (``rsd list``), or its TOML file.
            progress: called with a role and its loaded share, 0 to 1.

        Raises:
            ConfigError: there is no trio of that name, or its file is not right.
            ModelError: a file is missing, damaged, or not right for its role; a head belongs to another model.
            DoesNotFit: there is not memory enough; nothing was loaded.
            EngineError: a context cannot be made.
        """
        if not isinstance(config, Trio):
            config = _read(config)
        with ExitStack() as opening:
            return cls(LocalTrio.open(config, opening, progress), opening.pop_all())

    def run(
        self,
        prompt: str | Prompt,
        params: Params | None = None,
        *,
        strategy: Strategy | None = None,
        cancel: CancelToken | None = None,
        text: bool = True,
    ) -> Run:
        """Answer a prompt: an iterator of events, of which the last is ``Finished``.

        Args:
            prompt: a conversation, or a plain question. The trio's system prompt stands before one that has none.
            params: sampling, weighting and limits; the trio's own where left out.
            strategy: the algorithm; the trio's own where left out.
            cancel: ends the run from any thread, within one batch.
            text: whether there are ``TextWritten`` events.

        Raises:
            QuestionRefused: the trio cannot take such a question.
            QueueFull: too many wait already.
            Closed: the reasoner was closed.

        While it goes:
            ContextFull: the prompt does not fit.
            WaitsForItself: all places are held by runs of the thread that would wait for them.
        """
        check_process()
        chosen = params or self.config.params()
        name = strategy or self.config.strategy
        require_choice(name, Strategy, "strategy")
        needed = sequences_needed(name, chosen.search)
        require(needed <= self.config.width, f"{name} needs {needed} sequences", f"open the trio with width={needed}")
        asked, trio, algorithm = self.read_prompt(prompt), self.trio, STRATEGIES[name]

        def events(token: CancelToken) -> Iterator[Event]:
            return algorithm(asked, trio.bound(token, chosen, shows_text=text, raw=asked.raw), chosen)

        with self._closing:
            if self._closed:
                raise Closed("the reasoner was closed")
            run = Run(self._admission.enter(threading.get_ident()), events, cancel)
            self._runs.add(run)
            return run

    def stream(
        self, prompt: str | Prompt, params: Params | None = None, *, strategy: Strategy | None = None, cancel: CancelToken | None = None
    ) -> Run:
        """The events of an answer, step by step; arguments and errors as ``run``, without ``TextWritten``."""
        return self.run(prompt, params, strategy=strategy, cancel=cancel, text=False)

    def solve(
        self, prompt: str | Prompt, params: Params | None = None, *, strategy: Strategy | None = None, cancel: CancelToken | None = None
    ) -> Result:
        """Answer a prompt; arguments and errors as ``run``."""
        with self.run(prompt, params, strategy=strategy, cancel=cancel, text=False) as run:
            return run.result()

    def converse(self, params: Params | None = None, *, history: HistoryRule = "drop") -> Conversation:
        """A conversation, empty at first. It holds no place in the queue between two answers.

        Args:
            params: of every turn that is given none of its own; the trio's own where left out.
            history: what becomes of the oldest turns where the conversation no longer fits: ``drop`` forgets them,
                ``error`` raises ContextFull.
        """
        if self._closed:
            raise Closed("the reasoner was closed")
        require_choice(history, HistoryRule, "history")
        return Conversation(self, params, history)

    def engines(self) -> dict[Role, Engine]:
        """The engines by role; a reward that the draft's own trace gives has none."""
        return self.trio.engines()

    def close(self) -> None:
        """Refuse new runs, end those that go on with Closed, and free the models once nothing uses them. A second call waits for that.

        In a process that was forked from the one that opened it, it does nothing.
        """
        if was_forked():
            return
        with self._closing:
            self._closed = True
            runs = list(self._runs)
        self._admission.close()
        for run in runs:
            run.end_with(Closed("the reasoner was closed"))
        with self._freeing:
            self._opened.close()

    def __enter__(self) -> Reasoner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def read_prompt(self, prompt: str | Prompt) -> Prompt:
        """The prompt as the models are given it.

        Raises:
            QuestionRefused: the trio cannot take it.
        """
        asked = Prompt.of(prompt) if isinstance(prompt, str) else prompt
        if self.config.task == "arithmetic":  # each question stands for itself
            from rsd_local.abacus import canonical

            asked = Prompt.of(canonical(asked.question))
        return asked.with_system(self.config.system)


def _read(trio: str | Path) -> Trio:
    """A trio by name or from a file."""
    from rsd_local.catalogue import find_trio, require_files

    if isinstance(trio, Path):
        return read_trio(trio)
    found = find_trio(trio)
    require_files(found, trio)
    return found


_LEAST_FREE, _FREE_AFTER_DROP = 4, 2
"""Which part of a context a conversation leaves for an answer: a quarter, and a half once turns were dropped."""


class Conversation:
    """Questions in a row, each a longer prompt than the one before, whose beginning is still in the caches.

    It fits as long as every model's context has room for the next answer: ``Limits.tokens``, or a quarter of the context where
    that is less. When it no longer fits, its oldest turns are dropped until half of the context is free, and the models evaluate
    what stays again. A question that does not fit by itself is refused, and nothing is dropped.

    Attributes:
        config: of the trio.
        turns: questions and the answers to them, as far as they were accepted and not dropped.
    """

    def __init__(self, reasoner: Reasoner, params: Params | None, history: HistoryRule) -> None:
        self._reasoner, self._params, self._history, self.config = reasoner, params, history, reasoner.config
        self.turns: list[tuple[str, str]] = []

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
            return self._reasoner.trio.leaves_room(self._after(dropped, question), limit, share)

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
