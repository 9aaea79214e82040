"""Which API a server speaks, found by asking it."""

from __future__ import annotations

from typing import Any

from rsd_local.config import RemoteRole
from rsd_local.config.remote import Api
from rsd_local.errors import BadAnswer, RemoteRefused
from rsd_local.remote.api import Server
from rsd_local.remote.llama_server import LlamaServer
from rsd_local.remote.openai_api import OpenAiServer
from rsd_local.remote.sglang import SglangServer
from rsd_local.remote.transport import Transport
from rsd_local.remote.vllm import VllmServer

Kind = type[LlamaServer] | type[VllmServer] | type[SglangServer] | type[OpenAiServer]
_KINDS: tuple[tuple[Api, Kind], ...] = (
    ("llama-server", LlamaServer),
    ("vllm", VllmServer),
    ("sglang", SglangServer),
    ("openai", OpenAiServer),
)
"""What is tried in turn, the particular before the general: all four list their models."""
_NOT_IMPLEMENTED = 501


def open_server(role: RemoteRole) -> Server:
    """The server of a role.

    Raises:
        ConfigError: its key cannot be read.
        RemoteError: it cannot be reached, fails, or speaks nothing that is known.
    """
    transport = Transport(role)
    try:
        for api, kind in _KINDS:
            if role.api == api or (role.api == "auto" and kind.speaks(lambda path: _asked(transport, path))):
                return kind(transport)
        raise BadAnswer(f"{role.url} speaks no API that is known", hint="check the address: it is that of a server, without a path")
    except BaseException:
        transport.close()
        raise


def _asked(transport: Transport, path: str) -> Any:
    """What a path answers, None where there is none or it is no JSON; a server that fails may have it all the same."""
    try:
        return transport.ask(path)
    except RemoteRefused:
        return None
    except BadAnswer as error:
        if error.status not in (0, _NOT_IMPLEMENTED):
            raise
        return None
