"""While a reward elsewhere looks at a step, the draft writes the next one: the same answers, and no trace of what was thrown away."""

from __future__ import annotations

import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from test_rewards import read_out
from test_rsd import QUESTION, role
from test_strategies import assert_all_caches_are_back
from tiny import KINDS, write_model

from rsd_local.catalogue import find_trio
from rsd_local.config import Limits, Params, RewardConfig, Sampling, Search, Trio, Weighting
from rsd_local.decoding.drafting import can_draft_ahead
from rsd_local.errors import VerifierFailed
from rsd_local.events import CancelToken, Counters, Event, Finished, Result, StepDone
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.checked import CheckReward
from rsd_local.rewards.reading import PendingScore
from rsd_local.rewards.verifier.command import Command
from rsd_local.roles import Abilities, RewardAbilities
from rsd_local.runtime import LocalWriter
from rsd_local.steps import Step

TOKENS = 5
LIMITS = Limits(tokens=80, step_tokens=TOKENS, repeats=0)
OFF = Search(fallback="off")  # how much of a rejected step is guessed depends on times
MAYBE_MORE = ("unused_tokens", "evaluated_tokens", "prompt_tokens", "decode_calls", "seconds", "waiting_seconds")
"""Counters that what was thrown away adds to."""
COMMAND = "import json, sys, time, zlib\nfor line in sys.stdin:\n step = json.loads(line)['step']\n time.sleep(0.1)\n"
COMMAND += " print(json.dumps({'reward': float(zlib.crc32(step.encode()) % 3 > 0)}), flush=True)\n"


def verdict(step: str) -> float:
    """Two of three steps pass."""
    return float(zlib.crc32(step.encode()) % 3 > 0)


