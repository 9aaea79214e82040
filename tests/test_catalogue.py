"""models.toml: each entry is well-formed, each trio is of models that go together, and the commands speak of all of them in 80 columns."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import rsd

from rsd_local.catalogue import Catalogue, user_models_file
from rsd_local.catalogue.models import ModelEntry
from rsd_local.cli.showing import trio_memory
from rsd_local.config import RoleConfig
from rsd_local.errors import ConfigError
from rsd_local.events import Role
from rsd_local.fit import RoleCapacity
from rsd_local.fit.memory import Footprint
from rsd_local.fit.published import published_header

SHA256 = re.compile(r"[0-9a-f]{64}")
LICENCES = {"apache-2.0", "mit", "llama3.1", "llama3.2", "lfm1.0", ""}
"""As the hub has them; SPDX's names in lower case where SPDX has one. Empty: not known."""
PADDING = 128
"""Rows of the embeddings that no token uses: Qwen2.5 from 7B on has so many more."""
PARTS = ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf")


@pytest.fixture(autouse=True)
def no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of the hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


CATALOGUE = Catalogue.read()


@pytest.mark.parametrize("name", CATALOGUE.models)
def test_every_model_is_well_formed(name: str) -> None:
    entry = CATALOGUE.models[name]
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repo) and entry.gigabytes > 0 and entry.licence in LICENCES
    assert all(not sha256 or SHA256.fullmatch(sha256) for sha256 in entry.hashes)
    assert len(entry.hashes) == len(entry.files)
    assert not entry.revision or re.fullmatch(r"[0-9a-f]{40}", entry.revision)
    assert entry.file.rsplit("/", 1)[-1].lower().replace("_", "-").count("q4-k-m") == name.count("q4_k_m"), "the name tells the file's type"
    experts = re.search(r"-a\d+(\.\d+)?b|gpt-oss", name)
    assert (entry.active is not None) == bool(experts), "of a mixture of experts what counts are the parameters that a token uses"


def test_no_two_models_are_the_same_file() -> None:
    files = [(entry.repo, entry.file) for entry in CATALOGUE.models.values()]
    hashes = [sha256 for entry in CATALOGUE.models.values() for sha256 in entry.hashes if sha256]
    assert len(set(files)) == len(files) and len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.models.items() if entry.shape is not None])
def test_a_shape_goes_with_the_size_of_its_file(name: str) -> None:
    entry = CATALOGUE.models[name]
    shape = entry.shape
    assert shape is not None and entry.active is None, "a shape is of a model without experts"
    weights = shape.vocabulary * shape.width + shape.layers * shape.width * (
        2 * (shape.heads + shape.kv_heads) * shape.head_size + 3 * shape.feed_forward
    )
    bits = 8 * entry.gigabytes * 1e9 / weights
    assert (8 <= bits < 9.5) if name.endswith("q8_0") else (4.4 <= bits < 8.5), f"{bits:.1f} bits a weight"
    assert (shape.full_attention_interval > 1) == entry.hybrid


@pytest.mark.parametrize("name", CATALOGUE.trios)
def test_every_trio_is_of_models_that_go_together(name: str) -> None:
    trio, table, used = CATALOGUE.trio(name), CATALOGUE.trios[name], CATALOGUE.models_of(name)
    assert trio.machine and trio.about and trio.expect.endswith(".")
    assert ("not measured" in trio.expect) != trio.expect.startswith("Measured"), "what was not measured is said to be so"
    if not used:
        return
    draft, target = used["draft"], used["target"]
    assert draft.gigabytes < target.gigabytes
    if draft.shape is not None and target.shape is not None:
        assert abs(draft.shape.vocabulary - target.shape.vocabulary) <= PADDING
    assert ("No gain in time" in trio.expect) == (target.active is not None), "a mixture of experts decodes too fast for a draft to pay"
    thinks = trio.think == "on" or "always" in (draft.thinking, target.thinking)
    if thinks:
        assert trio.think_budget and trio.draft.ctx_size >= 2 * trio.think_budget and trio.target.ctx_size == trio.draft.ctx_size
        assert "thinking" in table["about"]
    memory, room = trio_memory(CATALOGUE, name), int(trio.machine.removesuffix(" GB"))
    assert memory is not None and memory < room * 1e9 * 0.93, "with what the system and other programs take"


