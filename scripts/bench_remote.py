"""What a slow network costs: RSD with its target on a llama-server behind a link of 20, 80 and 200 ms, and what others would pay there.

    python scripts/bench_remote.py [--questions 10] [--rounds 3] [--delays 20,80,200] [--json FILE] [--plot docs/remote.png]
    python scripts/bench_remote.py --draft FILE --target FILE   # models of your own; the built-in abacus otherwise

A real llama-server (the package xllamacpp) has the target; a proxy on this machine holds each byte for half a round trip in each
direction. The draft and the reward run here. Token-level speculation over a link does not exist in this package: what it would pay is
the batches of the target in a run with both models here, a round trip each. Seconds are medians of the rounds, whose order changes;
counted are round trips that somebody waits for, which do not depend on how busy the machine is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remote_report import draw, summary, tables
from slow_link import SlowLink

from rsd_local import Limits, Params, Prompt, Reasoner, RemoteRole, RoleConfig, Search, StepDone, Trio, Weighting
from rsd_local.abacus import task
from rsd_local.catalogue import find_trio
from rsd_local.config import Sampling, Thinking
from rsd_local.remote import Call, Ended, RemoteEngine, Wanted
from rsd_local.remote.place import Place

Row = dict[str, Any]
GUESSES = (4, 16)  # tokens that a draft proposes at a time
CONTEXT = 1024
_LEVEL = 5  # of abacus' questions: as many operations
_HOST = Path(__file__).parent / "speed" / "host.py"
_ASKED = (
    "What is 17 + 25?",
    "Name three colours and say where they are found.",
    "Why is the sky blue?",
    "A train goes 60 km in one hour. How far does it go in three hours?",
    "Write a short letter to a friend about the sea.",
    "How is bread made?",
    "What is the capital of France, and what is it known for?",
    "Explain in two paragraphs what a computer is.",
    "Tom has 12 apples and gives 5 away. How many are left?",
    "List the days of the week.",
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured.

    Attributes:
        trio: with both models here.
        params: of every answer.
        questions: that are asked.
    """

    trio: Trio
    params: Params
    questions: tuple[str, ...]

    @classmethod
    def of(cls, draft: Path | None, target: Path | None, count: int, tokens: int, accepted: float) -> Setup:
        """Abacus, or two models of one's own, whose steps a constant share accepts in a reward's place."""
        limits = Limits(tokens=tokens, step_tokens=32, repeats=0)
        if draft is None or target is None:
            trio = find_trio("abacus").with_models(lambda role: replace(role, threads=1))
            asked = task.questions(20, level=_LEVEL)
            return cls(replace(trio, reuse=False), replace(trio.params(), limits=limits), tuple(next(asked).text for _ in range(count)))
        drafts, writes = (RoleConfig(one, ctx_size=CONTEXT, threads=1) for one in (draft, target))
        trio = Trio(drafts, writes, reward_kind="confidence", system="", reuse=False)
        weighting = Weighting("constant", probability=accepted)
        return cls(trio, Params(limits=limits, weighting=weighting), tuple(_ASKED[place % len(_ASKED)] for place in range(count)))

    @property
    def target(self) -> Path:
        """The target's file."""
        assert isinstance(self.trio.target, RoleConfig)
        return self.trio.target.path


class Watched:
    """A role's server, with a count of what is asked of it, by thread: ahead, for a step that the target writes, or before the first.

    Attributes:
        ahead, steps, opening: how many requests.
        seconds: that those before the first step took.
    """

    def __init__(self, engine: RemoteEngine) -> None:
        self._server, self.url = engine.server, engine.server.url
        self.clear()
        engine.server = self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def counted(*values: Any, **named: Any) -> Any:
            thread, began = threading.current_thread().name, time.perf_counter()
            made = getattr(self._server, name)(*values, **named)
            if thread == "rsd-remote-ahead":
                self.ahead += 1
            elif thread == "rsd-remote":
                self.steps += 1
            else:
                self.opening += 1
                self.seconds += time.perf_counter() - began
            return made

        return counted

    def clear(self) -> None:
        """Count anew."""
        self.ahead = self.steps = self.opening = 0
        self.seconds = 0.0


@contextmanager
def late_prefetches() -> Iterator[list[float]]:
    """The seconds for which steps of the target had to wait until what was sent ahead was out."""
    found, plain = list[float](), Place.settle

    def timed(self: Place) -> None:
        began = time.perf_counter()
        plain(self)
        found.append(time.perf_counter() - began)

    Place.settle = timed  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Place.settle = plain  # type: ignore[method-assign]


