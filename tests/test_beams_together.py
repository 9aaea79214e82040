"""The beams of a search are written together: the same texts and choices from fewer batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from test_rsd import QUESTION, role
from tiny import write_model

from rsd_local.config import Limits, Params, Sampling, Search, Trio
from rsd_local.decoding.beam import beam
from rsd_local.decoding.candidates import Candidate, Place, candidates
from rsd_local.events import Result
from rsd_local.reasoner import Reasoner

BEAMS, BRANCHES, STEPS, TOKENS = 3, 2, 4, 6


@contextmanager
def one_place_at_a_time(places: list[Place], sampling: Sampling) -> Iterator[list[list[Candidate]]]:
    """As ``candidates``, with each beam's steps written and scored before the next one's are begun."""
    with ExitStack() as tried:
        yield [tried.enter_context(candidates([place], sampling))[0] for place in places]


@pytest.fixture(scope="module", params=["dense", "recurrent"])
def reasoner(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Reasoner]:
    folder = tmp_path_factory.mktemp("beams")
    roles = [role(write_model(folder / f"{seed}.gguf", request.param, seed)) for seed in range(3)]
    with Reasoner.open(Trio(*roles, width=BEAMS * (BRANCHES + 1), reuse=False, delimiter=f"tokens:{TOKENS}")) as opened:
        yield opened


def searched(reasoner: Reasoner, seed: int) -> tuple[Result, dict[str, int]]:
    """A search's result, and the batches of draft and reward that it took."""
    limits = Limits(tokens=200, steps=STEPS, step_tokens=TOKENS, repeats=0)
    params = Params(Sampling(temperature=1.0, seed=seed), limits=limits, search=Search(beams=BEAMS, branches=BRANCHES))
    batches = {"draft": 0, "reward": 0}
    with pytest.MonkeyPatch.context() as patch:
        for name in batches:
            engine = reasoner.engines()[name]  # type: ignore[index]

            def note(*_: object, name: str = name) -> None:
                batches[name] += 1

            patch.setattr(engine.latency, "note", note)
        return reasoner.solve(QUESTION, params, strategy="beam"), batches


@pytest.mark.parametrize("seed", range(3))
def test_beams_that_are_written_together_are_those_that_are_written_one_after_another(
    reasoner: Reasoner, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, few = searched(reasoner, seed)
    monkeypatch.setattr(sys.modules[beam.__module__], "candidates", one_place_at_a_time)
    apart, many = searched(reasoner, seed)
    assert together.text == apart.text and len(together.text) > 10
    assert [step.reward for step in together.steps] == pytest.approx([step.reward for step in apart.steps], abs=2e-3)
    for name in ("draft", "reward"):
        ours, theirs = together.counters[name], apart.counters[name]  # type: ignore[index]
        assert (ours.evaluated_tokens, ours.generated_tokens) == (theirs.evaluated_tokens, theirs.generated_tokens)
    # After the prompt, a round takes the draft a batch for each token of its longest step, however many beams there are: 29 in place of
    # 71. On a busy machine the first requests of a round are under way when the others come, which costs some more.
    assert few["draft"] < 0.75 * many["draft"] and few["reward"] < many["reward"]
