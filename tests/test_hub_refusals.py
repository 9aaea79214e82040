"""What a hub, a proxy or a network refuses: one line with its status and its own words, within seconds, and nothing that loads."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from loopback_hub import Hub, environment, serving
from test_cli import refused

PULL = "from rsd_local.cli import main; main(['pull', 'd'])"
GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model me/tiny is restricted."}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    own = tmp_path / "config" / "rsd" / "models.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[model.d]\nrepo = "me/tiny"\nfile = "d.gguf"\ngigabytes = 0.1\nlicence = "mit"\ncontext = 512\n')
    with serving({"d.gguf": bytes(100_000)}, tmp_path / "home") as settings:
        yield settings | {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def pull(hub: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PULL], env=environment(hub | more), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (
            (401, GATED, ""),
            2,
            ["asks for an account", "401", "Access to model me/tiny is restricted.", "HF_TOKEN", "hf auth login", "/me/tiny"],
        ),
        ((403, GATED, ""), 2, ["asks for an account", "403", "accept its terms", "https://huggingface.co/me/tiny"]),
        (
            (401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}, ""),
            2,
            ["401", "Invalid username", "none of this name"],
        ),
        ((403, {"X-Error-Message": "Storage limit of me reached"}, ""), 1, ["403 Forbidden: Storage limit of me reached", "hf auth login"]),
        ((403, {}, '{"error": "blocked by the m\\u00efrror"}'), 1, ["403 Forbidden: blocked by the mïrror"]),
        ((403, {"Content-Type": "text/html"}, "<html><body>a page for people</body></html>"), 1, ["(403 Forbidden)"]),
        (
            (404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, ""),
            1,
            ["the hub has no me/tiny/d.gguf (404", "rsd list"],
        ),
        ((429, {"Retry-After": "120"}, ""), 1, ["429 Too Many Requests", "try again in 120 s", "hf auth login"]),
        ((429, {"RateLimit": '"resolvers";r=0;t=77'}, ""), 1, ["429 Too Many Requests", "try again in 77 s"]),
        ((503, {}, "the hub is being repaired"), 1, ["503 Service Unavailable: the hub is being repaired", "try again later"]),
        ((418, {}, ""), 1, ["418"]),
        ("hub", 1, ["not as a model hub does", "X-Repo-Commit", "sign in to this network"]),
        ("wrong", 1, ["SHA-256 differs", "fetches it anew"]),
        ("cut", 1, ["after 0.1 of 0.1 MB", "the next try continues from there", "broke off"]),
    ],
    ids=str,
)
def test_a_refusal_is_one_line_with_status_and_words(hub: dict[str, str], fault: object, code: int, words: list[str]) -> None:
    Hub.faults["d.gguf"] = fault  # type: ignore[assignment]
    done = pull(hub)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == code and done.stdout == "" and last.startswith("rsd: "), done.stderr
    assert all(line.startswith("d: ") for line in done.stderr.splitlines()[:-1]), "only what is fetched before the refusal"
    for word in words:
        assert word in last
    assert time.monotonic() - Hub.began < 12, "a few seconds after the first question, also where others compute"
    assert list(Path(hub["HF_HOME"]).rglob("d.gguf")) == []


def test_a_date_as_retry_after_is_understood(hub: dict[str, str]) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)  # a whole second, which lies up to one before
    Hub.faults["d.gguf"] = (503, {"Retry-After": later}, "")
    done = pull(hub)
    refused(done, 1, "try again in ", "503")
    told = re.search(r"try again in (\d+) s", done.stderr)
    assert told is not None and 560 < int(told[1]) <= 600, done.stderr


def test_a_hub_that_is_busy_for_a_second_is_asked_again(hub: dict[str, str]) -> None:
    Hub.faults["d.gguf"] = (429, {"Retry-After": "1"}, "")
    process = subprocess.Popen([sys.executable, "-c", PULL], env=environment(hub), stderr=subprocess.PIPE, text=True)
    while not Hub.asked:
        time.sleep(0.01)
    Hub.faults["d.gguf"] = "wrong"
    assert "SHA-256 differs" in process.communicate(timeout=60)[1], "it got as far as the file"


def test_no_network_is_one_line(hub: dict[str, str]) -> None:
    done = pull(hub, HF_ENDPOINT="http://127.0.0.1:9")
    refused(done, 1, "http://127.0.0.1:9 cannot be reached", "efused", "check the connection")
    refused(pull(hub, HF_ENDPOINT="http://no-such-host.invalid"), 1, "http://no-such-host.invalid cannot be reached")
    refused(pull(hub, HF_ENDPOINT="gopher://127.0.0.1"), 2, "check HF_ENDPOINT")


def test_a_proxy_is_named_without_its_password(hub: dict[str, str]) -> None:
    done = pull(hub, HTTP_PROXY="http://me:secret@127.0.0.1:9", NO_PROXY="", http_proxy="http://me:secret@127.0.0.1:9", no_proxy="")
    refused(done, 1, "through the proxy http://127.0.0.1:9", "check HTTPS_PROXY")
    assert "secret" not in done.stderr


def test_a_hub_that_says_nothing_is_left_soon(hub: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = pull(hub, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}", HF_HUB_ETAG_TIMEOUT="1")
    refused(done, 1, "cannot be reached", "timed out")


def test_what_is_here_is_kept_when_the_hub_refuses_and_the_cause_is_said(hub: dict[str, str], tmp_path: Path) -> None:
    from tiny import write_model

    Hub.files["d.gguf"] = write_model(tmp_path / "d.gguf").read_bytes()
    assert pull(hub).returncode == 0
    Hub.faults["d.gguf"] = (503, {}, "")
    done = pull(hub)
    assert done.returncode == 0 and "d (me/tiny/d.gguf) is kept as it is: " in done.stderr and "503" in done.stderr


def test_names_from_the_hub_lead_nowhere_else(hub: dict[str, str]) -> None:
    Hub.commit = "../../../../elsewhere"
    refused(pull(hub), 1, "not as a model hub does")
    assert not [path for path in Path(hub["HF_HOME"]).parent.rglob("*elsewhere*")]


def test_a_token_does_not_leave_the_hub(hub: dict[str, str]) -> None:
    """localhost is another host than 127.0.0.1, and leads back to a file that is here."""
    port = hub["HF_ENDPOINT"].rpartition(":")[2]
    Hub.files["elsewhere.gguf"] = Hub.files["d.gguf"]
    Hub.faults["d.gguf"] = (302, {"Location": f"http://localhost:{port}/me/tiny/resolve/main/elsewhere.gguf"}, "")
    done = pull(hub, HF_TOKEN="hf_secret", NO_PROXY="127.0.0.1,localhost")
    assert [token for path, token in Hub.tokens if path.endswith("d.gguf")][0] == "Bearer hf_secret", done.stderr
    assert {token for path, token in Hub.tokens if path.endswith("elsewhere.gguf")} == {None}
