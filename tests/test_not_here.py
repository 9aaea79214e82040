"""Before anything is downloaded: fit, show, config and doctor speak of trios whose files are not here, and in words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from changed import Kind, write_changed, write_parts
from test_cli import rsd

from rsd_local.catalogue import Catalogue, find_trio, models_file, user_models_file
from rsd_local.catalogue.models import ModelEntry
from rsd_local.catalogue.shape import ModelShape
from rsd_local.cli.words import gigabytes, in_words
from rsd_local.config import RewardConfig, RoleConfig
from rsd_local.errors import ConfigError
from rsd_local.fit import RoleCapacity, context_warning
from rsd_local.fit.memory import Footprint
from rsd_local.fit.published import published_header
from rsd_local.gguf_header import read_header
from rsd_local.runtime.attention import faster_attention

PYTHONISMS = re.compile(r"\bNone\b|\bTrue\b|\bFalse\b|PosixPath|WindowsPath|RoleConfig|RewardConfig|\(\)|\{'|\['|<function")


@pytest.fixture(autouse=True)
def no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of the hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture
def own() -> Iterator[Path]:
    """The user's own models.toml."""
    file = user_models_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    yield file
    file.unlink(missing_ok=True)


@pytest.mark.parametrize("words", [("small",), ("--trio", "small")])
def test_fit_tells_the_memory_of_a_trio_that_is_not_here(words: tuple[str, ...]) -> None:
    done = rsd("fit", *words, "-c", "4096")
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr
    assert "0 of 25" in done.stdout and "0 of 29" in done.stdout
    assert "not here: qwen2.5-0.5b-instruct-q8_0.gguf (0.5 GB), Qwen2.5-Math-1.5B-Instruct-Q4_K_M.gguf (1.0 GB)" in done.stderr
    assert "rsd pull small fetches 1.5 GB" in done.stderr
    found = json.loads(rsd("fit", *words, "--json").stdout)
    assert found["not_here"] == {"qwen2.5-0.5b-instruct-q8_0.gguf": 530_000_000, "Qwen2.5-Math-1.5B-Instruct-Q4_K_M.gguf": 990_000_000}
    # The published shapes: keys and values of 4,096 tokens in 24 layers with 2 heads of 64, and in 28 with 2 of 128.
    assert found["roles"]["draft"]["cache"] == 4096 * 24 * 2 * 2 * 64 * 2
    assert found["roles"]["target"]["cache"] == 4096 * 28 * 2 * 2 * 128 * 2


def test_what_must_be_here_to_run_is_still_asked_for() -> None:
    for command in ("solve", "chat"):
        done = rsd(command, *(["What?"] if command == "solve" else []), "--trio", "small", stdin="")
        assert done.returncode == 1 and "rsd pull small" in done.stderr, command
    done = rsd("fit", "--draft", "gone.gguf", "--target", "gone.gguf", "--reward-kind", "confidence")
    assert done.returncode == 1 and "no model file gone.gguf" in done.stderr and done.stderr.count("\n") == 1


def test_the_estimate_is_near_what_the_file_itself_says(smollm2: Path) -> None:
    shape = ModelShape(layers=30, width=576, feed_forward=1536, heads=9, kv_heads=3, head_size=64, vocabulary=49152)
    entry = ModelEntry("own/own", "own.gguf", smollm2.stat().st_size / 1e9, "apache-2.0", 8192, shape=shape)
    capacity = RoleCapacity(RoleConfig(smollm2, ctx_size=2048), 2)
    guess, true = (Footprint.of(header, capacity, on_gpu=False) for header in (published_header(entry), read_header(smollm2)))
    assert guess.cache == true.cache and guess.compute == true.compute
    assert guess.weights == pytest.approx(true.weights, rel=0.05) and guess.read == pytest.approx(true.read, rel=0.2)


