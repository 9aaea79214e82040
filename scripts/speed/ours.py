"""The competitors that are rsd_local, or a bare loop over the same library."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_engine import BareLoop, OpenTrio
from llama_cpp import llama_cpp as C

from rsd_local import Limits, Params, Prompt, Reasoner, RewardConfig, RoleConfig, Search, Trio, Weighting
from rsd_local.config import Strategy
from rsd_local.events import Result as Answer
from rsd_local.fit.measured import gain_of, measure
from rsd_local.gguf_header import read_header
from rsd_local.rewards.heads import ValueHead
from rsd_local.runtime import Model, llama
from rsd_local.steps import Step
from speed.turn import Result, Turn, question, rejects

_WARM = 8  # tokens that are not counted
_FROM = (5, 40)  # the steps that are compared, with the four behind each: of five steps as many are rejected wherever they begin


def bare(turn: Turn) -> Result:
    """llama_decode and argmax in a loop."""
    _prepare(turn)
    trio = OpenTrio(Path(turn.target), [], turn.threads)
    prompt = trio.prompt
    trio.close()  # its thread ends, and with it the OpenMP team
    return _rate(BareLoop(Path(turn.target), prompt, turn.threads).run, turn)


def open_trio(turn: Turn) -> Result:
    """The target's engine, with the draft's and a judge's open beside it, of which all have worked."""
    _prepare(turn)
    return _rate(OpenTrio(Path(turn.target), [Path(turn.draft)], turn.threads).run, turn)


def _rate(run: Callable[[int], float], turn: Turn) -> Result:
    run(min(_WARM, turn.tokens))
    return {"seconds": turn.tokens / run(turn.tokens), "tokens": turn.tokens, "build": build()}


def target(turn: Turn) -> Result:
    """The target alone; several answers at once where there are several streams."""
    _prepare(turn)
    with Reasoner.open(_trio(turn)) as reasoner:
        return _timed(reasoner, turn, "target")[0]


def rsd(turn: Turn) -> Result:
    """RSD with scripted decisions; then the models' own speeds, and what they say of the gain."""
    _prepare(turn)
    with Reasoner.open(_trio(turn)) as reasoner:
        found, answer = _timed(reasoner, turn, "rsd")
        rewards, steps = reasoner.trio.rewards, len(answer.steps)
        speeds = {role: measure(engine, turn.step) for role, engine in reasoner.engines().items()}
        gain = gain_of(speeds, rewards.costs(), ahead=rewards.ahead, length=turn.step)
    writes = answer.counters["target"].generated_tokens * speeds["target"].decode
    seconds = {role: made.seconds for role, made in answer.counters.items()}
    scored = sum(spent for role, spent in seconds.items() if role not in ("draft", "target"))
    parts = {"draft": seconds["draft"], "reward": scored, "prefill": max(0.0, seconds["target"] - writes), "decode": writes}
    parts["rest"] = max(0.0, found["seconds"] - sum(parts.values()))
    return found | {
        "said": gain(1 - sum(rejects(step, turn.accepted) for step in range(steps)) / steps),
        "share": answer.target_share,
        "parts": {name: spent / found["tokens"] for name, spent in parts.items()},
        "decode": {role: speed.decode for role, speed in speeds.items()},
        "read": {role: speed.read / turn.step for role, speed in speeds.items()},
    }


def long(turn: Turn) -> Result:
    """RSD over many steps: how much dearer the late ones are than the early ones."""
    _prepare(turn)
    with Reasoner.open(_trio(turn)) as reasoner:
        found, answer = _timed(reasoner, turn, "rsd")
    early, late = (sum(step.seconds for step in answer.steps[first : first + 5]) for first in _FROM)
    return found | {"late_of_early": late / early}


def memory(turn: Turn) -> Result:
    """Resident bytes besides mapped model files, and those of them that llama.cpp's own buffers take.

    llama.cpp says the sizes of its buffers while it makes them. The prompt is longer than a batch, so that nearly all pages of the
    compute buffers are in use.
    """
    sizes: dict[str, float] = {}
    log = logging.getLogger("rsd_local.llama")
    log.setLevel(logging.INFO)
    log.addHandler(_Buffers(sizes))
    _prepare(turn)
    with Reasoner.open(_trio(turn)) as reasoner:
        asked = question(0)
        while len(reasoner.trio.here("target").model.tokenize(asked)) < turn.context // 3:
            asked += " " + question(0)
        began = time.perf_counter()
        reasoner.solve(asked, _params(turn), strategy="rsd")
        taken, seconds = _resident(), time.perf_counter() - began
    inside = sum(size for kind, size in sizes.items() if "mapped" not in kind.lower())
    return {"seconds": seconds, "tokens": turn.tokens, "build": build(), "taken": taken, "buffers": sizes, "beyond": taken - inside}


