"""What holds in a sandbox of this machine, found by trying it there."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path

from rsd_local.errors import SandboxTooWeak
from rsd_local.sandbox import posix
from rsd_local.sandbox.backends import Backend, BackendName
from rsd_local.sandbox.bounds import Bounds, Outcome, Protection

_BOUNDS = Bounds(seconds=20.0, memory=256 << 20, processes=4, file_bytes=1 << 16)

ATTEMPTS = """
import json, mmap, os, resource, socket, sys
pipe, port, secret, parent = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def fails(attempt):
    try:
        attempt()
    except (OSError, MemoryError, OverflowError, ValueError):
        return True
    return False

def fork_ten():
    children = []
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                sys.stdin.read()
                os._exit(0)
            children.append(pid)
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

def write_big():
    with open("big", "wb") as file:
        for _ in range(3):
            file.write(bytes(1 << 15))
            file.flush()

def write_many(folder):
    for number in range(40):
        with open(f"{folder}/many{number}", "wb") as file:
            file.write(bytes(65000))

held = {
    "network": fails(lambda: socket.create_connection(("127.0.0.1", port), 2).close()),
    "read": fails(lambda: open(secret).read()),
    "write": fails(lambda: open(secret + ".new", "w").close()),
    "processes": fails(fork_ten),
    "memory": fails(lambda: mmap.mmap(-1, 512 << 20)),
    "file": fails(write_big),
    "disk": fails(lambda: write_many(".")) and fails(lambda: write_many("/dev/shm")),
    "others": not os.path.exists(f"/proc/{parent}/environ") or fails(lambda: open(f"/proc/{parent}/environ").read()),
    "signals": fails(lambda: os.kill(parent, 0)),
    "uid": os.getuid(),
    "pid": os.getpid(),
}
os.write(pipe, json.dumps(held).encode())
"""


def probe(backend: Backend) -> tuple[Protection, ...]:
    """Runs attempts to break out in a backend.

    Raises:
        SandboxTooWeak: nothing can be run in it.
    """
    with tempfile.TemporaryDirectory(prefix="rsd-probe-") as folder, socket.create_server(("127.0.0.1", 0)) as server:
        Path(folder).chmod(0o755)
        secret = Path(folder, "secret")
        secret.write_text("secret")
        port = str(server.getsockname()[1])
        argv = [sys.executable, "-I", "-S", "-c", ATTEMPTS, posix.PIPE, port, str(secret), str(os.getpid())]
        outcome = posix.run(backend, argv, {}, b"", (), _BOUNDS, None)
        written = Path(f"{secret}.new").exists()
    if outcome.exit_code != 0:
        raise SandboxTooWeak(f"a program did not run in {backend.name}: {_last_line(outcome)}")
    held = json.loads(outcome.said)
    held["write"] = held["write"] and not written
    return _protections(backend, held)


def _last_line(outcome: Outcome) -> str:
    lines = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with {outcome.exit_code} ({outcome.ended})"


_MEANS: dict[BackendName, str] = {
    "bubblewrap": "namespaces (bubblewrap)",
    "namespaces": "namespaces",
    "sandbox-exec": "sandbox-exec",
    "limits": "limits alone",
    "job-object": "a job object",
}


def _protections(backend: Backend, held: dict[str, int]) -> tuple[Protection, ...]:
    means = _MEANS[backend.name]
    files, network = bool(held["read"] and held["write"]), bool(held["network"])
    alone = bool(held["others"] and held["signals"])
    ended = backend.isolated or backend.name == "limits" and backend.own_user
    disk = bool(held["disk"] and held["file"])
    seen = "can read what everybody can" if backend.own_user else "can read and write what you can"
    found = (
        ("files", files, f"{means}: sees the system and Python, writes in memory of its own", seen),
        ("network", network, f"{means}: has none", "can reach the network and this machine's servers"),
        ("processes", bool(held["processes"]), "a limit on how many it has", "can start any number"),
        ("memory", bool(held["memory"]), "a limit for each process", "no limit"),
        ("disk", disk, "a limit on each file and on all", "a limit on each file, but not on all" if held["file"] else "no limit"),
        ("user", alone, _user(backend, held["uid"]), "is your user, and can see and end your other programs"),
        ("time", True, "a limit on seconds and on output", ""),
        ("end", ended, "nothing of it is left when it ends", "can end what watches it, and go on"),
    )
    return tuple(Protection(name, holds, how if holds else instead) for name, holds, how, instead in found)


def _user(backend: Backend, uid: int) -> str:
    return "each has a user of its own, who is nobody else" if backend.own_user else f"your user ({uid}), alone and without rights"
