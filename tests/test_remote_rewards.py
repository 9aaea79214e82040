"""Rewards whose model is on a real llama-server: the text, the numbers, what is evaluated, and what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remote_support import Exchange, LlamaServer, Proxy, llama_server, needs_server, rsd
from test_remote_faults import says, stalls
from test_rewards import said, scores_of, value
from tiny import VOCABULARY, WIDTH, write_model
from tiny_vocabulary import write_bpe, write_spm

from rsd_local import CancelToken, Params, Reasoner, RemoteRole, RoleConfig, Trio, Weighting
from rsd_local.catalogue import find_trio
from rsd_local.config import Limits, Sampling, Search, Strategy
from rsd_local.errors import BadAnswer, BadHead, Cancelled, ContextFull, RemoteError, RemoteRefused, RSDError, Unauthorized, Unreachable
from rsd_local.events import Counters
from rsd_local.prompt import Prompt
from rsd_local.remote import ReadingEngine
from rsd_local.remote.api import Timing
from rsd_local.rewards.heads import ValueHead
from rsd_local.rewards.remote import RemoteReward
from rsd_local.rewards.remote_layout import LayoutQuestion
from rsd_local.rewards.remote_model import RemoteModel
from rsd_local.runtime import Model, around, opening_tokens

pytestmark = needs_server
ABACUS = Path(__file__).parent.parent / "rsd_local" / "abacus" / "models"
GRANITE = (Path(__file__).parent / "templates" / "granite3.3.jinja").read_text(encoding="utf-8")
MARKS = ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"]
QUESTION = "What is <s>ab</s> the + of </s>?"
STEPS = ("ab the\n\n", "so <s>it</s> is 3\n", "é, and done\n\n")
SUM, ANSWER = "(37+48)*6-129", "381"


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a template, the tags of Math-Shepherd and the one of Qwen's."""
    return write_model(tmp_path_factory.mktemp("prm") / "prm.gguf", "dense", 5, vocabulary=[*VOCABULARY, "<extra_0>"])


@pytest.fixture(scope="module")
def server(prm: Path) -> Iterator[LlamaServer]:
    with llama_server(prm, context=1024, slots=4) as found:
        yield found


@pytest.fixture(scope="module")
def states(prm: Path) -> Iterator[LlamaServer]:
    with llama_server(prm, context=512, embeddings=True) as found:
        yield found


def scored_by(model: Path | str, kind: str = "judge", **settings: Any) -> Trio:
    """Abacus, whose steps a model here or on a server scores."""
    chosen = find_trio("abacus").with_models(lambda role: dataclasses.replace(role, threads=1))
    reward = RemoteRole(model, read_timeout=30, connect_timeout=1) if isinstance(model, str) else RoleConfig(model, 1024, threads=1)
    return dataclasses.replace(chosen, reward=reward, reward_kind=kind, **settings)


def both(here: Path, away: str, kind: str, question: str, *steps: str, **settings: Any) -> list[tuple[list[float], Counters]]:
    """The scores of steps and the counters, by the model here and by the one on the server."""
    made = []
    for model in (here, away):
        with Reasoner.open(scored_by(model, kind, **settings)) as opened, closing(opened.trio.reward(Prompt.of(question))) as reward:
            made.append((scores_of(reward, *steps), reward.counters()["reward"]))
    return made


@pytest.mark.parametrize("kind", ["judge", "digit", "tag-logits"])
def test_a_server_reads_the_same_text_as_a_model_here_and_gives_the_same_number(server: LlamaServer, prm: Path, kind: str) -> None:
    """The same tokens are evaluated, each one once, and the request behind a step is read anew for each."""
    (here, local), (away, remote) = both(prm, server.url, kind, QUESTION, *STEPS)
    assert away == pytest.approx(here, abs=1e-3) and len(set(here)) == 3
    for name in ("opening_tokens", "generated_tokens", "parameters"):
        assert getattr(remote, name) == getattr(local, name), name
    assert remote.evaluated_tokens == remote.prompt_tokens == local.evaluated_tokens - remote.cached_tokens  # of the tests before
    assert remote.decode_calls == 4 and remote.rounds >= 7, "the opening, and of each step its tokens and its score"
    assert remote.seconds > 0 and remote.waiting_seconds > 0 and remote.sent_bytes > 0 and remote.received_bytes > 0


