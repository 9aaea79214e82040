"""Decisions carried out: every step is what its writer writes behind exactly the steps accepted before it, and the counters add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from test_rsd import QUESTION, role, trio_of
from tiny import chain, write_model, write_script

from rsd_local import Limits, Params, Prompt, Reasoner, Sampling, Trio, Weighting
from rsd_local.config import Fallback, Search, Strategy
from rsd_local.decoding.solution import Solution
from rsd_local.events import Author, CancelToken, Drafted, Event, Finished, StepDone
from rsd_local.roles import DRAFT, TARGET, Stream
from rsd_local.segments import Segmenter
from rsd_local.steps import Step

FEW = Sampling(temperature=0.9, top_k=5, seed=2)
LIMITS = Limits(tokens=250, step_tokens=9, repeats=0)
NEVER, HALF = Weighting("constant", probability=0.0), Weighting("constant", probability=0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A draft that often writes what its target would, of two kinds of memory, and a reward."""
    folder, made = tmp_path_factory.mktemp("decisions"), dict[str, Path]()
    for kind in ("dense", "hybrid"):
        for name, seed, noise in (("draft", 1, 0.05), ("target", 1, 0.0), ("reward", 2, 0.0)):
            made[f"{kind}-{name}"] = write_model(folder / f"{kind}-{name}.gguf", kind, seed, noise=noise)
    return made


@pytest.fixture(scope="module", params=["dense", "hybrid"])
def reasoner(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Reasoner]:
    with Reasoner.open(trio_of(files, request.param, width=5)) as opened:
        yield opened


@pytest.fixture(scope="module")
def dense(files: dict[str, Path]) -> Iterator[Reasoner]:
    with Reasoner.open(trio_of(files)) as opened:
        yield opened


def check_each_step(reasoner: Reasoner, events: list[Event], params: Params) -> None:
    """Has a fresh writer write each step behind the ones before it, with the random numbers of its place and attempt.

    A fresh reward scores what the draft had last written there.
    """
    prompt, sampling = Prompt.of(QUESTION, reasoner.config.system), params.sampling
    solution, accepted, attempts = Solution(params.limits, Segmenter()), list[Step](), Counter[int]()

    def written(author: Author, stream: Stream) -> Step:
        with closing(reasoner.trio.writer(author, prompt)) as writer:
            for step in accepted:
                writer.read(step)
            return writer.start_writing(solution.room, solution.scan(), sampling, stream).result()

    for event in events:
        if isinstance(event, Drafted):
            attempts[event.index] += 1
        if not isinstance(event, StepDone):
            continue
        tries = attempts[event.index]  # none once the target has taken over
        draft = written("draft", Stream(sampling.seed, DRAFT, 0, event.index, max(0, tries - 1)))
        step = draft if event.author == "draft" else written("target", Stream(sampling.seed, TARGET, 0, event.index))
        if event.reward is not None:
            with closing(reasoner.trio.reward(prompt)) as reward:
                for before in accepted:
                    reward.read(before)
                assert reward.start_score(draft).result().value == pytest.approx(event.reward, abs=1e-4), f"step {event.index}"
        if event.rejected is not None and event.author == "target":
            assert (draft.text, len(draft.tokens)) == (event.rejected.text, event.rejected.tokens), f"step {event.index}"
        assert (solution.accept(step, event.author).text, len(step.tokens)) == (event.text, event.tokens), f"step {event.index}"
        accepted.append(step)


def told(reasoner: Reasoner, params: Params) -> tuple[list[Event], Finished]:
    events = list(reasoner.stream(QUESTION, params))
    assert isinstance(events[-1], Finished)
    return events, events[-1]


