"""The embedding API: open a trio, ask it questions from any number of threads, close it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType

from rsd_local.config import Params, Strategy, Trio, Weighting, require, require_choice, sequences_needed
from rsd_local.decoding import STRATEGIES, Conversation, OpenTrio
from rsd_local.errors import Closed
from rsd_local.events import CancelToken, Event, Finished, Result, Role, StepDone
from rsd_local.fit import make_plan
from rsd_local.rewards import Head, Rewards, load_head, reward_config
from rsd_local.runtime import Engine, Holding, Model, Pool, chat_tokens
from rsd_local.runtime.devices import devices

LoadProgress = Callable[[Role, float], None]


class Reasoner:
    """An open trio.

    Example:
        with Reasoner.open(trio) as reasoner:
            for event in reasoner.stream("What is 2 + 3?"):
                ...

    Calls may come from many threads: up to ``trio.parallel`` questions run at once, the others wait for their turn.
    """

    def __init__(self, config: Trio, trio: OpenTrio, opened: ExitStack) -> None:
        self.config, self.trio = config, trio
        self._opened = opened
        self._turn = threading.BoundedSemaphore(config.parallel)
        self._closed = False

    @classmethod
    def open(cls, config: Trio, progress: LoadProgress | None = None) -> Reasoner:
        """Loads the models; roles on one file with one placement share its weights.

        Args:
            config: the trio.
            progress: called with a role and its loaded share, 0 to 1.

        Raises:
            ModelError: a file is missing, damaged, or not fit for its role; a head belongs to another model.
            DoesNotFit: there is not memory enough; nothing was loaded.
            EngineError: a context cannot be made.
        """
        with ExitStack() as opening:
            models: dict[tuple[object, ...], Model] = {}
            pools: dict[Role, Pool] = {}
            head = load_head(config)
            for role, holding in placed(roles_of(config, head)).items():
                where = holding.config.placement
                if where not in models:
                    report = None if progress is None else _bind(progress, role)
                    models[where] = Model(holding.config, report)
                    opening.callback(models[where].close)
                engines = []
                for _ in range(holding.engines):
                    engines.append(Engine(models[where], holding.config, holding.slots, role))
                    opening.callback(engines[-1].close)
                pools[role] = Pool(engines)
            draft, target = pools["draft"], pools["target"]
            for pool in (draft, target):
                chat_tokens(pool.model, [{"role": "user", "content": "1+1"}])
            rewards = Rewards(config, pools.get("reward"), head)
            rewards.check(draft)
            trio = OpenTrio(config, draft, target, rewards, draft.model.common_tokens(target.model) > 0)
            return cls(config, trio, opening.pop_all())

    def stream(
        self, question: str, params: Params | None = None, *, strategy: Strategy = "rsd", cancel: CancelToken | None = None
    ) -> Iterator[Event]:
        """Answers a question, and yields each step as it comes to stand, and ``Finished`` at the end.

        Leaving the iterator early ends the run and gives its caches back.

        Args:
            question: the text, without instructions: the trio's system prompt has them.
            params: sampling, weighting and limits; the trio's own threshold where left out.
            strategy: the algorithm.
            cancel: ends the run from any thread, within one batch.

        Raises:
            QuestionRefused: the trio cannot take such a question.
            ContextFull: the question does not fit.
            Closed: the reasoner was closed.
        """
        require_choice(strategy, Strategy, "strategy")
        if self._closed:
            raise Closed("the reasoner was closed")
        chosen = params or Params(weighting=Weighting(threshold=self.config.threshold))
        needed = sequences_needed(strategy, chosen.search)
        require(needed <= self.config.width, f"{strategy} needs {needed} sequences", f"open the trio with width={needed}")
        return self._in_turn(strategy, self.read_question(question), chosen, cancel)

    def solve(
        self, question: str, params: Params | None = None, *, strategy: Strategy = "rsd", cancel: CancelToken | None = None
    ) -> Result:
        """Answers a question; arguments and errors as ``stream``."""
        return collect(self.stream(question, params, strategy=strategy, cancel=cancel))

    def engines(self) -> dict[Role, Pool]:
        """The engines by role; a reward that the draft's own trace gives has none."""
        made: dict[Role, Pool] = {"draft": self.trio.draft, "target": self.trio.target}
        return made if self.trio.rewards.engines is None else made | {"reward": self.trio.rewards.engines}

    def close(self) -> None:
        """Frees the models; runs in flight end with Closed. A second call does nothing."""
        self._closed = True
        self._opened.close()

    def __enter__(self) -> Reasoner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def read_question(self, question: str) -> str:
        """The question as the models are given it.

        Raises:
            QuestionRefused: the trio cannot take it.
        """
        if self.config.task == "arithmetic":
            from rsd_local.abacus import canonical

            return canonical(question)
        return question

    @contextmanager
    def converse(self, params: Params | None = None) -> Iterator[Chat]:
        """A conversation; it counts as one of ``trio.parallel`` questions for as long as it lasts.

        Args:
            params: of every turn that is given none of its own; the trio's own threshold where left out.
        """
        if self._closed:
            raise Closed("the reasoner was closed")
        chosen = params or Params(weighting=Weighting(threshold=self.config.threshold))
        with self._turn:
            conversation = Conversation(self.trio, chosen)
            try:
                yield Chat(self, conversation, chosen)
            finally:
                if not self._closed:
                    conversation.clear()

    def _in_turn(self, strategy: Strategy, question: str, params: Params, cancel: CancelToken | None) -> Iterator[Event]:
        with self._turn:
            yield from timed(STRATEGIES[strategy](question, self.trio, params, cancel))


