"""The folder of a bench: ``config.json``, ``runs.jsonl``, and ``results.jsonl`` with one line for each question and strategy."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from rsd_local.bench.machine import RUNS
from rsd_local.bench.running import RUNNING, Running
from rsd_local.bench.strategies import Plan
from rsd_local.config import ROLES, AnyRole, RemoteRole, RewardConfig, Trio
from rsd_local.errors import BadHead, ModelNotFound
from rsd_local.evaluation.items import Item
from rsd_local.evaluation.journal import Config, Journal
from rsd_local.events import Author
from rsd_local.gguf_header import part_names
from rsd_local.hashes import file_sha256, known_sha256

RESULTS = "results.jsonl"
_PACKAGES = ("rsd-local", "llama-cpp-python", "math-verify")


class _StepNumbers(TypedDict):
    """What every step has; tokens in its author's vocabulary."""

    author: Author
    reward: float | None
    tokens: int


class StepRow(_StepNumbers, total=False):
    """One step of a row.

    What stands beside its numbers is left out where texts are not kept, and each where there is none: ``text`` as written,
    ``rejected`` the draft's step that the target replaced, ``own_reward`` of the target's step, ``reward_by`` the reward that
    decided, ``retries`` of the target, ``part`` where it is no part of the answer.
    """

    text: str
    rejected: dict[str, Any]
    own_reward: float
    reward_by: str
    retries: int
    part: str


class _Required(TypedDict):
    """What every row has."""

    id: str
    strategy: str
    level: str | None
    subject: str | None
    question: str
    seed: int
    answer: str | None
    text: str | None
    expected: str
    correct: bool
    finish_reason: str | None
    error: str | None
    n_steps: int
    steps: list[StepRow]
    counters: dict[str, dict[str, float]]
    flops: dict[str, float]
    seconds: float
    config: str


class Row(_Required, total=False):
    """One question answered by one strategy.

    ``error`` is an error's code, and ``message`` its words, where the question could not be answered, then ``counters`` and
    ``flops`` are empty; or where its answer could not be graded. ``question`` and ``text`` (the solution) are texts, or the first 16
    hexadecimal digits of their SHA-256 where no texts are kept, as in folders of earlier versions: see ``same_text``. ``seconds``
    are of the wall, with the other questions in flight beside it; ``config`` is the configuration's hash. ``answer`` is the content
    of the box, or the code that was graded. ``checks`` has, where tests come in parts, for each part whether all of its tests
    passed. ``unchecked`` steps held nothing that a reward could check; ``decided_by`` counts draft steps by the reward that decided.
    """

    message: str
    checks: dict[str, bool]
    unchecked: int
    decided_by: dict[str, int]


def configuration(
    trio: Trio, dataset: str, limit: int | None, level: int | None, seed: int, items: Sequence[Item], plans: Sequence[Plan]
) -> Config:
    """All that a bench's figures depend on; models by their file's name, size and content, so that a folder may move.

    Raises:
        ModelNotFound: a model's file is not there.
    """
    config: Config = {
        "dataset": Path(dataset).name,
        "limit": limit,
        "level": level,
        "seed": seed,
        "questions": describe_questions(items),
        "strategies": {plan.label: dataclasses.asdict(plan.params) for plan in plans},
        "trio": describe_trio(trio),
        "versions": versions(),
    }
    return dict(json.loads(json.dumps(config)))  # as it will be read again: tuples are lists


