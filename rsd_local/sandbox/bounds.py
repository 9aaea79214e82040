"""What a program may use, how it ended, and what of that holds on this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rsd_local.config import require

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Settings without which numpy starts a thread for each core, which the bounds on memory and processes have no room for."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one program may use.

    Attributes:
        seconds: of the wall, its start included; more ends it.
        memory: bytes of address space of one process.
        processes: of the program and its children at one time, threads included.
        file_bytes: of a file that it writes; all of its files together may take four times as much.
        output_bytes: of standard output, of standard error and of its own pipe each; more ends the program.
    """

    seconds: float = 10.0
    memory: int = 1 << 30
    processes: int = 32
    file_bytes: int = 16 << 20
    output_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        require(0 < self.seconds < math.inf, f"seconds {self.seconds} is not above 0")
        require(self.memory >= 32 << 20, f"memory {self.memory} is below 32 MiB, with which nothing starts")
        require(1 <= self.processes <= 4096, f"processes {self.processes} is outside 1 to 4096")
        require(self.file_bytes >= 0, f"file_bytes {self.file_bytes} is negative")
        require(self.output_bytes >= 0, f"output_bytes {self.output_bytes} is negative")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended, and what it wrote.

    Attributes:
        ended: ``exited`` by itself, or ended by the limit on ``time`` or on ``output``.
        exit_code: None where a limit ended it; −n where signal n did; 127 where it could not be started.
        stdout: at most ``Bounds.output_bytes``.
        stderr: likewise.
        said: what it wrote to its own pipe, likewise.
    """

    ended: Literal["exited", "time", "output"]
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    said: bytes


@dataclass(frozen=True, slots=True)
class Protection:
    """One thing that a program must not be able to do.

    Attributes:
        name: ``files``, ``network``, ``processes``, ``memory``, ``disk``, ``user``, ``time`` or ``end``.
        holds: whether it holds on this machine.
        how: one line for people: what holds it, or what is missing.
    """

    name: str
    holds: bool
    how: str