class Watched:
    """A verifier that waits until the draft has written behind the step that it looks at, where it will; and what happened, in order."""

    def __init__(self, waits: bool = True) -> None:
        self.order: list[str] = []
        self.waits, self.draft_works = waits, threading.Event()

    def __call__(self, prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        if self.waits:
            self.draft_works.wait(2)
        self.order.append("answered")
        return verdict(step)

    def asked(self) -> None:
        """A step is given to the reward, whose thread may come to it later."""
        self.draft_works.clear()
        self.order.append("asked")

    def note(self, *_: object) -> None:
        """A batch of the draft."""
        self.order.append("draft")
        self.draft_works.set()

    @property
    def overlapped(self) -> list[bool]:
        """Of each check, whether the draft worked meanwhile."""
        parts = " ".join(self.order).split("asked")[1:]
        return ["draft" in part.split("answered")[0] for part in parts]


@pytest.fixture(autouse=True)
def watching(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Those that are told when a step is given to a reward, besides a verifier that is one itself."""
    told, start = list[Watched](), CheckReward.start_score

    def noted(reward: CheckReward, step: Step) -> PendingScore:
        own = getattr(reward._verifier, "_check", None)
        for watched in [*told, *([own] if isinstance(own, Watched) else [])]:
            watched.asked()
        return start(reward, step)

    monkeypatch.setattr(CheckReward, "start_score", noted)
    return told


@contextmanager
def never_ahead() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsd_local.decoding.drafting.can_draft_ahead", lambda *_: False)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ahead")
    return {f"{kind}{seed}": write_model(folder / f"{kind}{seed}.gguf", kind, seed) for kind in KINDS for seed in range(2)}


def opened(files: dict[str, Path], kind: str, verifier: Callable[..., Any], **settings: object) -> Reasoner:
    usual: dict[str, Any] = {"delimiter": f"tokens:{TOKENS}", "reuse": False} | settings
    return Reasoner.open(Trio(role(files[f"{kind}0"]), role(files[f"{kind}1"]), None, "verifier", verifier=verifier, **usual))


def told(reasoner: Reasoner, params: Params, question: str = QUESTION) -> list[Event]:
    """All events, without times and with counters of their own."""
    with reasoner.run(question, params) as run:
        return [replace(event, seconds=0.0) if isinstance(event, StepDone) else event for event in run]


def same(ahead: Counters, apart: Counters) -> bool:
    """Whether two counters are one but for what was thrown away."""
    return all(value == getattr(apart, name) for name, value in asdict(ahead).items() if name not in MAYBE_MORE)


PARAMS = {
    "greedy": Params(limits=LIMITS, search=OFF),
    "warm": Params(Sampling(temperature=1.0, seed=4), limits=LIMITS, search=OFF),
    "penalties": Params(Sampling(temperature=0.8, seed=1, repeat_penalty=1.3, presence_penalty=0.5), limits=LIMITS, search=OFF),
    "redrafts": Params(Sampling(temperature=0.8, seed=1), Weighting(redrafts=2), LIMITS, OFF),
    "retries": Params(Sampling(temperature=0.8, seed=2), limits=LIMITS, search=replace(OFF, retries=1)),
    "hand over": Params(Sampling(temperature=0.8, seed=3), Weighting(hand_over=2), LIMITS, OFF),
    "stop": Params(Sampling(temperature=1.0, seed=4), limits=replace(LIMITS, stop=("e", "ab")), search=OFF),
}


@pytest.mark.parametrize(("kind", "name"), [("dense", name) for name in PARAMS] + [(kind, "warm") for kind in KINDS[1:]])
def test_events_and_counters_are_those_of_a_draft_that_waits(files: dict[str, Path], kind: str, name: str) -> None:
    params, watched = PARAMS[name], Watched()
    with opened(files, kind, watched) as reasoner:
        reasoner.trio.draft.latency.note = watched.note  # type: ignore[method-assign]
        ahead = told(reasoner, params)
        watched.waits = False
        with never_ahead():
            apart = told(reasoner, params)
        assert_all_caches_are_back(reasoner)
    (*events, end), (*others, other_end) = ahead, apart
    assert events == others and isinstance(end, Finished) and isinstance(other_end, Finished)
    assert (end.text, end.reason) == (other_end.text, other_end.reason)
    for part in ("draft", "target", "reward"):
        assert same(end.counters[part], other_end.counters[part])  # type: ignore[index]
    draft, other = end.counters["draft"], other_end.counters["draft"]
    rejected = sum(isinstance(event, StepDone) and event.author == "target" for event in events)
    assert other.unused_tokens == 0 and (draft.unused_tokens > 0 or not rejected or name == "stop")
    if kind == "dense":
        assert draft.evaluated_tokens - other.evaluated_tokens == draft.unused_tokens
    assert end.counters["target"].evaluated_tokens == other_end.counters["target"].evaluated_tokens


@pytest.mark.parametrize("cheap", ["confidence", "read-out"])
def test_a_cascade_with_a_program_at_its_end_sees_the_traces_that_it_would_see(files: dict[str, Path], tmp_path: Path, cheap: str) -> None:
    """Also those of states, for which the draft evaluates the last token of each step."""
    watched, head = Watched(), None
    if cheap == "read-out":
        head = tmp_path / "head.safetensors"
        read_out(files["dense0"], parts=("lasts", "course")).save(head)
    rewards = RewardConfig(cheap, head=head, lower=0.0, upper=1.0), RewardConfig("verifier", verifier=watched)  # type: ignore[arg-type]
    trio = Trio(role(files["dense0"]), role(files["dense1"]), rewards=rewards, reuse=False, delimiter=f"tokens:{TOKENS}")
    params = replace(PARAMS["redrafts"], limits=replace(LIMITS, tokens=60))
    with Reasoner.open(trio) as reasoner:
        reasoner.trio.draft.latency.note = watched.note  # type: ignore[method-assign]
        *ahead, end = told(reasoner, params)
        assert sum(watched.overlapped) > 2
        watched.waits = False
        with never_ahead():
            *apart, other_end = told(reasoner, params)
        assert_all_caches_are_back(reasoner)
    assert ahead == apart and isinstance(end, Finished) and isinstance(other_end, Finished)
    assert same(end.counters["draft"], other_end.counters["draft"]) and end.counters["draft"].unused_tokens > 0


def test_the_draft_works_while_each_step_but_the_last_is_checked(files: dict[str, Path]) -> None:
    """By the order in which things happened: so the time of the checks is no time of waiting."""
    watched = Watched()
    with opened(files, "dense", watched) as reasoner:
        reasoner.trio.draft.latency.note = watched.note  # type: ignore[method-assign]
        reasoner.solve(QUESTION, PARAMS["warm"])
        *before, last = watched.overlapped
        assert len(before) > 8 and all(before) and not last, "nothing comes behind the last one"
        watched.order.clear()
        watched.waits = False
        with never_ahead():
            reasoner.solve(QUESTION, PARAMS["warm"])
        assert not any(watched.overlapped)


def test_an_accepted_step_makes_the_next_one_no_dearer(files: dict[str, Path]) -> None:
    def passes(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return 1.0

    with opened(files, "dense", passes) as reasoner:
        ahead = reasoner.solve(QUESTION, PARAMS["warm"])
        with never_ahead():
            apart = reasoner.solve(QUESTION, PARAMS["warm"])
    ours, theirs = ahead.counters["draft"], apart.counters["draft"]
    assert ahead.text == apart.text and ours.unused_tokens == 0
    assert (ours.evaluated_tokens, ours.decode_calls) == (theirs.evaluated_tokens, theirs.decode_calls)


def test_unused_tokens_are_evaluated_and_no_part_of_the_papers_count() -> None:
    counters = {"draft": Counters(parameters=10, generated_tokens=7, discarded_tokens=2, unused_tokens=3, evaluated_tokens=12)}
    result = Result(None, "", "stop", (), counters)  # type: ignore[arg-type]
    assert (result.paper_flops, result.full_flops) == (2 * 10 * 7, 2 * 10 * 12)


@pytest.mark.parametrize(
    ("draft", "reward", "ahead"),
    [
        (Abilities(writes_ahead=True, devices=frozenset({"cpu"})), RewardAbilities(), True),
        (Abilities(writes_ahead=True, devices=frozenset({"cpu"})), RewardAbilities(devices=frozenset({"gpu"})), True),
        (Abilities(writes_ahead=True), RewardAbilities(devices=frozenset({"cpu"})), True),
        (Abilities(writes_ahead=True, devices=frozenset({"cpu"})), RewardAbilities(devices=frozenset({"cpu"})), False),
        (Abilities(writes_ahead=True, devices=frozenset({"gpu", "cpu"})), RewardAbilities(devices=frozenset({"gpu"})), False),
        (Abilities(writes_ahead=True, devices=frozenset({"cpu"})), RewardAbilities(immediate=True), False),
        (Abilities(devices=frozenset({"cpu"})), RewardAbilities(), False),
    ],
)
def test_the_draft_writes_on_only_where_no_device_computes_for_both(draft: Abilities, reward: RewardAbilities, ahead: bool) -> None:
    assert can_draft_ahead(draft, reward) == ahead


@pytest.mark.parametrize(
    ("settings", "params"),
    [
        ({"reward_kind": "tag-logits"}, Params(limits=LIMITS)),
        ({"reward_kind": "confidence"}, Params(limits=LIMITS)),
        ({"reward_kind": "likelihood"}, Params(limits=LIMITS)),
        ({"reward_kind": "verifier", "verifier": "arithmetic"}, Params(limits=LIMITS)),
        ({"reward_kind": "confidence,verifier", "verifier": "regex:a"}, Params(limits=LIMITS)),
        ({"reward_kind": "verifier", "verifier": Watched(waits=False)}, Params(Sampling(0.8), limits=LIMITS, search=Search(candidates=2))),
        ({"reward_kind": "verifier", "verifier": Watched(waits=False)}, Params(weighting=Weighting(route_entropy=0.1), limits=LIMITS)),
    ],
)
def test_nothing_is_written_ahead_where_it_would_slow_something_or_may_be_another_step(
    files: dict[str, Path], settings: dict[str, Any], params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a step was written ahead")

    monkeypatch.setattr(LocalWriter, "start_ahead", fail)
    reward = role(files["dense0"]) if settings["reward_kind"] == "tag-logits" else None
    trio = Trio(role(files["dense0"]), role(files["dense1"]), reward, width=3, reuse=False, delimiter=f"tokens:{TOKENS}", **settings)
    with Reasoner.open(trio) as reasoner:
        assert reasoner.solve(QUESTION, params).text


def test_a_targets_full_context_ends_the_answer_while_a_step_is_written_ahead(files: dict[str, Path]) -> None:
    params = Params(Sampling(temperature=1.0), limits=Limits(tokens=2000, steps=1000, step_tokens=20, repeats=0))
    ends = []
    trio = Trio(
        role(files["dense0"], ctx_size=1024), role(files["dense1"], ctx_size=256), None, "verifier", verifier=lambda *_: 1.0,
        delimiter="tokens:20", reuse=False,
    )  # fmt: skip
    with Reasoner.open(trio) as reasoner:
        ends.append(reasoner.solve("q", params))
        with never_ahead():
            ends.append(reasoner.solve("q", params))
        assert_all_caches_are_back(reasoner)
    ahead, apart = ends
    assert ahead.finish_reason == apart.finish_reason == "context" and ahead.text == apart.text and len(ahead.steps) > 5
    assert same(ahead.counters["draft"], apart.counters["draft"]) and ahead.counters["draft"].unused_tokens > 0


@pytest.mark.parametrize("ends_by", ["cancel", "leaving", "failure"])
def test_an_answer_that_ends_while_a_step_is_written_ahead_gives_every_cache_back(files: dict[str, Path], ends_by: str) -> None:
    cancel, asked = CancelToken(), list[str]()

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        asked.append(step)
        if len(asked) == 3:
            if ends_by == "failure":
                raise OSError("the disk is gone")
            if ends_by == "cancel":
                cancel.cancel()
                threading.Event().wait(0.2)
        return 1.0

    params = Params(limits=replace(LIMITS, step_tokens=40, tokens=2000))
    with opened(files, "dense", check, delimiter="tokens:40") as reasoner:
        if ends_by == "failure":
            with pytest.raises(VerifierFailed, match="the disk is gone"):
                reasoner.solve(QUESTION, params)
        elif ends_by == "cancel":
            made = reasoner.solve(QUESTION, params, cancel=cancel)
            assert made.finish_reason == "cancelled" and len(made.steps) == 2
            draft = made.counters["draft"]
            assert draft.generated_tokens == 120 and draft.discarded_tokens == 40, "the step that was being checked"
        else:
            for event in reasoner.stream(QUESTION, params):
                if isinstance(event, StepDone) and event.index == 1:
                    break
        assert_all_caches_are_back(reasoner)


def test_abacus_with_a_program_that_takes_its_time_answers_as_one_that_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, watching: list[Watched]
) -> None:
    """A command that takes 100 ms for a step: while it looks at a step, the draft has written on."""
    script = tmp_path / "check.py"
    script.write_text(COMMAND)
    trio = replace(
        find_trio("abacus"), reward=None, reward_kind="verifier", verifier=f"command:{sys.executable} {script}", run_code=True, reuse=False,
        threshold=1.0,
    )  # fmt: skip
    watched, check = Watched(), Command.check

    def noted(*arguments: Any) -> float | None:
        try:
            return check(*arguments)
        finally:
            watched.order.append("answered")

    monkeypatch.setattr(Command, "check", noted)
    watching.append(watched)
    with Reasoner.open(trio) as reasoner:
        reasoner.trio.draft.latency.note = watched.note  # type: ignore[method-assign]
        question, params = "2+3*(4-1)-5+7", Params(Sampling(temperature=0.5, seed=1), limits=Limits(repeats=0), search=OFF)
        ahead = reasoner.solve(question, params)
        overlapped, watched.order = watched.overlapped, []
        with never_ahead():
            apart = reasoner.solve(question, params)
    assert ahead.text == apart.text and [step.author for step in ahead.steps] == [step.author for step in apart.steps]
    assert len(overlapped) >= 4 and all(overlapped[:-1]) and not any(watched.overlapped)
    assert same(ahead.counters["draft"], apart.counters["draft"])
    assert {step.author for step in ahead.steps} == {"draft", "target"} and ahead.counters["draft"].unused_tokens > 0
