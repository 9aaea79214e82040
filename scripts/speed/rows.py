"""The rows of the bench: who competes, and what is told of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from speed.rounds import Case, Figure, times_as_fast
from speed.server import there
from speed.shapes import write_shape
from speed.turn import Turn

OURS, SERVER = "rsd_local", "llama-server"
ALONE = "target alone"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each row does.

    Attributes:
        engine: tokens of a turn of the row engine.
        stream: tokens of an answer of the target alone.
        answer: tokens of an answer of RSD: a multiple of ten steps, so that each tenth of them is a whole number.
        step: tokens of a step.
    """

    engine: int
    stream: int
    answer: int
    step: int


FULL, QUICK = Sizes(64, 128, 120, 12), Sizes(8, 8, 40, 4)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was asked for.

    Attributes:
        draft, target: the pair; the target is also what streams, what scores steps, and the draft of the row shapes.
        engine: further models of the row engine.
        shapes: names in ``speed.shapes.SHAPES``.
        drafts: one of them that drafts and scores in the row shapes; empty for the target.
        work: the folder for their files.
        accepted: shares of accepted steps of the row shapes.
        threads: of each model.
        repacks: whether rsd_local lets llama.cpp lay weights out anew here.
        gpu_layers: of the targets.
        server: the llama-server program.
        sizes: of the rows.
    """

    draft: Path
    target: Path
    engine: tuple[Path, ...]
    shapes: tuple[str, ...]
    drafts: str
    work: Path
    accepted: tuple[float, ...]
    threads: int
    repacks: bool
    gpu_layers: str
    server: str
    sizes: Sizes

    @property
    def rivals(self) -> bool:
        """Whether there is a llama-server."""
        return there(self.server)

    def turn(self, what: str, target: Path, **settings: object) -> Turn:
        """A turn with the threads and the server that were asked for."""
        made = Turn(what, str(target), threads=self.threads, gpu_layers=self.gpu_layers, server=self.server, step=self.sizes.step)
        return replace(made, **settings)  # type: ignore[arg-type]

    def pair(self, what: str, **settings: object) -> Turn:
        """A turn of draft and target, with the target's file as a reward model in the shape of a process reward model."""
        usual: dict[str, object] = {"draft": str(self.draft), "reward": str(self.target), "tokens": self.sizes.answer}
        return self.turn(what, self.target, **(usual | settings))


def engine(chosen: Chosen) -> Iterator[Case]:
    """The engine with a trio open, of a bare loop."""
    for model in dict.fromkeys((*chosen.engine, chosen.draft, chosen.target)):
        beside = chosen.draft if model != chosen.draft else chosen.target
        ours = chosen.turn("open trio", model, draft=str(beside), tokens=chosen.sizes.engine)
        turns = {"bare loop": replace(ours, what="bare"), OURS: ours}
        yield Case("engine", model.stem, turns, (times_as_fast(OURS, "bare loop", 0.97),))


def _streams(chosen: Chosen, row: str, streams: int, bar: float) -> Iterator[Case]:
    if not chosen.rivals:
        return
    turns, figures = dict[str, Turn](), []
    for layout, label in (("default", "default layout"), ("file", "layout of the file")):
        ours, theirs = f"{OURS}, {label}", f"{SERVER}, {label}"
        turns[ours] = chosen.turn("target", chosen.target, tokens=chosen.sizes.stream, streams=streams, layout=layout)
        turns[theirs] = replace(turns[ours], what="server")
        figures.append(times_as_fast(ours, theirs, bar))
    yield Case(row, chosen.target.stem, turns, tuple(figures))


def reprompt(chosen: Chosen) -> Iterator[Case]:
    """RSD of RSD by re-prompting over llama-server."""
    if not chosen.rivals:
        return
    ours = chosen.pair("rsd", layout="default" if chosen.repacks else "file")
    rivals = ("re-prompting, embeddings", "re-prompting, completion")
    turns = {OURS: ours} | {name: replace(ours, what=name) for name in rivals}
    yield Case("reprompt", f"{chosen.draft.stem}, {chosen.target.stem}", turns, tuple(times_as_fast(OURS, name, 1.5) for name in rivals))


def shapes(chosen: Chosen) -> Iterator[Case]:
    """RSD with a target of random weights, of that target alone."""
    small = write_shape(chosen.work, chosen.drafts, chosen.target) if chosen.drafts else chosen.target
    for name in chosen.shapes:
        large = write_shape(chosen.work, name, chosen.target)
        alone = chosen.turn("target", large, tokens=chosen.sizes.answer)
        turns, figures = {ALONE: alone}, list[Figure]()
        if chosen.rivals:
            turns |= {f"{ALONE}, {SERVER}": replace(alone, what="server")}
            figures.append(times_as_fast(ALONE, f"{ALONE}, {SERVER}"))
        rewards = {"no reward": "none", "reward of the draft's size": str(small), "reading ahead": "ahead"}
        few = name == "14b"  # only the target, and RSD at 0.8 with a reward that costs nothing
        for share in (0.8,) if few else chosen.accepted:
            for reward, given in list(rewards.items())[: 1 if few else None]:
                label = f"RSD at {share}, {reward}"
                turns[label] = replace(alone, what="rsd", draft=str(small), reward=given, accepted=share)
                figures += [times_as_fast(label, ALONE), *_closed(label)]
        yield Case("shapes", name, turns, tuple(figures), most=3 if few else 0)


def _closed(label: str) -> tuple[Figure, Figure]:
    """The closed form of the run's own rates, and how much of it is there."""
    seen = times_as_fast(label, ALONE).value
    return (
        Figure(f"{label}: the closed form", lambda results: float(results[label]["said"])),
        Figure(f"{label}: seen of the closed form", lambda results: seen(results) / float(results[label]["said"]), 0.9),
    )


def step40(chosen: Chosen) -> Iterator[Case]:
    """What the 40th step costs of what the 5th does."""
    turn = chosen.pair("long", tokens=45 * chosen.sizes.step)
    value = Figure("steps 40 to 44, of steps 5 to 9", lambda results: float(results[OURS]["late_of_early"]), 1.1, at_most=True)
    yield Case("step40", f"{chosen.draft.stem}, {chosen.target.stem}", {OURS: turn}, (value,))


def memory(chosen: Chosen) -> Iterator[Case]:
    """What the process takes beyond weights, caches and compute buffers; only Linux tells."""
    if sys.platform != "linux":
        return
    turn = chosen.pair("memory", tokens=2 * chosen.sizes.step)
    beyond = Figure("beyond", lambda results: float(results[OURS]["beyond"]) / 1e6, 150, at_most=True, unit=" MB")
    yield Case("memory", f"{chosen.draft.stem}, {chosen.target.stem}", {OURS: turn}, (beyond,))


ROWS: dict[str, Callable[[Chosen], Iterator[Case]]] = {
    "engine": engine,
    "stream": partial(_streams, row="stream", streams=1, bar=1.0),
    "eight": partial(_streams, row="eight", streams=8, bar=1.3),
    "reprompt": reprompt,
    "shapes": shapes,
    "step40": step40,
    "memory": memory,
}
"""By name, in the order in which they run."""
NEED_SERVER = ("stream", "eight", "reprompt")
