"""Which API a server speaks, found by asking it."""

from __future__ import annotations

from typing import Any

from rsd_local.config import RemoteRole
from rsd_local.errors import BadAnswer, RemoteRefused
from rsd_local.remote.api import Server
from rsd_local.remote.llama_server import LlamaServer
from rsd_local.remote.sglang import SglangServer
from rsd_local.remote.transport import Transport
from rsd_local.remote.vllm import VllmServer


def open_server(role: RemoteRole) -> Server:
    """The server of a role.

    Raises:
        ConfigError: its key cannot be read.
        RemoteError: it cannot be reached, or speaks nothing that is known.
    """
    transport = Transport(role)
    try:
        if role.api in ("llama-server", "auto") and (role.api != "auto" or LlamaServer.speaks(_asked(transport, "/props"))):
            return LlamaServer(transport)
        if role.api in ("vllm", "auto") and (role.api != "auto" or VllmServer.speaks(_asked(transport, "/version"))):
            return VllmServer(transport)
        if role.api in ("sglang", "auto") and (role.api != "auto" or SglangServer.speaks(_asked(transport, "/get_model_info"))):
            return SglangServer(transport)
        raise BadAnswer(f"{role.url} speaks no API that is known", hint="check the address: it is that of a server, without a path")
    except BaseException:
        transport.close()
        raise


def _asked(transport: Transport, path: str) -> Any:
    """What a path answers, None where there is none or it is no JSON."""
    try:
        return transport.ask(path)
    except (RemoteRefused, BadAnswer):
        return None