def test_only_the_new_step_and_the_request_behind_it_are_evaluated(server: LlamaServer) -> None:
    with Reasoner.open(scored_by(server.url)) as opened:
        engine = opened.trio.servers()["reward"]
        assert isinstance(engine, ReadingEngine)
        timings: list[Timing] = []
        take = engine.llama.timing
        engine.llama.timing = lambda found: timings.append(take(found)) or timings[-1]  # type: ignore[method-assign,func-returns-value]
        with closing(opened.trio.reward(Prompt.of("What is 1+1?"))) as reward:
            assert isinstance(reward, RemoteReward)
            scores_of(reward, STEPS[0], STEPS[1])
            reward.forget()
            assert scores_of(reward, STEPS[2])
            layout, opening = reward._question._ready()  # type: ignore[attr-defined]
            texts = [layout.step(0, said(one)) for one in STEPS]
        stands = len(opening)
        for timing, text, kept in zip(timings, texts, (True, False, True), strict=True):
            assert timing.cached == stands and timing.read == len(text) + len(layout.query)
            stands += len(text) if kept else 0
        assert sorted(engine._slots) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["bpe", "spm", "gemma"])
def test_tokens_of_every_kind_of_vocabulary_are_those_of_the_model_here(tmp_path: Path, kind: str) -> None:
    """The template's control tokens are some, and what people write in their form is text."""
    path = tmp_path / f"{kind}.gguf"
    if kind == "bpe":
        write_bpe(path, "refact", GRANITE, control=["<|end|>", *MARKS])
    else:
        write_spm(path, GRANITE, normal=["▁Y", "▁N", "▁So"], control=MARKS, space=kind == "spm")
    here = Model(RoleConfig(path))
    try:
        with llama_server(path, context=256) as server, closing(ReadingEngine(RemoteRole(server.url), "reward")) as engine:
            away = RemoteModel(engine)
            assert (away.bos, away.eos, away.adds_bos) == (here.bos, here.eos, here.adds_bos)
            for text in ("So N is 7: Y.", "a <|end_of_role|> b", " two\n\n", "größe ∑"):
                for special in (False, True):
                    for continues, followed in ((False, False), (True, False), (True, True)):
                        wanted = here.tokenize(text, special=special, continues=continues, followed=followed)
                        assert away.tokenize(text, special=special, continues=continues, followed=followed) == wanted, text
                        assert away.special_tokens(wanted) == here.special_tokens(wanted)
            asked = [("user", ("Check <|end_of_role|> this: ", "a <|start_of_role|>b\n\n"))]
            assert around_both(here, asked) == around_both(away, asked)
            assert opening_tokens(here, []) == opening_tokens(away, [])
    finally:
        here.close()


def around_both(model: Any, asked: Any) -> Any:
    from rsd_local.runtime import HOLE

    return around(model, [(role, (*texts, HOLE)) for role, texts in asked])


def test_forks_go_on_from_where_they_were_made_in_slots_of_their_own(server: LlamaServer) -> None:
    with Reasoner.open(scored_by(server.url, width=2)) as opened, closing(opened.trio.reward(Prompt.of(QUESTION))) as reward:
        whole = scores_of(reward, *STEPS)
        with closing(opened.trio.reward(Prompt.of(QUESTION))) as one:
            one.read(said(STEPS[0]))
            with closing(one.fork()) as other:
                assert scores_of(other, *STEPS[1:]) == pytest.approx(whole[1:], abs=1e-3)
                assert scores_of(one, STEPS[2]) != pytest.approx(whole[1:2], abs=1e-3)
                one.adopt(other)
                assert [value(one.start_score(said("more\n\n")).result())] == pytest.approx(scores_of(reward, "more\n\n"), abs=1e-3)
        assert not reward.abilities.whole and not reward.abilities.devices