def test_there_are_trios_for_each_size_of_machine_and_of_one_model_twice() -> None:
    machines = [table["machine"] for table in CATALOGUE.trios.values()]
    assert machines == sorted(machines, key=lambda machine: int(machine.removesuffix(" GB")) if machine.endswith("GB") else 0)
    assert {"8 GB", "16 GB", "24 GB", "32 GB"} <= set(machines)
    twice = [name for name in CATALOGUE.trios if name.endswith("-quants")]
    assert len(twice) >= 3
    for name in twice:
        draft, target = (CATALOGUE.models_of(name)[role] for role in ("draft", "target"))
        assert draft.shape == target.shape and draft.context == target.context
    names = [name for name in CATALOGUE.trios if name != "abacus"]
    assert names[:3] == ["coder", "coder-7b", "coder-7b-1.5b"]


_ALL = """
import os, sys
import rsd_local.fit.speed
rsd_local.fit.speed.memory_bandwidth = lambda threads: 1e10  # measures a second each time otherwise
from rsd_local.catalogue import Catalogue
from rsd_local.cli import main
calls = [["list"], *([word, name] for name in Catalogue.read().trios for word in ("show", "fit"))]
for call in calls:
    print("$", *call, flush=True)
    try:
        main(call)
        code = 0
    except SystemExit as stop:
        code = stop.code
    sys.stdout.flush()
    print("=", code, flush=True)
"""


