"""The embedding API: open a trio, ask it from any number of threads, close it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from rsd_local.admission import Admission
from rsd_local.backend import LocalBackend, Opener
from rsd_local.config import Params, Strategy, Trio, require, require_choice, sequences_needed
from rsd_local.conversation import Conversation, HistoryRule
from rsd_local.errors import Closed, EngineError
from rsd_local.events import CancelToken, Event, Result, Role
from rsd_local.in_thread import in_thread
from rsd_local.loading import LoadedModels
from rsd_local.open_trio import LoadProgress, LocalTrio
from rsd_local.prompt import Prompt
from rsd_local.run import Run, collect
from rsd_local.runtime import Engine
from rsd_local.runtime.llama import check_process, was_forked
from rsd_local.toml_settings import read_trio

__all__ = ["Conversation", "HistoryRule", "LoadProgress", "Reasoner", "Run", "collect"]


class Reasoner:
    """An open trio.

    Example:
        with Reasoner.open(trio) as reasoner:
            for event in reasoner.run("What is 2 + 3?"):
                ...

    Calls may come from many threads: up to ``trio.parallel`` prompts run at once, the others wait in the order of asking.
    """

    def __init__(self, models: LoadedModels) -> None:
        self._models, config = models, models.config
        self._admission = Admission(config.parallel, config.queue)
        self._runs: weakref.WeakSet[Run] = weakref.WeakSet()
        self._closing, self._freeing = threading.RLock(), threading.RLock()
        self._closed = False

    @classmethod
    def open(
        cls,
        config: Trio | str | Path,
        progress: LoadProgress | None = None,
        *,
        isolated: bool = False,
        idle_unload: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Reasoner:
        """Load the models; roles on one file with one placement share its weights.

        Args:
            config: the trio, its name in the catalogue (``rsd list``), or its TOML file.
            progress: called with a role and its loaded share, 0 to 1, in a thread that loads; what it raises ends the loading.
            isolated: whether the models live in a process of their own, which may crash without ending this one.
            idle_unload: seconds without a run after which the models are unloaded; the next run loads them again.
            cancel: ends the loading, from any thread.

        Raises:
            ConfigError: there is no trio of that name, its file is not right, or a verifier cannot be sent to another process.
            ModelError: a file is missing, damaged, or not right for its role; a head belongs to another model.
            DoesNotFit: there is not memory enough; nothing was loaded.
            EngineError: a context cannot be made.
            EngineCrashed: the process of isolated models ended.
            Cancelled: ``cancel`` was called.
        """
        require(
            idle_unload is None or 0 < idle_unload <= threading.TIMEOUT_MAX,
            f"idle_unload {idle_unload} is no number of seconds above 0",
            "leave it away to keep the models loaded",
        )
        trio = config if isinstance(config, Trio) else _read(config)
        models = LoadedModels(trio, _opener(isolated), idle_unload)
        models.load(trio, progress, cancel or CancelToken())
        return cls(models)

    @classmethod
    @contextlib.asynccontextmanager
    async def open_async(
        cls,
        config: Trio | str | Path,
        progress: LoadProgress | None = None,
        *,
        isolated: bool = False,
        idle_unload: float | None = None,
    ) -> AsyncIterator[Reasoner]:
        """``async with Reasoner.open_async(trio) as reasoner``: load the models in a thread, and close them in one.

        Arguments and errors as ``open``. A task that is cancelled while they are loaded ends the loading.
        """
        cancel = CancelToken()
        reasoner = await in_thread(
            lambda: cls.open(config, progress, isolated=isolated, idle_unload=idle_unload, cancel=cancel), cancel.cancel, cls.close
        )
        async with reasoner:
            yield reasoner

    @property
    def config(self) -> Trio:
        """The trio that is asked."""
        return self._models.config

    @property
    def trio(self) -> LocalTrio:
        """The open models of this process; they are loaded where they were idle.

        Raises:
            EngineError: they live in a process of their own.
        """
        backend = self._models.last
        if backend is None:
            with self._models.used(CancelToken()) as backend:
                pass
        if not isinstance(backend, LocalBackend):
            raise EngineError("the models live in a process of their own", hint="open the reasoner without isolated=True")
        return backend.trio

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
        config = self.config
        asked = _asked(config, prompt, params, strategy)

        def events(token: CancelToken) -> Iterator[Event]:
            with self._models.used(token) as backend:
                # A reload since then is another trio, which may need another prompt.
                now = asked if backend.config is config else _asked(backend.config, prompt, params, strategy)
                with contextlib.closing(backend.events(*now, text, token)) as made:  # type: ignore[type-var]
                    yield from made

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
        """The engines by role, of models in this process; a reward that the draft's own trace gives has none."""
        return self.trio.engines()

    def reload(self, config: Trio | str | Path, progress: LoadProgress | None = None, *, cancel: CancelToken | None = None) -> None:
        """Take another trio; arguments and errors as ``open``. If it cannot be loaded, the old one goes on.

        Runs that have begun finish with the old models, which are freed after the last of them; all others are answered by the
        new ones. For a moment there must be memory for both: where there is not, ``unload`` first.
        """
        trio = config if isinstance(config, Trio) else _read(config)
        # Whoever is admitted from here on may meet either trio.
        self._admission.resize(min(self.config.parallel, trio.parallel), self.config.queue)
        try:
            self._models.load(trio, progress, cancel or CancelToken())
        finally:
            self._admission.resize(self.config.parallel, self.config.queue)

    def unload(self) -> bool:
        """Free the models until the next run loads them again; False, and nothing is done, while a run uses them."""
        return self._models.unload()

    @property
    def loaded(self) -> bool:
        """Whether the models are in memory."""
        return self._models.loaded

    def leaves_room(self, prompt: Prompt, tokens: int, share: int) -> bool:
        """Whether each context has room for an answer behind a prompt.

        Args:
            prompt: a conversation.
            tokens: of the answer at most.
            share: room for the ``share``-th part of the context is enough for longer ones.
        """
        with self._models.used(CancelToken()) as backend:
            return backend.leaves_room(prompt, tokens, share)

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
        self._models.begin_close()
        for run in runs:
            run.end_with(Closed("the reasoner was closed"))
        with self._freeing:
            self._models.close()

    def __enter__(self) -> Reasoner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await in_thread(self.close, lambda: None, lambda _: None)

    def read_prompt(self, prompt: str | Prompt) -> Prompt:
        """The prompt as the models are given it.

        Raises:
            QuestionRefused: the trio cannot take it.
        """
        return _read_prompt(self.config, prompt)