def test_a_model_of_ones_own_may_have_a_shape_or_none(own: Path) -> None:
    entry = 'repo = "a/b"\nfile = "m.gguf"\ngigabytes = 3\nlicence = "mit"\ncontext = 2048\n'
    trio = '[trio.mine]\nreward_kind = "confidence"\ndraft.model = "m"\ntarget.model = "m"\n'
    own.write_text(f"[model.m]\n{entry}{trio}")
    done = rsd("show", "mine")
    assert done.returncode == 0 and "size      3.0 GB file, about 3.0 GB in memory besides its context" in done.stdout, done.stdout
    assert rsd("fit", "mine", "--json").returncode in (0, 1)
    for shape, why in (
        ("{ layers = 3 }", "shape: 'width' is missing"),
        ("{ layer = 3 }", "did you mean 'layers'"),
        ("7", "shape 7 is no table"),
    ):
        own.write_text(f"[model.m]\n{entry}shape = {shape}\n{trio}")
        with pytest.raises(ConfigError) as caught:
            Catalogue.read()
        assert why in f"{caught.value}; {caught.value.hint}", shape


def test_show_says_sizes_and_memory_in_words(own: Path) -> None:
    done = rsd("show", "small")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "size      0.5 GB file, about 0.6 GB in memory with a context of 4,096" in lines
    assert "draft.model   qwen2.5-0.5b-q8_0" in lines and "context   trained for 32,768 tokens" in lines and "here      no" in lines
    assert any(line.startswith("state") and line.endswith("rsd pull small fetches what is missing") for line in lines)
    plain = faster_attention(RoleConfig(Path("m.gguf"))).flash_attention == "off"  # then draft and reward keep a batch's scores
    assert any(line.startswith("memory") and f"about {'2.0' if plain else '1.9'} GB" in line for line in lines)
    own.write_text(
        '[trio.many]\n[[trio.many.reward]]\nkind = "digit"\nupper = 0.5\n[trio.many.draft]\npath = "d.gguf"\ntensor_split = [1, 0.5]\n'
    )
    shown = rsd("show", "many").stdout
    assert 'reward              [{ kind = "digit", upper = 0.5 }]' in shown and "draft.tensor_split  [1, 0.5]" in shown
    for text in (done.stdout, shown, rsd("show", "abacus").stdout, rsd("show", "coder").stdout):
        assert text and not PYTHONISMS.search(text), text
    assert json.loads(rsd("show", "small", "--json").stdout)["trio"]["draft"] == {"model": "qwen2.5-0.5b-q8_0"}


def test_config_says_values_as_a_file_has_them(tmp_path: Path) -> None:
    cascade = tmp_path / "cascade.toml"
    models = '[draft]\npath = "d.gguf"\n[target]\npath = "t.gguf"\n'
    cascade.write_text(
        f'[[reward]]\nkind = "verifier"\nverifier = "python-tests"\ntests = "t.py"\n[[reward]]\nkind = "confidence"\n{models}'
    )
    shown = {
        words: rsd("config", *words).stdout for words in [("--trio", "small"), (), ("--trio", str(cascade)), ("--stop", "a", "-ts", "1,2")]
    }
    for words, text in shown.items():
        assert text and not PYTHONISMS.search(text), words
    small = {line.split()[0]: line for line in shown["--trio", "small"].splitlines()}
    assert "qwen2.5-0.5b-instruct-q8_0.gguf" in small["draft.path"] and small["draft.path"].endswith(str(models_file()))
    assert " true " in small["reuse"] and " not set " in small["head"] and ' "" ' in small["threshold_from"]
    assert f'tests = "{tmp_path / "t.py"}" }}, {{ kind = "confidence" }}]' in shown["--trio", str(cascade)]
    assert ' ["a"] ' in shown["--stop", "a", "-ts", "1,2"] and " [1.0, 2.0] " in shown["--stop", "a", "-ts", "1,2"]


def test_config_says_that_another_rewards_threshold_is_a_default() -> None:
    def threshold(*words: str) -> str:
        (row,) = (line for line in rsd("config", *words).stdout.splitlines() if line.startswith("threshold "))
        return row

    assert threshold().endswith(str(models_file())) and threshold("--threshold", "0.5").split()[1:] == ["0.5", "flag", "--threshold"]
    for words, value in ((["--reward-kind", "judge"], "0.7"), (["--verifier", "arithmetic"], "1.0")):
        assert threshold(*words).split() == ["threshold", value, "default"]