def test_solve_gives_the_events_that_a_judge_here_gives(server: LlamaServer, prm: Path) -> None:
    models = ("--trio", "abacus", "--reward-kind", "judge", "-t", "draft=1", "-t", "target=1", "--threshold", "0.55", "-n", "60")
    made = [rsd("solve", *models, "-mr", model, "--jsonl", SUM) for model in (prm, server.url)]
    here, away = ([json.loads(line) for line in one.stdout.splitlines()] for one in made)
    assert all(one.returncode == 0 for one in made), made[1].stderr
    steps = [[event for event in events if event["event"] == "step"] for events in (here, away)]
    assert len(steps[0]) == len(steps[1]) >= 2
    for one, other in zip(*steps, strict=True):
        assert (one["text"], one["author"], one["reward_by"]) == (other["text"], other["author"], other["reward_by"])
        assert other["reward"] == pytest.approx(one["reward"], abs=0.02)
    assert {event["event"] for event in here} == {event["event"] for event in away}
    assert away[-1]["counters"]["reward"]["rounds"] > 0 and away[-1]["counters"]["target"]["rounds"] == 0


@pytest.mark.parametrize("strategy", ["best-of-n", "step-best-of-n", "beam"])
def test_strategies_that_try_several_things_choose_as_with_a_judge_here(prm: Path, strategy: Strategy) -> None:
    params = Params(Sampling(temperature=0.8, seed=1), limits=Limits(tokens=40), search=Search(samples=3, beams=2))
    with llama_server(prm, context=1024, slots=10) as server:
        made = []
        for model in (prm, server.url):
            with Reasoner.open(scored_by(model, width=10)) as opened:
                made.append(opened.solve(SUM, params, strategy=strategy))
        here, away = made
        assert away.text == here.text and away.counters["reward"].rounds > 0
        assert [step.reward for step in away.steps] == pytest.approx([step.reward for step in here.steps], abs=5e-3)


def test_a_real_judge_says_on_a_server_what_it_says_here(smollm2: Path) -> None:
    """Its weights have 4 bits: which tokens share a batch moves either one's score by up to 0.04, more than the two builds differ."""
    with llama_server(smollm2, context=512) as server:
        (here, local), (away, remote) = both(smollm2, server.url, "judge", "What is 2+3?", "2+3 = 5.\n\n", "So it is 6.\n\n")
    assert away == pytest.approx(here, abs=0.05) and local.evaluated_tokens == remote.evaluated_tokens


def test_a_judge_without_a_model_of_its_own_asks_the_targets_server(server: LlamaServer, prm: Path) -> None:
    """Both have slots there, and neither pushes the other out of its cache."""
    trio = Trio(RoleConfig(prm, 512, threads=1), RemoteRole(server.url), reward_kind="judge", system="", fit_check=False)
    params = Params(weighting=Weighting("constant", probability=0.5), limits=Limits(tokens=48, step_tokens=12))
    with Reasoner.open(dataclasses.replace(trio, reward_kind="confidence")) as opened:
        alone = opened.solve("ab", params)
    with Reasoner.open(trio) as opened:
        assert set(opened.trio.servers()) == {"target", "reward"}
        result = opened.solve("ab", params)
        assert result.text == alone.text and {step.author for step in result.steps} == {"draft", "target"}
        assert all(step.reward is not None for step in result.steps)
        beside, reward = [one.counters["target"] for one in (alone, result)], result.counters["reward"]
        assert len({one.evaluated_tokens + one.cached_tokens for one in beside}) == 1, "the judge costs the target nothing"
        assert reward.rounds > 0 and reward.decode_calls == 1 + len(result.steps)
        assert sorted(opened.trio.servers()["target"]._slots) == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_where_a_model_here_has_the_vocabulary_a_step_costs_one_request(server: LlamaServer, prm: Path) -> None:
    near = Trio(
        RoleConfig(prm, 512, threads=1), RoleConfig(prm, 512, threads=1), RemoteRole(server.url), "judge", system="", fit_check=False
    )
    far = scored_by(server.url)
    made = []
    for trio in (near, far):
        with Reasoner.open(trio) as opened, closing(opened.trio.reward(Prompt.of(QUESTION))) as reward:
            first = scores_of(reward, "first, and new\n\n")
            before = reward.counters()["reward"].rounds
            made.append((first + scores_of(reward, f"second of {id(trio)}\n\n", "é <s>\n"), reward.counters()["reward"].rounds - before))
            assert opened.trio.rewards.costs()[0].trips == (1 if trio is near else 2)
    assert [rounds for _, rounds in made] == [2, 4]
    assert made[0][0][0] == pytest.approx(made[1][0][0], abs=5e-3)


