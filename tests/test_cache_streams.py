"""One cache for all sequences only where they can begin with the same tokens: equal outputs both ways, in the memory that is planned."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_engine import draws, held, prompts
from tiny import KINDS

from rsd_local.capacities import capacities
from rsd_local.catalogue import find_trio
from rsd_local.config import RoleConfig
from rsd_local.fit import RoleCapacity
from rsd_local.fit.memory import Footprint
from rsd_local.gguf_header import read_header
from rsd_local.reasoner import Reasoner
from rsd_local.runtime import Engine, Model


def worked(engine: Engine) -> tuple[list[list[int]], list[np.ndarray], list[int]]:
    """What four sequences write and read beside one another, with long and short rows in a batch, forks and steps taken back."""
    opened = [engine.sequence(prompt) for prompt in prompts(3)]
    with held(engine):
        begun = [sequence.generate(draws(), 8) for sequence in opened]
    written = [one.future.result().tokens for one in begun]
    opened.append(opened[1].fork())
    opened[0].truncate(len(opened[0]) - 5)
    opened[2].append(list(range(30, 70)))
    with held(engine):
        begun = [sequence.generate(draws(), 6) for sequence in opened[:3]]
        read = opened[3].read_at([len(opened[3]) - 2, len(opened[3]) - 1], hidden=False, take=np.copy)
    written += [one.future.result().tokens for one in begun]
    logits = [*read.future.result(), *(sequence.read_logits().result() for sequence in opened)]
    ends = [engine.positions(sequence)[1] for sequence in opened]
    for sequence in opened:
        sequence.close()
    return written, logits, ends


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_write_and_read_the_same_in_one_cache_and_in_caches_of_their_own(tiny: dict[str, Path], kind: str) -> None:
    config = RoleConfig(tiny[kind], ctx_size=256, cache_type="f32", flash_attention="off", threads=1)
    model, made = Model(config), []
    for shares in (True, False):
        engine = Engine(model, config, 4, "test", reuse=False, shares_prefixes=shares)
        assert engine.shares_cells == (shares and kind != "sliding")
        made.append(worked(engine))
        engine.close()
    model.close()
    (written, logits, ends), (others, other_logits, other_ends) = made
    assert written == others and ends == other_ends
    for one, other in zip(logits, other_logits, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("fused", ["on", "off"])
@pytest.mark.parametrize("kind", ["dense", "sliding"])
def test_cache_and_batches_have_the_size_that_is_planned(
    tiny: dict[str, Path], caplog: pytest.LogCaptureFixture, kind: str, fused: str, shares: bool
) -> None:
    config = RoleConfig(tiny[kind], ctx_size=4096, cache_type="f16", flash_attention=fused, threads=1)  # type: ignore[arg-type]
    model = Model(config)
    with caplog.at_level(logging.INFO, "rsd_local.llama"):
        Engine(model, config, 4, "test", shares_prefixes=shares).close()
    model.close()
    planned = Footprint.of(read_header(tiny[kind]), RoleCapacity(config, 4, shares_prefixes=shares), on_gpu=False)
    cache = sum(float(size) * 2**20 for size in re.findall(r"CPU KV buffer size = +([0-9.]+) MiB", caplog.text))
    assert planned.cache == pytest.approx(cache, abs=6_000)
    batch = max(float(size) * 2**20 for size in re.findall(r"CPU compute buffer size = +([0-9.]+) MiB", caplog.text))
    assert batch - 2**20 <= planned.compute - 2**23 <= batch * (1.5 if fused == "off" else 12)


def test_states_of_whole_texts_take_the_memory_that_is_planned(smollm2: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both the buffer that logits are computed in and the one that they are read from have 128 rows and one for each slot."""
    config = RoleConfig(smollm2, ctx_size=512, threads=1)
    model, said = Model(config), []
    for states in (False, True):
        caplog.clear()
        with caplog.at_level(logging.INFO, "rsd_local.llama"):
            Engine(model, config, 2, "test", reads_states=states).close()
        said.append(max(float(size) * 2**20 for size in re.findall(r"CPU compute buffer size = +([0-9.]+) MiB", caplog.text)))
    plans = [Footprint.of(model.header, RoleCapacity(config, 2, reads_states=states), on_gpu=False).compute for states in (False, True)]
    vocabulary = model.n_vocab
    model.close()
    assert plans[1] == 2 * 4 * 130 * vocabulary + 2**23
    for plan, size in zip(plans, said, strict=True):
        assert size <= plan


@pytest.mark.parametrize(
    ("parallel", "width", "reuse", "draft", "target"),
    [
        (1, 1, True, False, False),
        (1, 1, False, False, False),
        (4, 1, False, False, False),
        (4, 1, True, True, True),
        (1, 5, False, True, False),
        (3, 5, False, True, False),
        (3, 5, True, True, True),
    ],
)
def test_one_cache_is_for_sequences_that_can_begin_alike(parallel: int, width: int, reuse: bool, draft: bool, target: bool) -> None:
    """A question's own sequences do, and those of several questions where a prompt goes on from what another one left behind."""
    trio = replace(find_trio("abacus"), parallel=parallel, width=width, reuse=reuse)
    found = {name: capacity.shares_prefixes for name, capacity in capacities(trio, (None,)).items()}
    assert found == {"draft": draft, "reward": draft, "target": target}
    with Reasoner.open(trio) as reasoner:
        assert {name: engine.shares_cells for name, engine in reasoner.engines().items()} == found
