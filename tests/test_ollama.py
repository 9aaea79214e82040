"""Models of Ollama by name: found where a model's path is taken, and its folder is never written."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_folders import put_into_ollama, snapshot, without_root, write_manifest, write_sized
from test_cli import refused, rsd

from rsd_local.cli.completion import complete
from rsd_local.config import RoleConfig
from rsd_local.config.ollama import OllamaName, find_model, model_names, stores
from rsd_local.errors import ConfigError, ModelNotFound, NotAModel
from rsd_local.toml_settings import read_trio

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with models of four names."""
    folder = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(folder))
    small, large = write_sized(tmp_path / "small.gguf"), write_sized(tmp_path / "large.gguf", 3, seed=1)
    put_into_ollama(folder, f"{LIBRARY}/tiny/latest", small)
    put_into_ollama(folder, f"{LIBRARY}/tiny/8b", large)
    put_into_ollama(folder, "registry.ollama.ai/me/mine/latest", small)
    put_into_ollama(folder, "hf.co/owner/repo.GGUF/Q4_K_M", large)
    return folder


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("tiny", f"{LIBRARY}/tiny/latest", "tiny:latest"),
        ("qwen3:8b", f"{LIBRARY}/qwen3/8b", "qwen3:8b"),
        ("me/mine", "registry.ollama.ai/me/mine/latest", "me/mine:latest"),
        ("library/qwen3:8b", f"{LIBRARY}/qwen3/8b", "qwen3:8b"),
        ("hf.co/owner/repo.GGUF:Q4_K_M", "hf.co/owner/repo.GGUF/Q4_K_M", "hf.co/owner/repo.GGUF:Q4_K_M"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b/c", "localhost:5000/a/b:c"),
        ("registry.ollama.ai/library/qwen3:8b", f"{LIBRARY}/qwen3/8b", "qwen3:8b"),
    ],
)
def test_names_are_those_of_ollama(text: str, path: str, shown: str) -> None:
    name = OllamaName.parse(text)
    assert (f"{name.host}/{name.namespace}/{name.model}/{name.tag}", str(name)) == (path, shown)
    assert OllamaName.parse(str(name)) == name


OUTSIDE = [
    "..",
    "../x",
    "a/..",
    "../../etc/passwd",
    "a/../b:c",
    "/etc/passwd",
    "a//b",
    "a:..",
    "a:../b",
    "a:b/../c",
    "./a",
    ".a",
    "a\\..\\b",
]


@pytest.mark.parametrize("text", [*OUTSIDE, "", ":8b", "a:", "a:b:c", "a/b/c/d", "a b", "a\0b", "a\nb", "ä", "..:5000/a/b", "a" * 200])
def test_no_name_leads_out_of_the_store(text: str, store: Path) -> None:
    (store.parent / "passwd").write_text("{}")
    with pytest.raises(ConfigError, match="no name of a model of Ollama"):
        OllamaName.parse(text)
    if "//" not in text:  # a path has one separator in place of two
        with pytest.raises(ConfigError):
            RoleConfig(Path(f"ollama:{text}"))


def test_every_role_and_every_trios_file_takes_a_name(store: Path, tmp_path: Path) -> None:
    small, large = find_model(OllamaName.parse("tiny")).weights, find_model(OllamaName.parse("tiny:8b")).weights
    assert RoleConfig(Path("ollama:me/mine")).path == small and small.parent == store / "blobs"
    assert RoleConfig(Path("ollama:hf.co/owner/repo.GGUF:Q4_K_M")).path == large
    file = tmp_path / "folder" / "mine.toml"
    file.parent.mkdir()
    file.write_text('draft.path = "ollama:tiny"\ntarget.path = "ollama:tiny:8b"\nreward.path = "ollama:me/mine"\n')
    trio = read_trio(file)
    assert trio.reward is not None and (trio.draft.path, trio.target.path, trio.reward.path) == (small, large, small)
    file.write_text('draft.path = "ollama:tiny"\ntarget.path = "ollama:tiny:8b"\n[[reward]]\nkind = "judge"\npath = "ollama:tiny"\n')
    model = read_trio(file).stages[0].model
    assert model is not None and model.path == small


def test_models_of_ollama_answer_and_nothing_is_written(store: Path, tmp_path: Path) -> None:
    before = snapshot(store)
    names = ("-md", "ollama:tiny", "-m", "ollama:tiny:8b", "-mr", "ollama:me/mine")
    done = rsd("solve", "What is it?", *names, "--reward-kind", "judge", "-n", "40", "-c", "400", "-t", "1", "--json")
    assert done.returncode == 0, done.stderr
    counters = json.loads(done.stdout)["counters"]
    assert counters["draft"]["generated_tokens"] > 0 and counters["reward"]["prompt_tokens"] > 0
    file = tmp_path / "mine.toml"
    file.write_text('reward_kind = "judge"\ndraft.path = "ollama:tiny"\ntarget.path = "ollama:tiny:8b"\n')
    assert rsd("fit", file).returncode == 0
    assert snapshot(store) == before


