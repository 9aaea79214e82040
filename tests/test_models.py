"""Models by name: pulled from a hub on loopback with real bytes, checked, listed and taken out again."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed import write_parts
from loopback_hub import COMMIT, Hub, environment, serving
from test_cli import refused
from tiny import write_model

from rsd_local.catalogue.models import ModelEntry
from rsd_local.errors import ConfigError

RSD = [sys.executable, "-c", "from rsd_local.cli import main; main()"]
NO_LINKS = """
import os
def refuse(*_, **__): raise OSError(1314, "a privilege is not held")
os.symlink = refuse
from rsd_local.cli import main; main()
"""


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


def rsd(hub: dict[str, str], *arguments: object, largest: int | None = None, program: str = RSD[-1]) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    call = [sys.executable, "-c", program, *map(str, arguments)]
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
    assert sorted(fetched) == [f"GET /me/tiny/resolve/{COMMIT}/{name}.gguf" for name in "drt"], "all of one commit"
    assert rsd(hub, "pull", "tiny").returncode == 0
    assert [line for line in Hub.asked if line.startswith("GET")] == fetched, "what is there is not fetched again"

    listed = json.loads(rsd(hub, "list", "--offline", "--json").stdout)
    assert listed["trios"]["tiny"] == "complete" and listed["models"]["d"] and listed["trios"]["llama"].endswith("missing")
    solved = rsd(hub, "solve", "What?", "--trio", "tiny", "-n", "20", "-c", "400", "--json")
    assert json.loads(solved.stdout)["text"], solved.stderr
    assert json.loads(rsd(hub, "show", "tiny", "--json").stdout)["models"]["d"]["here"] == str(loadable(hub)[0])
    assert rsd(hub, "verify", "tiny").stdout.count("as published") == 3
    assert json.loads(rsd(hub, "verify", "tiny", "--json").stdout) == dict.fromkeys("dtr", "same")

    blob = loadable(hub)[0].resolve()
    damaged = bytearray(blob.read_bytes())
    damaged[-5] ^= 1
    blob.write_bytes(damaged)
    refused(rsd(hub, "verify", "d"), 1, "SHA-256 differs", "rsd pull")
    assert rsd(hub, "pull", "d").returncode == 0 and rsd(hub, "verify", "d").returncode == 0, "what is damaged is fetched anew"
    gone = rsd(hub, "rm", "tiny", "--yes")
    assert gone.returncode == 0 and "freed" in gone.stderr and loadable(hub) == []


def test_offline_opens_no_socket(hub: dict[str, str]) -> None:
    refused(rsd(hub, "pull", "d", "--offline"), 1, "not in the cache")
    assert rsd(hub, "list", "--offline").returncode == 0
    assert Hub.asked == []


def test_no_space_on_the_disk_is_one_line_and_the_next_try_goes_on(hub: dict[str, str]) -> None:
    refused(rsd(hub, "pull", "d", largest=20_000), 1, "cannot be written: File too large", "HF_HOME")
    assert loadable(hub) == []
    assert rsd(hub, "pull", "d").returncode == 0 and len(loadable(hub)) == 1


def test_an_interrupted_pull_ends_at_once_and_the_next_one_goes_on(hub: dict[str, str]) -> None:
    half, process = interrupted(hub)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert said.splitlines()[-1] == "rsd: interrupted; rsd pull tiny goes on from there" and "Traceback" not in said
    assert "d.gguf" not in [path.name for path in loadable(hub)]
    Hub.faults.clear()
    Hub.ranges.clear()
    assert rsd(hub, "pull", "tiny").returncode == 0
    assert f"bytes={half}-" in Hub.ranges, "what was there is not fetched again"
    assert loadable(hub)[0].read_bytes() == Hub.files["d.gguf"]


def test_a_killed_pull_leaves_nothing_that_loads(hub: dict[str, str]) -> None:
    _, process = interrupted(hub)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "d.gguf" not in [path.name for path in loadable(hub)]
    Hub.faults.clear()
    assert rsd(hub, "pull", "d").returncode == 0
    assert loadable(hub)[0].read_bytes() == Hub.files["d.gguf"]


def interrupted(hub: dict[str, str]) -> tuple[int, subprocess.Popen[str]]:
    """A pull that waits for a hub which has sent half of a file, and the bytes that are here of it."""
    Hub.files["d.gguf"] += bytes(3_000_000)
    Hub.faults["d.gguf"] = "slow"
    half, waited = len(Hub.files["d.gguf"]) // 2, time.monotonic()
    process = subprocess.Popen([*RSD, "pull", "tiny"], env=environment(hub), stderr=subprocess.PIPE, text=True)
    while time.monotonic() - waited < 60:
        if any(path.stat().st_size >= half - 65_536 for path in Path(hub["HF_HOME"]).rglob("*d.gguf.incomplete")):
            break
        time.sleep(0.05)
    time.sleep(0.2)
    return half, process


def test_a_part_that_was_damaged_while_it_waited_is_fetched_anew(hub: dict[str, str]) -> None:
    assert rsd(hub, "pull", "d").returncode == 0
    path = loadable(hub)[0]
    part = path.resolve().with_name(f"{path.resolve().name}.d.gguf.incomplete")
    path.resolve().unlink()
    path.unlink()
    part.write_bytes(bytes(1000))
    assert rsd(hub, "pull", "d").returncode == 0
    assert loadable(hub)[0].read_bytes() == Hub.files["d.gguf"]


def test_two_pulls_of_one_file_do_not_write_into_each_other(hub: dict[str, str]) -> None:
    _, first = interrupted(hub)
    refused(rsd(hub, "pull", "d"), 1, "another process is downloading it", "wait for it", ".locks")
    first.kill()
    first.communicate()


def test_without_links_in_the_cache_one_changed_bit_is_not_as_published(hub: dict[str, str]) -> None:
    assert rsd(hub, "pull", "tiny", program=NO_LINKS).returncode == 0
    assert not any(path.is_symlink() for path in Path(hub["HF_HOME"]).rglob("*"))
    assert rsd(hub, "verify", "d").stdout == "d: same as published\n", "the hub is asked"
    refused(rsd(hub, "verify", "d", "--offline"), 1, "d: unknown", "nothing here says what was published", "go online")
    assert json.loads(rsd(hub, "verify", "d", "--offline", "--json").stdout) == {"d": "unknown"}
    damaged = bytearray(loadable(hub)[0].read_bytes())
    damaged[-5] ^= 1
    loadable(hub)[0].write_bytes(damaged)
    refused(rsd(hub, "verify", "d"), 1, "d: differs", "SHA-256 differs")
    Hub.faults["d.gguf"] = (503, {}, "")
    refused(rsd(hub, "verify", "d"), 1, "d: unknown", "503 Service Unavailable")
    Hub.faults.clear()
    digest = hashlib.sha256(Hub.files["d.gguf"]).hexdigest()
    own = Path(hub["XDG_CONFIG_HOME"]) / "rsd" / "models.toml"
    own.write_text(own.read_text().replace('file = "d.gguf"', f'file = "d.gguf"\nsha256 = "{digest}"'))
    refused(rsd(hub, "verify", "d", "--offline"), 1, "d: differs", "SHA-256 differs")


def test_what_differs_does_not_hide_what_is_missing(hub: dict[str, str]) -> None:
    assert rsd(hub, "pull", "d").returncode == 0
    done = rsd(hub, "verify", "tiny")
    assert done.returncode == 1 and done.stdout == "d: same as published\n"
    assert "t: missing: t.gguf missing; r: missing: r.gguf missing" in done.stderr and "rsd pull" in done.stderr
    assert json.loads(rsd(hub, "verify", "tiny", "--json").stdout) == {"d": "same", "t": "missing", "r": "missing"}


def test_a_blob_that_is_a_link_into_a_store_of_several_caches_is_read_through_and_taken_out(hub: dict[str, str], tmp_path: Path) -> None:
    assert rsd(hub, "pull", "d").returncode == 0
    blob, store = loadable(hub)[0].resolve(), tmp_path / ("f" * 64)
    blob.rename(store)
    blob.symlink_to(store)
    assert rsd(hub, "verify", "d", "--offline").stdout == "d: same as published\n"
    assert rsd(hub, "rm", "d", "--yes").returncode == 0
    assert loadable(hub) == [] and not blob.is_symlink() and store.exists()


def test_a_repository_that_went_on_still_has_the_models_that_were_fetched(hub: dict[str, str]) -> None:
    assert rsd(hub, "pull", "tiny").returncode == 0
    Hub.commit = "2" * 40
    Hub.asked.clear()
    assert rsd(hub, "pull", "d").returncode == 0
    assert not [line for line in Hub.asked if line.startswith("GET")], "the content is the same"
    assert json.loads(rsd(hub, "list", "--json").stdout)["trios"]["tiny"] == "complete"
    assert rsd(hub, "rm", "d", "--yes").returncode == 0
    assert "d.gguf" not in [path.name for path in loadable(hub)], "no commit keeps it"


def test_a_model_in_three_parts_is_one_model(hub: dict[str, str]) -> None:
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    folder = Path(hub["HF_HOME"]).parent
    for part in write_parts(folder / "d.gguf", folder / "big.gguf"):
        Hub.files[part.name] = part.read_bytes()
    own = Path(hub["XDG_CONFIG_HOME"]) / "rsd" / "models.toml"
    own.write_text(own.read_text().replace('file = "d.gguf"', f'file = "{names[0]}"'))

    Hub.faults[names[1]] = (403, {"X-Error-Message": "no"}, "")
    refused_in_part = rsd(hub, "pull", "tiny")
    assert refused_in_part.returncode == 1 and "d part 2 of 3" in refused_in_part.stderr.splitlines()[-1]
    listed = rsd(hub, "list").stdout
    assert "tiny is incomplete: parts 2, 3 of 3 missing, rsd pull tiny fetches it" in listed
    assert json.loads(rsd(hub, "list", "--json").stdout)["models"]["d"] is False
    refused(rsd(hub, "verify", "d"), 1, "d: incomplete: parts 2, 3 of 3 missing", "rsd pull")

    Hub.faults.clear()
    assert rsd(hub, "pull", "tiny").returncode == 0
    assert [path.name for path in loadable(hub)] == [*names, "r.gguf", "t.gguf"]
    assert json.loads(rsd(hub, "list", "--json").stdout)["trios"]["tiny"] == "complete"
    assert rsd(hub, "verify", "d").stdout == "d: same as published\n"
    second = loadable(hub)[1].resolve()
    damaged = bytearray(second.read_bytes())
    damaged[-5] ^= 1
    second.write_bytes(damaged)
    refused(rsd(hub, "verify", "d"), 1, "d: differs", names[1])
    second.unlink()
    assert "tiny is incomplete: part 2 of 3 missing, rsd pull tiny fetches it" in rsd(hub, "list").stdout
    assert rsd(hub, "rm", "d", "--yes").returncode == 0
    assert [path.name for path in loadable(hub)] == ["r.gguf", "t.gguf"]
    with pytest.raises(ConfigError, match="later part"):
        ModelEntry("me/tiny", names[1], 0.1, "mit", 512)


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
