"""LoRA adapters: a role computes with its own on weights that others use as they are, and a bad one is refused in one line."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from changed import Dtype, Kind, write_changed
from conftest import EngineMaker
from test_rewards import read_out, said, value
from test_rsd import HALF, QUESTION, role
from tiny import WIDTH, write_model
from tiny_adapter import TABLE, write_adapter, write_merged

import rsd_local
from rsd_local.bench.results import describe_trio
from rsd_local.capacities import capacities
from rsd_local.config import RewardConfig, RoleConfig, Trio
from rsd_local.errors import BadAdapter, BadHead, ConfigError, ModelError, ModelNotFound, NotAModel
from rsd_local.evaluation.journal import Journal, upgraded
from rsd_local.fit import RoleCapacity, make_plan
from rsd_local.gguf_header import check_adapter, read_adapter, read_header
from rsd_local.hashes import file_sha256
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.heads import ReadOut, read_head
from rsd_local.runtime import Engine, Model, rehearsal
from rsd_local.runtime.devices import Device
from rsd_local.toml_settings import read_trio

PROMPT = list(range(3, 40))
NAMES = {
    "dense": ["blk.0.attn_q.weight", "blk.1.attn_v.weight", "blk.1.ffn_down.weight", "blk.0.ffn_up.weight"],
    "sliding": ["blk.0.attn_k.weight", "blk.1.attn_output.weight", "blk.1.ffn_gate.weight"],
    "recurrent": ["blk.0.ssm_in.weight", "blk.1.ssm_out.weight"],
    "hybrid": ["blk.0.shortconv.in_proj.weight", "blk.1.attn_q.weight", "blk.1.ffn_up.weight"],
    "shared-experts": [TABLE, "output.weight", "blk.0.ffn_gate_exps.weight", "blk.1.ffn_down_exps.weight", "blk.0.attn_q.weight"],
}
RSD = [sys.executable, "-c", "from rsd_local.cli import main; main()"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: write_model(folder / f"{kind}.gguf", kind) for kind in NAMES}


@pytest.fixture(scope="module")
def adapter(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("lora") / "adapter.gguf", bases["dense"], NAMES["dense"])


def numbers(engine: Engine, tokens: list[int] = PROMPT) -> np.ndarray:
    """The logits and the hidden state behind some tokens."""
    found = []
    for read in ("read_logits", "read_hidden"):
        sequence = engine.sequence(tokens)
        found.append(getattr(sequence, read)().result())
        sequence.close()
    return np.concatenate(found)


EFFECTS: list[tuple[str, float | None, float]] = [*((kind, 6.0, 1.0) for kind in NAMES)]
EFFECTS += [("dense", 6.0, -0.5), ("dense", None, 0.5), ("dense", 0.0, 1.0), ("shared-experts", None, 0.5)]


@pytest.mark.parametrize(("kind", "alpha", "scale"), EFFECTS)
def test_an_adapter_computes_what_merged_weights_do_and_changes_nobody_else(
    bases: dict[str, Path], tmp_path: Path, open_engine: EngineMaker, kind: str, alpha: float | None, scale: float
) -> None:
    file = write_adapter(tmp_path / "adapter.gguf", bases[kind], NAMES[kind], alpha=alpha)
    write_merged(tmp_path / "merged.gguf", bases[kind], file, scale)
    model = Model(RoleConfig(bases[kind], trusted=True))
    try:
        plain = Engine(model, role(bases[kind]), 1, "plain", reuse=False)
        before = numbers(plain)
        adapted = Engine(model, role(bases[kind], lora=file, lora_scale=scale), 2, "adapted", reuse=False)
        other = Engine(model, role(bases[kind], lora=file, lora_scale=scale / 2), 1, "other", reuse=False)
        merged = open_engine(tmp_path / "merged.gguf", slots=1, flash_attention="off", trusted=True)
        found, wanted = numbers(adapted), numbers(merged)
        assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()
        assert np.abs(found - before).max() > 0.05 and np.abs(numbers(other) - found).max() > 0.01
        np.testing.assert_array_equal(numbers(plain), before)
        np.testing.assert_array_equal(numbers(adapted), found)
        assert len(model.adapters._loaded) == 1 and "with the adapter adapter.gguf" in adapted.about()
    finally:
        model.close()


@pytest.fixture
def shared(bases: dict[str, Path], adapter: Path) -> Trio:
    """A reward that is the target's weights and an adapter."""
    draft, target = (role(bases["dense"], ctx_size=size) for size in (512, 1024))
    return Trio(draft, target, replace(target, lora=adapter), layout="math-shepherd", reuse=False)


