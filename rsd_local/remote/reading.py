"""A reward's model on a llama-server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rsd_local.config import RemoteRole
from rsd_local.errors import ConfigError
from rsd_local.remote.engine import RemoteEngine
from rsd_local.remote.llama_server import LlamaServer
from rsd_local.remote.transport import Call

_KEPT = 512  # texts whose tokens are remembered
_SHORT = 4096  # characters of them


class ReadingEngine(RemoteEngine):
    """A model on a llama-server that reads steps.

    Args:
        config: where it is.
        name: of its role.
        states: whether it is asked for states; otherwise for shares of the next token.
        reuse: whether a prompt goes on from what earlier ones left in the server's cache.
        beside: another engine of the same server, whose slots are shared out among both.

    Attributes:
        states: as above.
        llama: the server.
        marks_of_text: the texts of the beginning-of-text and the end-of-text token, empty where there is none.

    Raises:
        ConfigError: the key cannot be read, or the server is no llama-server.
        RemoteError: the server cannot be reached, or is none that is known.
    """

    def __init__(
        self, config: RemoteRole, name: str, *, states: bool = False, reuse: bool = True, beside: RemoteEngine | None = None
    ) -> None:
        super().__init__(config, name, reuse=reuse, beside=beside)
        self.states = states
        try:
            if not isinstance(self.server, LlamaServer):
                raise ConfigError(
                    f"{name}: {config.url} is no llama-server, and only that reads steps in this way",
                    hint="start one there; vLLM has --reward-kind prm",
                )
            self.llama: LlamaServer = self.server
            self.marks_of_text = self.llama.marks()
        except BaseException:
            self.server.close()
            raise
        self._asking = threading.local()
        self._known: dict[tuple[str, bool], list[tuple[int, bytes]]] = {}

    @contextmanager
    def over(self, call: Call) -> Iterator[None]:
        """What this thread asks for tokens in the block is part of a call, which can be cancelled."""
        self._asking.call = call
        try:
            yield
        finally:
            self._asking.call = None

    def pieces(self, text: str, *, special: bool) -> list[tuple[int, bytes]]:
        """The tokens of a text with what each stands for; short ones are asked for once.

        Raises:
            RemoteError: the server does not give them.
            Cancelled: the call was cancelled.
        """
        key = (text, special)
        found = self._known.get(key)
        if found is None:
            found = self.llama.pieces(text, special=special, call=getattr(self._asking, "call", None))
            if len(text) <= _SHORT:
                while len(self._known) >= _KEPT:
                    self._known.pop(next(iter(self._known)), None)
                self._known[key] = found
        return found