class Chat:
    """A conversation with a trio. What was said stays in every model's cache: a turn evaluates only what is new."""

    def __init__(self, reasoner: Reasoner, conversation: Conversation, params: Params) -> None:
        self._reasoner, self._conversation, self._params = reasoner, conversation, params

    def stream(self, question: str, params: Params | None = None, *, cancel: CancelToken | None = None) -> Iterator[Event]:
        """Answers the next question by RSD; arguments, events and errors as ``Reasoner.stream``.

        A cancel, or leaving early, keeps the steps that stand; counters are this turn's own.
        """
        asked = self._reasoner.read_question(question)
        yield from timed(self._conversation.turn(asked, params or self._params, cancel))

    def solve(self, question: str, params: Params | None = None, *, cancel: CancelToken | None = None) -> Result:
        """As ``stream``, to the end."""
        return collect(self.stream(question, params, cancel=cancel))

    def clear(self) -> None:
        """Forgets what was said."""
        self._conversation.clear()


def timed(events: Iterator[Event]) -> Iterator[Event]:
    """Events with the seconds that each step took."""
    last = time.perf_counter()
    for event in events:
        if isinstance(event, StepDone):
            now = time.perf_counter()
            event, last = replace(event, seconds=now - last), now
        yield event


def roles_of(config: Trio, head: Head | None) -> dict[Role, Holding]:
    """What a trio opens, by role."""
    reward, parallel, width = reward_config(config, head), config.parallel, config.width
    roles: dict[Role, Holding] = {"draft": Holding.of(config.draft, parallel, width), "target": Holding.of(config.target, parallel)}
    return roles if reward is None else roles | {"reward": Holding.of(reward, parallel, width)}


def placed(roles: dict[Role, Holding]) -> dict[Role, Holding]:
    """The roles with the layers that go to the GPU as numbers.

    Raises:
        DoesNotFit: there is not memory enough for all of them.
    """
    found = devices()
    if not found:  # this build of llama.cpp does not tell
        return roles
    plan = make_plan(roles, found)
    plan.check()
    return {one.role: replace(roles[one.role], config=one.config) for one in plan.roles}


def collect(events: Iterator[Event]) -> Result:
    """The result of a stream that runs to its end."""
    steps = []
    for event in events:
        if isinstance(event, StepDone):
            steps.append(event)
        elif isinstance(event, Finished):
            end = event
    return Result(end.answer, end.text, end.reason, tuple(steps), end.counters, end.non_finite_rewards)


def _bind(progress: LoadProgress, role: Role) -> Callable[[float], None]:
    return lambda share: progress(role, share)
