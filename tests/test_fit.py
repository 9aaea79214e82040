"""Memory: what a plan says is what llama.cpp takes, and what does not fit is said before anything is loaded."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import EngineMaker
from test_cli import rsd

from rsd_local import Reasoner
from rsd_local.capacities import capacities
from rsd_local.catalogue import find_trio
from rsd_local.config import RoleConfig
from rsd_local.errors import ConfigError, DoesNotFit
from rsd_local.events import Role
from rsd_local.fit import RoleCapacity, make_plan
from rsd_local.fit.measured import Speed, gain_of
from rsd_local.fit.memory import Footprint
from rsd_local.fit.plan import gpu_bytes
from rsd_local.fit.speed import STEP, gain
from rsd_local.gguf_header import Value, read_header
from rsd_local.roles import StepCost
from rsd_local.runtime.devices import Device

SPARE = 512 << 20
CPU = Device("CPU", "a CPU", "cpu", 1 << 34, 1 << 34)


def gpu(free: int) -> Device:
    return Device("CUDA0", "a GPU", "gpu", free + SPARE, 1 << 40)


def roles(**changed: object) -> dict[Role, RoleCapacity]:
    trio = replace(find_trio("abacus"), **changed)  # type: ignore[arg-type]
    return capacities(trio, (None,) * len(trio.stages))


@pytest.mark.parametrize("kind", ["dense", "sliding"])
@pytest.mark.parametrize("cache_type", ["f32", "f16"])
def test_the_cache_has_the_size_that_llama_cpp_says(
    tiny: dict[str, Path], open_engine: EngineMaker, caplog: pytest.LogCaptureFixture, kind: str, cache_type: str
) -> None:
    config = RoleConfig(tiny[kind], ctx_size=8192, cache_type=cache_type)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "rsd_local.llama"):
        open_engine(tiny[kind], slots=4, ctx_size=8192, cache_type=cache_type)
    said = sum(float(size) for size in re.findall(r"CPU KV buffer size = +([0-9.]+) MiB", caplog.text))
    assert said > 3
    assert Footprint.of(read_header(tiny[kind]), RoleCapacity(config, 4), on_gpu=False).cache == pytest.approx(said * 2**20, abs=6_000)


def test_the_weights_are_those_of_the_file(smollm2: Path) -> None:
    header = read_header(smollm2)
    made = Footprint.of(header, RoleCapacity(RoleConfig(smollm2), 1), on_gpu=False)
    assert len(made.blocks) == 30 and made.tied
    assert made.weights == sum(tensor.size for tensor in header.tensors) + 49_152 * 180


@pytest.mark.parametrize("value", [1 << 62, -1, 0, float("nan"), "many", None, (), (1, -5), True])
@pytest.mark.parametrize(
    "key", ["block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "feed_forward_length", "context_length"]
)
def test_what_a_damaged_header_claims_costs_nothing(tiny: dict[str, Path], key: str, value: Value) -> None:
    header = read_header(tiny["dense"])
    damaged = replace(header, metadata=header.metadata | {f"llama.{key}": value})
    made = Footprint.of(damaged, RoleCapacity(RoleConfig(tiny["dense"]), 1), on_gpu=False)
    assert len(made.blocks) <= len(header.tensors) + 1 and min(*made.caches, made.compute, made.weights) >= 0


_RESIDENT = """
import psutil, sys
from pathlib import Path
from rsd_local.config import RoleConfig, Sampling
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws, Engine, Model
before = psutil.Process().memory_info().rss
config = RoleConfig(Path(sys.argv[1]), ctx_size=2048)
engine = Engine(Model(config), config, 2)
for sequence in [engine.sequence(), engine.sequence()]:
    sequence.append(list(range(100, 400)))
    sequence.generate(Draws(Sampling(), Stream(0, TARGET)), 4).future.result()
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere resident memory does not count mapped files alike")
def test_a_real_model_takes_what_was_said(smollm2: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _RESIDENT, str(smollm2)], capture_output=True, text=True, check=True)
    made = Footprint.of(read_header(smollm2), RoleCapacity(RoleConfig(smollm2, ctx_size=2048), 2), on_gpu=False)
    assert made.weights + made.cache + made.compute == pytest.approx(int(done.stdout), rel=0.1)


def test_the_draft_gets_the_gpu_first_then_the_reward_then_what_fits_of_the_target() -> None:
    whole = make_plan(roles(), [CPU, gpu(1 << 32)])
    assert [(one.role, one.offloaded, one.layers) for one in whole.roles] == [("draft", 4, 4), ("reward", 6, 6), ("target", 6, 6)]
    draft, reward, target = (one.footprint for one in whole.roles)
    room = whole.roles[0].on_gpu + whole.roles[1].on_gpu + gpu_bytes(target, 4, weights=True)
    part = make_plan(roles(), [CPU, gpu(room)])
    assert [one.offloaded for one in part.roles] == [4, 6, 4] and part.on_gpu == room == part.gpu_free and part.fits
    assert [one.offloaded for one in make_plan(roles(), [CPU, gpu(room - 1)]).roles] == [4, 6, 3]
    assert [one.offloaded for one in make_plan(roles(), [CPU, gpu(gpu_bytes(draft, 4, weights=True) - 1)]).roles][0] == 3
    assert part.roles[2].config.gpu_layers == 4
    # What is not on the GPU is in memory: the table, the first two of five layers and their caches.
    assert part.roles[2].on_cpu == target.table + sum(target.blocks[:2]) + sum(target.caches[:2])
    assert reward.weights > draft.weights