@pytest.mark.parametrize("fallback", ["off", "on"])
@pytest.mark.parametrize(
    "weighting",
    [
        HALF,
        replace(HALF, redrafts=2),
        replace(HALF, hand_over=2),
        replace(HALF, probability=0.3, redrafts=1, hand_over=3),
        Weighting("step", threshold=0.22, redrafts=1, hand_over=6),
    ],
    ids=["rewrite", "redraft", "hand over", "all", "by the reward"],
)
def test_every_step_is_what_its_writer_writes_behind_the_accepted_ones(
    reasoner: Reasoner, weighting: Weighting, fallback: Fallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was drafted, refused, written by the other model or evaluated ahead before: no cache has kept a trace of it."""
    monkeypatch.setattr("rsd_local.decoding.fallback.proposing_pays", lambda *_: fallback == "on")
    for seed in (1, 2):
        params = Params(replace(FEW, seed=seed), weighting, LIMITS, Search(fallback=fallback))
        events, _ = told(reasoner, params)
        assert {event.author for event in events if isinstance(event, StepDone)} == {"draft", "target"}
        assert sum(event.reward is not None for event in events if isinstance(event, StepDone)) > 3
        check_each_step(reasoner, events, params)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("places", [1, 2, 5])
def test_once_it_is_handed_over_the_text_is_the_targets_own_and_the_draft_rests(
    reasoner: Reasoner, places: int, temperature: float
) -> None:
    params = Params(replace(FEW, temperature=temperature), replace(NEVER, hand_over=places), LIMITS, Search(fallback="off"))
    events, end = told(reasoner, params)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert end.text == reasoner.solve(QUESTION, params, strategy="target").text and len(steps) > places
    drafted = [event for event in events if isinstance(event, Drafted)]
    assert [event.index for event in drafted] == list(range(places)), "one try at each place up to the one that is handed over"
    assert [step.rejected is not None for step in steps] == [True] * places + [False] * (len(steps) - places)
    rejected = sum(step.rejected.tokens for step in steps if step.rejected is not None)
    draft, target = end.counters["draft"], end.counters["target"]
    assert draft.generated_tokens == draft.discarded_tokens == rejected
    assert target.generated_tokens == sum(step.tokens for step in steps) and target.discarded_tokens == 0


def test_a_step_drafted_again_is_another_try_and_only_the_last_one_is_named(dense: Reasoner) -> None:
    params = Params(FEW, replace(NEVER, redrafts=2), LIMITS, Search(fallback="off"))
    events, end = told(dense, params)
    tries: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, Drafted):
            tries.setdefault(event.index, []).append(event.text)
        elif isinstance(event, StepDone):
            assert event.author == "target" and event.rejected is not None and event.rejected.text == tries[event.index][-1]
    whole = [texts for texts in tries.values() if texts[-1].strip()]
    assert len(whole) > 5 and all(len(texts) == 3 for texts in whole)
    assert sum(len(set(texts)) == 3 for texts in whole) > len(whole) / 2
    assert end.text == dense.solve(QUESTION, params, strategy="target").text


def test_the_draft_writes_on_after_a_place_that_was_rewritten_and_the_row_begins_anew(dense: Reasoner) -> None:
    """Only places in a row hand over."""
    single = 0
    for seed in range(6):
        params = Params(replace(FEW, seed=seed), replace(HALF, hand_over=3), replace(LIMITS, tokens=600), Search(fallback="off"))
        events, _ = told(dense, params)
        authors = "".join(event.author[0] for event in events if isinstance(event, StepDone))
        over = authors.find("ttt")
        assert over < 0 or set(authors[over:]) == {"t"}
        single = max(single, authors[:over].count("t"))
    assert single >= 3, "no run had three such places before there were three in a row"


# Counters, wherever a run is stopped.


def cancelled_after(reasoner: Reasoner, strategy: Strategy, params: Params, batches: int, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events of a run that is cancelled with the so-manieth batch of all engines together."""
    token, left = CancelToken(), batches

    def note(rows: int, seconds: float, requests: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            token.cancel()

    with monkeypatch.context() as patch:
        for engine in reasoner.engines().values():
            patch.setattr(engine.latency, "note", note)
        return list(reasoner.stream(QUESTION, params, strategy=strategy, cancel=token))


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("rsd", {"fallback": "off"}),
        ("rsd", {"fallback": "on"}),
        ("rsd", {"fallback": "off", "candidates": 2}),
        ("speculative", {"speculate": 3}),
        ("target", {}),
        ("draft", {}),
        ("step-best-of-n", {"samples": 2}),
    ],
    ids=str,
)
def test_what_was_written_is_in_the_text_or_was_discarded_wherever_a_run_is_cancelled(
    reasoner: Reasoner, strategy: Strategy, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if strategy == "speculative" and not reasoner.trio.draft.can_cut:
        pytest.skip("it cannot forget single tokens")
    monkeypatch.setattr("rsd_local.decoding.fallback.proposing_pays", lambda *_: settings.get("fallback") == "on")
    params = Params(FEW, replace(HALF, redrafts=1), LIMITS, Search(**settings))  # type: ignore[arg-type]
    reasons: Counter[str] = Counter()
    for batches in (*range(1, 60), *range(60, 400, 17), 10_000):
        *events, end = cancelled_after(reasoner, strategy, params, batches, monkeypatch)
        assert isinstance(end, Finished)
        reasons[end.reason] += 1
        steps = [event for event in events if isinstance(event, StepDone)]
        assert end.text == "".join(step.text for step in steps) or end.text.startswith("".join(step.text for step in steps))
        written = {author: sum(step.tokens for step in steps if step.author == author) for author in ("draft", "target")}
        for author in {"draft", "target"} & set(end.counters):
            counters = end.counters[author]  # type: ignore[index]
            kept = counters.generated_tokens - counters.discarded_tokens
            if author == "draft" and (strategy == "speculative" or (strategy == "rsd" and settings["fallback"] == "on")):
                # Of the target's text it keeps what it had proposed itself.
                assert written["draft"] <= kept <= written["draft"] + end.counters["target"].kept_tokens, batches
            else:
                assert kept == written[author], (author, batches)
    assert reasons["cancelled"] > 30 and reasons["length"] + reasons["stop"] > 0


# Steps that hold nothing to judge: by models that write given texts.

ONE, TWO, SO, DOTS, OTHER = "1+1=2\n\n", "2+1=3\n\n", "So \\boxed{3}.\n\n", "---\n\n", "1+2=3\n\n"
RULES = [DOTS, "--- \n\n", "---\t\n\n", "***\n\n"]
BLANK = ["\n\n", " \n", "\n \n"]
TEXTS = [ONE, TWO, SO, OTHER, *RULES, *BLANK]


def pair(folder: Path, draft: dict[str, str], target: dict[str, str], **settings: object) -> Trio:
    paths = [write_script(folder / f"{name}.gguf", TEXTS, then) for name, then in (("draft", draft), ("target", target))]
    roles = [role(path, ctx_size=512) for path in paths]
    return Trio(*roles, **{"reward_kind": "confidence", "reuse": False} | settings)  # type: ignore[arg-type]


def authors_and_texts(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.author, event.text) for event in events if isinstance(event, StepDone)]