class _Buffers(logging.Handler):
    """Notes the bytes of the buffers that llama.cpp speaks of, by kind."""

    def __init__(self, sizes: dict[str, float]) -> None:
        super().__init__()
        self._sizes = sizes

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one line."""
        for kind, size in re.findall(r": +(\S.*?) buffer size += +([0-9.]+) MiB", record.getMessage()):
            self._sizes[kind] = self._sizes.get(kind, 0.0) + float(size) * 2**20


def _resident() -> int:
    """Resident bytes of this process without those of mapped model files (Linux)."""
    taken, counts = 0, True
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        head = line.split(maxsplit=5)
        if re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", head[0]):
            counts = not (len(head) == 6 and head[5].endswith(".gguf"))
        elif head[0] == "Rss:" and counts:
            taken += int(head[1]) * 1024
    return taken


def _prepare(turn: Turn) -> None:
    """Let no token and no white space end or change an answer, so that all competitors do the same; lay the weights out as asked."""
    Model.is_end = lambda self, token: False  # type: ignore[method-assign]
    Step.blank = property(lambda self: False)  # type: ignore[assignment,method-assign]
    if turn.layout == "file":
        llama.repacks_safely = lambda: False


def build() -> str:
    """What the library of rsd_local was built with."""
    said = C.llama_print_system_info().decode("utf-8", "replace")
    return f"rsd_local: {said}"


def _trio(turn: Turn) -> Trio:
    """The models, with a reward that is asked and never decides, and the schedule behind it, which does."""

    def schedule(prompt: Prompt, steps: tuple[str, ...], step: str) -> float:
        return 0.0 if rejects(len(steps), turn.accepted) else 1.0

    def role(path: str) -> RoleConfig:
        return RoleConfig(Path(path), turn.context, threads=turn.threads, trusted=True)

    layers = turn.gpu_layers if turn.gpu_layers == "auto" else int(turn.gpu_layers)
    decides = RewardConfig("verifier", verifier=schedule)
    asked: tuple[RewardConfig, ...] = ()
    if turn.reward == "ahead":
        asked = (RewardConfig("likelihood", lower=0.0, upper=1.0),)
    elif turn.reward != "none":
        asked = (RewardConfig("value-head", model=role(turn.reward), head=_head(Path(turn.reward)), lower=0.0, upper=1.0),)
    return Trio(
        role(turn.draft or turn.target),
        replace(role(turn.target), gpu_layers=layers),  # type: ignore[arg-type]
        rewards=(*asked, decides),
        system="",
        delimiter=f"tokens:{turn.step}" if turn.draft else "paragraph",
        parallel=turn.streams,
        fit_check=False,
    )


def _head(model: Path) -> Path:
    """A head of small random weights for a model, so that it reads steps as a process reward model does."""
    header = read_header(model)
    width = header.metadata[f"{header.metadata['general.architecture']}.embedding_length"]
    assert isinstance(width, int)
    weights = (np.random.default_rng(0).standard_normal((1, width)) / width).astype(np.float32)
    path = Path(tempfile.mkdtemp()) / "head.safetensors"
    ValueHead("skywork", ((weights, np.zeros(1, np.float32)),)).save(path)
    return path


def _params(turn: Turn) -> Params:
    """Greedy, of a fixed length, without what could keep tokens of a rejected step."""
    limits = Limits(tokens=turn.tokens, steps=turn.tokens, step_tokens=turn.step if turn.draft else turn.tokens, repeats=0)
    return Params(limits=limits, search=Search(fallback="off"))


def _timed(reasoner: Reasoner, turn: Turn, strategy: Strategy) -> tuple[Result, Answer]:
    """Seconds by the clock of all streams' answers, the prompts being in the caches, and the first answer."""
    params = _params(turn)
    once = replace(params, weighting=Weighting("constant", probability=0.0), limits=replace(params.limits, tokens=min(turn.step, 2)))
    with ThreadPoolExecutor(turn.streams) as pool:

        def ask(which: Params) -> list[Answer]:
            return list(pool.map(lambda stream: reasoner.solve(question(stream), which, strategy=strategy), range(turn.streams)))

        ask(once)
        began = time.perf_counter()
        answers = ask(params)
        seconds = time.perf_counter() - began
    opening = [made for answer in answers for made in answer.counters.values()]
    return {
        "seconds": seconds,
        "tokens": sum(step.tokens for answer in answers for step in answer.steps),
        "prompt_evaluated": sum(made.opening_tokens - made.cached_tokens for made in opening),
        "build": build(),
    }, answers[0]
