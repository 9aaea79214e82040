"""The key of a server goes to the server, and shows nowhere else, even where the server says it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_support import Exchange, Proxy, llama_server, needs_server, rsd
from server_support import served
from test_remote_faults import api

from rsd_local import RemoteRole
from rsd_local.errors import RSDError
from rsd_local.remote.faults import Faults
from rsd_local.remote.transport import Call

ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
QUESTION, KEY = "(37+48)*6-129", "sk-4f9Q7/vXw2Lr8Tz"


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with llama_server(ABACUS / "abacus-target.gguf") as server, Proxy(server.port) as found:
        yield found


@pytest.fixture
def trio(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trio's file whose target has a key from a variable."""
    monkeypatch.setenv("DESK_KEY", KEY)
    proxy.always.clear()
    file = tmp_path / "mine.toml"
    file.write_text(
        f'task = "arithmetic"\nreward_kind = "confidence"\ndraft.path = "{(ABACUS / "abacus-draft.gguf").as_posix()}"\n'
        f'draft.threads = 1\n[target]\nurl = "{proxy.url}"\napi_key_env = "DESK_KEY"\nconnect_timeout = 1\n'
    )
    return file


def tells(status: int) -> Any:
    """A server that says the key that it got, in its whole body."""
    said = json.dumps({"error": {"code": status, "message": f"Bearer {KEY} is a bad key, {'x' * 170} {KEY}"}}).encode()
    return lambda exchange: exchange.say(status, said)


@needs_server
def test_the_key_is_in_nothing_that_a_command_says_or_writes(proxy: Proxy, trio: Path, tmp_path: Path) -> None:
    proxy.heads.clear()
    made = [
        rsd("config", "--trio", trio),
        rsd("config", "--trio", trio, "--json"),
        rsd("solve", "--trio", trio, "-v", "--stats", "--json", QUESTION),
        rsd("solve", "--trio", trio, "--jsonl", QUESTION),
    ]
    assert all(one.returncode == 0 for one in made), [one.stderr for one in made]
    assert "DESK_KEY" in made[0].stdout and proxy.heads and all(f"Bearer {KEY}".encode() in head for head in proxy.heads)
    for status in (401, 500):
        proxy.always["/completion"] = tells(status)
        made.append(rsd("solve", "--trio", trio, "--jsonl", QUESTION, "--strategy", "target"))
        assert made[-1].returncode != 0 and f"({status})" in made[-1].stderr
    proxy.always.clear()
    with served("--trio", trio, "--run-log", tmp_path / "log", "--log-text", "-v") as server:
        answered = [server.post(QUESTION).text]
        proxy.always["/completion"] = tells(500)
        answered += [server.post("12+34").text, server.client.get("/props").text, server.client.get("/metrics").text]
        log = list(server.log)
    written = [file.read_text() for file in (tmp_path / "log").rglob("*") if file.is_file()]
    assert written and "37+48" in "".join(written)
    for text in (*(one.stdout + one.stderr for one in made), *answered, *log, *written):
        assert KEY not in text and KEY[:9] not in text


@needs_server
@pytest.mark.parametrize("pad", [0, 50, 60, 70, 150, 190, 4080])
def test_a_part_of_the_key_does_not_show_where_a_text_is_cut(proxy: Proxy, trio: Path, pad: int) -> None:
    """What is no JSON, an event that is none, a number that is none, an unknown end, an error's message."""
    said = f"{'x' * pad}{KEY}{KEY}"
    client = api(proxy.url, api_key_env="DESK_KEY")

    def error(path: str, answer: bytes, status: int = 200) -> str:
        proxy.always[path] = lambda exchange: Exchange.say(exchange, status, answer)
        with pytest.raises(RSDError) as caught:
            if path == "/completion":
                client._transport.stream(path, {}, Call(), most=9).__next__()
            elif path == "/props":
                client.facts()
            else:
                client.tokenize("1")
        assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
        return f"{caught.value} {caught.value.hint}"

    props = {"default_generation_settings": {"n_ctx": said}, "total_slots": 1}
    told = [
        error("/tokenize", said.encode()),
        error("/tokenize", said.encode(), 400),
        error("/tokenize", json.dumps({"error": {"message": said}}).replace("/", "\\/").encode(), 500),
        error("/completion", f"{said}\n\n".encode()),
        error("/completion", f"data: {said}\n\n".encode()),
        error("/props", json.dumps(props).encode()),
    ]
    assert not any(KEY[:4] in text for text in told), told
    proxy.always.clear()


def test_what_a_server_says_is_fit_for_a_line() -> None:
    faults = Faults(RemoteRole("http://desk"), KEY)
    assert faults.said(f"a\n\tb \x1b[2J {KEY}é") == "a b ?[2J …é"
    assert faults.said(KEY.replace("/", "\\/") + "\ud800") == "…?"
    assert len(faults.said("x" * 10**7)) == 200 and len(faults.shown(10**4000)) <= 40
    assert faults.shown([[[]]]) == "a list" and faults.shown({}) == "an object" and faults.shown(None) == "None"
    assert faults.shown(f"it's {KEY}") == '"it\'s …"'
