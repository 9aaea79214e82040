"""``rsd pair``: which files go together is told from their headers, and every other file gets its reason."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed import Kind, write_changed, write_parts
from model_folders import put_into_ollama, without_root, write_manifest, write_sized
from test_cli import refused, rsd
from tiny import VOCABULARY

from rsd_local.capacities import capacities
from rsd_local.catalogue.folders import ModelFile, find_models, usual_folders
from rsd_local.cli.completion import complete
from rsd_local.cli.pair_words import shortened
from rsd_local.config import RoleConfig
from rsd_local.errors import ConfigError
from rsd_local.fit import make_plan, pairs
from rsd_local.fit.pairs import Candidates, Left, Pair, find_pairs
from rsd_local.gguf_header import KnownTexts, active_parameters, parameters, read_header
from rsd_local.runtime import Model
from rsd_local.toml_settings import read_trio

MUCH = 1 << 40
PADDED = [*VOCABULARY, *(f"[PAD{number}]" for number in range(20))]
OTHER = [*VOCABULARY[:-1], "zz"]


def found(*paths: Path, free: int = MUCH, bandwidth: float = float("inf")) -> tuple[list[Pair], dict[str, str]]:
    """The pairs among some files, and of the others the reasons by name."""
    models = Candidates(on_gpu=False)
    for file in find_models(paths).files:
        models.read(file)
    made, left = find_pairs(models, free, bandwidth)
    return made, {one.file.name: one.reason for one in [*left, *models.left]}


def names(made: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.draft.file.name, pair.target.file.name) for pair in made]


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """A folder with five files, of which two go together."""
    folder = tmp_path / "my models"
    write_sized(folder / "small.gguf")
    write_sized(folder / "inside" / "large.GGUF", 3, seed=1, vocabulary=PADDED)
    write_sized(folder / "foreign.gguf", 4, vocabulary=OTHER)
    write_changed(folder / "small.gguf", folder / "mmproj-large.gguf", {"general.type": ("mmproj", Kind.STRING)})
    (folder / "broken.gguf").write_bytes((folder / "small.gguf").read_bytes()[:-100])
    (folder / "notes.txt").write_text("no model")
    return folder


def test_of_five_files_two_are_a_pair_and_each_other_has_its_reason(five: Path) -> None:
    done = rsd("pair", five)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines[: lines.index("")])) <= 80
    assert lines[0].split() == ["#", "role", "model", "weights", "ratio", "memory", "at", "best"]
    assert lines[1].split()[:3] == ["1", "draft", "small"] and lines[2].split()[:2] == ["target", "large"]
    reasons = [line.split(maxsplit=1) for line in lines[lines.index("In no pair:") + 1 :] if line.startswith("  ")]
    assert dict(reasons) == {
        "broken": "no GGUF file that can be used: it is cut off: 116,160 bytes are needed, it has 116,060",
        "foreign": "no other model here has its vocabulary",
        "mmproj-large": "the vision or audio part of another model (mmproj)",
    }
    assert done.stderr == f'next: rsd pair "{five}" --write mine.toml\n'


def test_a_pair_is_written_as_a_trio_that_answers(five: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    done = rsd("pair", five, "--write", file)
    assert done.returncode == 0 and f"rsd tune --trio {file} --data questions.jsonl --best" in done.stderr, done.stderr
    trio = read_trio(file)
    assert (trio.draft.path.name, trio.target.path.name, trio.reward_kind, trio.threshold) == ("small.gguf", "large.GGUF", "judge", 0.7)
    answered = rsd("solve", "--trio", file, "What is it?", "-n", "30", "-c", "300", "-t", "1")
    assert answered.returncode == 0, answered.stderr
    written = file.read_text()
    refused(rsd("pair", five, "--write", file), 2, "is there already", "--force")
    file.write_text("threshold = 0.5\n")
    assert rsd("pair", five, "--write", file, "--force", "--pair", "1").returncode == 0 and file.read_text() == written
    refused(rsd("pair", five, "--write", tmp_path / "b.toml", "--pair", "2"), 2, "--pair 2 is none of the 1 pairs")
    refused(rsd("pair", five, "--pair", "2"), 2, "--write")
    refused(rsd("pair", five, "--write", tmp_path / "no" / "b.toml"), 2, "cannot be written: No such file or directory")


def test_the_memory_is_that_of_the_trio_which_is_written(five: Path, tmp_path: Path) -> None:
    (pair,), _ = found(five)
    assert rsd("pair", five, "--write", tmp_path / "mine.toml").returncode == 0
    trio = read_trio(tmp_path / "mine.toml")
    assert make_plan(capacities(trio, (None,)), []).on_cpu == pair.memory


def test_what_a_program_reads_is_one_object(five: Path, tmp_path: Path) -> None:
    done = rsd("pair", five, "--json", "--write", tmp_path / "mine.toml")
    made = json.loads(done.stdout)
    assert done.returncode == 0 and made["written"] == str(tmp_path / "mine.toml")
    (pair,) = made["pairs"]
    small, large = five / "small.gguf", five / "inside" / "large.GGUF"
    assert (pair["draft"]["path"], pair["target"]["path"]) == (str(small), str(large))
    assert pair["target"]["weights"] == parameters(read_header(large)) and pair["draft"]["bytes"] == small.stat().st_size
    assert pair["ratio"] == pytest.approx(pair["target"]["active_weights"] / pair["draft"]["active_weights"])
    assert {one["name"] for one in made["left"]} == {"broken", "foreign", "mmproj-large"} and all(one["reason"] for one in made["left"])


def test_without_a_pair_it_ends_with_1_and_writes_nothing(five: Path, tmp_path: Path) -> None:
    (five / "inside" / "large.GGUF").unlink()
    done = rsd("pair", five)
    assert done.returncode == 1 and done.stdout.startswith("No two of these files go together:\n") and "-md" in done.stderr
    refused(rsd("pair", five, "--write", tmp_path / "mine.toml"), 2, "no two of the files go together")
    assert not (tmp_path / "mine.toml").exists()
    (tmp_path / "empty").mkdir()
    refused(rsd("pair", tmp_path / "empty"), 1, "no GGUF file in", "rsd pair DIR")
    refused(rsd("pair", tmp_path / "nowhere"), 2, "no folder")


def test_the_vocabularies_are_compared_as_open_models_compare_them(tmp_path: Path) -> None:
    texts = {"plain": VOCABULARY, "padded": PADDED, "other": OTHER, "longer": [*VOCABULARY, "word"]}
    for name, words in texts.items():
        write_sized(tmp_path / f"{name}-1.gguf", 1, vocabulary=words)
        write_sized(tmp_path / f"{name}-3.gguf", 3, vocabulary=words)
    made, _ = found(tmp_path)
    models = {file.stem: Model(RoleConfig(file, trusted=True)) for file in tmp_path.iterdir()}
    shared = {(one, other) for one in models for other in models if models[one].common_tokens(models[other])}
    assert set(names(made)) == {(one, other) for one, other in shared if one.endswith("1") and other.endswith("3")}
    assert ("plain-1", "padded-3") in names(made) and ("plain-1", "longer-3") not in names(made)
    for model in models.values():
        model.close()


def test_the_best_draft_of_the_largest_target_comes_first(tmp_path: Path) -> None:
    for times in (1, 2, 3, 4, 8):
        write_sized(tmp_path / f"m{times}.gguf", times)
    made, left = found(tmp_path)
    ratios = {names([pair])[0]: pair.ratio for pair in made}
    assert not left and names(made)[0][1] == "m8" and abs(ratios[names(made)[0]] - 6) <= 6
    targets = [target for _, target in names(made)]
    assert targets[:4] == sorted(set(targets), key=targets.index), "first one pair for each target"
    assert min(ratios.values()) >= 2 and max(ratios.values()) > 25
    notes = {names([pair])[0]: pair.notes for pair in made}
    assert all(("far apart" in "".join(notes[key])) == (ratio > 25) for key, ratio in ratios.items())
    assert all(("close in size" in "".join(notes[key])) == (ratio < 3) for key, ratio in ratios.items())


def test_models_of_nearly_one_size_are_no_pair(tmp_path: Path) -> None:
    write_sized(tmp_path / "m3.gguf", 3)
    write_sized(tmp_path / "m4.gguf", 4)
    shutil.copy(tmp_path / "m3.gguf", tmp_path / "copy.gguf")
    made, left = found(tmp_path)
    assert not made
    assert left["m3"] == "too close in size to copy (1.0 times the weights): nothing to gain"
    assert "too close in size to m3 (1." in left["m4"] or "too close in size to copy (1." in left["m4"]


def test_a_mixture_of_experts_counts_by_what_a_token_meets(tmp_path: Path) -> None:
    experts = write_sized(tmp_path / "experts.gguf", kind="experts")
    header = read_header(experts)
    whole, active = parameters(header), active_parameters(header)
    near = write_sized(tmp_path / "near.gguf", 1)
    assert whole > 2 * parameters(read_header(near)) > active
    made, left = found(experts, near)
    assert not made and "times the active weights): nothing to gain" in left["near"]
    large = write_sized(tmp_path / "large.gguf", 4)
    made, _ = found(experts, large)
    assert names(made) == [("experts", "large")] and made[0].ratio == pytest.approx(parameters(read_header(large)) / active)
    made, _ = found(write_sized(tmp_path / "large-experts.gguf", 4, kind="experts"), near)
    assert names(made) == [("near", "large-experts")] and "a mixture of experts" in made[0].notes[-1]
    shown = rsd("pair", tmp_path / "large-experts.gguf", near).stdout
    assert "/" in shown.splitlines()[2], shown


def test_one_model_in_two_quantizations_is_a_pair_behind_the_others(tmp_path: Path) -> None:
    whole = write_sized(tmp_path / "m-f32.gguf", 3)
    half: dict[str, Callable[[np.ndarray], Any]] = {
        tensor.name: lambda data: data.astype(np.float16) for tensor in read_header(whole).tensors if "norm" not in tensor.name
    }
    write_changed(whole, tmp_path / "m-f16.gguf", tensors=half)
    made, left = found(tmp_path)
    assert names(made) == [("m-f16", "m-f32")] and not left
    assert made[0].ratio == 1.0 and "fewer bits" in made[0].notes[0]
    write_sized(tmp_path / "small.gguf", 1)
    made, _ = found(tmp_path)
    assert names(made)[:2] == [("small", "m-f16"), ("small", "m-f32")] and names(made)[-1] == ("m-f16", "m-f32")


def test_a_draft_that_reads_as_much_as_its_target_gains_nothing(tmp_path: Path) -> None:
    small, large = write_sized(tmp_path / "small.gguf", 2), write_sized(tmp_path / "large.gguf", 3)
    write_changed(
        large,
        tmp_path / "large-f16.gguf",
        tensors={tensor.name: lambda data: data.astype(np.float16) for tensor in read_header(large).tensors if "norm" not in tensor.name},
    )
    made, left = found(small, tmp_path / "large-f16.gguf")
    assert not made and "of the target's bytes for a token: nothing to gain" in left["small"]


def test_what_needs_more_memory_than_is_free_is_no_pair(five: Path) -> None:
    (pair,), _ = found(five)
    assert names(found(five, free=pair.memory)[0]) == [("small", "large")]
    made, left = found(five, free=pair.memory - 1)
    assert not made
    assert left["small"] == left["large"].replace("small", "large")
    assert left["large"].startswith("with small it needs 0.0 GB of memory, and 0.0 GB are free")


def test_a_target_that_memory_makes_slow_is_said_to_be_so(five: Path) -> None:
    (pair,), _ = found(five, bandwidth=1.2 * found(five)[0][0].target.footprint.read)
    assert pair.notes[-1] == "slow: the target alone writes at most 1.2 tokens/s" and pair.tier > 0


_UNUSABLE = "no GGUF file that can be used: "
STRING, BOOL, U32 = Kind.STRING, Kind.BOOL, Kind.UINT32


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"general.type": ("adapter", STRING), "adapter.type": ("lora", STRING)}, "a LoRA adapter"),
        ({"general.type": ("imatrix", STRING)}, "an importance matrix"),
        ({"llama.pooling_type": (3, U32)}, "an embedding model"),
        ({"llama.attention.causal": (False, BOOL)}, "an embedding model"),
        ({"llama.pooling_type": (4, U32)}, "a classifier, such as a reranker or a reward model"),
        ({"general.architecture": ("nomic-bert", STRING)}, "an embedding model"),
        ({"general.architecture": ("gemma-embedding", STRING)}, "an embedding model"),
        ({"general.architecture": ("clip", STRING)}, "the vision or audio part"),
        ({"general.architecture": ("llada", STRING)}, "a diffusion model"),
        ({"general.architecture": ("t5", STRING)}, "an encoder with a decoder"),
        ({"general.architecture": ("gptoss", STRING)}, "packed for Ollama alone (gptoss); llama.cpp needs a file of gpt-oss"),
        ({"general.architecture": ("eagle3", STRING)}, "a part for llama.cpp's own speculation"),
        ({"general.architecture": ("gemma4-assistant", STRING)}, "a part for llama.cpp's own speculation"),
        ({"general.name": ("Qwen2.5 Math PRM 7B", STRING)}, "a reward model by its name: for --reward"),
        ({"tokenizer.chat_template": (None, STRING)}, "no chat template"),
        ({"tokenizer.ggml.tokens": (None, STRING)}, "no vocabulary"),
        ({"tokenizer.ggml.model": ("none", STRING)}, f"{_UNUSABLE}it has no vocabulary"),
    ],
)
def test_what_is_no_language_model_is_said_to_be_what_it_is(values: dict[str, Any], words: str, five: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    plain = {key: value for key, value in values.items() if key != "general.architecture"}
    write_changed(five / "small.gguf", out, plain)
    if plain != values:  # the writer takes the architecture from its source
        name = values["general.architecture"][0].encode()
        key = b"general.architecture"
        data = out.read_bytes()
        start = data.index(key) + len(key) + 4
        old = int.from_bytes(data[start : start + 8], "little")
        changed = data[:start] + len(name).to_bytes(8, "little") + name + data[start + 8 + old :]
        out.write_bytes(_aligned(changed, data, len(name) - old))
    assert found(five, out)[1]["x"].startswith(words)


def _aligned(changed: bytes, data: bytes, longer: int) -> bytes:
    """The file with its tensors where its header, which has another length now, says that they are."""
    end = read_header_end(data)
    old, new = -(-end // 32) * 32, -(-(end + longer) // 32) * 32
    return changed[: end + longer] + bytes(new - end - longer) + data[old:]


def read_header_end(data: bytes) -> int:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        return read_header(Path(file.name)).end


def test_a_reward_model_is_known_by_its_files_name_and_words_that_hold_it_are_not(five: Path) -> None:
    for name in ("Skywork-o1-Open-PRM-1.5B", "llama3.1-8b-prm_deepseek", "internlm2-reward-7b"):
        shutil.copy(five / "small.gguf", five / f"{name}.gguf")
    shutil.copy(five / "small.gguf", five / "Form-Warmth-Rewarding.gguf")
    _, left = found(five)
    assert sorted(name for name, reason in left.items() if reason.startswith("a reward model")) == sorted(
        ["Skywork-o1-Open-PRM-1.5B", "llama3.1-8b-prm_deepseek", "internlm2-reward-7b"]
    )


def test_a_file_with_a_vision_part_inside_or_without_weights_is_none(five: Path, tmp_path: Path) -> None:
    read = read_header(five / "small.gguf")
    for name, old, new in (
        ("seeing", b"blk.0.ffn_up.weight", b"v.00.ffn_up.weight!"),
        ("classes", b"output_norm.weight", b"cls.output.weight!"),
    ):
        (five / f"{name}.gguf").write_bytes((five / "small.gguf").read_bytes().replace(old, new))
    write_changed(five / "small.gguf", five / "words.gguf", tensors={tensor.name: lambda data: None for tensor in read.tensors})
    _, left = found(five)
    assert left["seeing"].startswith("packed for Ollama alone, with its vision part inside")
    assert left["classes"].startswith("a classifier") and left["words"] == "a vocabulary without weights"


def test_parts_count_as_one_model_and_a_missing_one_is_named(five: Path) -> None:
    (five / "parts").mkdir()
    parts = write_parts(five / "inside" / "large.GGUF", five / "parts" / "big.gguf")
    made, left = found(five / "small.gguf", five / "parts")
    assert names(made) == [("small", parts[0].stem)] and not left
    parts[1].unlink()
    _, left = found(five / "parts")
    assert left[parts[0].stem].endswith(f"is one of 3 parts, and {parts[1].name} is not beside it in {five / 'parts'}")
    parts[0].unlink()
    assert "part 3 of 3" in found(five / "parts")[1][parts[2].stem]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder, without a model in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("OLLAMA_MODELS", "HF_HUB_CACHE", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "LLAMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_lm_studio_ollama_the_hub_and_llama_cpp_are_looked_through(home: Path, tmp_path: Path) -> None:
    small = write_sized(home / ".lmstudio" / "models" / "publisher" / "repo-GGUF" / "small-Q4_K_M.gguf")
    middle = write_sized(home / ".cache" / "lm-studio" / "models" / "publisher" / "other" / "middle.gguf", 2, vocabulary=OTHER)
    put_into_ollama(home / ".ollama" / "models", "registry.ollama.ai/library/large/8b", write_sized(tmp_path / "l.gguf", 3))
    put_into_ollama(home / ".ollama" / "models", "registry.ollama.ai/library/eyes/latest", small, kind="projector")
    write_manifest(home / ".ollama" / "models", "registry.ollama.ai/library/odd/latest", "{")
    blob = write_sized(home / ".cache" / "huggingface" / "hub" / "models--a--b" / "blobs" / "0123", 4, vocabulary=OTHER)
    for commit in ("one", "two"):
        link = blob.parent.parent / "snapshots" / commit / "huge.gguf"
        link.parent.mkdir(parents=True)
        link.symlink_to("../../blobs/0123")
    write_sized(home / ".cache" / "llama.cpp" / "a_b_tiny.gguf", 1, vocabulary=[*VOCABULARY[:-2], "z"])
    done = rsd("pair", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert sorted((pair["draft"]["name"], pair["target"]["name"]) for pair in made["pairs"]) == [
        ("middle", "huge"),
        ("small-Q4_K_M", "ollama:large:8b"),
    ]
    target = next(pair["target"] for pair in made["pairs"] if pair["target"]["name"] == "huge")
    assert target["path"] == str(blob.parent.parent / "snapshots" / "one" / "huge.gguf") and len(target["also"]) == 1
    assert [one["name"] for one in made["left"]] == ["a_b_tiny"]
    assert (
        len(made["problems"]) == 2
        and any("damaged" in line for line in made["problems"])
        and str(middle.parent.parent.parent) in made["folders"]
    )
    pair = next(place for place, one in enumerate(made["pairs"], 1) if one["target"]["name"] == "ollama:large:8b")
    assert rsd("pair", "--write", tmp_path / "mine.toml", "--pair", pair).returncode == 0
    assert 'target.path = "ollama:large:8b"' in (tmp_path / "mine.toml").read_text()
    assert rsd("fit", tmp_path / "mine.toml").returncode == 0


def test_a_store_of_ollama_elsewhere_gives_paths(home: Path, tmp_path: Path) -> None:
    blob = put_into_ollama(tmp_path / "disk" / "models", "registry.ollama.ai/me/small/latest", write_sized(tmp_path / "s.gguf"))
    put_into_ollama(tmp_path / "disk" / "models", "registry.ollama.ai/me/again/latest", tmp_path / "s.gguf")
    write_manifest(tmp_path / "disk" / "models", "registry.ollama.ai/me/lost/latest", json.dumps({"layers": []}))
    seen = find_models([tmp_path / "disk"])
    assert [(one.name, one.setting, one.also) for one in seen.files] == [("ollama:me/again:latest", str(blob), (str(blob),))]
    assert len(seen.problems) == 1 and "me/lost:latest" in seen.problems[0]


def test_the_places_follow_their_variables(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home / ".lmstudio" / "models" in usual_folders() and home / ".ollama" / "models" in usual_folders()
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "o"))
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "l"))
    assert {tmp_path / "o", tmp_path / "l"} <= set(usual_folders()) and home / ".ollama" / "models" not in usual_folders()
    done = rsd("pair")
    refused(done, 1, "no GGUF file in", str(tmp_path / "o"), str(home / ".lmstudio" / "models"))


def test_links_in_a_circle_and_many_names_of_one_file_count_once(five: Path) -> None:
    (five / "inside" / "up").symlink_to(five)
    (five / "self").symlink_to("self")
    (five / "self.gguf").symlink_to("self.gguf")
    (five / "gone.gguf").symlink_to("nowhere.gguf")
    (five / "a").symlink_to("b")
    (five / "b").symlink_to("a")
    (five / "again.gguf").symlink_to("small.gguf")
    os.link(five / "small.gguf", five / "inside" / "hard.gguf")
    made, left = found(five, five / "inside", five / "inside" / "large.GGUF")
    assert len(made) == 1 and made[0].target.file.name == "large" and len(made[0].draft.file.also) == 2
    assert {"gone", "self", "broken", "foreign", "mmproj-large"} == set(left)
    assert "no model file" in left["gone"]


def test_a_folder_that_may_not_be_read_is_said_and_the_others_count(five: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        shutil.copytree(five, folder / "models")
        (folder / "models" / "closed").mkdir()
        (folder / "models" / "closed").chmod(0)
        (folder / "models" / "foreign.gguf").chmod(0)
        with without_root():
            seen = find_models([folder])
            models = Candidates(on_gpu=False)
            for file in seen.files:
                models.read(file)
        assert seen.problems == [f"{folder / 'models' / 'closed'} cannot be looked through: Permission denied"]
        assert names(find_pairs(models, MUCH)[0]) == [("small", "large")]
        reasons = {one.file.name: one.reason for one in models.left}
        assert reasons["foreign"].startswith("cannot be read: ") and "Permission denied" in reasons["foreign"]
    finally:
        (folder / "models" / "closed").chmod(0o755)
        shutil.rmtree(folder)


def test_what_is_no_regular_file_is_not_waited_for(five: Path) -> None:
    os.mkfifo(five / "pipe.gguf")
    (five / "folder.gguf").mkdir()
    made, left = found(five)
    assert len(made) == 1 and "no regular file" in left["pipe"] and "folder" not in left


def test_names_cannot_steer_a_terminal_and_long_ones_keep_their_ends(five: Path, tmp_path: Path) -> None:
    odd = five / 'x\x1b[31m"\n\\.gguf'
    (five / "small.gguf").rename(odd)
    shutil.copy(five / "broken.gguf", five / f"{'long-' * 30}Q4_K_M.gguf")
    done = rsd("pair", five)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert any(line.startswith("  long-long-") and "…" in line and "Q4_K_M  " in line for line in done.stdout.splitlines())
    assert len(shortened("a" * 99)) == 34 and shortened("a" * 34) == "a" * 34
    assert rsd("pair", five, "--write", tmp_path / "mine.toml").returncode == 0
    assert read_trio(tmp_path / "mine.toml").draft.path == odd
    assert not any("\n" in line or line.startswith("\\") for line in done.stdout.splitlines())
    odd.rename(five / "\udcff.gguf")
    assert rsd("pair", five).returncode == 0
    refused(rsd("pair", five, "--write", tmp_path / "other.toml"), 2, "bytes that are no text")
    assert not (tmp_path / "other.toml").exists()


def test_each_header_of_many_files_is_read_once(five: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        shutil.copy(five / "small.gguf", five / f"copy{number:02}.gguf")
    read: Counter[Path] = Counter()

    def counted(path: Path, known: KnownTexts | None = None) -> Any:
        read[path] += 1
        return read_header(path, known)

    compared: Counter[str] = Counter()
    whole = pairs.Vocabulary.common
    monkeypatch.setattr(pairs, "read_header", counted)
    monkeypatch.setattr(pairs.Vocabulary, "common", lambda one, other: compared.update(["common"]) or whole(one, other))
    made, left = found(five)
    assert len(read) == 65 and set(read.values()) == {1}
    assert compared["common"] == 3, "three vocabularies, and each two of them once"
    assert len(made) == 61 and len(left) == 3
    shown = rsd("pair", five)
    assert shown.stdout.count(" draft  ") == 1 and "60 more pairs, 60 more files in them: --all" in shown.stdout
    assert rsd("pair", five, "--all").stdout.count(" draft  ") == 61


def test_shells_complete_folders() -> None:
    assert complete(["pair", ""]) == complete(["pair", "a", ""]) == [":dir"]
    assert "--write" in [line.split("\t")[0] for line in complete(["pair", "a", "--"])]


def test_what_was_read_before_changes_nothing(five: Path, tmp_path: Path) -> None:
    """A vocabulary that is as long as one read before, but another one, is walked through."""
    words = [*VOCABULARY, *(f"word{number:05}" for number in range(3_000))]
    paths = [
        write_sized(tmp_path / f"{place}.gguf", 1, vocabulary=texts) for place, texts in enumerate((words, words, words[::-1], words[:-1]))
    ]
    whole = paths[0].read_bytes()
    (tmp_path / "changed.gguf").write_bytes(whole.replace(b"word01500", b"word0150X"))
    place = whole.index(b"word01500") - 8
    (tmp_path / "damaged.gguf").write_bytes(whole[:place] + (1 << 40).to_bytes(8, "little") + whole[place + 8 :])
    known = KnownTexts()
    for path in [*paths, tmp_path / "changed.gguf", *paths]:
        assert read_header(path, known) == read_header(path)
    models = Candidates(on_gpu=False)
    models.read(ModelFile(paths[0], "0", "0"))
    models.read(ModelFile(tmp_path / "damaged.gguf", "damaged", "damaged"))
    assert models.left == [Left(ModelFile(tmp_path / "damaged.gguf", "damaged", "damaged"), f"{_UNUSABLE}its header is cut off")]
    with pytest.raises(ConfigError):
        find_models([tmp_path / "none"])