def test_a_reward_on_the_targets_weights_scores_as_a_merged_file(shared: Trio, adapter: Path, tmp_path: Path) -> None:
    apart = role(write_merged(tmp_path / "merged.gguf", shared.target.path, adapter), ctx_size=1024)
    scores, texts = [], []
    for reward in (shared.reward, apart, shared.target):
        with Reasoner.open(replace(shared, reward=reward)) as opened:
            engines = opened.engines()
            assert (engines["reward"].model is engines["target"].model) == (reward is not apart)
            scorer = opened.trio.reward(Prompt.of(QUESTION))
            scores.append([value(scorer.start_score(said(text)).result()) for text in ("one and one\n\n", "is two\n\n")])
            scorer.close()
            texts.append(opened.solve(QUESTION, HALF, strategy="target").text)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3) and np.abs(np.subtract(scores[0], scores[2])).min() > 0.01
    assert texts[0] == texts[1] == texts[2], "the target writes with its own weights"


def test_a_judge_and_each_reward_of_a_cascade_can_have_one(shared: Trio, adapter: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    second = write_adapter(tmp_path / "second.gguf", bases["dense"], NAMES["dense"][:1], seed=4)
    stages = [
        RewardConfig("tag-logits", replace(shared.target, lora=file, lora_scale=scale)) for file, scale in ((adapter, 1.0), (second, 2.0))
    ]
    stages.append(RewardConfig("tag-logits", replace(shared.target, lora=adapter)))
    with Reasoner.open(replace(shared, reward=None, rewards=tuple(stages))) as opened:
        engines = opened.engines()
        assert len({id(engine.model) for engine in engines.values()}) == 1 and len(opened.trio.target.model.adapters._loaded) == 2
        found = [numbers(engines[name]) for name in ("target", "reward", "reward-2", "reward-3")]  # type: ignore[index]
        np.testing.assert_array_equal(found[1], found[3])
        assert all(np.abs(one - other).max() > 0.01 for one, other in itertools.combinations(found[:3], 2))


_CLOSE = """
import sys
from pathlib import Path
from rsd_local.config import RoleConfig, Sampling
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws, Engine, Model
base, first, second, order = *map(Path, sys.argv[1:4]), sys.argv[4]
role = lambda **more: RoleConfig(base, ctx_size=128, threads=1, trusted=True, **more)
model = Model(role())
engines = [Engine(model, role(**more), 1, "test") for more in ({}, {"lora": first}, {"lora": second, "lora_scale": 0.5})]
left = dict(zip("bfs", engines)) | {"m": model}
for name in order:
    for one in engines:
        if not one.closed:
            sequence = one.sequence([5, 6, 7])
            sequence.generate(Draws(Sampling(), Stream(0, TARGET)), 3).future.result()
            sequence.close()
    left.pop(name).close()
again = Model(role())
Engine(again, role(lora=second), 1, "test").sequence([5]).read_logits().result()
print("closed")
"""


@pytest.mark.parametrize("order", ["bfsm", "sfbm", "fm", "m", "bm", "sm", "fbsm"])
def test_models_contexts_and_adapters_close_in_any_order(bases: dict[str, Path], adapter: Path, tmp_path: Path, order: str) -> None:
    second = write_adapter(tmp_path / "second.gguf", bases["dense"], NAMES["dense"], seed=1)
    words = [sys.executable, "-c", _CLOSE, bases["dense"], adapter, second, order]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=100, env=environment())
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(rsd_local.__file__).parents[1])} | more


# What is no adapter for a model


def half_of(data: np.ndarray) -> None:
    return None


