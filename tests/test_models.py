"""Models by name: pulled from a hub on loopback with real bytes, checked, listed and taken out again."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import Hub, environment, serving
from test_cli import refused
from tiny import write_model

from rsd_local.catalogue.models import ModelEntry
from rsd_local.errors import ConfigError

RSD = [sys.executable, "-c", "from rsd_local.cli import main; main()"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub with a trio of tiny models, and the settings of a machine that knows it."""
    files = {f"{name}.gguf": write_model(tmp_path / f"{name}.gguf", seed=seed).read_bytes() for seed, name in enumerate("dtr")}
    own = tmp_path / "config" / "rsd" / "models.toml"
    own.parent.mkdir(parents=True)
    entry = '[model.{0}]\nrepo = "me/tiny"\nfile = "{0}.gguf"\ngigabytes = 0.1\nlicence = "mit"\ncontext = 512\n'
    trio = '[trio.tiny]\ndraft.model = "d"\ntarget.model = "t"\nreward.model = "r"\n'
    own.write_text("".join(entry.format(name) for name in "dtr") + trio)
    with serving(files, tmp_path / "home") as settings:
        yield settings | {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def rsd(hub: dict[str, str], *arguments: object, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    call = [*RSD, *map(str, arguments)]
    return subprocess.run(call, env=environment(hub), capture_output=True, text=True, timeout=120, preexec_fn=limit)


def loadable(hub: dict[str, str]) -> list[Path]:
    """Files in the cache that somebody could take for a model."""
    return sorted(path for path in Path(hub["HF_HOME"]).rglob("*.gguf") if path.exists())


def test_a_trio_is_pulled_used_verified_and_taken_out(hub: dict[str, str]) -> None:
    refused(rsd(hub, "solve", "What?", "--trio", "tiny"), 1, "d.gguf", "rsd pull tiny")
    done = rsd(hub, "pull", "tiny")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert [path.name for path in loadable(hub)] == ["d.gguf", "r.gguf", "t.gguf"]
    fetched = [line for line in Hub.asked if line.startswith("GET")]
    assert sorted(fetched) == [f"GET /me/tiny/resolve/main/{name}.gguf" for name in "drt"]
    assert rsd(hub, "pull", "tiny").returncode == 0
    assert [line for line in Hub.asked if line.startswith("GET")] == fetched, "what is there is not fetched again"

    listed = json.loads(rsd(hub, "list", "--offline", "--json").stdout)
    assert listed["trios"]["tiny"] == "complete" and listed["models"]["d"] and listed["trios"]["llama"].endswith("missing")
    solved = rsd(hub, "solve", "What?", "--trio", "tiny", "-n", "20", "-c", "400", "--json")
    assert json.loads(solved.stdout)["text"], solved.stderr
    assert json.loads(rsd(hub, "show", "tiny", "--json").stdout)["models"]["d"]["here"] == str(loadable(hub)[0])
    assert rsd(hub, "verify", "tiny").stdout.count("as published") == 3
    assert json.loads(rsd(hub, "verify", "tiny", "--json").stdout) == dict.fromkeys("dtr", "as published")

    blob = loadable(hub)[0].resolve()
    damaged = bytearray(blob.read_bytes())
    damaged[-5] ^= 1
    blob.write_bytes(damaged)
    refused(rsd(hub, "verify", "d"), 1, "SHA-256 differs", "rsd pull")
    gone = rsd(hub, "rm", "tiny", "--yes")
    assert gone.returncode == 0 and "freed" in gone.stderr and loadable(hub) == []


def test_offline_opens_no_socket(hub: dict[str, str]) -> None:
    refused(rsd(hub, "pull", "d", "--offline"), 1, "not in the cache")
    assert rsd(hub, "list", "--offline").returncode == 0
    assert Hub.asked == []


@pytest.mark.parametrize("fault", ["missing", "wrong", "cut", "no space"])
def test_what_goes_wrong_is_one_line_and_leaves_nothing_that_loads(hub: dict[str, str], fault: str) -> None:
    if fault == "missing":
        del Hub.files["d.gguf"]
    elif fault != "no space":
        Hub.faults["d.gguf"] = fault
    done = rsd(hub, "pull", "d", largest=20_000 if fault == "no space" else None)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("rsd: ") and "Traceback" not in done.stderr, done.stderr
    words = {"missing": "the hub has no", "wrong": "SHA-256 differs", "cut": "cannot be fetched", "no space": "cannot be fetched"}
    assert words[fault] in last
    assert loadable(hub) == []
    if fault != "missing":
        Hub.faults.clear()
        assert rsd(hub, "pull", "d").returncode == 0 and len(loadable(hub)) == 1


def test_an_interrupted_pull_leaves_nothing_that_loads(hub: dict[str, str]) -> None:
    Hub.files["d.gguf"] += bytes(30_000_000)  # huggingface_hub writes in parts of ten megabytes
    Hub.faults["d.gguf"] = "slow"
    process = subprocess.Popen([*RSD, "pull", "d"], env=environment(hub), stderr=subprocess.PIPE, text=True)
    waited = time.monotonic()
    while not any(path.stat().st_size for path in Path(hub["HF_HOME"]).rglob("*.incomplete")) and time.monotonic() - waited < 60:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert loadable(hub) == []
    Hub.faults.clear()
    assert rsd(hub, "pull", "d").returncode == 0
    assert loadable(hub)[0].read_bytes() == Hub.files["d.gguf"]


@pytest.mark.parametrize("file", ["../x.gguf", "/etc/x.gguf", "C:\\x.gguf", "a/../x.gguf", "x\0.gguf", "x.exe", "", "a//x.gguf", ".x.gguf"])
def test_names_that_lead_elsewhere_are_refused(file: str) -> None:
    with pytest.raises(ConfigError, match="no plain path"):
        ModelEntry("me/tiny", file, 0.1, "mit", 512)
    with pytest.raises(ConfigError, match="no OWNER/NAME"):
        ModelEntry(f"me/{file}/..", "x.gguf", 0.1, "mit", 512)


def test_names_that_nobody_knows(hub: dict[str, str]) -> None:
    refused(rsd(hub, "pull", "../../etc/passwd"), 2, "no model and no trio", "rsd list")
    own = Path(hub["XDG_CONFIG_HOME"]) / "rsd" / "models.toml"
    own.write_text(own.read_text() + '[model.x]\nrepo = "me/tiny"\nfile = "x.gguf"\ngigabits = 1\n')
    refused(rsd(hub, "list"), 2, "unknown key 'gigabits'", "gigabytes")
    assert Hub.asked == []
