"""One turn of one competitor, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

SCRIPT = Path(__file__).resolve().parent.parent / "bench_speed.py"
QUESTION = "Write down, one after another, the numbers from one to one hundred in words."
Layout = Literal["default", "file"]
Result = dict[str, Any]


class TurnFailed(Exception):
    """A competitor's process ended with an error; the message has its last lines."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a competitor is to do.

    Attributes:
        what: one of ``TURNS`` in ``speed.competitors``.
        target, draft: model files.
        reward: ``none``, ``ahead`` (the target reads each drafted step) or a model file that reads each step.
        tokens: of each answer.
        step: tokens of a step.
        accepted: the share of drafted steps that is accepted.
        streams: answers at once.
        threads: CPU threads of each model.
        context: tokens of one answer with its prompt.
        layout: of the weights in memory: the competitor's default, or as they are in the file.
        gpu_layers: of the target; ``auto``, or a number.
        server: the llama-server program; empty for the one inside xllamacpp.
    """

    what: str
    target: str
    draft: str = ""
    reward: str = "none"
    tokens: int = 128
    step: int = 12
    accepted: float = 0.8
    streams: int = 1
    threads: int = 1
    context: int = 1024
    layout: Layout = "default"
    gpu_layers: str = "auto"
    server: str = ""


def play(turn: Turn) -> Result:
    """Start a process for a turn, and return what it found.

    Raises:
        TurnFailed: it ended with an error.
    """
    done = subprocess.run([sys.executable, str(SCRIPT), "--turn", json.dumps(asdict(turn))], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise TurnFailed(f"{turn.what} with {Path(turn.target).name} ended with {done.returncode}:\n{last}")
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def question(stream: int) -> str:
    """What the answer of a stream is to; the streams' questions end differently."""
    return f"{QUESTION} Begin with number {stream + 1}."


def rejects(step: int, accepted: float) -> bool:
    """Whether the schedule rejects the draft's step of an index, from 0: as evenly as the share allows, every fifth step for 0.8."""
    return int((step + 1) * (1 - accepted) + 1e-9) > int(step * (1 - accepted) + 1e-9)
