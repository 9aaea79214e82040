"""Models on servers: what asks them, and the writers over them. Nothing else of the package imports an HTTP client, but for the hub's."""

from rsd_local.remote.api import Ended, Wanted
from rsd_local.remote.asked import Asked
from rsd_local.remote.engine import RemoteEngine
from rsd_local.remote.head import token_states
from rsd_local.remote.judge import answer_shares
from rsd_local.remote.pooling import PoolingEngine
from rsd_local.remote.reading import ReadingEngine
from rsd_local.remote.sent_ahead import ended_by
from rsd_local.remote.transport import Call
from rsd_local.remote.writer import RemoteWriter

__all__ = [
    "Asked",
    "Call",
    "Ended",
    "PoolingEngine",
    "ReadingEngine",
    "RemoteEngine",
    "RemoteWriter",
    "Wanted",
    "answer_shares",
    "ended_by",
    "token_states",
]
