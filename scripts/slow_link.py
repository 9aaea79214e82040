"""A TCP proxy on this machine that makes the way to a server long: each byte comes half a round trip later, in each direction.

Bytes are held, not throttled: they keep their order and their distance, so that a stream stays one. As on a real network a new
connection costs one round trip more.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class SlowLink:
    """Stands in front of a server on this machine.

    Args:
        port: the server's.
        delay: seconds of a round trip.

    Attributes:
        delay: may be changed between requests.
        connections: that were opened so far.
        url: where it listens.
    """

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self._port, self.delay, self.connections = port, delay, 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self.connections += 1
                stands = time.monotonic() + self.delay  # when a connection over the network would
                with self._lock:
                    self._open |= {client, server}
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                left = _Left()
                for source, sink in ((client, server), (server, client)):
                    held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    threading.Thread(target=self._take, args=(source, held, stands), daemon=True).start()
                    threading.Thread(target=self._give, args=(held, source, sink, left), daemon=True).start()

    def _take(self, source: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]], stands: float) -> None:
        """Read what one side sends, and note when it arrives at the other."""
        while True:
            try:
                data = source.recv(_CHUNK)
            except OSError:
                data = b""
            held.put((max(time.monotonic(), stands) + self.delay / 2, data))
            if not data:
                return

    def _give(self, held: queue.SimpleQueue[tuple[float, bytes]], source: socket.socket, sink: socket.socket, left: _Left) -> None:
        """Send it on when its time has come; nothing means the end."""
        with contextlib.suppress(OSError):
            while True:
                due, data = held.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    break
                sink.sendall(data)
        if left.last():
            for one in (source, sink):
                one.close()
                with self._lock:
                    self._open.discard(one)

    def close(self) -> None:
        """Close all connections, and take no further ones."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            found = list(self._open)
        for one in found:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Left:
    """Says which of the two directions of a connection ends last."""

    def __init__(self) -> None:
        self._count, self._lock = 2, threading.Lock()

    def last(self) -> bool:
        """Whether this is the second one."""
        with self._lock:
            self._count -= 1
            return self._count == 0