def test_a_model_that_is_not_there_is_said_with_those_that_are(store: Path) -> None:
    for flag in ("-m", "-md", "-mr"):
        done = rsd("solve", "x", flag, "ollama:tiny:9b", "--reward-kind", "judge", "--trio", "small")
        refused(
            done, 1, "Ollama has no model 'tiny:9b'", str(store), "tiny:8b, tiny:latest", "me/mine:latest", "hf.co/owner/repo.GGUF:Q4_K_M"
        )
    for place in range(20):
        write_manifest(store, f"{LIBRARY}/other{place}/latest", "{}")
    with pytest.raises(ModelNotFound) as error:
        RoleConfig(Path("ollama:tiny:9b"))
    assert error.value.hint.startswith("there: tiny:8b, tiny:latest, ") and error.value.hint.endswith("and 16 more")


def test_without_ollama_the_places_that_were_looked_into_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    refused(
        rsd("solve", "x", "-m", "ollama:a", "-md", "ollama:b", "--reward-kind", "judge"),
        1,
        "Ollama has no models in",
        str(tmp_path / "none"),
        "OLLAMA_MODELS",
    )
    monkeypatch.delenv("OLLAMA_MODELS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stores() == [tmp_path / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


BLOB = "sha256:" + "0" * 64


def layers(*digests: object, kind: object = "application/vnd.ollama.image.model") -> str:
    return json.dumps({"layers": [{"mediaType": kind, "digest": digest} for digest in digests]})


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", NotAModel, "damaged"),
        ("{", NotAModel, "damaged"),
        ("[]", NotAModel, "damaged"),
        ("null", NotAModel, "damaged"),
        ("\udcff\udcfe", NotAModel, "damaged"),
        ("[" * 100_000, NotAModel, "damaged"),
        ('{"layers": 5}', NotAModel, "damaged"),
        ('{"layers": [5]}', NotAModel, "damaged"),
        ('{"layers": [{}]}', NotAModel, "damaged"),
        (layers(5), NotAModel, "damaged"),
        (layers("sha256:../../../../etc/passwd"), NotAModel, "damaged"),
        (layers("sha256:" + "0" * 63), NotAModel, "damaged"),
        (layers("sha256:" + "0" * 64 + "\n"), NotAModel, "damaged"),
        (layers(), NotAModel, "no GGUF file"),
        (layers(BLOB, kind="application/vnd.ollama.image.tensor"), NotAModel, "no GGUF file"),
        (layers(BLOB, kind=[]), NotAModel, "no GGUF file"),
        (layers(BLOB, BLOB), NotAModel, "2 files of weights"),
        (layers(BLOB), ModelNotFound, "is not there: .*sha256-000"),
    ],
)
def test_what_is_damaged_is_said_in_one_line(text: str, error: type[Exception], words: str, store: Path) -> None:
    manifest = store / "manifests" / LIBRARY / "odd" / "latest"
    manifest.parent.mkdir()
    manifest.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(error, match=words) as raised:
        RoleConfig(Path("ollama:odd"))
    assert "\n" not in str(raised.value) and "odd:latest" in str(raised.value)


def test_a_manifest_that_is_no_file_is_none(store: Path) -> None:
    (store / "manifests" / LIBRARY / "odd" / "latest").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match="has no model 'odd:latest'"):
        RoleConfig(Path("ollama:odd"))
    assert "odd:latest" not in map(str, model_names(store))


def test_an_adapter_is_said_to_be_left_out(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapter = {"mediaType": "application/vnd.ollama.image.adapter", "digest": BLOB}
    blob = put_into_ollama(store, f"{LIBRARY}/tuned/latest", tmp_path / "small.gguf", more=[adapter])
    with caplog.at_level(logging.WARNING):
        assert RoleConfig(Path("ollama:tuned")).path == blob
    assert "ollama:tuned:latest has a LoRA adapter, which is left out" in caplog.text
    done = rsd("solve", "x", "-m", "ollama:tuned", "-md", "ollama:tuned", "--reward-kind", "judge", "-n", "5", "-t", "1")
    assert done.returncode == 0 and "LoRA adapter, which is left out" in done.stderr


def test_a_trio_of_ones_own_whose_model_is_gone_spoils_no_other(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "config" / "rsd" / "models.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[trio.gone]\ndraft.path = "ollama:tiny"\ntarget.path = "ollama:nine"\nreward_kind = "judge"\n')
    done = rsd("list")
    assert done.returncode == 0 and "gone" in done.stdout and "abacus" in done.stdout
    assert "Ollama has no model 'nine:latest'" in rsd("show", "gone").stdout
    refused(rsd("solve", "x", "--trio", "gone"), 1, "Ollama has no model 'nine:latest'")


def test_shells_are_offered_the_names(store: Path) -> None:
    found = [line.split("\t")[0] for line in complete(["solve", "-m", "ollama:ti"])]
    assert found == ["ollama:tiny:8b", "ollama:tiny:latest", ":file"]
    assert "--draft=ollama:me/mine:latest" in [line.split("\t")[0] for line in complete(["solve", "--draft=ollama:"])]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in folders that everybody may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_store_that_may_not_be_read_is_said(open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_into_ollama(open_folder / "models", f"{LIBRARY}/a/latest", write_sized(tmp_path / "a.gguf"))
    (open_folder / "models").chmod(0)
    monkeypatch.setenv("OLLAMA_MODELS", str(open_folder / "models"))
    with without_root(), pytest.raises(ModelNotFound, match="cannot be read: .*Permission denied") as error:
        RoleConfig(Path("ollama:a"))
    (open_folder / "models").chmod(0o755)
    assert "usermod -aG ollama" in error.value.hint