SURE = Params(weighting=Weighting("step", threshold=0.5), search=Search(fallback="off"))


def test_an_end_without_an_answer_goes_to_the_target_once(tmp_path: Path) -> None:
    with Reasoner.open(pair(tmp_path, chain(ONE), chain(ONE, TWO, SO))) as opened:
        events, end = told(opened, SURE)
    assert authors_and_texts(events) == [("draft", ONE), ("target", TWO), ("target", SO), ("draft", "")]
    assert end.reason == "stop" and end.answer == "3"
    assert [event.text for event in events if isinstance(event, Drafted)] == [ONE, "", "", ""]
    rejected = [event.rejected for event in events if isinstance(event, StepDone)]
    assert [one is not None and (one.text, one.reward, one.tokens) for one in rejected] == [False, ("", None, 1), ("", None, 1), False]


def test_an_end_that_the_target_confirms_is_the_end(tmp_path: Path) -> None:
    with Reasoner.open(pair(tmp_path, chain(ONE), chain(ONE))) as opened:
        events, end = told(opened, SURE)
    assert authors_and_texts(events) == [("draft", ONE), ("target", "")] and (end.reason, end.answer) == ("stop", None)
    assert end.counters["target"].generated_tokens == 1


def test_an_end_behind_the_answer_is_believed(tmp_path: Path) -> None:
    with Reasoner.open(pair(tmp_path, chain(ONE, SO), chain(ONE, TWO, SO))) as opened:
        events, end = told(opened, SURE)
    assert authors_and_texts(events) == [("draft", ONE), ("draft", SO), ("draft", "")] and end.answer == "3"
    assert end.counters["target"].generated_tokens == 0 and end.counters["target"].evaluated_tokens == 0
    assert (end.unchecked_steps, end.non_finite_rewards) == (1, 0)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_white_space_alone_is_never_judged_and_the_target_writes(tmp_path: Path, threshold: float) -> None:
    """Newlines cut by the limit of a step: no delimiter ends them, for nothing stands before it."""
    blank = {"": BLANK[0], BLANK[0]: BLANK[1], BLANK[1]: BLANK[2], BLANK[2]: BLANK[0], ONE: BLANK[0], TWO: BLANK[1], SO: ""}
    params = replace(SURE, weighting=Weighting("step", threshold=threshold), limits=Limits(step_tokens=4))
    with Reasoner.open(pair(tmp_path, blank, chain(ONE, TWO, SO))) as opened:
        events, end = told(opened, params)
    assert authors_and_texts(events)[:3] == [("target", ONE), ("target", TWO), ("target", SO)] and end.answer == "3"
    assert end.counters["reward"].evaluated_tokens == 0 and end.non_finite_rewards == 0
    for event in events:
        if isinstance(event, StepDone) and event.author == "target":
            assert (event.reward, event.reward_by, event.reward_failed) == (None, "", False)


def test_dividers_do_not_end_a_solution(tmp_path: Path) -> None:
    order = [ONE, DOTS, TWO, RULES[1], OTHER, RULES[2], SO]
    with Reasoner.open(pair(tmp_path, chain(*order), chain(*order))) as opened:
        for strategy in ("draft", "target", "rsd", "speculative"):
            result = opened.solve("What?", replace(SURE, limits=Limits(repeats=3)), strategy=strategy)  # type: ignore[arg-type]
            assert result.text == "".join(order) and result.answer == "3" and result.finish_reason == "stop", strategy
        only = [*RULES, SO]
    with Reasoner.open(pair(tmp_path, chain(*only), chain(*only))) as opened:
        assert opened.solve("What?", replace(SURE, limits=Limits(repeats=2))).finish_reason == "stop"


def test_the_same_steps_again_and_again_do_end_one(tmp_path: Path) -> None:
    circle = {"": ONE, ONE: TWO, TWO: DOTS, DOTS: ONE}
    with Reasoner.open(pair(tmp_path, circle, circle)) as opened:
        for strategy in ("draft", "target", "rsd", "speculative"):
            result = opened.solve("What?", SURE, strategy=strategy)  # type: ignore[arg-type]
            assert (result.finish_reason, result.text) == ("repetition", (ONE + TWO + DOTS) * 3), strategy
        off = replace(SURE, limits=Limits(repeats=0, steps=30))
        assert opened.solve("What?", off).finish_reason == "steps"