def in_a_terminal(program: str) -> str:
    """What a program prints to a terminal of 80 columns."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals on Windows")
    controller, terminal = pty.openpty()
    env = os.environ | {"COLUMNS": "80", "LINES": "50", "TERM": "dumb"}
    process = subprocess.Popen([sys.executable, "-c", program], stdin=terminal, stdout=terminal, stderr=terminal, env=env)
    os.close(terminal)
    said = b""
    try:
        while select.select([controller], [], [], 60)[0]:
            try:
                piece = os.read(controller, 65_536)
            except OSError:  # Linux: nobody has the other end open any more
                break
            if not piece:
                break
            said += piece
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    return said.decode().replace("\r\n", "\n")


def test_list_show_and_fit_speak_of_every_trio_without_its_files_in_80_columns() -> None:
    said = in_a_terminal(_ALL)
    calls = dict(re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", said, re.MULTILINE))
    assert len(calls) == 1 + 2 * len(CATALOGUE.trios)
    too_wide = [line for line in said.splitlines() if len(line) > 80]
    assert not too_wide, too_wide
    for call, text in calls.items():
        code = re.search(r"^= (\S+)$", text, re.MULTILINE)
        assert code is not None and code[1] in ("0", "1") and "Traceback" not in text, (call, text)
        assert code[1] == "0" or "does not fit" in text, (call, text)
    listed = calls["list"]
    assert listed.index("any machine\n") < listed.index("\n8 GB\n") < listed.index("\n32 GB\n")
    for name, table in CATALOGUE.trios.items():
        assert f"\n  {name}: " in listed and listed.count(f"\n{table['machine']}\n") == 1
        assert " ".join(table["expect"].split()) in " ".join(listed.split()), name
    assert "At best" in calls["show qwen3-8b"] and "does not fit" not in calls["fit abacus"]


def test_a_figure_that_is_not_known_is_said_to_be_unknown() -> None:
    shown = rsd("show", "qwen3.8-27b").stdout
    assert re.search(r"licence +unknown", shown) and re.search(r"context +unknown", shown) and re.search(r"MTP +unknown", shown)
    assert "SHA-256 as listed publicly, not compared yet" in shown
    assert "SHA-256 not listed" in rsd("show", "qwen2.5-0.5b-q8_0").stdout
    done = rsd("fit", "gemma-4-12b")
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.splitlines()[1].split()[:4] == ["draft", "3,350", "?", "?"]
    assert "is unknown until the file is here" in done.stderr and (done.returncode == 1 or "fits, as far as is known" in done.stdout)
    (memory,) = (line for line in rsd("show", "gemma-4-12b").stdout.splitlines() if line.startswith("  memory"))
    assert "at least 10." in memory


def test_no_speed_is_told_of_experts_before_the_file_is_here() -> None:
    done = rsd("fit", "gemma-4-26b-a4b")
    assert "no speed is told" in done.stdout and "times as fast" not in done.stdout and "tokens/s" not in done.stdout
    assert "a mixture: a token uses 3.8 billion of the parameters" in rsd("show", "gemma-4-26b-a4b").stdout


def test_the_recurrent_layers_of_a_hybrid_keep_nothing_of_a_token() -> None:
    entry = CATALOGUE.models["qwen3.5-4b-q4_k_m"]
    header = published_header(entry)
    made = Footprint.of(header, RoleCapacity(RoleConfig(entry.path, ctx_size=4096), 1), on_gpu=False)
    assert len(made.caches) == 32 and sum(size > 0 for size in made.caches) == 8
    assert made.cache == 4096 * 8 * 2 * 4 * 256 * 2, "keys and values of 4 heads of 256, two bytes each, in every fourth layer"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"sha256": "12"}, "no SHA-256"),
        ({"sha256": "A" * 64}, "no SHA-256"),
        ({"sha256": ["a" * 64]}, "1 values, and the model has 2 files"),
        ({"sha256": ["a" * 64, 7]}, "no SHA-256"),
        ({"revision": "main"}, "no commit of 40"),
        ({"thinking": "often"}, "thinking"),
        ({"active": 0.0}, "active 0.0 is not above 0"),
        ({"context": 0}, "context 0 is not above 0"),
        ({"mtp": -1}, "mtp -1"),
        ({"gigabytes": 0}, "gigabytes 0"),
    ],
    ids=str,
)
def test_a_wrong_key_of_an_entry_is_refused(changed: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ModelEntry(**({"repo": "me/tiny", "file": PARTS[0], "gigabytes": 0.1} | changed))  # type: ignore[arg-type]


def test_the_hashes_of_parts_are_a_list_or_that_of_the_first() -> None:
    assert ModelEntry("me/tiny", PARTS[0], 0.1, sha256="a" * 64).hashes == ("a" * 64, "")
    assert ModelEntry("me/tiny", PARTS[0], 0.1).hashes == ("", "")
    both = ModelEntry("me/tiny", PARTS[0], 0.1, sha256=("a" * 64, "b" * 64))
    assert both.hashes == ("a" * 64, "b" * 64) and both.files == PARTS


def test_an_own_trio_without_words_about_it_is_listed_too() -> None:
    file = user_models_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    entry = '[model.m]\nrepo = "a/b"\nfile = "m.gguf"\ngigabytes = 3\nlicence = "a licence of our own"\n'
    trios = '[trio.mine]\nreward_kind = "confidence"\ndraft.model = "m"\ntarget.model = "m"\n[trio.bad]\nnonsense = 1\n'
    file.write_text(entry + trios)
    try:
        listed = rsd("list").stdout
    finally:
        file.unlink()
    assert "\nof no named machine\n  mine: not here, 3.0 GB to fetch\n  bad: its table is not right\n" in listed
    assert re.search(r"  m +3\.00 GB  a licence of our own\n", listed)


def test_roles_that_are_weights_only_are_named_for_programs() -> None:
    import json

    found = json.loads(rsd("fit", "ministral-3-14b", "--json").stdout)
    roles: list[Role] = found["weights_only"]
    assert roles == ["reward", "target"] and found["roles"]["draft"]["cache"] > 0
