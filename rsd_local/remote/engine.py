"""A role's model on a server, as an engine is one here: what is known of it, its slots, its prompts, and how fast it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from rsd_local.config import RemoteRole, Thinking
from rsd_local.errors import BadAnswer, RemoteBusy, RemoteError, RemoteRefused, Unreachable
from rsd_local.prompt import Prompt
from rsd_local.remote.api import UNKNOWN_CONTEXT, Facts, ReadingServer, Server, Timing
from rsd_local.remote.discover import open_server
from rsd_local.remote.llama_server import LlamaServer
from rsd_local.remote.step import Language
from rsd_local.remote.transport import Call
from rsd_local.remote.vocabulary import edge_marks, same_tokens
from rsd_local.roles import Abilities
from rsd_local.steps import THOUGHT_BEGIN, THOUGHT_END

T = TypeVar("T")

log = logging.getLogger("rsd_local")
_FADE = 0.9
_RESTS = 15.0  # seconds that a server which failed is left alone, where its answers go on without it
_KEPT = 64  # ways to ask for a thought that are remembered
_BEGIN, _END = THOUGHT_BEGIN.decode(), THOUGHT_END.decode()


class RemoteLatency:
    """How long a token took on the server so far, the way there left out."""

    def __init__(self) -> None:
        self._token: float | None = None

    def note(self, timing: Timing) -> None:
        """Take a request's time."""
        if timing.written > 1 and timing.writing > 0:
            one = timing.writing / timing.written
            self._token = one if self._token is None else _FADE * self._token + (1 - _FADE) * one

    def seconds(self, rows: int) -> float | None:
        """Of a batch; a server has only those of one row."""
        return self._token if rows == 1 else None