def texts(**given: Any) -> dict[str, tuple[Any, Kind]]:
    return {key.replace("__", "."): (text, Kind.STRING) for key, text in given.items()}


ODD: list[tuple[dict[str, Any], dict[str, Callable[[np.ndarray], Any]], str]] = [
    (texts(general__type="model"), {}, "general.type is 'model', not 'adapter'"),
    ({"general.type": (7, Kind.UINT32)}, {}, "general.type is 7"),
    ({"general.type": (None, Kind.STRING)}, {}, "has no general.type"),
    (texts(adapter__type="ia3"), {}, "adapter.type is 'ia3'"),
    ({"adapter.lora.alpha": (float("nan"), Kind.FLOAT32)}, {}, "alpha is nan"),
    ({"adapter.lora.alpha": (6, Kind.UINT32)}, {}, "alpha is 6"),
    ({"adapter.alora.invocation_tokens": ([1, 2], Kind.UINT32)}, {}, "activated one"),
    ({"split.count": (2, Kind.UINT16)}, {}, "one of 2 parts"),
    ({}, {"blk.0.attn_q.weight.lora_a": half_of}, "half of the pair for 'blk.0.attn_q.weight'"),
    ({}, {"blk.1.attn_v.weight.lora_b": half_of}, "half of the pair for 'blk.1.attn_v.weight'"),
    (
        {},
        {"blk.0.attn_q.weight.lora_a": lambda data: data[:, :-1]},
        r"has the shapes \(31, 3\) and \(3, 32\), and the model's is \(32, 32\)",
    ),
    ({}, {"blk.0.attn_q.weight.lora_b": lambda data: data[:-1]}, "has the shapes"),
    ({}, {"blk.0.attn_q.weight.lora_b": lambda data: data[:, :-1]}, "has the shapes"),
    ({}, {"blk.0.attn_q.weight.lora_a": lambda data: np.stack([data, data])}, "has the shapes"),
    ({}, {"blk.0.attn_q.weight.lora_a": lambda data: data.astype(np.int8)}, "cannot be multiplied"),
]


@pytest.mark.parametrize(("values", "tensors", "words"), ODD, ids=range(len(ODD)))
def test_what_llama_cpp_would_end_on_is_refused_by_the_header(
    bases: dict[str, Path], adapter: Path, tmp_path: Path, values: dict[str, Any], tensors: dict[str, Any], words: str
) -> None:
    refused(write_changed(adapter, tmp_path / "odd.gguf", values, tensors), bases["dense"], words)


def refused(file: Path, base: Path, words: str, kind: type[ModelError] = BadAdapter, *, trusted: bool = True) -> None:
    """Checks that a role with an adapter is refused in one line that names the file."""
    model = Model(RoleConfig(base, trusted=True))
    try:
        with pytest.raises(kind, match=words) as caught:
            Engine(model, RoleConfig(base, ctx_size=64, threads=1, lora=file, trusted=trusted), 1, "test")
        assert str(file) in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint
        engine = Engine(model, RoleConfig(base, ctx_size=64, threads=1), 1, "test")
        assert np.isfinite(numbers(engine)).all(), "the model goes on without it"
    finally:
        model.close()


def test_another_model_and_another_kind_of_file_are_refused(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    refused(adapter, bases["sliding"], "for the architecture llama, and the model is of gemma3")
    refused(bases["dense"], bases["dense"], "has no general.type")
    refused(tmp_path / "gone.gguf", bases["dense"], "no LoRA adapter", ModelNotFound)
    refused(tmp_path, bases["dense"], "is a directory", ModelNotFound)
    whole = adapter.read_bytes()
    for name, data, why in (
        ("cut", whole[:-9], "cut off"),
        ("begun", whole[:90], "cut off"),
        ("none", b"", "is empty"),
        ("peft", b"\0" * 64, "GGUF"),
    ):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, bases["dense"], why)
    other = write_adapter(tmp_path / "other.gguf", bases["shared-experts"], ["output.weight"], general__architecture="llama")
    refused(other, bases["dense"], "which the model does not have")
    refused(write_adapter(tmp_path / "empty.gguf", bases["dense"], []), bases["dense"], "changes no weights")
    tied = write_adapter(tmp_path / "tied.gguf", bases["dense"], [TABLE])
    refused(tied, bases["dense"], "the model's output too")
    for read in (lambda: Model(RoleConfig(adapter)), lambda: make_plan({"draft": RoleCapacity(RoleConfig(adapter), 1)}, [])):
        with pytest.raises(NotAModel, match=r"adapter\.gguf is an adapter and no model"):
            read()


