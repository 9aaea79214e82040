"""``rsd fit`` and ``rsd doctor`` with a target on a real llama-server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_support import ABACUS, LlamaServer, Proxy, llama_server, needs_server, rsd, trio_file

from rsd_local.fit.measured import Speed, gain_of
from rsd_local.roles import StepCost


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf", slots=3) as found:
        yield found


@needs_server
def test_fit_says_what_the_server_is_and_measures_it(server: LlamaServer, tmp_path: Path) -> None:
    file = trio_file(tmp_path, server.url)
    plain = rsd("fit", file)
    assert plain.returncode == 0 and plain.stdout.endswith("fits\n"), plain.stderr
    rows = {line.split()[0]: line for line in plain.stdout.splitlines() if line}
    assert {"draft", "reward", "target", "all", "free"} <= set(rows)
    assert re.search(
        rf"on {re.escape(server.url)} \(llama-server .*\), 0\.00798 B parameters, context 256, 3 slots; "
        r"takes tokens, reads ahead, can be a judge$",
        rows["target"],
    ), rows["target"]
    measured = rsd("fit", file, "--measure")
    assert measured.returncode == 0, measured.stderr
    line = next(line for line in measured.stdout.splitlines() if line.startswith("target   writes"))
    assert re.search(
        r"writes [\d.e+]+ tokens/s one by one, reads [\d.e+]+ in a prompt; the way to its server and back takes [\d.]+ ms", line
    )
    assert re.search(r"RSD against the target alone.*50% → [\d.]+.*95% → [\d.]+", " ".join(measured.stdout.split()))
    found = json.loads(rsd("fit", file, "--measure", "--json").stdout)
    told, speed = found["servers"]["target"], found["measured"]["roles"]["target"]
    assert (told["context"], told["slots"], told["url"]) == (256, 3, server.url) and "target" not in found["roles"]
    assert speed["decode"] > 0 and speed["prefill"] > 0 and speed["trip"] > 0
    assert len(found["measured"]["gain_by_accepted_share"]) == 4


def test_fit_without_the_server_says_what_is_here_and_what_is_wrong(tmp_path: Path) -> None:
    with Proxy(9) as proxy:
        proxy.close()
    file = trio_file(tmp_path, proxy.url)
    for words in ((), ("--measure",)):
        done = rsd("fit", file, *words)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert "fits, as far as is known; not asked: the server of the target" in done.stderr
        assert re.search(r"^draft +\d", done.stdout, re.MULTILINE)
        assert re.search(rf"^target   {re.escape(proxy.url)} refuses connections; is the server running", done.stdout, re.MULTILINE)
    told = json.loads(rsd("fit", file, "--json").stdout)
    assert told["fits"] and "refuses connections" in told["servers"]["target"]["error"] and "measured" not in told


@needs_server
def test_doctor_says_what_a_targets_server_is(server: LlamaServer) -> None:
    from rsd_local.catalogue import user_models_file

    with Proxy(9) as gone:
        gone.close()
    own = user_models_file()
    own.parent.mkdir(parents=True, exist_ok=True)
    draft = f"draft.path = {json.dumps((ABACUS / 'abacus-draft.gguf').as_posix())}\nreward_kind = 'confidence'\n"
    own.write_text("".join(f"[trio.{name}]\n{draft}target.url = '{url}'\n" for name, url in (("far", server.url), ("lost", gone.url))))
    try:
        done = rsd("doctor")
        told = json.loads(rsd("doctor", "--json").stdout)["servers"]
    finally:
        own.unlink()
    assert done.returncode == 0, done.stderr
    assert f"server     {server.url}: " in done.stdout and f"server     {gone.url}: {gone.url} refuses connections" in done.stdout
    assert "context 256, 3 slots; takes tokens, reads ahead, can be a judge" in told[server.url]


def test_the_gain_counts_each_way_to_a_server_and_back() -> None:
    """In closed form: of steps of 30 tokens; a target on a server reads while the draft writes on."""
    speeds = {
        "draft": Speed(0.01, 0.05, 0.001), "target": Speed(0.1, 0.3, 0.01, trip=0.2), "reward": Speed(0.05, 0.2, 0.004, trip=0.1),
    }  # fmt: skip
    free = gain_of(speeds, (), ahead=False)  # type: ignore[arg-type]
    asked = gain_of(speeds, (StepCost("reward", 25, trips=2),), ahead=False)  # type: ignore[arg-type]
    assert free(1.0) == pytest.approx(3.0 / 0.3)
    assert free(0.0) == pytest.approx(3.0 / (0.3 + 0.2 + 3.0 + 0.05))
    assert asked(0.5) == pytest.approx(3.0 / (0.3 + 0.2 + 25 * 0.004 + 2 * 0.1 + 0.5 * (0.2 + 3.0 + 0.05 + 0.2)))