class RemoteEngine:
    """A model on a server.

    Args:
        config: where it is.
        name: of its role.
        rests: whether a server that failed is left alone for a while.
        reuse: whether a prompt goes on from what earlier ones left in the server's cache.
        beside: another engine of the same server, whose slots are shared out among both.

    Attributes:
        rests: as above.
        facts: what the server says of itself.
        parameters: weights that a token meets.
        language: how its tokens become bytes.
        shares: whether its vocabulary is that of the other model; None where nobody has compared them.

    Raises:
        ConfigError: the key cannot be read.
        RemoteError: the server cannot be reached, or is none that is known.
    """

    def __init__(
        self, config: RemoteRole, name: str, *, rests: bool = False, reuse: bool = True, beside: RemoteEngine | None = None
    ) -> None:
        self.config, self.name, self.rests, self.reuse = config, name, rests, reuse
        self._down: tuple[float, RemoteError] | None = None
        self._gone = False  # whether it was, and may be another one since
        self._opens: dict[tuple[Prompt, Thinking], bool] = {}
        self.server = open_server(config)
        try:
            self.facts = self._said_by(self.server)
            self._marks = edge_marks(self.server)
            self.language = Language(None, *self._closing())
        except BaseException:
            self.server.close()
            raise
        self.parameters = round(config.parameters * 1e9) or self.facts.parameters
        self.latency = RemoteLatency()
        self.shares: bool | None = None
        self._lock: threading.Lock = threading.Lock() if beside is None else beside._lock
        self._slots: list[int] = list(range(self.facts.slots)) if beside is None else beside._slots

    @property
    def context(self) -> int:
        """Tokens that one question may take."""
        return self.facts.context

    @property
    def marks(self) -> tuple[list[int], list[int]]:
        """See ``vocabulary.edge_marks``."""
        return self._marks

    @property
    def abilities(self) -> Abilities:
        """What its writers can do: few servers tell how likely it is what their model did not write."""
        return Abilities(reads_ahead=isinstance(self.server, ReadingServer))

    @property
    def thinks(self) -> bool:
        """Whether its chats have thoughts, as far as its template tells."""
        return self.facts.tags or _END in self.facts.template

    def about(self) -> str:
        """For people."""
        said = self.facts
        size = f", {self.parameters / 1e9:.3g} B parameters" if self.parameters else ""
        travels = "" if self.shares is None else f"; steps travel as {'tokens' if self.shares else 'text'}"
        context = "" if self.facts.context == UNKNOWN_CONTEXT else f", context {said.context}"
        slots = f", {said.slots} slots" if said.slots else ""
        can = ["takes text" if said.texts else "takes tokens"]
        can += ["reads ahead"] if said.ahead else []
        can += ["scores steps"] if self.abilities.reads_ahead else []
        can += ["can be a judge"] if isinstance(self.server, LlamaServer) else []
        return f"{said.model} on {self.config.url} ({said.build}){size}{context}{slots}; {', '.join(can)}{travels}"

    def meet(self, vocabulary: int, tokenize: Callable[[str], list[int]], language: Callable[[], object] | None = None) -> int:
        """How many tokens, from 0 on, mean the same to this model and to another one, by probe texts; 0 for two vocabularies.

        Args:
            vocabulary: tokens of the other one.
            tokenize: gives its tokens of a text.
            language: gives its readers, where it runs here.
        """
        self.shares = not self.facts.texts and same_tokens(tokenize, self.server.tokenize)
        if not self.shares:
            return 0
        if language is not None:
            self.language = replace(self.language, reader=language)  # type: ignore[arg-type]
        return min(vocabulary, self.facts.vocabulary or vocabulary)

    def prompt_tokens(self, prompt: Prompt, thinking: Thinking) -> list[int]:
        """The tokens of a conversation, ready for the assistant's turn, or of a raw text.

        What people and models said becomes no control token: where it holds the text of one, it is tokenized apart.

        Raises:
            RemoteError: the server does not give them.
        """
        if prompt.raw:
            return self.server.tokenize(prompt.question, special=True, opening=True)
        text = self.chat(prompt, thinking)
        said = [message.content for message in prompt.messages if _control(message.content)]
        if not any(self.server.tokenize(one) != self.server.tokenize(one, special=True) for one in said):
            return self.server.tokenize(text, special=True, opening=True)
        tokens: list[int] = []
        for message in prompt.messages:
            before, found, text = text.partition(message.content.strip())
            tokens += self.server.tokenize(before, special=True, opening=not tokens) if before else []
            tokens += self.server.tokenize(found) if found else []
        return tokens + (self.server.tokenize(text, special=True) if text else [])

    def chat(self, prompt: Prompt, thinking: Thinking) -> str:
        """A conversation as the server's template writes it; where it cannot be told to think or not, the thought is opened or closed."""
        text = self.server.chat(prompt, dict(thinking.variables))
        if not self.thinks or thinking.mode == "auto":
            return text
        begun = _opens(text)
        if thinking.mode == "off":
            return f"{text.rstrip()}\n{_END}\n\n" if begun else text
        return text if begun or _END in text[text.rfind(prompt.question) :] else f"{text}{_BEGIN}\n"

    def opens_thought(self, prompt: Prompt, thinking: Thinking, call: Call) -> bool | None:
        """Whether an answer begins inside a thought that the prompt has opened; each way to ask is asked about once.

        Args:
            prompt: any.
            thinking: how it is asked.
            call: the request.

        Returns:
            None where the server fails, and is left alone then.
        """
        if not self.thinks or prompt.raw:
            return False
        key = prompt, replace(thinking, budget=0, scored=1)
        if key not in self._opens:
            found = self.try_asking(lambda: self.chat(prompt, thinking), call)
            if found is None:
                return None
            while len(self._opens) >= _KEPT:
                self._opens.pop(next(iter(self._opens)), None)
            self._opens[key] = _opens(found)
        return self._opens[key]

    def take_slot(self) -> int:
        """One of the server's slots that nobody here has; −1, any, where there is none."""
        with self._lock:
            return self._slots.pop(0) if self._slots else -1

    def give_slot(self, slot: int) -> None:
        """Give it back; the one that was given back last is taken first, for its cache is the newest."""
        with self._lock:
            if 0 <= slot < self.facts.slots:
                self._slots.insert(0, slot)

    def try_asking(self, work: Callable[[], T], call: Call) -> T | None:
        """What comes of asking the server; None where it fails, or is left alone since it did.

        Args:
            work: asks.
            call: what it asks is part of that.

        Raises:
            RemoteError: it fails, and is none that is left alone then.
            Cancelled: the call was cancelled.
        """
        try:
            self.check_up(call)
            with call.covering():
                return work()
        except RemoteError as error:
            self.note_failure(error)
            if not self.rests:
                raise
            return None

    def check_up(self, call: Call) -> None:
        """Look whether the server may be asked: not where it is left alone, nor where it was gone and has another model since.

        Args:
            call: the request that this comes before.

        Raises:
            RemoteError: what it failed with; or it has another model, or still cannot be asked.
        """
        with self._lock:
            if self._down is not None:
                until, error = self._down
                if monotonic() < until:
                    raise type(error)(str(error), hint=error.hint)
                self._down = None
        if self._gone:
            with call.covering():
                self._look_again()

    def note_failure(self, error: RemoteError) -> None:
        """The server has failed. While it is left alone nothing new comes of that: what was asked before may end so, too."""
        with self._lock:
            self._gone = self._gone or isinstance(error, Unreachable | RemoteBusy)
            now = monotonic()
            if not self.rests or (self._down is not None and now < self._down[0]):
                return
            self._down = (now + _RESTS, error)
        log.warning("%s: %s; its steps are the draft's for %.0f s", self.name, error, _RESTS)

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    def _said_by(self, server: Server) -> Facts:
        """What the server says of itself."""
        found = server.facts()
        if found.context < 1:
            raise BadAnswer(f"{self.config.url} does not say how long its context is")
        return found

    def _look_again(self) -> None:
        """Ask once more what a server is that was gone: its context and slots may be others, but not its model.

        Raises:
            RemoteRefused: it has another model.
        """
        known = self.facts
        with closing(open_server(self.config)) as server:
            found = self._said_by(server)
        if (found.model, found.vocabulary, found.parameters) != (known.model, known.vocabulary, known.parameters):
            other = found.model if found.model != known.model else f"another model by the name of {found.model}"
            raise RemoteRefused(
                f"{self.config.url} had {known.model} and has {other} now",
                hint="start it with that one again, or open the trio anew",
            )
        with self._lock:
            self.facts, self._gone = found, False
            self._slots[:] = [slot for slot in self._slots if slot < found.slots]

    def _closing(self) -> tuple[tuple[int, ...], bytes]:
        """The tokens that close a thought, and their bytes."""
        if not self.thinks:
            return (), b""
        text = f"{_END}\n\n"
        return tuple(self.server.tokenize(text, special=True)), text.encode()


def _opens(text: str) -> bool:
    """Whether a text ends inside a thought."""
    return text.rfind(_BEGIN) > text.rfind(_END)


def _control(text: str) -> bool:
    """Whether a text may hold that of a control token, which has a sign."""
    return any(sign in text for sign in "<[|")