def test_norms_that_llama_cpp_leaves_out_are_no_fault(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    read, out = gguf.GGUFReader(adapter), gguf.GGUFWriter(tmp_path / "norm.gguf", "llama")
    out.add_string("general.type", "adapter")
    out.add_string("adapter.type", "lora")
    for tensor in read.tensors:
        out.add_tensor(tensor.name, tensor.data.copy())
    out.add_tensor("blk.0.attn_norm.weight", np.ones(WIDTH, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    check_adapter(read_adapter(tmp_path / "norm.gguf"), read_header(bases["dense"]))


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The rehearsals that are started, with a cache of the test's own and nothing remembered."""
    started: list[Any] = []
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: (started.append(words[0]), start(*words, **more))[1])
    monkeypatch.setattr(rehearsal, "_went_well", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return started


def test_an_adapter_is_tried_with_its_model_once_and_again_after_a_change(
    bases: dict[str, Path], tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_adapter(tmp_path / "adapter.gguf", bases["dense"], NAMES["dense"])
    base, config = RoleConfig(bases["dense"]), RoleConfig(bases["dense"], ctx_size=64, threads=1, lora=file)

    def opened() -> int:
        model = Model(base)
        Engine(model, config, 1, "test")
        model.close()
        return len(children)

    assert opened() == 2 and str(file) in children[1] and str(file) not in children[0]
    monkeypatch.setattr(rehearsal, "_went_well", set())  # as in another process
    assert opened() == 2
    write_adapter(file, bases["dense"], NAMES["dense"], seed=9)
    assert opened() == 3
    monkeypatch.setattr(rehearsal, "_went_well", set())
    Model(replace(config, trusted=True)).close()
    assert len(children) == 3


@pytest.mark.parametrize(
    ("values", "tensors", "words"),
    [
        ({"adapter.lora.alpha": (6.0, Kind.FLOAT64)}, {}, "while llama.cpp loads it, it ended the process: .*type"),
        ({}, {"blk.0.attn_q.weight.lora_b": lambda data: (data.view(np.uint8), Dtype.I32)}, "cannot be multiplied"),
    ],
)
def test_an_adapter_that_would_end_the_process_is_refused_in_one_line(
    bases: dict[str, Path], adapter: Path, tmp_path: Path, children: list[Any], values: dict[str, Any], tensors: dict[str, Any], words: str
) -> None:
    refused(write_changed(adapter, tmp_path / "odd.gguf", values, tensors), bases["dense"], words, trusted=False)


# Memory


def test_shared_weights_count_once_and_each_adapter_once(shared: Trio, adapter: Path) -> None:
    plain = make_plan(capacities(replace(shared, reward=shared.target), (None,)), [])
    plan = make_plan(capacities(shared, (None,)), [])
    bytes_ = sum(tensor.size for tensor in read_adapter(adapter).tensors)
    assert plan.on_cpu - plain.on_cpu == bytes_ > 1_000
    assert [(one.role, one.shares, one.footprint.adapter) for one in plan.roles] == [
        ("draft", None, 0),
        ("reward", "draft", bytes_),
        ("target", "draft", 0),
    ]
    twice = make_plan(capacities(replace(shared, target=replace(shared.target, lora=adapter)), (None,)), [])
    assert twice.on_cpu == plan.on_cpu
    gpus = [Device("CUDA0", "", "gpu", 1 << 33, 1 << 33)]
    assert (
        make_plan(capacities(shared, (None,)), gpus).on_gpu
        - make_plan(capacities(replace(shared, reward=shared.target), (None,)), gpus).on_gpu
        == bytes_
    )
    with pytest.raises(BadAdapter, match="no LoRA adapter for"):
        make_plan(capacities(replace(shared, reward=replace(shared.target, lora=shared.target.path)), (None,)), [])


# Who is who


def test_configurations_and_heads_tell_adapters_apart(shared: Trio, adapter: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_adapter(tmp_path / "other" / "adapter.gguf", bases["dense"], NAMES["dense"], seed=1)
    assert shared.reward is not None
    trios = [shared, replace(shared, reward=shared.target), replace(shared, reward=replace(shared.reward, lora=other))]
    trios.append(replace(shared, reward=replace(shared.reward, lora_scale=0.5)))
    made = [{"trio": json.loads(json.dumps(describe_trio(trio)))} for trio in trios]
    assert "lora" not in made[1]["trio"]["reward"] and "lora_scale" not in made[1]["trio"]["reward"], "as in folders of before"
    assert made[0]["trio"]["reward"]["lora"] == {"file": "adapter.gguf", "sha256": file_sha256(adapter)}

    class Lines(Journal[dict[str, Any]]):
        file_name, keys = "lines.jsonl", ("id",)

    with Lines.open(tmp_path / "run", made[0], False) as lines:
        lines.append({"id": 1})
    with Lines.open(tmp_path / "run", made[0], True) as lines:
        assert len(lines.rows) == 1
    for config, words in zip(
        made[1:], (r"lora\.file", r"lora\.sha256 .*another file of the same name", "lora_scale is 1.0 there and 0.5"), strict=True
    ):
        assert upgraded(made[0], config) != config
        with pytest.raises(ConfigError, match=words):
            Lines.open(tmp_path / "run", config, True)

    plain = read_out(bases["dense"], "target", ("last",))
    fitted = replace(plain, lora_sha256=file_sha256(adapter), lora_scale=0.5)
    fitted.save(tmp_path / "head.safetensors")
    again = read_head(tmp_path / "head.safetensors")
    assert isinstance(again, ReadOut) and (again.lora_sha256, again.lora_scale) == (file_sha256(adapter), 0.5)
    again.check(bases["dense"], adapter, 0.5)
    for lora, scale in ((None, 1.0), (other, 0.5), (adapter, 1.0)):
        with pytest.raises(BadHead, match=r"fitted on dense\.gguf with another LoRA adapter"):
            again.check(bases["dense"], lora, scale)
    plain.check(bases["dense"])
    with pytest.raises(BadHead, match="with no LoRA adapter"):
        plain.check(bases["dense"], adapter)
    target = replace(shared.target, lora=adapter, lora_scale=0.5)
    trio = Trio(shared.draft, target, reward_kind="read-out", head=tmp_path / "head.safetensors")
    Reasoner.open(trio).close()
    with pytest.raises(BadHead, match="another LoRA adapter"):
        Reasoner.open(replace(trio, target=shared.target))


# Settings


def test_a_trios_file_names_adapters_beside_itself(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "lora.gguf").write_bytes(adapter.read_bytes())
    models = f'[draft]\npath = "{bases["dense"]}"\n[target]\npath = "{bases["dense"]}"\n'
    file = folder / "mine.toml"
    file.write_text(f'{models}[reward]\npath = "{bases["dense"]}"\nlora = "lora.gguf"\nlora_scale = 2\n')
    trio = read_trio(file)
    assert trio.reward is not None and (trio.reward.lora, trio.reward.lora_scale) == (folder / "lora.gguf", 2.0)
    assert trio.reward.placement == trio.target.placement and trio.target.lora is None
    assert trio.files == (bases["dense"], folder / "lora.gguf")
    file.write_text(f'{models}[[reward]]\nkind = "judge"\npath = "{bases["dense"]}"\nlora = "lora.gguf"\n')
    (stage,) = read_trio(file).stages
    assert stage.model is not None and stage.model.lora == folder / "lora.gguf"
    for line, words in (
        ("lora_scale = 0.5", "lora_scale without an adapter"),
        ("lora = 3", "lora = 3 is not of the right kind"),
        ('lora = "a.gguf"\nlora_scale = inf', "lora_scale inf is no finite number"),
        ('loras = "a.gguf"', "unknown key 'loras'"),
    ):
        file.write_text(f'{models}[reward]\npath = "{bases["dense"]}"\n{line}\n')
        with pytest.raises(ConfigError, match=words):
            read_trio(file)


def rsd(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RSD, *map(str, words)], capture_output=True, text=True, timeout=200, env=environment(), stdin=subprocess.DEVNULL
    )


@pytest.fixture
def flags(bases: dict[str, Path]) -> list[object]:
    return ["--draft", bases["dense"], "--target", bases["dense"], "-c", 512]


def test_a_flag_makes_the_reward_of_the_targets_weights(flags: list[object], bases: dict[str, Path], adapter: Path) -> None:
    done = rsd("fit", *flags, "--lora", f"reward={adapter}", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["roles"]
    assert found["reward"]["shares_weights_of"] == "draft" and found["reward"]["adapter"] > 0 == found["target"]["adapter"]
    assert f"reward with the adapter {adapter}" in rsd("fit", *flags, "--lora-scaled", f"reward={adapter}:0.5").stdout
    done = rsd("solve", "What?", *flags, "--lora", f"reward={adapter}", "-n", 8, "--json")
    assert done.returncode == 0, done.stderr
    shown = {one["name"]: one for one in json.loads(rsd("config", *flags, "--lora-scaled", f"reward={adapter}:-2", "--json").stdout)}
    assert (shown["reward.lora"]["value"], shown["reward.lora_scale"]["value"]) == (str(adapter), -2.0)
    assert {shown[f"reward.{name}"]["source"] for name in ("lora", "lora_scale", "path")} == {"flag --lora-scaled"}
    assert shown["reward.path"]["value"] == str(bases["dense"]) and shown["target.lora"]["value"] is None
    assert shown["target.lora"]["source"] == "default"


def test_an_adapter_without_a_role_is_the_targets(flags: list[object], adapter: Path) -> None:
    shown = rsd("config", *flags, "--reward-kind", "confidence", "--lora", adapter, "--json")
    found = {one["name"]: one["value"] for one in json.loads(shown.stdout)}
    assert found["target.lora"] == str(adapter) and found["draft.lora"] is None


def test_flags_that_cannot_be_are_refused_in_one_line(flags: list[object], adapter: Path, tmp_path: Path) -> None:
    for words, code, why in (
        (["--lora", adapter, "--lora", f"target={adapter}"], 2, "the target has one adapter already"),
        (["--lora-scaled", adapter], 2, "is no number"),
        (["--lora-scaled", f"reward={adapter}:much"], 2, "'much' is no number"),
        (["--lora", "reward="], 2, "names no file"),
        (["--lora", f"reward={adapter}", "--reward-kind", "confidence"], 2, "reads no model, so it takes no adapter"),
        (["--lora", f"reward={tmp_path / 'gone.gguf'}"], 1, "no LoRA adapter"),
        (["--lora", f"reward={flags[1]}"], 1, "is no LoRA adapter for dense.gguf"),
    ):
        done = rsd("solve", "What?", *flags, *words)
        assert done.returncode == code and why in done.stderr and done.stderr.count("\n") == 1, done.stderr
    done = rsd("tune", "--trio", "small", "--data", "x.jsonl", "--best", "--lora", f"reward={adapter}")
    assert done.returncode == 2 and "another combination than the trio's (--lora)" in done.stderr


def test_another_model_for_a_role_takes_its_adapter_away(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    model = f'path = "{bases["dense"]}"'
    file.write_text(f'threshold = 0.3\nreward_kind = "confidence"\n[draft]\n{model}\n[target]\n{model}\nlora = "{adapter}"\n')
    for words, lora, threshold in (
        ([], str(adapter), 0.3),
        (["--target", bases["sliding"]], None, 0.7),
        (["--lora", "b.gguf"], "b.gguf", 0.7),
    ):
        found = {one["name"]: one["value"] for one in json.loads(rsd("config", "--trio", file, *words, "--json").stdout)}
        assert (found["target.lora"], found["threshold"]) == (lora, threshold)