def describe_questions(items: Sequence[Item]) -> dict[str, Any]:
    """How many questions there are, and a digest of them."""
    # Without tests an item is described as it was before there were any.
    text = json.dumps([dataclasses.astuple(item)[: None if item.tests else -1] for item in items])
    return {"number": len(items), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def describe_trio(trio: Trio) -> dict[str, Any]:
    """A trio's settings; models by their file's name, size and content, so that a folder may move.

    Raises:
        ModelNotFound, BadHead: a file is not there.
    """
    models = {role: _role(getattr(trio, role)) for role in ROLES if getattr(trio, role) is not None}
    made = {entry.name: getattr(trio, entry.name) for entry in dataclasses.fields(trio) if entry.name not in _NO_FIGURE}
    rewards = [_reward(stage) for stage in trio.rewards]
    files = {name: getattr(trio, name) and _file(getattr(trio, name)) for name in ("head", "tests", "schema")}
    if not any(isinstance(one, RemoteRole) for one in (trio.draft, trio.target)):
        del made["on_failure"]  # as in folders that were begun before there were servers
    return made | models | files | {"rewards": rewards, "verifier": _called(trio.verifier)}


_NO_FIGURE = ("queue", "run_code", "sandbox", "fit_check", "tuned")
"""Settings of a trio that change no figure: how long others wait, what programs may do, and what an earlier run saw."""


def _reward(stage: RewardConfig) -> dict[str, Any]:
    made = {entry.name: getattr(stage, entry.name) for entry in dataclasses.fields(stage)}
    files = {name: made[name] and _file(made[name]) for name in ("head", "tests", "schema")}
    return made | files | {"model": stage.model and _role(stage.model), "verifier": _called(stage.verifier)}


def _called(verifier: Any) -> str:
    """A verifier's name; of one from Python nothing else is known."""
    return verifier if isinstance(verifier, str) else f"{verifier.__module__}.{getattr(verifier, '__qualname__', type(verifier).__name__)}"


def versions() -> dict[str, str | None]:
    """Of the packages that figures depend on."""
    return {name: _version(name) for name in _PACKAGES}


class Results(Journal[Row]):
    """The lines of a bench's folder."""

    file_name, keys, grows, beside = RESULTS, _Required.__annotations__, "strategies", (RUNS, RUNNING)

    def __init__(self, file: BinaryIO, config: Config, rows: list[Row]) -> None:
        super().__init__(file, config, rows)
        self._done = {(row["id"], row["strategy"]) for row in rows}
        self.running = Running(Path(file.name).parent)

    def has(self, item: str, strategy: str) -> bool:
        """Whether there is a line for an item's id and a strategy's label."""
        return (item, strategy) in self._done

    def append(self, row: Row) -> None:
        """Writes a line, and waits until it is on the disk."""
        super().append(row)
        self._done.add((row["id"], row["strategy"]))


def digest(text: str) -> str:
    """16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def same_text(one: Row, other: Row) -> bool:
    """Whether two rows have the same solution, where either may have its digest alone."""
    first, second = one["text"], other["text"]
    if first is None or second is None:
        return first is second
    return first == second or digest(first) == second or first == digest(second)


def _role(role: AnyRole) -> dict[str, Any]:
    """A model: its name, and the size and SHA-256 of its file; of several parts the sum, and the SHA-256 of theirs in order.

    A large file is read once: its digest is remembered for as long as its size, inode and times stay.
    """
    if isinstance(role, RemoteRole):  # what its file is, nobody here can say; how it is reached changes no answer
        return {"url": role.url, "model": role.model}
    files = [role.path.with_name(name) for name in part_names(role.path.name)]
    try:
        size, digests = sum(file.stat().st_size for file in files), [known_sha256(file) for file in files]
    except OSError as error:
        raise ModelNotFound(f"{error.filename or role.path}: no such file") from None
    settings = dataclasses.asdict(role)
    del settings["path"], settings["trusted"], settings["lora"], settings["lora_scale"]
    if role.lora is not None:  # without one, as in folders that were begun before there were adapters
        settings |= {"lora": _adapter(role.lora), "lora_scale": role.lora_scale}
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return {"file": role.path.name, "bytes": size, "sha256": whole} | settings


def _adapter(path: Path) -> dict[str, str]:
    try:
        return {"file": path.name, "sha256": known_sha256(path)}
    except OSError:
        raise ModelNotFound(f"{path}: no such file", hint="check the path") from None


def _file(path: Path) -> dict[str, str]:
    try:
        return {"file": path.name, "sha256": file_sha256(path)}
    except OSError:
        raise BadHead(f"{path}: no such file") from None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