def test_several_questions_at_once_get_the_scores_of_one_after_another(server: LlamaServer) -> None:
    questions = [f"What is {number}+{number}?" for number in range(6)]
    with Reasoner.open(scored_by(server.url, parallel=3)) as opened:

        def asked(question: str) -> list[float]:
            with closing(opened.trio.reward(Prompt.of(question))) as reward:
                return scores_of(reward, *STEPS)

        alone = [asked(question) for question in questions]
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(asked, questions)) == [pytest.approx(scores, abs=5e-3) for scores in alone]


def head_of(layout: str, folder: Path, width: int = WIDTH) -> Path:
    chance = np.random.default_rng(0)
    sizes = {"skywork": ((1, width),), "qwen-prm": ((width, width), (2, width)), "trl": ((2, width),)}[layout]
    layers = tuple((chance.normal(0, 0.2, size).astype(np.float32), chance.normal(0, 0.2, size[0]).astype(np.float32)) for size in sizes)
    ValueHead(layout, layers).save(folder / "head.safetensors")  # type: ignore[arg-type]
    return folder / "head.safetensors"


@pytest.mark.parametrize("layout", ["skywork", "qwen-prm", "trl"])
def test_a_head_reads_the_states_of_a_server_as_those_here(states: LlamaServer, prm: Path, tmp_path: Path, layout: str) -> None:
    """They are not normalized; and the server keeps no cache for them, so that question and steps count for each step anew."""
    head = head_of(layout, tmp_path)
    (here, local), (away, remote) = both(prm, states.url, "value-head", QUESTION, *STEPS, head=head)
    assert away == pytest.approx(here, abs=5e-3) and len(set(here)) == 3
    with Reasoner.open(scored_by(states.url, "value-head", head=head)) as opened:
        with closing(opened.trio.reward(Prompt.of(QUESTION))) as reward:
            asked = reward.start_scores([said(one) for one in STEPS], frozenset({0, 2})).result()
            assert [value(asked[0]), value(asked[2])] == pytest.approx([here[0], here[2]], abs=5e-3) and asked[1].skipped
            assert reward.counters()["reward"].decode_calls == 1 and reward.counters()["reward"].evaluated_tokens == local.prompt_tokens
    opening, whole = local.opening_tokens, local.prompt_tokens
    assert opening + whole < remote.evaluated_tokens < 3 * whole and remote.decode_calls == 3 and remote.seconds == 0


def test_servers_that_give_no_states_or_too_few_are_refused_before_a_question(
    server: LlamaServer, states: LlamaServer, tmp_path: Path
) -> None:
    head = head_of("skywork", tmp_path)
    with pytest.raises(RemoteRefused, match="gives no states") as caught:
        Reasoner.open(scored_by(server.url, "value-head", head=head))
    assert "--embeddings --pooling none" in caught.value.hint
    with pytest.raises(BadHead, match=f"no.* for states of {WIDTH} numbers"):
        Reasoner.open(scored_by(states.url, "value-head", head=head_of("skywork", tmp_path, 16)))
    with Reasoner.open(scored_by(states.url, "value-head", head=head_of("skywork", tmp_path))) as opened:
        with closing(opened.trio.reward(Prompt.of("1+1"))) as reward, pytest.raises(ContextFull):
            reward.start_score(said("ab " * 400)).result()
        with pytest.raises(ContextFull, match="no room in the context"):
            opened.trio.reward(Prompt.of("ab " * 2000))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (says(500, "out of memory"), BadAnswer),
        (says(401, "no"), Unauthorized),
        (lambda exchange: exchange.say(200, b"no"), BadAnswer),
        (lambda exchange: exchange.say(200, b'{"completion_probabilities": [], "timings": {}}'), BadAnswer),
        (Exchange.reset, Unreachable),
    ],
)
def test_a_reward_that_fails_ends_the_answer_in_one_line_and_no_place_is_lost(
    server: LlamaServer, fault: Any, kind: type[RSDError]
) -> None:
    """``on_failure`` is for a target's server: what the draft wrote is not accepted unseen."""
    with Proxy(server.port) as proxy, Reasoner.open(scored_by(proxy.url, on_failure="draft")) as opened:
        params = Params(limits=Limits(tokens=40), weighting=Weighting(threshold=0.55))
        alone = opened.solve(SUM, params)
        proxy.always["/completion"] = fault
        with pytest.raises(kind) as caught:
            opened.solve(SUM, params)
        assert isinstance(caught.value, RemoteError) and caught.value.role == "reward" and "\n" not in str(caught.value)
        proxy.always.clear()
        assert opened.solve(SUM, params).text == alone.text
        assert sorted(opened.trio.servers()["reward"]._slots) == [0, 1, 2, 3]  # type: ignore[union-attr]


