"""A trio whose models run here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

from rsd_local.capacities import capacities, placed
from rsd_local.config import OnFailure, Params, RemoteRole, Thinking, Trio
from rsd_local.decoding.ahead import Ahead
from rsd_local.decoding.way_costs import WayCosts
from rsd_local.errors import ConfigError, MissingTokens
from rsd_local.events import Author, CancelToken, Role
from rsd_local.fit import context_warning
from rsd_local.gguf_header import read_header
from rsd_local.prompt import Prompt
from rsd_local.remote import Call, PoolingEngine, RemoteEngine, RemoteWriter, ended_by
from rsd_local.rewards import Rewards, load_heads
from rsd_local.rewards.servers import open_servers
from rsd_local.rewards.thoughts import SomeThoughts
from rsd_local.rewards.verifier.opening import open_verifier
from rsd_local.roles import Reward
from rsd_local.runtime import Engine, LocalWriter, Model, Tracing, opens_thought, prompt_tokens
from rsd_local.runtime.grammar import check_grammar
from rsd_local.segments import Segmenter
from rsd_local.steps import THOUGHT_TAGS

log = logging.getLogger("rsd_local")
_warned = set[str]()
LoadProgress = Callable[[Role, float], None]
AnyEngine = Engine | RemoteEngine
"""Of a model that runs here, or on a server."""


@dataclass(frozen=True, slots=True)
class LocalTrio:
    """The engines that write, and what scores; see ``decoding.OpenTrio``.

    Attributes:
        config: how the models are asked and the reward is read.
        thinking: whether they think before they answer.
        shared_tokens: how many tokens, from the first on, mean the same to draft and target.
        cancel: ends whatever is opened.
        way_costs: what each way to a step cost so far, over all answers.
    """

    config: Trio
    draft: AnyEngine
    target: AnyEngine
    rewards: Rewards
    shared_tokens: int
    segmenter: Segmenter
    thinking: Thinking = field(default_factory=Thinking)
    shows_text: bool = False
    cancel: CancelToken | None = None
    way_costs: WayCosts = field(default_factory=WayCosts)

    @classmethod
    def open(cls, config: Trio, opening: ExitStack, progress: LoadProgress | None = None) -> LocalTrio:
        """Load the models, and reach the servers; roles on one file with one placement share its weights.

        Args:
            config: the trio.
            opening: closes what was opened.
            progress: called with a role and its loaded share, 0 to 1.

        Raises:
            ModelError: a file is missing, damaged, or not right for its role; a head belongs to another model.
            DoesNotFit: there is not memory enough; nothing was loaded.
            EngineError: a context cannot be made.
            RemoteError: a server cannot be reached, or is none that is known.
        """
        segmenter = Segmenter(config.delimiter)
        verifiers = tuple(open_verifier(stage, config) for stage in config.stages)
        for verifier in filter(None, verifiers):
            opening.callback(verifier.close)
        away = _servers(config, opening)
        asked = open_servers(config, away.values(), opening)
        models: dict[tuple[object, ...], Model] = {}
        engines: dict[Role, Engine] = {}
        heads = load_heads(config)
        roles = capacities(config, heads)
        headers = {path: read_header(path) for path in dict.fromkeys(one.config.path for one in roles.values())}
        roles = placed(roles, headers, check=config.fit_check)
        guesses = roles["target"].config.placement if "target" in roles and config.params().search.fallback != "off" else None
        for role, capacity in roles.items():
            where = capacity.config.placement
            if where not in models:
                report = None if progress is None else _bind(progress, role)
                models[where] = Model(capacity.config, report, headers[capacity.config.path], mtp=where == guesses)
                opening.callback(models[where].close)
            engines[role] = Engine(
                models[where], capacity.config, capacity.slots, role, reuse=config.reuse, reads_states=capacity.reads_states,
                shares_prefixes=capacity.shares_prefixes, mtp=role == "target" and where == guesses,
            )  # fmt: skip
            opening.callback(engines[role].close)
        _warn_of_contexts(engines)
        draft, target = away.get("draft") or engines["draft"], away.get("target") or engines["target"]
        for engine in (draft, target):
            _prompt_tokens(engine, Prompt.of("1+1", config.system), Thinking())
        rewards = Rewards.of(config, heads, engines, verifiers, asked)
        rewards.check(engines.get("draft"), engines.get("target"), target.abilities)
        costs = WayCosts(perf_counter if config.parallel == 1 else None)
        trio = cls(config, draft, target, rewards, _common_tokens(draft, target), segmenter, way_costs=costs)
        trio._asked(config.params().thinking, Call())
        if isinstance(target, RemoteEngine) and not trio.shared_tokens and any(stage.kind == "contrast" for stage in config.stages):
            raise MissingTokens("a contrast needs one vocabulary, and draft and target have two", hint="choose --reward-kind likelihood")
        return trio

    @property
    def has_tags(self) -> bool:
        """Whether draft or target thinks, as far as their files tell."""
        return any(_thinks(engine) for engine in (self.draft, self.target))

    def bound(self, cancel: CancelToken, params: Params, *, shows_text: bool, raw: bool = False) -> LocalTrio:
        """The same for one run: ended by a token, and by what ends its answers.

        Args:
            cancel: the token.
            params: of the run.
            shows_text: whether there are ``TextWritten`` events.
            raw: whether its prompt is raw, so that nothing that is written counts as a thought.

        Raises:
            ConfigError: it is to think, and no model can; its grammar cannot be used, or not with these models.
        """
        if params.sampling.grammar:
            for engine in (self.draft, self.target):
                if isinstance(engine, RemoteEngine):
                    raise ConfigError(
                        f"{engine.name}: a model on a server follows no grammar", hint="leave it away, or choose models that run here"
                    )
                check_grammar(engine.model, params.sampling.grammar, headed=self.has_tags and not raw)
        with ended_by(cancel, call := Call()):
            thinking, in_thought = (Thinking(), False) if raw else self._asked(params.thinking, call)
        thought = THOUGHT_TAGS if self.has_tags and not raw else None
        segmenter = replace(
            self.segmenter,
            stop=params.limits.stop,
            stop_after=params.limits.stop_after,
            thought=thought,
            in_thought=in_thought,
            budget=thinking.budget,
        )
        return replace(self, cancel=cancel, segmenter=segmenter, thinking=thinking, shows_text=shows_text)

    @property
    def speculates(self) -> bool:
        """Whether the draft can guess the target's tokens."""
        local = [engine for engine in (self.draft, self.target) if isinstance(engine, Engine)]
        return self.shared_tokens > 0 and len(local) == 2 and all(engine.can_cut for engine in local)

    @property
    def on_failure(self) -> OnFailure:
        """What becomes of an answer whose target's server fails."""
        return self.config.on_failure

    @property
    def checked(self) -> bool:
        """Whether a program checks steps."""
        return any(stage.kind == "verifier" for stage in self.config.stages)

    def thinks(self, thinking: Thinking) -> bool:
        """Whether answers begin with a thought: one that a prompt opens, or that a model is not kept from writing."""
        if thinking.mode == "off":
            return False
        prompt, off = Prompt.of("1+1", self.config.system), replace(thinking, mode="off")
        return any(
            _opens_thought(one, prompt, thinking, Call()) or _prompt_tokens(one, prompt, thinking) != _prompt_tokens(one, prompt, off)
            for one in (self.draft, self.target)
            if _thinks(one)
        )

    def _asked(self, thinking: Thinking, call: Call) -> tuple[Thinking, bool]:
        """How both models are to be asked, and whether an answer begins in a thought: for the one where it does so for the other."""
        _warn_of_variables((self.draft, self.target), thinking)
        models = [engine for engine in (self.draft, self.target) if _thinks(engine)]
        if thinking.mode == "on" and not models:
            raise ConfigError("neither draft nor target thinks, as far as their files tell", hint="leave --think away")
        prompt = Prompt.of("1+1", self.config.system)
        opened = [one for model in models if (one := _opens_thought(model, prompt, thinking, call)) is not None]
        if any(opened) and not all(opened):
            thinking = replace(thinking, mode="on")
        return thinking, any(opened)

    def engines(self) -> dict[Role, Engine]:
        """The engines here by role; a model on a server has none, nor has a reward that the draft's own trace or a program gives."""
        both: dict[Role, AnyEngine] = {"draft": self.draft, "target": self.target}
        made: dict[Role, Engine] = {role: engine for role, engine in both.items() if isinstance(engine, Engine)}
        return made | {stage.role: stage.engine for stage in self.rewards.stages if stage.engine is not None}

    def here(self, role: Author) -> Engine:
        """The draft's or the target's engine, for what only one that runs here can do.

        Raises:
            ConfigError: it is on a server.
        """
        engine = self.draft if role == "draft" else self.target
        if isinstance(engine, RemoteEngine):
            raise ConfigError(f"this looks into the {role}, which is on a server", hint=f"name a {role} that runs here")
        return engine

    def servers(self) -> dict[Role, RemoteEngine | PoolingEngine]:
        """The models on servers by role."""
        both: dict[Role, AnyEngine] = {"draft": self.draft, "target": self.target}
        made: dict[Role, RemoteEngine | PoolingEngine] = {role: engine for role, engine in both.items() if isinstance(engine, RemoteEngine)}
        return made | {stage.role: stage.server.engine for stage in self.rewards.stages if stage.server is not None}

    def writer(self, role: Author, prompt: Prompt, *, traced: bool = False, tracing: Tracing = "off") -> LocalWriter | RemoteWriter:
        """The draft or the target at a prompt.

        Args:
            role: which.
            prompt: as the models are asked.
            traced: whether its steps carry the trace that the reward needs.
            tracing: a trace for other ends.

        Raises:
            NoChatTemplate: the model cannot be asked.
            ContextFull: the prompt does not fit its context.
        """
        engine = self.draft if role == "draft" else self.target
        if isinstance(engine, RemoteEngine):
            ask = partial(engine.prompt_tokens, prompt, self.thinking)
            return RemoteWriter.open(engine, ask, shared=self.shared_tokens, cancel=self.cancel)
        engine.check_fits(sum(len(message.content.encode("utf-8", "replace")) for message in prompt.messages))
        tokens = prompt_tokens(engine.model, prompt, self.thinking)
        tracing = self.rewards.tracing if traced else tracing
        return LocalWriter.open(
            engine, tokens, shared=self.shared_tokens, tracing=tracing, cancel=self.cancel, in_thought=self.segmenter.in_thought
        )

    def leaves_room(self, prompt: Prompt, tokens: int, share: int) -> bool:
        """Whether each context has room for an answer behind a prompt.

        Args:
            prompt: as the models are asked.
            tokens: of the answer at most.
            share: room for the ``share``-th part of the context is enough for longer ones.

        Raises:
            NoChatTemplate: a model cannot be asked.
        """
        size = sum(len(message.content.encode("utf-8", "replace")) for message in prompt.messages)
        engines = self.engines().values()
        if any(size > engine.context * engine.model.longest_piece for engine in engines):
            return False  # so much need not be tokenized
        asked = [(engine.context, _plain_tokens(engine, prompt)) for engine in (self.draft, self.target)]
        read = [(context, len(tokens)) for context, tokens in asked if tokens is not None]
        read += [opening for stage in self.rewards.stages if (opening := stage.opening(prompt)) is not None]
        return all(length + min(tokens, context // share) <= context for context, length in read)

    def reward(self, prompt: Prompt, ahead: Ahead | None = None) -> Reward:
        """The reward at a prompt.

        Args:
            prompt: as the models are asked.
            ahead: reads with the target that also writes; None for rewards that read in a cache of their own.

        Raises:
            ContextFull: the prompt does not fit its context.
        """
        reward = self.rewards.open(prompt, lambda: ahead or Ahead(self.writer("target", prompt)), self.cancel)
        return reward if self.thinking.scored == 1 else SomeThoughts(reward, self.thinking.scored)


def _warn_of_contexts(engines: dict[Role, Engine]) -> None:
    """Says once which contexts are longer than what the models were trained for; llama.cpp goes on without a word."""
    _warn(context_warning((role, engine.model.header, engine.context) for role, engine in engines.items()))


def _warn_of_variables(engines: Sequence[AnyEngine], thinking: Thinking) -> None:
    """Says once which variables of a chat template have no effect; a server's template is not known."""
    sources = [engine.model.chat_template or "" for engine in engines if isinstance(engine, Engine)]
    names = [*(["reasoning_effort"] if thinking.effort else []), *(name for name, _ in thinking.template)]
    unread = [name for name in names if not any(name in source for source in sources)]
    if unread and len(sources) == len(engines):
        _warn(f"no effect of {', '.join(unread)}: the chat templates of draft and target have no such variable")


def _warn(warning: str | None) -> None:
    if warning and warning not in _warned:
        _warned.add(warning)
        log.warning("%s", warning)


def _bind(progress: LoadProgress, role: Role) -> Callable[[float], None]:
    return lambda share: progress(role, share)


def _servers(config: Trio, opening: ExitStack) -> dict[Role, RemoteEngine]:
    """The models on servers, which are reached before anything is loaded here."""
    made: dict[Role, RemoteEngine] = {}
    both: dict[Role, object] = {"draft": config.draft, "target": config.target}
    for role, one in both.items():
        if isinstance(one, RemoteRole):
            where = one.url, one.model
            same = next((other for other in made.values() if (other.config.url, other.config.model) == where), None)
            rests = config.on_failure == "draft" and role == "target"
            made[role] = RemoteEngine(one, role, rests=rests, reuse=config.reuse, beside=same)
            opening.callback(made[role].close)
    return made


def _common_tokens(draft: AnyEngine, target: AnyEngine) -> int:
    """How many tokens, from the first on, mean the same to both."""
    if isinstance(draft, Engine) and isinstance(target, Engine):
        return draft.model.common_tokens(target.model)
    away, other = (target, draft) if isinstance(target, RemoteEngine) else (draft, target)
    assert isinstance(away, RemoteEngine)
    if isinstance(other, Engine):
        model = other.model
        return away.meet(model.n_vocab, model.tokenize, model.spelling.reader)
    other.shares = (same := away.meet(other.facts.vocabulary, other.server.tokenize)) > 0
    return same


def _thinks(engine: AnyEngine) -> bool:
    """Whether a model thinks, as far as its file or its server tells."""
    return engine.thinks if isinstance(engine, RemoteEngine) else engine.model.spelling.tags is not None


def _prompt_tokens(engine: AnyEngine, prompt: Prompt, thinking: Thinking) -> list[int]:
    return engine.prompt_tokens(prompt, thinking) if isinstance(engine, RemoteEngine) else prompt_tokens(engine.model, prompt, thinking)


def _plain_tokens(engine: AnyEngine, prompt: Prompt) -> list[int] | None:
    """Of a prompt that says nothing of thinking; None of a server that fails, where answers go on without it."""
    if isinstance(engine, RemoteEngine):
        return engine.try_asking(lambda: engine.prompt_tokens(prompt, Thinking()), Call())
    return prompt_tokens(engine.model, prompt, Thinking())


def _opens_thought(engine: AnyEngine, prompt: Prompt, thinking: Thinking, call: Call) -> bool | None:
    if isinstance(engine, RemoteEngine):
        return engine.opens_thought(prompt, thinking, call)
    return opens_thought(engine.model, prompt, thinking)
