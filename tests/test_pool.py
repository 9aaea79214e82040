"""Several engines on the weights of one role: who gets what, and that it is worth the same."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from test_engine import GREEDY, prompts, written

from rsd_local import Params, Reasoner, Weighting
from rsd_local.abacus.task import questions
from rsd_local.catalogue import find_trio
from rsd_local.config import Limits, RoleConfig, Sampling, Search, Strategy, sequences_needed
from rsd_local.errors import Closed, NoSlot
from rsd_local.fit import make_plan
from rsd_local.fit.memory import Footprint
from rsd_local.gguf_header import read_header
from rsd_local.reasoner import roles_of
from rsd_local.runtime import Engine, Holding, Model, Pool, Sequence
from rsd_local.runtime.devices import Device

PoolMaker = Callable[[int, int], Pool]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores and no GPU, whatever this machine has."""
    monkeypatch.setattr("rsd_local.runtime.pool.physical_cores", lambda: 4)
    monkeypatch.setattr("rsd_local.runtime.pool.supports_gpu", lambda: False)


@pytest.fixture
def open_pool(tiny: dict[str, Path], request: pytest.FixtureRequest) -> PoolMaker:
    """Opens a pool of so many engines with so many slots each, on one model."""

    def make(engines: int, slots: int) -> Pool:
        config = RoleConfig(tiny["dense"], ctx_size=256, cache_type="f32", flash_attention="off", threads=1)
        model = Model(config)
        request.addfinalizer(model.close)
        return Pool([Engine(model, config, slots, "test") for _ in range(engines)])

    return make


@pytest.mark.parametrize(
    ("threads", "asked", "parallel", "engines", "slots"),
    [
        (1, 1, 8, 1, 8),  # one, unless something else is said
        (1, 3, 8, 3, 3),
        (1, 3, 5, 2, 3),  # two questions each at least
        (0, 0, 8, 1, 8),  # 0: as many as the cores hold
        (4, 0, 8, 1, 8),
        (2, 0, 8, 2, 4),
        (3, 0, 64, 1, 64),
        (1, 0, 8, 4, 2),
        (1, 0, 64, 4, 16),
        (1, 0, 3, 1, 3),
    ],
)
def test_how_many_engines_a_role_has(
    tiny: dict[str, Path], cores: None, threads: int, asked: int, parallel: int, engines: int, slots: int
) -> None:
    config = RoleConfig(tiny["dense"], threads=threads, engines=asked)
    assert Holding.of(config, parallel) == Holding(config, slots, engines)
    assert Holding.of(config, parallel, 5) == Holding(config, slots * 5, engines)


def test_a_gpu_has_one_engine_for_all_questions(tiny: dict[str, Path], cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsd_local.runtime.pool.supports_gpu", lambda: True)
    config = RoleConfig(tiny["dense"], threads=1, engines=0)
    assert Holding.of(config, 8).engines == 1
    assert Holding.of(replace(config, gpu_layers=0), 8).engines == 4


def test_a_question_goes_where_the_fewest_are_and_its_forks_stay_with_it(open_pool: PoolMaker) -> None:
    pool = open_pool(2, 4)
    first, second, third, fourth = (pool.sequence() for _ in range(4))
    assert first.engine is third.engine is not second.engine is fourth.engine
    first.append([1, 2])
    forks = [first.fork(), first.fork()]
    assert {fork.engine for fork in forks} == {first.engine}
    second.close()
    assert pool.sequence().engine is fourth.engine  # forks do not count: their room was kept from the beginning
    with pytest.raises(NoSlot):
        first.fork()
    # A question lasts for as long as anything of it is open: a strategy may go on from a fork and drop what it came from.
    first.close()
    forks[0].close()
    grandchild = forks[1].fork()
    forks[1].close()
    assert [engine.questions for engine in pool.engines] == [2, 2]
    grandchild.close()
    assert [engine.questions for engine in pool.engines] == [1, 2]


def test_no_engine_ever_has_more_than_its_share(open_pool: PoolMaker) -> None:
    """Questions come and go in any order, at most five at once: with three slots each, neither engine runs out."""
    pool, draws = open_pool(2, 3), random.Random(1)
    opened = []
    for _ in range(400):
        if opened and (len(opened) == 5 or draws.random() < 0.5):
            opened.pop(draws.randrange(len(opened))).close()
        else:
            opened.append(pool.sequence())
        assert sum(engine.questions for engine in pool.engines) == len(opened)


def test_each_engine_of_a_pool_writes_what_one_alone_does(open_pool: PoolMaker) -> None:
    alone, pool = open_pool(1, 1), open_pool(3, 2)
    wanted = []
    for prompt in prompts(6):
        sequence = alone.sequence()
        wanted.append(written(sequence, prompt, 40, GREEDY))
        sequence.close()
    sequences = [pool.sequence() for _ in range(6)]
    assert Counter(sequence.engine for sequence in sequences) == dict.fromkeys(pool.engines, 2)
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda pair: written(pair[0], pair[1], 40), zip(sequences, prompts(6), strict=True))) == wanted