def test_a_reward_that_fails_while_the_targets_step_is_checked_is_no_failure_of_the_target(server: LlamaServer) -> None:
    params = Params(limits=Limits(tokens=40), weighting=Weighting(threshold=1.0))
    params = dataclasses.replace(params, search=dataclasses.replace(params.search, retries=1))
    with Proxy(server.port) as proxy, Reasoner.open(scored_by(proxy.url, on_failure="draft")) as opened:
        proxy.faults["/completion"] = [Exchange.pass_on, Exchange.pass_on, says(500, "x"), says(500, "x")]
        with pytest.raises(BadAnswer):
            opened.solve(SUM, params)


def test_a_cancel_closes_the_connection_of_a_score(server: LlamaServer) -> None:
    gone, token = threading.Event(), CancelToken()

    def waits(exchange: Exchange) -> None:
        stalls(exchange)
        gone.set()

    with Proxy(server.port) as proxy, Reasoner.open(scored_by(proxy.url)) as opened:
        trio = dataclasses.replace(opened.trio, cancel=token)
        with closing(trio.reward(Prompt.of("1+1"))) as reward:
            scores_of(reward, STEPS[0])
            proxy.always["/completion"] = waits
            pending = reward.start_score(said(STEPS[1]))
            threading.Timer(0.3, token.cancel).start()
            began = time.monotonic()
            with pytest.raises(Cancelled):
                pending.result()
            assert time.monotonic() - began < 10 and gone.wait(10)


def test_a_server_without_logit_bias_is_no_judge(server: LlamaServer) -> None:
    with Proxy(server.port) as proxy, Reasoner.open(scored_by(proxy.url)) as opened:
        with closing(opened.trio.reward(Prompt.of("1+1"))) as reward:
            scores_of(reward, STEPS[0])
            other = {"completion_probabilities": [{"top_probs": [{"id": 7, "prob": 1.0}]}], "timings": {}}
            proxy.always["/completion"] = lambda exchange: exchange.say(200, json.dumps(other).encode())
            with pytest.raises(BadAnswer, match="takes no logit_bias"):
                reward.start_score(said(STEPS[1])).result()
            assert isinstance(reward._question, LayoutQuestion)  # type: ignore[attr-defined]


def test_fit_config_and_doctor_show_the_rewards_server(server: LlamaServer, tmp_path: Path) -> None:
    from rsd_local.catalogue import Catalogue, user_models_file
    from rsd_local.cli.doctor import servers

    words = ("--trio", "abacus", "--reward-kind", "judge", "-mr", server.url, "-t", "draft=1", "-t", "target=1")
    fitted = rsd("fit", "--measure", "--json", *words)
    assert fitted.returncode == 0, fitted.stderr
    found = json.loads(fitted.stdout)
    assert found["servers"]["reward"]["url"] == server.url and found["measured"]["roles"]["reward"]["trip"] > 0
    shown = {row["name"]: row["value"] for row in json.loads(rsd("config", "--json", *words).stdout)}
    assert shown["reward.url"] == server.url and shown["reward_kind"] == "judge"
    stats = rsd("solve", "--stats", *words, "-n", "8", "1+1").stderr
    assert f"on {server.url}" in stats
    user_models_file().parent.mkdir(parents=True, exist_ok=True)
    user_models_file().write_text(f'[trio.abacus]\nreward_kind = "judge"\n[trio.abacus.reward]\nurl = "{server.url}"\n')
    try:
        told = servers(Catalogue.read())
    finally:
        user_models_file().unlink()
    assert "4 slots; takes tokens, reads ahead, can be a judge" in told[server.url]