def test_what_was_asked_for_stays_and_without_a_gpu_nothing_goes_there() -> None:
    trio = find_trio("abacus")
    fixed = roles(target=replace(trio.target, gpu_layers=2), draft=replace(trio.draft, gpu_layers=-1))
    assert [one.offloaded for one in make_plan(fixed, [CPU, gpu(1 << 32)]).roles] == [4, 6, 2]
    assert [one.offloaded for one in make_plan(fixed, [CPU]).roles] == [0, 0, 0]
    with pytest.raises(ConfigError, match="gpu_layers 'most' is no number"):
        RoleConfig(trio.draft.path, gpu_layers="most")  # type: ignore[arg-type]


def test_a_judge_on_the_targets_weights_shares_their_place() -> None:
    shared = roles(reward=None, reward_kind="judge")
    plan = make_plan(shared, [CPU, gpu(1 << 32)])
    assert [(one.role, one.shares) for one in plan.roles] == [("draft", None), ("reward", None), ("target", "reward")]
    judge, target = plan.roles[1:]
    assert judge.config.placement == target.config.placement
    assert target.on_gpu == sum(target.footprint.caches) + target.footprint.compute
    tight = make_plan(shared, [CPU, gpu(plan.on_gpu - 1)])
    assert tight.roles[1].offloaded == tight.roles[2].offloaded == 5


def test_what_does_not_fit_is_said_before_anything_is_loaded() -> None:
    trio = find_trio("abacus")
    loaded: list[str] = []
    with pytest.raises(
        DoesNotFit, match=r"needs [0-9.]+ GB of memory and [0-9.]+ GB are free \(draft .*, reward .*, target .*\)"
    ) as caught:
        Reasoner.open(replace(trio, target=replace(trio.target, ctx_size=2_000_000_000)), lambda role, share: loaded.append(role))
    assert caught.value.hint.count(";") == 3 and "--ctx-size saves" in caught.value.hint and not loaded
    assert caught.value.hint.endswith("; --no-fit-check loads it anyway")
    done = rsd("solve", "1+1", "-c", "2000000000")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "rsd: the trio needs" in done.stderr
    done = rsd("fit", "-c", "2000000000")
    assert done.returncode == 1 and "does not fit: the trio needs" in done.stderr and "target" in done.stdout


def test_fit_prints_a_table_and_an_object() -> None:
    done = rsd("fit", "abacus", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] and found["needed"]["memory"] == sum(one["memory"] for one in found["roles"].values())
    assert rsd("fit", "abacus", "--trio", "abacus").returncode == 2


def test_the_gain_is_that_of_the_passes_over_the_weights() -> None:
    speeds: dict[Role, float] = {"draft": 100.0, "target": 10.0, "reward": 50.0}
    assert gain(speeds, 1.0) == pytest.approx(0.1 / (0.01 + 0.02 / STEP))
    assert gain(speeds, 0.0) < 1 < gain(speeds, 0.5) < gain(speeds, 0.9)


def test_a_gain_is_what_its_batches_cost() -> None:
    """In closed form: of steps of 30 tokens, the draft ten times as fast as the target, and reading a tenth of writing."""
    speeds = {"draft": Speed(0.01, 0.05, 0.001), "target": Speed(0.1, 0.3, 0.01), "reward": Speed(0.05, 0.2, 0.004)}
    free, asked = (gain_of(speeds, rewards, ahead=False) for rewards in ((), (StepCost("reward", 25),)))  # type: ignore[arg-type]
    ahead = gain_of(speeds, (), ahead=True)  # type: ignore[arg-type]
    assert free(1.0) == pytest.approx(3.0 / (0.3 + 0.3)) and ahead(1.0) == free(1.0)
    assert free(0.0) == pytest.approx(3.0 / (0.3 + 3.0 + 0.05)) and ahead(0.0) == pytest.approx(3.0 / (0.3 + 0.3 + 3.0 + 0.05))
    assert asked(0.5) == pytest.approx(3.0 / (0.3 + 0.2 + 25 * 0.004 + 0.15 + 0.5 * (3.0 + 0.05 + 0.2)))


def test_fit_measures_what_the_models_do_here() -> None:
    """And the gain is that of the times which it tells."""
    done = rsd("fit", "abacus", "--measure", "--json")
    found = json.loads(done.stdout)["measured"]
    assert done.returncode == 0 and set(found["roles"]) == {"draft", "target", "reward"}
    speeds = {role: Speed(**times) for role, times in found["roles"].items()}
    assert all(min(speed.decode, speed.read, speed.prefill) > 0 and speed.trip == 0 for speed in speeds.values())
    with Reasoner.open(find_trio("abacus")) as opened:
        gain = gain_of(speeds, opened.trio.rewards.costs(), ahead=opened.trio.rewards.ahead)
    assert {float(share): times for share, times in found["gain_by_accepted_share"].items()} == {
        share: pytest.approx(gain(share)) for share in (0.5, 0.7, 0.85, 0.95)
    }
    missing = rsd("fit", "small", "--measure")
    assert missing.returncode == 2 and "not here" in missing.stderr and missing.stdout == ""


def test_each_header_is_read_once_when_a_trio_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    import rsd_local.fit.plan
    import rsd_local.open_trio
    import rsd_local.runtime.model

    seen: list[Path] = []

    def noted(path: Path) -> object:
        seen.append(path)
        return read_header(path)

    for module in (rsd_local.open_trio, rsd_local.fit.plan, rsd_local.runtime.model):
        monkeypatch.setattr(module, "read_header", noted)
    trio = find_trio("abacus")
    with Reasoner.open(replace(trio, target=trio.draft)):
        assert sorted(seen) == sorted({trio.draft.path, trio.stages[0].model.path})  # type: ignore[union-attr]