def _asked(config: Trio, prompt: str | Prompt, params: Params | None, strategy: Strategy | None) -> tuple[Prompt, Params, Strategy]:
    """What a trio is asked, with its own settings where the caller names none."""
    chosen, name = params or config.params(), strategy or config.strategy
    require_choice(name, Strategy, "strategy")
    needed = sequences_needed(name, chosen.search)
    require(needed <= config.width, f"{name} needs {needed} sequences", f"open the trio with width={needed}")
    return _read_prompt(config, prompt), chosen, name


def _read_prompt(config: Trio, prompt: str | Prompt) -> Prompt:
    asked = Prompt.of(prompt) if isinstance(prompt, str) else prompt
    if config.task == "arithmetic":  # each question stands for itself
        from rsd_local.abacus import canonical

        asked = Prompt.of(canonical(asked.question))
    return asked.with_system(config.system)


def _opener(isolated: bool) -> Opener:
    if not isolated:
        return LocalBackend.open
    from rsd_local.isolated import IsolatedBackend

    return IsolatedBackend.open


def _read(trio: str | Path) -> Trio:
    """A trio by name or from a file."""
    from rsd_local.catalogue import find_trio, require_files

    if isinstance(trio, Path):
        return read_trio(trio)
    found = find_trio(trio)
    require_files(found, trio)
    return found
