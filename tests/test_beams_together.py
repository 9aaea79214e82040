"""The beams of a search are written together: the same texts and choices from fewer batches."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from test_rsd import QUESTION, role
from tiny import write_model

from rsd_local.config import Limits, Params, Sampling, Search, Trio
from rsd_local.decoding.beam import beam
from rsd_local.decoding.candidates import Candidate, Place, candidates
from rsd_local.events import Result
from rsd_local.reasoner import Reasoner
from rsd_local.runtime.batch_loop import BatchLoop
from rsd_local.runtime.device import Device

BEAMS, BRANCHES, STEPS, TOKENS = 3, 2, 4, 6


LONGEST = list[int]()
"""Tokens of the longest step of each round of tries."""


@contextmanager
def noted(places: list[Place], sampling: Sampling) -> Iterator[list[list[Candidate]]]:
    """As ``candidates``, which notes how long the longest step was."""
    with candidates(places, sampling) as tried:
        LONGEST.append(max(len(one.step.tokens) for branches in tried for one in branches))
        yield tried


@contextmanager
def one_place_at_a_time(places: list[Place], sampling: Sampling) -> Iterator[list[list[Candidate]]]:
    """As ``candidates``, with each beam's steps written and scored before the next one's are begun."""
    with ExitStack() as tried:
        yield [tried.enter_context(noted([place], sampling))[0] for place in places]


def decode_only_while_somebody_waits(patch: pytest.MonkeyPatch) -> None:
    """Hold every engine back until the search waits for a result, and then give it all requests that have come.

    Otherwise it depends on the machine whether an engine has begun with the first request of a round when the others come.
    """
    waited, result, chosen = threading.Event(), Future.result, Device._next

    def waits(future: Future[Any], timeout: float | None = None) -> Any:
        waited.set()
        try:
            return result(future, timeout)
        finally:
            waited.clear()

    def after_all_have_asked(device: Device) -> BatchLoop | None:
        if any(loop.active for loop in device._loops):
            assert waited.wait(60), "nobody waits for what was asked"
            while device._commands:
                device._commands.popleft()()
        return chosen(device)

    patch.setattr(Future, "result", waits)
    patch.setattr(Device, "_next", after_all_have_asked)


@pytest.fixture(scope="module", params=["dense", "recurrent"])
def reasoner(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Reasoner]:
    folder = tmp_path_factory.mktemp("beams")
    roles = [role(write_model(folder / f"{seed}.gguf", request.param, seed)) for seed in range(3)]
    with Reasoner.open(Trio(*roles, width=BEAMS * (BRANCHES + 1), reuse=False, delimiter=f"tokens:{TOKENS}")) as opened:
        yield opened


def searched(reasoner: Reasoner, seed: int, way: object) -> tuple[Result, dict[str, int], list[int]]:
    """A search's result, the batches of draft and reward that it took, and the longest step of each round of tries.

    Args:
        reasoner: of the trio.
        seed: of the draws.
        way: how steps are tried, in the place of ``candidates``.
    """
    limits = Limits(tokens=200, steps=STEPS, step_tokens=TOKENS, repeats=0)
    params = Params(Sampling(temperature=1.0, seed=seed), limits=limits, search=Search(beams=BEAMS, branches=BRANCHES))
    batches = {"draft": 0, "reward": 0}
    LONGEST.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[beam.__module__], "candidates", way)
        for name in batches:
            engine = reasoner.engines()[name]  # type: ignore[index]

            def note(*_: object, name: str = name) -> None:
                batches[name] += 1

            patch.setattr(engine.latency, "note", note)
        return reasoner.solve(QUESTION, params, strategy="beam"), batches, list(LONGEST)


@pytest.mark.parametrize("seed", range(3))
def test_beams_that_are_written_together_are_those_that_are_written_one_after_another(
    reasoner: Reasoner, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_only_while_somebody_waits(monkeypatch)
    (together, few, longest), (apart, many, each) = (searched(reasoner, seed, way) for way in (noted, one_place_at_a_time))
    assert together.text == apart.text and len(together.text) > 10
    assert [step.reward for step in together.steps] == pytest.approx([step.reward for step in apart.steps], abs=2e-3)
    for name in ("draft", "reward"):
        ours, theirs = together.counters[name], apart.counters[name]  # type: ignore[index]
        assert (ours.evaluated_tokens, ours.generated_tokens) == (theirs.evaluated_tokens, theirs.generated_tokens)
    # After the prompt, a round takes the draft a batch for each token of its longest step, however many beams there are.
    assert few["draft"] == 1 + sum(longest) < many["draft"] == 1 + sum(each)
    # The reward reads all steps of a round in one batch, and each beam's in one of its own otherwise; what else it reads is the same.
    assert few["reward"] - len(longest) == many["reward"] - len(each) > 0 and few["reward"] < many["reward"]