@contextmanager
def llama_server(model: Path) -> Iterator[int]:
    """A llama-server with a model, and the port that it listens at."""
    settings = {
        "model": str(model), "context": CONTEXT, "slots": 2, "threads": 1, "as_in_file": False, "gpu_layers": "0", "embeddings": False,
    }  # fmt: skip
    command = [sys.executable, str(_HOST), json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(b'{"address"'):
                    yield int(str(json.loads(line)["address"]).rpartition(":")[2])
                    return
            raise SystemExit("the llama-server ended before it listened; is the package xllamacpp there?")
        finally:
            process.kill()


def rsd(reasoner: Reasoner, watched: Watched, setup: Setup, question: str) -> Row:
    """One answer by RSD, and what it asked the server."""
    watched.clear()
    with late_prefetches() as late:
        began = accepted = time.perf_counter()
        with reasoner.run(question, setup.params, text=False) as run:
            for event in run:
                accepted = time.perf_counter() if isinstance(event, StepDone) else accepted
            answer = run.result()
        ended = time.perf_counter()
    made = answer.counters["target"]
    return {
        "seconds": ended - began,
        "opening_seconds": watched.seconds,
        "ending": ended - accepted,
        "tokens": sum(step.tokens for step in answer.steps),
        "steps": len(answer.steps),
        "target_steps": sum(step.author == "target" for step in answer.steps),
        "requests": made.rounds,
        "waits": watched.steps,
        "ahead": watched.ahead,
        "opening": watched.opening,
        "waiting": made.waiting_seconds,
        "late": sum(late),
        "sent": made.sent_bytes,
        "received": made.received_bytes,
    }


def one_stream(engine: RemoteEngine, setup: Setup, question: str) -> tuple[str, Row]:
    """The target's own answer from one request, as any client of the server has it; its text, and what that took."""
    began = time.perf_counter()
    prompt = engine.prompt_tokens(Prompt.of(question, setup.trio.system), Thinking())
    slot = engine.take_slot()
    try:
        events = list(engine.server.write(Wanted(prompt, setup.params.limits.tokens, (), Sampling(), 0, slot), Call()))
    finally:
        engine.give_slot(slot)
    seconds = time.perf_counter() - began
    text = "".join(event.text for event in events if not isinstance(event, Ended))
    return text, {"seconds": seconds, "tokens": sum(event.timing.written for event in events if isinstance(event, Ended)), "waits": 1}


def here(reasoner: Reasoner, setup: Setup, question: str, through_server: str) -> list[Row]:
    """With both models here: token-level speculation by its counters, and where the target's text leaves that of the server."""
    rows = list[Row]()
    for guesses in GUESSES:
        answer = reasoner.solve(question, replace(setup.params, search=Search(speculate=guesses)), strategy="speculative")
        written = sum(step.tokens for step in answer.steps)
        rows.append({"way": "speculation", "guesses": guesses, "tokens": written, "waits": answer.counters["target"].decode_calls})
    own = reasoner.solve(question, setup.params, strategy="target").text
    tokenize = reasoner.trio.here("target").model.tokenize
    ours, theirs = tokenize(own), tokenize(through_server)
    shorter = min(len(ours), len(theirs))
    differs = next((place for place in range(shorter) if ours[place] != theirs[place]), None if own == through_server else shorter)
    return [*rows, {"way": "difference", "tokens": len(ours), "first": differs}]


def measure(setup: Setup, delays: list[float], rounds: int) -> list[Row]:
    """All rows: of each question here, and of each question, delay and round through the link."""
    rows, texts = list[Row](), dict[str, str]()
    with ExitStack() as opened:
        link = opened.enter_context(SlowLink(opened.enter_context(llama_server(setup.target))))
        reasoner = opened.enter_context(Reasoner.open(replace(setup.trio, target=RemoteRole(link.url, connect_timeout=60))))
        engine = reasoner.trio.target
        assert isinstance(engine, RemoteEngine)
        for question in setup.questions:
            texts[question], _ = one_stream(engine, setup, question)
        watched = Watched(engine)
        for number in range(rounds):
            for delay in sorted(delays, reverse=number % 2 == 1):
                link.delay = delay
                for place, question in enumerate(setup.questions):
                    made = {
                        "rsd": lambda asked=question: rsd(reasoner, watched, setup, asked),
                        "target": lambda asked=question: one_stream(engine, setup, asked)[1],
                    }
                    for way in sorted(made, reverse=(number + place) % 2 == 1):
                        before = link.connections
                        row = made[way]() | {"connections": link.connections - before}
                        rows.append({"way": way, "delay": delay, "round": number, "question": question} | row)
    with Reasoner.open(setup.trio) as reasoner:
        for question in setup.questions:
            rows += ({"question": question} | row for row in here(reasoner, setup, question, texts[question]))
    return rows


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", type=Path, help="model file; abacus where none is given")
    parser.add_argument("--target", type=Path, help="model file")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delays", default="20,80,200", help="milliseconds of a round trip")
    parser.add_argument("--tokens", type=int, default=256, help="most tokens of an answer")
    parser.add_argument("--accepted", type=float, default=0.7, help="share of the draft's steps, with models of your own")
    parser.add_argument("--json", type=Path, help="where all rows and the summary go")
    parser.add_argument("--plot", type=Path, help="a PNG file")
    given = parser.parse_args()
    if (given.draft is None) != (given.target is None):
        parser.error("give --draft and --target, or neither")
    delays = [float(one) / 1e3 for one in given.delays.split(",")]
    setup = Setup.of(given.draft, given.target, given.questions, given.tokens, given.accepted)
    rows = measure(setup, delays, given.rounds)
    found = summary(rows, delays)
    print(tables(found, delays))
    if given.json:
        given.json.write_text(json.dumps({"target": setup.target.name, "summary": found, "rows": rows}, indent=1) + "\n")
    if given.plot:
        draw(found, delays, given.plot)


if __name__ == "__main__":
    main()
