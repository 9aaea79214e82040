"""What went over the network, and what was written for nothing, in ``rsd solve --stats`` and in ``/metrics``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_support import Proxy, llama_server, needs_server, rsd
from server_support import served

from rsd_local.cli.render import further
from rsd_local.events import Counters

ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
QUESTION = "(37+48)*6-129"


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with llama_server(ABACUS / "abacus-target.gguf") as server, Proxy(server.port) as found:
        yield found


def completions(proxy: Proxy) -> tuple[int, int]:
    """How many completions were asked for, and the bytes of their bodies."""
    sizes = [int(re.findall(rb"(?i)content-length: (\d+)", head)[0]) for head in proxy.heads if head.startswith(b"POST /completion ")]
    return len(sizes), sum(sizes)


@needs_server
def test_stats_have_the_requests_to_a_server_and_the_time_on_the_way(proxy: Proxy) -> None:
    before = completions(proxy)
    done = rsd("solve", "--trio", "abacus", "-m", proxy.url, "-t", "draft=1", "--stats", "--json", QUESTION)
    assert done.returncode == 0, done.stderr
    asked, sent = (now - then for now, then in zip(completions(proxy), before, strict=True))
    made = json.loads(done.stdout)["counters"]["target"]
    assert (made["rounds"], made["sent_bytes"]) == (asked, sent) and asked > 1
    line = next(line for line in done.stderr.splitlines() if "on the way" in line)
    assert line.split(maxsplit=1) == ["target", f"{asked} requests: {sent / 1e3:.1f} kB sent, "
        f"{made['received_bytes'] / 1e3:.1f} kB received, {made['waiting_seconds']:.2f} s on the way"]  # fmt: skip
    assert all(len(line) <= 80 for line in done.stderr.splitlines() if "on the way" in line)


@needs_server
def test_metrics_count_them_for_each_role_on_a_server_and_for_no_other(proxy: Proxy) -> None:
    with served("--trio", "abacus", "-m", proxy.url, "-t", "draft=1") as server:
        before = completions(proxy)
        for question in (QUESTION, "12+34"):
            server.ask(question)
        asked, sent = (now - then for now, then in zip(completions(proxy), before, strict=True))
        assert server.figure('rsd_server_rounds_total{role="target"}') == asked > 2
        assert server.figure('rsd_server_sent_bytes_total{role="target"}') == sent
        assert server.figure('rsd_server_received_bytes_total{role="target"}') > 0
        assert server.figure('rsd_role_waiting_seconds_total{role="target"}') > 0
        assert server.figure('rsd_tokens_total{kind="unused",role="target"}') == 0
        text = server.client.get("/metrics").text
        assert not re.search(r'rsd_server_\w+\{role="draft"\}', text) and 'rsd_tokens_total{kind="unused",role="draft"}' in text


def test_a_model_that_runs_here_has_a_line_where_it_wrote_for_nothing_and_none_otherwise() -> None:
    assert list(further(Counters(generated_tokens=9, waiting_seconds=1.0))) == []
    assert list(further(Counters(unused_tokens=1))) == ["1 token written ahead and not used"]
    assert list(further(Counters(unused_tokens=12))) == ["12 tokens written ahead and not used"]