def test_values_and_sizes_in_words() -> None:
    def checker() -> None: ...

    for value, said in (
        (None, "not set"),
        (True, "true"),
        ("", '""'),
        ("a b", "a b"),
        (Path("/m"), "/m"),
        ((), "[]"),
        ((1, 0.5, "a", None), '[1, 0.5, "a", not set]'),
        ({"a": {"b": False}, "c": None}, "{ a = { b = false } }"),
        (RewardConfig("digit", RoleConfig(Path("/m"), threads=2)), '{ kind = "digit", model = { path = "/m", threads = 2 } }'),
        (checker, '"checker"'),
        (float("inf"), "inf"),
    ):
        assert in_words(value) == said
    assert [gigabytes(size) for size in (530e6, 9.6e9, 96e6, 20e6, 2.4e6, 300e3)] == [
        "0.5 GB",
        "9.6 GB",
        "0.1 GB",
        "20 MB",
        "2 MB",
        "0.3 MB",
    ]


def test_doctor_counts_the_trios_that_are_not_here_and_shows_what_is() -> None:
    done = rsd("doctor")
    assert done.returncode == 0, done.stderr
    report = json.loads(rsd("doctor", "--json").stdout)
    assert "small" in report["to_pull"] and report["to_pull"]["small"] > 10**9
    assert f"trio       abacus: complete\n           {len(report['to_pull'])} more to pull (rsd list)\n" in done.stdout


def test_parts_of_a_split_model_count_in_fit(tiny: dict[str, Path], tmp_path: Path) -> None:
    files = write_parts(tiny["dense"], tmp_path / "m.gguf")
    flags = ("--target", tiny["dense"], "--reward-kind", "confidence", "--json")
    whole, split = (json.loads(rsd("fit", "--draft", path, *flags).stdout)["roles"]["draft"] for path in (tiny["dense"], files[0]))
    assert whole["weights"] == split["weights"] and whole["layers"] == split["layers"]
    files[1].unlink()
    done = rsd("fit", "--draft", files[0], *flags)
    assert done.returncode == 1 and f"{files[1].name} is not beside it" in done.stderr and done.stderr.count("\n") == 1


def test_a_context_beyond_what_a_model_was_trained_for_is_said_once(tiny: dict[str, Path], tmp_path: Path) -> None:
    draft = write_changed(tiny["dense"], tmp_path / "d.gguf", {"llama.context_length": (256, Kind.UINT32)})
    stretched = {"llama.rope.scaling.type": ("yarn", Kind.STRING), "llama.rope.scaling.factor": (8.0, Kind.FLOAT32)}
    scaled = write_changed(tiny["dense"], tmp_path / "s.gguf", stretched)
    flags = ("--reward-kind", "confidence", "-n", "3", "--draft", draft, "--target", tiny["dense"])
    said = "a context of 1,024 tokens is longer than models were trained for (draft for 256, target for 512): "
    done = rsd("solve", "hello", *flags, "-c", "1024", "--json")
    assert done.returncode == 0 and done.stderr.count(said) == 1 and done.stderr.count("trained for") == 1, done.stderr
    assert "give -c 256" in done.stderr and "trained for" not in done.stdout
    assert done.stderr.index(said) < len(done.stderr) - len(said)
    assert "trained for" not in rsd("solve", "hello", *flags, "-c", "256").stderr
    done = rsd("solve", "hello", *flags[:-4], "--draft", scaled, "--target", scaled, "-c", "4096")
    assert done.returncode == 0 and "trained for" not in done.stderr, "8 times 512 are 4,096"
    assert said in rsd("fit", *flags[:2], *flags[4:], "-c", "1024").stderr


def test_a_reasoner_that_is_opened_again_says_it_once(tiny: dict[str, Path]) -> None:
    code = f"""
import logging
from rsd_local import Reasoner, RoleConfig, Trio
logging.basicConfig()
for _ in range(2):
    role = RoleConfig({str(tiny["dense"])!r}, ctx_size=1024, trusted=True)
    Reasoner.open(Trio(role, role, reward_kind="confidence")).close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("trained for") == 1 and done.stderr.count("\n") == 1, done.stderr


def test_no_warning_names_a_model_within_its_context() -> None:
    header = read_header(find_trio("abacus").target.path)
    tokens = int(header.metadata["llama.context_length"])  # type: ignore[arg-type]
    assert context_warning([("target", header, tokens)]) == "" and "target for" in context_warning([("target", header, tokens + 1)])
    silent = replace(header, metadata={"general.architecture": "llama"})
    assert context_warning([("draft", silent, 1 << 30)]) == ""
