"""Which API a server speaks, found by asking it."""

from __future__ import annotations

from typing import Any

from rsd_local.config import RemoteRole
from rsd_local.errors import BadAnswer, RemoteRefused
from rsd_local.remote.api import Server
from rsd_local.remote.llama_server import LlamaServer
from rsd_local.remote.transport import Transport


def open_server(role: RemoteRole) -> Server:
    """The server of a role.

    Raises:
        ConfigError: its key cannot be read.
        RemoteError: it cannot be reached, or speaks nothing that is known.
    """
    transport = Transport(role)
    try:
        if role.api == "llama-server" or LlamaServer.speaks(_asked(transport, "/props")):
            return LlamaServer(transport)
        for path, name in (("/version", "vLLM"), ("/get_model_info", "SGLang"), ("/v1/models", "OpenAI's API")):
            if _asked(transport, path) is not None:
                raise RemoteRefused(f"{role.url} seems to speak {name}, which this version does not", hint="start a llama-server there")
        raise BadAnswer(f"{role.url} speaks no API that is known", hint="check the address: it is that of a llama-server, without a path")
    except BaseException:
        transport.close()
        raise


def _asked(transport: Transport, path: str) -> Any:
    """What a path answers, None where there is none or it is no JSON."""
    try:
        return transport.ask(path)
    except (RemoteRefused, BadAnswer):
        return None
