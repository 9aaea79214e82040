"""A cancel, and a client that goes away: nothing is waited for any more, and the server stops."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from remote_support import ABACUS, Exchange, LlamaServer, Proxy, llama_server, needs_server
from server_support import ENDLESS, served
from test_remote_failures import writes
from test_remote_faults import NEVER, QUESTION, stalls, trio
from tiny import write_script

from rsd_local import CancelToken, Finished, Limits, Params, Prompt, Reasoner, RemoteRole, RoleConfig, TextWritten, Trio
from rsd_local.remote.place import Place

pytestmark = needs_server
LONG = Params(limits=Limits(tokens=30_000, steps=100_000, step_tokens=30_000, repeats=0))


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf") as found:
        yield found


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes on and on."""
    return write_script(
        tmp_path_factory.mktemp("endless") / "endless.gguf", list(ENDLESS), {"": "a ", "a ": "b ", "b ": "a "}, context=32_000
    )


def eventually(fine: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not fine():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.01)


class Stall:
    """A fault after which nothing comes, and which says that it was met and that its connection was closed."""

    def __init__(self) -> None:
        self.met, self.left = threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.met.set()
        stalls(exchange)
        self.left.set()


@pytest.mark.parametrize("path", ["/apply-template", "/tokenize"])
def test_a_cancel_ends_what_is_asked_for_a_prompt(server: LlamaServer, path: str) -> None:
    with Proxy(server.port) as proxy, Reasoner.open(trio(proxy.url)) as reasoner:
        stall, token = Stall(), CancelToken()
        proxy.always[path] = stall
        done = reasoner.run(QUESTION, NEVER, cancel=token).future()
        assert stall.met.wait(60)
        token.cancel()
        assert done.result(20).finish_reason == "cancelled" and stall.left.wait(20), "the limit of the server's silence is 30 s"
        proxy.always.clear()
        assert reasoner.solve(QUESTION, NEVER).answer == "381"


@pytest.mark.parametrize("waits", ["settle", "fork", "counters"])
def test_a_cancel_ends_what_waits_for_what_was_sent_ahead(server: LlamaServer, waits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsd_local.remote.place._PATIENCE", 30.0)
    with Proxy(server.port) as proxy, Reasoner.open(trio(proxy.url)) as reasoner:
        stall, token, over = Stall(), CancelToken(), threading.Event()
        proxy.always["/completion"] = stall
        bound = dataclasses.replace(reasoner.trio, cancel=token)
        with closing(bound.writer("target", Prompt.of("1+1"))) as writer:
            assert stall.met.wait(60)
            threading.Thread(target=lambda: (getattr(writer, waits)(), over.set()), daemon=True).start()
            token.cancel()
            assert over.wait(20) and stall.left.wait(20), "the limit of the server's silence is 30 s"


def test_auto_may_be_cancelled_while_nothing_comes_of_what_was_sent_ahead(server: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stall, token, settle = Stall(), CancelToken(), Place.settle

    def once_met(place: Place) -> None:
        assert stall.met.wait(60)
        settle(place)

    monkeypatch.setattr(Place, "settle", once_met)
    with Proxy(server.port) as proxy, Reasoner.open(trio(proxy.url)) as reasoner:
        proxy.always["/completion"] = lambda exchange: exchange.pass_on() if writes(exchange) else stall(exchange)
        done = reasoner.run(QUESTION, NEVER, strategy="auto", cancel=token).future()
        assert stall.met.wait(60)
        token.cancel()
        assert done.result(20).finish_reason == "cancelled"


def test_after_a_cancel_in_mid_answer_the_servers_slot_is_idle(endless: Path) -> None:
    with llama_server(endless, context=32_000, slots=1) as server:
        config = Trio(RoleConfig(endless, threads=1), RemoteRole(server.url), reward_kind="confidence", system="", fit_check=False)
        token = CancelToken()
        with Reasoner.open(config) as reasoner, reasoner.run("x", LONG, strategy="target", cancel=token) as run:
            next(event for event in run if isinstance(event, TextWritten))
            assert server.works()
            token.cancel()
            last = list(run)[-1]
            assert isinstance(last, Finished) and last.reason == "cancelled"
            eventually(lambda: not server.works())
            assert server.slots()[0]["n_prompt_tokens"] < 20_000, "it holds what was written so far, and did not come to its end"


def test_a_client_that_leaves_closes_the_connection_to_the_target_too(endless: Path) -> None:
    with llama_server(endless, context=32_000, slots=1) as server:
        flags = ("-md", endless, "-m", server.url, "--reward-kind", "confidence", "-t", "draft=1", "-n", 31_000, "--max-steps", 100_000)
        with served(*flags, "--repeats", 0, "--strategy", "target", "--trust-file", "--no-fit-check") as ours:
            with ours.streaming() as lines:
                next(line for line in lines if '"content": "' in line or '"content":"' in line)
                eventually(server.works)
            ours.eventually(lambda: ours.figure("rsd_running") == 0, 60)
            eventually(lambda: not server.works())
            assert ours.figure('rsd_tokens_total{kind="generated",role="target"}') < 31_000