def test_two_questions_never_get_the_last_place_of_one_engine(open_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, opened = open_pool(4, 1), Engine.sequence

    def slow(engine: Engine, parent: Sequence | None = None) -> Sequence:
        time.sleep(0.05)  # between choosing the engine and taking its place
        return opened(engine, parent)

    monkeypatch.setattr(Engine, "sequence", slow)
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda _: pool.sequence().engine, range(4)))
    assert set(got) == set(pool.engines)


def test_an_engine_that_ended_gets_no_more_questions(open_pool: PoolMaker) -> None:
    pool = open_pool(2, 2)
    pool.engines[0].close()
    assert [pool.sequence().engine for _ in range(2)] == [pool.engines[1]] * 2
    pool.engines[1].close()
    with pytest.raises(Closed):
        pool.sequence()


def test_the_plan_counts_every_engine(cores: None) -> None:
    trio = replace(find_trio("abacus"), parallel=8)
    cpu = Device("CPU", "a CPU", "cpu", 1 << 34, 1 << 34)
    for one in make_plan(roles_of(trio, None), [cpu]).roles:
        header = read_header(one.config.path)
        each, whole = (Footprint.of(header, Holding(one.config, slots), on_gpu=False) for slots in (2, 8))
        assert one.footprint.caches == whole.caches and one.footprint.weights == whole.weights
        assert one.footprint.compute == 4 * each.compute > whole.compute


@pytest.mark.parametrize("strategy", ["best-of-n", "step-best-of-n", "beam", "majority"])
def test_searches_never_run_out_of_sequences(cores: None, strategy: Strategy) -> None:
    search = Search(samples=3, beams=2, branches=2)
    params = Params(Sampling(temperature=0.7), limits=Limits(tokens=100), search=search)
    asked = list(islice(questions(6), 24))
    with (
        Reasoner.open(replace(find_trio("abacus"), parallel=8, width=sequences_needed(strategy, search))) as reasoner,
        ThreadPoolExecutor(8) as threads,
    ):
        for result in threads.map(lambda one: reasoner.solve(one.text, params, strategy=strategy), asked):
            assert result.steps
        for pool in reasoner.engines().values():
            assert [engine.questions for engine in pool.engines] == [0] * 4
            assert all(len(engine._free) == engine.slots for engine in pool.engines)


def test_a_trio_of_several_engines_answers_as_one_does(cores: None) -> None:
    asked = list(islice(questions(5), 24))
    trio = find_trio("abacus")
    params = Params(weighting=Weighting(threshold=trio.threshold))
    answers: dict[int, list[str | None]] = {}
    for parallel in (1, 8):
        with Reasoner.open(replace(trio, parallel=parallel)) as reasoner, ThreadPoolExecutor(parallel) as threads:
            assert [len(pool.engines) for pool in reasoner.engines().values()] == [4 if parallel == 8 else 1] * 3
            answers[parallel] = list(threads.map(lambda one: reasoner.solve(one.text, params).answer, asked))
            assert not any(engine.questions for pool in reasoner.engines().values() for engine in pool.engines)
    assert sum(one == other for one, other in zip(*answers.values(), strict=True)) >= 23
