"""Pulling a model in several parts, with listed SHA-256 and a pinned commit, from a hub on loopback."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from changed import write_parts
from loopback_hub import COMMIT, Hub, environment, serving
from test_cli import refused
from test_models import RSD, loadable, rsd
from tiny import write_model

NAMES = tuple(f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3))
OTHER = "2" * 40


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub with a model in three parts, and one in one."""
    whole = write_model(tmp_path / "t.gguf", seed=1)
    files = {part.name: part.read_bytes() for part in write_parts(write_model(tmp_path / "d.gguf"), tmp_path / "big.gguf")}
    assert tuple(files) == NAMES
    with serving(files | {"t.gguf": whole.read_bytes()}, tmp_path / "home") as settings:
        yield settings | {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def catalogue(hub: dict[str, str], **more: object) -> None:
    """Writes the user's own models.toml: ``big`` with these keys besides its own, ``t``, and a trio of both."""
    own = Path(hub["XDG_CONFIG_HOME"]) / "rsd" / "models.toml"
    own.parent.mkdir(parents=True, exist_ok=True)
    given = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    common = 'repo = "me/tiny"\ngigabytes = 0.1\nlicence = "mit"\n'
    own.write_text(
        f'[model.big]\n{common}file = "{NAMES[0]}"\n{given}[model.t]\n{common}file = "t.gguf"\n'
        '[trio.tiny]\nreward_kind = "confidence"\ndraft.model = "big"\ntarget.model = "t"\n'
    )


def hashes() -> list[str]:
    return [hashlib.sha256(Hub.files[name]).hexdigest() for name in NAMES]


def fetched() -> list[str]:
    return [line.rsplit("/", 1)[-1] for line in Hub.asked if line.startswith("GET")]


def test_all_parts_are_fetched_and_each_is_compared_with_its_listed_sha256(hub: dict[str, str]) -> None:
    catalogue(hub, sha256=hashes())
    assert "SHA-256 as listed publicly, not compared yet" in rsd(hub, "show", "big").stdout
    done = rsd(hub, "pull", "tiny")
    assert done.returncode == 0, done.stderr
    assert sorted(fetched()) == [*NAMES, "t.gguf"]
    assert "big: mit; SHA-256 as listed publicly, and as the hub has it: the file that is here was compared" in done.stderr
    assert "t: mit; SHA-256 not listed: a download is compared with the hub's own" in done.stderr
    assert "was compared" in rsd(hub, "show", "big").stdout
    assert rsd(hub, "verify", "tiny", "--offline").returncode == 0
    solved = rsd(hub, "solve", "What?", "--trio", "tiny", "-n", "10", "-c", "400", "--json")
    assert solved.returncode == 0 and json.loads(solved.stdout)["text"], solved.stderr


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_part_that_is_not_the_listed_one_is_refused_and_the_model_is_not_whole(hub: dict[str, str], number: int) -> None:
    listed = hashes()
    listed[number] = "0" * 64
    catalogue(hub, sha256=listed)
    done = rsd(hub, "pull", "big")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"big part {number + 1} of 3" in last and "than models.toml lists" in last, done.stderr
    assert hashes()[number] in last and "without sha256" in last, "what the hub has is said, and the way out"
    assert NAMES[number] not in [path.name for path in loadable(hub)]
    assert json.loads(rsd(hub, "list", "--json", "--offline").stdout)["models"]["big"] is False
    assert rsd(hub, "solve", "What?", "--trio", "tiny").returncode == 1


def test_a_pull_that_was_interrupted_in_the_second_part_goes_on_in_it(hub: dict[str, str]) -> None:
    catalogue(hub)
    Hub.files[NAMES[1]] += bytes(3_000_000)
    Hub.faults[NAMES[1]] = "slow"
    half, began = len(Hub.files[NAMES[1]]) // 2, time.monotonic()
    process = subprocess.Popen([*RSD, "pull", "big"], env=environment(hub), stderr=subprocess.PIPE, text=True)
    while time.monotonic() - began < 60:
        if any(path.stat().st_size >= half - 65_536 for path in Path(hub["HF_HOME"]).rglob(f"*{NAMES[1]}.incomplete")):
            break
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert "rsd pull big goes on from there" in process.communicate(timeout=30)[1] and process.returncode == 130
    assert [path.name for path in loadable(hub)] == [NAMES[0]], "the first part is whole, the second is no model's file"
    Hub.faults.clear()
    Hub.asked.clear()
    Hub.ranges.clear()
    assert rsd(hub, "pull", "big").returncode == 0
    assert fetched() == [*NAMES[1:]] and f"bytes={half}-" in Hub.ranges, "what was there is not fetched again"
    assert loadable(hub)[1].read_bytes() == Hub.files[NAMES[1]]


def test_a_model_of_which_a_part_is_missing_is_told_from_the_catalogue(hub: dict[str, str]) -> None:
    catalogue(hub)
    Hub.faults[NAMES[1]] = (403, {"X-Error-Message": "no"}, "")
    assert rsd(hub, "pull", "tiny").returncode == 1
    done = rsd(hub, "fit", "tiny")
    assert done.returncode == 0 and f"not here: {NAMES[0]} (0.1 GB)" in done.stderr and "Traceback" not in done.stderr, done.stderr
    shown = rsd(hub, "show", "tiny").stdout
    assert "incomplete: parts 2, 3 of 3 missing" in shown and "at least 0.1 GB" in shown and "0.1 GB file, about 0.1 GB in memory" in shown


def test_a_damaged_part_is_fetched_anew_and_the_others_are_kept(hub: dict[str, str]) -> None:
    catalogue(hub, sha256=hashes(), revision=COMMIT)
    assert rsd(hub, "pull", "big").returncode == 0
    second = loadable(hub)[1].resolve()
    damaged = bytearray(second.read_bytes())
    damaged[-5] ^= 1
    second.write_bytes(damaged)
    refused(rsd(hub, "verify", "big", "--offline"), 1, "big: differs", NAMES[1])
    Hub.asked.clear()
    assert rsd(hub, "pull", "big").returncode == 0 and fetched() == [NAMES[1]]
    assert rsd(hub, "verify", "big").returncode == 0


def test_a_pinned_commit_is_what_is_asked_for_and_what_counts(hub: dict[str, str]) -> None:
    catalogue(hub)
    assert rsd(hub, "pull", "big").returncode == 0
    catalogue(hub, revision=OTHER)
    assert json.loads(rsd(hub, "list", "--json").stdout)["models"]["big"] is False, "files of another commit may be other files"
    refused(rsd(hub, "pull", "big"), 1, "big part 1 of 3", f"another commit, {COMMIT[:10]}")
    Hub.commit = OTHER
    Hub.asked.clear()
    assert rsd(hub, "pull", "big").returncode == 0 and fetched() == [], "the content is the same: it is not fetched twice"
    assert all(f"/resolve/{OTHER}/" in line for line in Hub.asked)
    assert json.loads(rsd(hub, "list", "--json").stdout)["models"]["big"] is True
    Hub.asked.clear()
    assert rsd(hub, "pull", "big").returncode == 0 and Hub.asked == [], "a commit does not change"


def test_files_of_another_commit_count_where_their_content_is_the_listed_one(hub: dict[str, str]) -> None:
    catalogue(hub)
    assert rsd(hub, "pull", "big").returncode == 0
    catalogue(hub, sha256=hashes(), revision=OTHER)
    Hub.asked.clear()
    assert json.loads(rsd(hub, "list", "--json", "--offline").stdout)["models"]["big"] is True
    assert rsd(hub, "pull", "big", "--offline").returncode == 0 and Hub.asked == []
    assert rsd(hub, "verify", "big", "--offline").returncode == 0
    catalogue(hub, sha256=["0" * 64, *hashes()[1:]], revision=OTHER)
    assert json.loads(rsd(hub, "list", "--json", "--offline").stdout)["models"]["big"] is False


def test_a_commit_that_is_gone_is_said_with_a_way_out(hub: dict[str, str]) -> None:
    catalogue(hub, revision=OTHER)
    Hub.faults[NAMES[0]] = (404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, "")
    refused(rsd(hub, "pull", "big"), 1, "Invalid rev id", "another repository or revision")
