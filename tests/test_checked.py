"""Programs as rewards and rewards in cascade: who is asked, who decides, what each cache holds, and what is tried again."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from test_rsd import QUESTION, role
from tiny import chain, write_model, write_script

from rsd_local import Limits, Params, Prompt, Reasoner, Sampling, Trio, Weighting
from rsd_local.config import RewardConfig, Search
from rsd_local.decoding.solution import Solution
from rsd_local.errors import ConfigError, SandboxTooWeak, VerifierFailed
from rsd_local.events import CancelToken, Drafted, Event, Finished, StepDone
from rsd_local.rewards.verifier.calls import Limited
from rsd_local.roles import DRAFT, TARGET, Stream
from rsd_local.run import collect
from rsd_local.segments import Segmenter
from rsd_local.steps import Step

FEW = Sampling(temperature=0.9, top_k=5, seed=2)
LIMITS = Limits(tokens=250, step_tokens=9, repeats=0)
STEP = Weighting("step", threshold=0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checked")
    made = {name: write_model(folder / f"{name}.gguf", "dense", seed) for name, seed in (("draft", 1), ("target", 3), ("reward", 2))}
    return {f"dense-{name}": path for name, path in made.items()}


def opened(files: dict[str, Path], *rewards: RewardConfig, **settings: object) -> Reasoner:
    """A trio of tiny models with these rewards."""
    return Reasoner.open(Trio(role(files["dense-draft"]), role(files["dense-target"]), rewards=rewards, **{"reuse": False} | settings))  # type: ignore[arg-type]


def lot(text: str, salt: str = "") -> float:
    """A number in [0, 1) that a text alone decides."""
    return int.from_bytes(hashlib.sha256((salt + text).encode()).digest()[:4]) / 2**32


def ascii_of(text: str) -> str:
    """What of a text no step's end can cut in two."""
    return "".join(sign for sign in text if sign.isascii())


def replayed(reasoner: Reasoner, events: list[Event], params: Params) -> Iterator[tuple[StepDone, list[Step], list[Step]]]:
    """Each accepted step with those before it and with all tries of its author, written anew by fresh writers."""
    prompt, solution = Prompt.of(QUESTION, reasoner.config.system), Solution(params.limits, Segmenter())
    accepted: list[Step] = []
    for event in events:
        if not isinstance(event, StepDone):
            continue
        tries = []
        for attempt in range(event.retries + 1):
            with closing(reasoner.trio.writer(event.author, prompt)) as writer:
                for before in accepted:
                    writer.read(before)
                stream = Stream(params.sampling.seed, DRAFT if event.author == "draft" else TARGET, 0, event.index, attempt)
                tries.append(writer.start_writing(solution.room, solution.scan(), params.sampling, stream).result())
        yield event, accepted, tries
        step = next(one for one in tries if ascii_of(one.text) == ascii_of(event.text))
        assert solution.accept(step, event.author).text == event.text
        accepted.append(step)


def told(reasoner: Reasoner, params: Params) -> tuple[list[Event], Finished]:
    events = list(reasoner.stream(QUESTION, params))
    assert isinstance(events[-1], Finished)
    return events, events[-1]


def test_a_check_is_given_the_prompt_the_accepted_steps_and_the_new_one(files: dict[str, Path]) -> None:
    asked: list[tuple[Prompt, tuple[str, ...], str]] = []

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        asked.append((prompt, steps, step))
        return None if lot(step) < 0.2 else float(lot(step) > 0.5)

    with opened(files, RewardConfig("verifier", verifier=check)) as reasoner:
        events, end = told(reasoner, Params(FEW, Weighting(threshold=1.0), LIMITS))
    accepted: list[str] = []
    drafts = iter(asked)
    for event in events:
        if isinstance(event, Drafted):
            prompt, steps, step = next(drafts)
            assert (prompt.question, [ascii_of(text) for text in steps], step) == (QUESTION, accepted, event.text)
        if isinstance(event, StepDone):
            assert event.author == ("target" if event.reward == 0.0 else "draft")
            assert event.reward_by == ("" if event.reward is None else "check")
            accepted.append(ascii_of(event.text))
    assert next(drafts, None) is None
    assert end.unchecked_steps == sum(lot(step) < 0.2 for _, _, step in asked) > 0
    assert end.decided_by == {"check": len(asked) - end.unchecked_steps}


def test_only_the_first_reward_that_is_sure_is_asked_and_its_own_threshold_counts(files: dict[str, Path]) -> None:
    second: list[str] = []

    def cheap(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return None if lot(step) > 0.9 else lot(step)

    def dear(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        second.append(step)
        return lot(step, "dear")

    rewards = RewardConfig("verifier", verifier=cheap, lower=0.3, upper=0.6), RewardConfig("verifier", verifier=dear)
    with opened(files, *rewards) as reasoner:
        events, end = told(reasoner, Params(FEW, STEP, LIMITS))
    drafted = [event.text for event in events if isinstance(event, Drafted)]
    assert second == [step for step in drafted if 0.3 <= lot(step) < 0.6 or lot(step) > 0.9] and 0 < len(second) < len(drafted)
    assert end.decided_by == {"cheap": len(drafted) - len(second), "dear": len(second)}
    for event, text in zip((one for one in events if isinstance(one, StepDone)), drafted, strict=True):
        expected = lot(text, "dear") >= 0.5 if text in second else lot(text) >= 0.6
        assert event.author == ("draft" if expected else "target")
        assert event.reward_by == ("dear" if text in second else "cheap")


def test_a_reward_in_doubt_decides_where_nobody_after_it_can(files: dict[str, Path]) -> None:
    rewards = [RewardConfig("verifier", verifier=lambda *_: 0.5, lower=0.3, upper=0.6), RewardConfig("verifier", verifier=lambda *_: None)]
    with opened(files, *rewards) as reasoner:
        _, end = told(reasoner, Params(FEW, Weighting(threshold=0.1), LIMITS))
    assert end.unchecked_steps == 0 and set(end.decided_by) == {"<lambda>"}
    with opened(files, rewards[1], rewards[1]) as reasoner:
        events, end = told(reasoner, Params(FEW, Weighting(threshold=0.1), LIMITS))
        assert {event.author for event in events if isinstance(event, StepDone)} == {"draft"}
        assert end.unchecked_steps == sum(isinstance(event, Drafted) for event in events) and not end.decided_by
        events, end = told(reasoner, Params(FEW, Weighting(threshold=0.1, unchecked="target"), LIMITS))
        assert {event.author for event in events if isinstance(event, StepDone)} == {"target"} and end.unchecked_steps > 3


def test_a_model_that_was_not_asked_about_a_step_has_read_it_all_the_same(files: dict[str, Path]) -> None:
    """Its score of a later step is that of a fresh reader of all the steps before."""

    def unsure(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return 0.5 if lot(step) < 0.5 else float(lot(step) < 0.8)

    reader = role(files["dense-reward"])
    rewards = (
        RewardConfig("verifier", verifier=unsure, lower=0.2, upper=0.8),
        RewardConfig("tag-logits", model=reader, lower=0.3, upper=0.42),
        RewardConfig("tag-logits", model=reader, layout="rlhflow"),
    )
    with opened(files, *rewards) as reasoner:
        assert list(reasoner.engines()) == ["draft", "target", "reward", "reward-2"]
        prompt, (_, first, last) = Prompt.of(QUESTION, reasoner.config.system), reasoner.trio.rewards.stages
        params, seen = Params(FEW, Weighting("step", threshold=0.15), LIMITS), set()
        events, end = told(reasoner, params)
        drafted = {event.index: event.text for event in events if isinstance(event, Drafted)}
        for event, accepted, tries in replayed(reasoner, events, params):
            if event.author != "draft" or event.reward_by != "tag-logits":
                continue
            assert drafted[event.index] == tries[0].text
            scores = []
            for stage in (first, last):
                with closing(stage.open(prompt, lambda: pytest.fail("no target is needed"))) as fresh:
                    for before in accepted:
                        fresh.read(before)
                    scores.append(fresh.start_score(tries[0]).result().value)
            assert scores[0] is not None
            sure = not 0.3 <= scores[0] < 0.42
            seen.add(sure)
            assert event.reward == pytest.approx(scores[0 if sure else 1], abs=1e-4), event.index
        assert seen == {False, True} and end.counters["reward"].decode_calls > end.counters["reward-2"].decode_calls > 0


def test_a_step_that_was_only_read_is_forgotten_by_every_reward_of_a_cascade(files: dict[str, Path]) -> None:
    """As a thought's step is, of which only every second one is scored."""
    seen = list[tuple[str, ...]]()

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float:
        seen.append(steps)
        return 0.5

    rewards = RewardConfig("verifier", verifier=check, lower=0.0, upper=1.0), RewardConfig("verifier", verifier=check)
    first, gone, last = (Step([], text, "delimiter") for text in (b"1\n\n", b"2\n\n", b"3\n\n"))
    with opened(files, *rewards) as reasoner, closing(reasoner.trio.reward(Prompt.of(QUESTION))) as reward:
        reward.read(first)
        reward.read(gone)
        reward.forget()
        assert reward.start_score(last).result().value == 0.5
    assert seen == [("1\n\n",)] * 2


def test_candidates_that_a_full_context_ends_count_as_discarded(files: dict[str, Path]) -> None:
    trio = Trio(
        role(files["dense-draft"]), role(files["dense-target"]), role(files["dense-reward"], ctx_size=64), delimiter="tokens:5", width=4,
        reuse=False,
    )  # fmt: skip
    params = Params(FEW, Weighting(threshold=0.0), replace(LIMITS, step_tokens=5), Search(candidates=3))
    with Reasoner.open(trio) as reasoner:
        made = reasoner.solve("q", params)
    draft = made.counters["draft"]
    assert made.finish_reason == "context" and made.steps
    assert draft.generated_tokens - draft.discarded_tokens == sum(step.tokens for step in made.steps)


def test_the_best_of_several_candidates_is_one_that_the_cascade_ranked_highest(files: dict[str, Path]) -> None:
    def unsure(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return 0.5 if lot(step) < 0.5 else lot(step)

    rewards = (
        RewardConfig("verifier", verifier=unsure, lower=0.5, upper=0.6),
        RewardConfig("tag-logits", model=role(files["dense-reward"])),
    )
    with opened(files, *rewards, width=4) as reasoner:
        events, _ = told(reasoner, Params(FEW, Weighting("step", threshold=0.0), LIMITS, Search(candidates=3)))
        authors = [(event.author, event.reward_by) for event in events if isinstance(event, StepDone)]
        assert set(authors) == {("draft", "unsure")} or ("draft", "tag-logits") in authors


def test_the_target_tries_again_until_its_own_step_passes_or_the_best_one_stays(files: dict[str, Path]) -> None:
    tried: list[str] = []

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        tried.append(step)
        return lot(step)

    params, ended = Params(FEW, Weighting("step", threshold=0.85), LIMITS, Search(retries=3, fallback="off")), set()
    with opened(files, RewardConfig("verifier", verifier=check)) as reasoner:
        events, _ = told(reasoner, params)
        for event, _, tries in replayed(reasoner, events, params):
            if event.author == "draft":
                assert (event.own_reward, event.retries) == (None, 0)
                continue
            values = [lot(one.text) for one in tries]
            assert all(one.text in tried for one in tries)
            assert event.own_reward == max(values) and event.reward is not None and event.reward < 0.85
            assert all(value < 0.85 for value in values[:-1]) and (values[-1] >= 0.85 or event.retries == 3)
            assert ascii_of(tries[values.index(max(values))].text) == ascii_of(event.text)
            ended.add((values[-1] >= 0.85, event.retries))
    assert {(True, 0), (False, 3)} <= ended and any(passed and retries for passed, retries in ended)


def test_a_reward_of_the_drafts_own_has_nothing_to_say_of_the_targets_step(files: dict[str, Path]) -> None:
    """With retries the target's steps are checked too, and they have no trace; the next reward of a cascade decides then."""

    def unsure(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return None

    params = Params(FEW, Weighting("step", threshold=0.9), replace(LIMITS, tokens=80), Search(retries=2))
    confidence, reader = RewardConfig("confidence"), RewardConfig("tag-logits", model=role(files["dense-reward"]))
    for rewards, checked in (((confidence,), False), ((RewardConfig("verifier", verifier=unsure), confidence, reader), True)):
        with opened(files, *rewards) as reasoner:
            events, _ = told(reasoner, params)
            own = [event.own_reward for event in events if isinstance(event, StepDone) and event.author == "target"]
            assert own and all((reward is not None) == checked for reward in own)


def test_a_greedy_answers_further_drafts_are_drawn_and_the_target_writes_greedily_after_them(files: dict[str, Path]) -> None:
    """So no further try is the first one again."""
    greedy = Sampling(0.0, seed=4)
    params = Params(greedy, Weighting("step", threshold=0.8, redrafts=2), LIMITS, Search(fallback="off"))
    with opened(files, RewardConfig("verifier", verifier=lambda prompt, steps, step: lot(step))) as reasoner:
        events, _ = told(reasoner, params)
        prompt, solution, accepted, tries = Prompt.of(QUESTION, reasoner.config.system), Solution(LIMITS, Segmenter()), list[Step](), 0
        most = 0
        for event in events:
            if not isinstance(event, Drafted | StepDone) or (isinstance(event, StepDone) and event.author == "draft"):
                tries = 0 if isinstance(event, StepDone) else tries
                continue
            author, role, attempt = ("draft", DRAFT, tries) if isinstance(event, Drafted) else ("target", TARGET, 0)
            with closing(reasoner.trio.writer(author, prompt)) as writer:  # type: ignore[arg-type]
                for before in accepted:
                    writer.read(before)
                stream, drawn = Stream(4, role, 0, event.index, attempt), greedy.again if attempt else greedy
                step = writer.start_writing(solution.room, solution.scan(), drawn, stream).result()
            assert ascii_of(step.text) == ascii_of(event.text), (event.index, attempt)
            most, tries = max(most, attempt), tries + 1
            if isinstance(event, StepDone) or lot(step.text) >= 0.8:
                solution.accept(step, "draft")
                accepted.append(step)
                tries = 0
    assert most == 2 and greedy.again.temperature == 0.7 and FEW.again == FEW


def test_the_target_does_not_try_again_for_a_check_that_does_not_work(files: dict[str, Path]) -> None:
    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        raise OSError("out of order")

    with opened(files, RewardConfig("verifier", verifier=check), on_verifier_error="target") as reasoner:
        events, _ = told(reasoner, Params(FEW, STEP, LIMITS, Search(retries=3)))
    done = [event for event in events if isinstance(event, StepDone)]
    assert len(done) > 3 and {(event.author, event.retries, event.own_reward) for event in done} == {("target", 0, None)}


def test_without_retries_no_step_of_the_target_is_checked(files: dict[str, Path]) -> None:
    asked: list[str] = []

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        asked.append(step)
        return 0.0

    with opened(files, RewardConfig("verifier", verifier=check)) as reasoner:
        events, _ = told(reasoner, Params(FEW, STEP, LIMITS))
    assert asked == [event.text for event in events if isinstance(event, Drafted)]


class Fussy:
    """A verifier that says beforehand what it can check."""

    def __init__(self, able: bool) -> None:
        self.able = able
        self.closed = 0

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None) -> float | None:
        return 1.0 if self.able else None

    def checks(self, prompt: Prompt) -> bool:
        return self.able

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("able", [False, True])
def test_nothing_is_drafted_where_nothing_can_be_checked_and_the_target_would_write_it_anyway(files: dict[str, Path], able: bool) -> None:
    fussy = Fussy(able)
    with opened(files, RewardConfig("verifier", verifier=fussy)) as reasoner:
        events, end = told(reasoner, Params(FEW, Weighting(threshold=1.0, unchecked="target"), LIMITS))
        alone = reasoner.solve(QUESTION, Params(FEW, limits=LIMITS), strategy="target")
        assert any(isinstance(event, Drafted) for event in events) == able
        if not able:
            assert end.text == alone.text and end.counters["draft"].evaluated_tokens == 0
            assert end.counters["target"].evaluated_tokens == alone.counters["target"].evaluated_tokens
            assert end.unchecked_steps == len(alone.steps)
        _, end = told(reasoner, Params(FEW, Weighting(threshold=1.0, unchecked="accept"), LIMITS))
        assert end.counters["target"].evaluated_tokens == 0, "the target's prompt is not evaluated before the target is needed"
    assert fussy.closed == 1


def test_a_verifier_that_does_not_work_is_an_error_or_the_targets_affair(files: dict[str, Path]) -> None:
    def breaks(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        raise ZeroDivisionError("by nought")

    with opened(files, RewardConfig("verifier", verifier=breaks)) as reasoner:
        with pytest.raises(VerifierFailed, match="breaks.*ZeroDivisionError"):
            reasoner.solve(QUESTION, Params(FEW, STEP, LIMITS))
        assert reasoner.solve(QUESTION, Params(FEW, STEP, LIMITS), strategy="draft").steps, "it serves the next one"
    with opened(files, RewardConfig("verifier", verifier=breaks), on_verifier_error="target") as reasoner:
        result = reasoner.solve(QUESTION, Params(FEW, STEP, LIMITS))
        assert {step.author for step in result.steps} == {"target"} and result.non_finite_rewards > 3
        assert all(step.reward_failed for step in result.steps)


def test_a_check_that_does_not_work_is_the_targets_affair_at_once_whatever_it_may_write(files: dict[str, Path]) -> None:
    asked: list[str] = []

    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        asked.append(step)
        raise OSError("out of order")

    weighting = Weighting(threshold=1.0, redrafts=3, target_budget=0.0)
    with opened(files, RewardConfig("verifier", verifier=check), on_verifier_error="target") as reasoner:
        events, end = told(reasoner, Params(FEW, weighting, LIMITS))
    done = [event for event in events if isinstance(event, StepDone)]
    assert len(done) > 3 and {event.author for event in done} == {"target"}
    assert [event.text for event in events if isinstance(event, Drafted) and event.text.strip()] == asked
    assert sum(isinstance(event, Drafted) for event in events) == len(done) and end.non_finite_rewards == len(asked)


@pytest.mark.parametrize("strategy", ["rsd", "auto"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_what_nothing_can_check_is_drafted_where_the_target_cannot_afford_it(files: dict[str, Path], share: float, strategy: str) -> None:
    params = Params(FEW, Weighting(threshold=1.0, unchecked="target", target_budget=share), LIMITS)
    with opened(files, RewardConfig("verifier", verifier=Fussy(False))) as reasoner:
        events = list(reasoner.run(QUESTION, params, strategy=strategy, text=False))  # type: ignore[arg-type]
        assert len(list(replayed(reasoner, events, params))) > 10
        again = replace(params, search=Search(ways=collect(iter(events)).ways))
        assert strategy == "rsd" or collect(reasoner.run(QUESTION, again, strategy="auto")).text == collect(iter(events)).text
    drafted = {event.index for event in events if isinstance(event, Drafted)}
    tokens = own = 0
    for event in (event for event in events if isinstance(event, StepDone)):
        usual = max(1, tokens // max(1, event.index))
        affords = own + usual <= share * (tokens + usual)
        assert (event.index in drafted) is not affords and (event.author == "target" or not affords), event.index
        tokens += event.tokens
        own += event.tokens if event.author == "target" else 0
        assert own <= share * tokens + LIMITS.step_tokens
    assert (own > 0) == (share > 0)


class Given:
    """A verifier of the user's own class, which nobody has tried before."""

    def __init__(self, value: object, waits: threading.Event | None = None) -> None:
        self.value, self.waits = value, waits

    def check(self, prompt: Prompt, steps: tuple[str, ...], step: str, cancel: CancelToken | None) -> object:
        if self.waits is not None:
            self.waits.wait(60)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    def checks(self, prompt: Prompt) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (ZeroDivisionError("by nought"), "verifier Given raised ZeroDivisionError: by nought"),
        (SystemExit(3), "verifier Given raised SystemExit: 3"),
        (SandboxTooWeak("no room"), "no room"),
        (float("nan"), "verifier Given answered nan"),
        (7, "verifier Given answered 7"),
        ("good", "verifier Given answered 'good'"),
    ],
)
def test_a_verifier_of_a_users_class_may_do_no_more_harm_than_a_callable(files: dict[str, Path], value: object, message: str) -> None:
    params = Params(FEW, STEP, replace(LIMITS, tokens=40))
    with opened(files, RewardConfig("verifier", verifier=Given(value))) as reasoner:
        with pytest.raises(VerifierFailed, match=message):
            reasoner.solve(QUESTION, params)
    with opened(files, RewardConfig("verifier", verifier=Given(value)), on_verifier_error="target") as reasoner:
        result = reasoner.solve(QUESTION, params)
        assert {step.author for step in result.steps} == {"target"} and all(step.reward_failed for step in result.steps)


def test_an_object_that_hangs_costs_its_answer_and_no_more(files: dict[str, Path]) -> None:
    release = threading.Event()
    config = RewardConfig("verifier", verifier=Limited(Given(1.0, release), "mine", 0.3))
    assert config.name == "mine"
    with opened(files, config) as reasoner:
        with pytest.raises(VerifierFailed, match="mine took longer than 0.3 seconds"):
            reasoner.solve(QUESTION, Params(FEW, STEP, LIMITS))
        release.set()
        assert reasoner.solve(QUESTION, Params(FEW, STEP, LIMITS)).target_share == 0


def test_a_verifier_that_does_not_hear_a_cancel_is_left_behind(files: dict[str, Path]) -> None:
    release = threading.Event()
    with opened(files, RewardConfig("verifier", verifier=Given(1.0, release))) as reasoner:
        run = reasoner.run(QUESTION, Params(FEW, STEP, LIMITS))
        timer = threading.Timer(0.5, run.cancel)
        timer.start()
        began = time.monotonic()
        assert run.result().finish_reason == "cancelled" and time.monotonic() - began < 10
    release.set()


def test_a_check_that_waits_is_cancelled_at_once(files: dict[str, Path]) -> None:
    begun, release = threading.Event(), threading.Event()

    def waits(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        begun.set()
        release.wait(60)
        return 1.0

    cancel, ended = CancelToken(), list[object]()
    with opened(files, RewardConfig("verifier", verifier=waits)) as reasoner:
        worker = threading.Thread(target=lambda: ended.append(reasoner.solve(QUESTION, Params(FEW, STEP, LIMITS), cancel=cancel)))
        worker.start()
        assert begun.wait(20)
        began = time.monotonic()
        cancel.cancel()
        worker.join(20)
        assert time.monotonic() - began < 5 and [result.finish_reason for result in ended] == ["cancelled"]  # type: ignore[attr-defined]
    release.set()


BLOCK = ["Wait:\n\n", "```sh\n", "pip\n", "```\n\n", "Now\n\n", "```python\n", "a = 1\n", "\n", "b = 2\n", "``", "`\n", "\nIt is", " one"]
OTHER = ["So:\n", "~~~~\n", "a = 2\n", "~~~~", "\n\n", "It was", " two"]


@pytest.fixture(scope="module")
def coders(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """A draft and a target that each write an answer with a code block and go on explaining."""
    folder, words = tmp_path_factory.mktemp("coders"), [*BLOCK, *OTHER]
    draft = write_script(folder / "draft.gguf", words, chain(*BLOCK))
    target = write_script(folder / "target.gguf", words, chain(*OTHER) | {BLOCK[3]: OTHER[0]})
    return Trio(role(draft), role(target), reward_kind="confidence", delimiter="fence", stop_after="code-block", system="")


def test_an_answer_ends_with_its_first_code_block_that_is_no_shells(coders: Trio) -> None:
    whole = {"draft": "".join(BLOCK), "target": "".join(OTHER)}
    until = {"draft": "".join(BLOCK[:11]), "target": "".join(OTHER[:5])}
    for reuse in (False, True):
        with Reasoner.open(replace(coders, reuse=reuse, width=3)) as reasoner:
            for author in ("draft", "target"):
                result = reasoner.solve("1", strategy=author)  # type: ignore[arg-type]
                assert (result.text, result.finish_reason) == (until[author], "stop")
                params = replace(reasoner.config.params(), limits=Limits())
                assert reasoner.solve("1", params, strategy=author).text == whole[author]  # type: ignore[arg-type]
            sampled = replace(reasoner.config.params(), sampling=Sampling(0.5), search=Search(samples=2))
            for strategy in ("best-of-n", "majority"):
                result = reasoner.solve("1", sampled, strategy=strategy)  # type: ignore[arg-type]
                assert (result.text, result.finish_reason) == (until["draft"], "stop"), strategy
            speculative = reasoner.solve("1", strategy="speculative")
            assert (speculative.text, speculative.finish_reason) == (until["target"], "stop")


def test_a_fence_ends_a_step_and_a_blank_line_none(coders: Trio) -> None:
    with Reasoner.open(coders) as reasoner:
        steps = reasoner.solve("1", strategy="draft").steps
    assert [step.text for step in steps] == ["".join(BLOCK[:4]), "".join(BLOCK[4:11])]


def test_the_block_that_ends_an_answer_may_be_the_targets(coders: Trio) -> None:
    def check(prompt: Prompt, steps: tuple[str, ...], step: str) -> float | None:
        return 0.0 if "a = 1" in step else None

    checked = replace(coders, reward_kind="verifier", verifier=check)
    with Reasoner.open(checked) as reasoner:
        result = reasoner.solve("1", replace(reasoner.config.params(), search=Search(fallback="off")))
        assert result.text == "".join(BLOCK[:4]) + "".join(OTHER[:5]) and result.finish_reason == "stop"
        assert [(step.author, step.reward) for step in result.steps] == [("draft", None), ("target", 0.0)]
        draft, target = result.counters["draft"], result.counters["target"]
        opening, written = target.opening_tokens, len(BLOCK[:11])
        assert (draft.evaluated_tokens, draft.generated_tokens) == (opening + written - 1, written), "nothing is caught up behind the end"
        # The target reads its prompt and the accepted step once, and writes; its last token is never evaluated.
        assert target.evaluated_tokens == opening + len(BLOCK[:4]) + len(OTHER[:5]) - 1


def test_a_stop_string_goes_before_a_code_block(coders: Trio) -> None:
    with Reasoner.open(coders) as reasoner:
        limits = Limits(stop=("b = ",), stop_after="code-block")
        assert reasoner.solve("1", replace(reasoner.config.params(), limits=limits), strategy="draft").text == "".join(BLOCK[:8])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_kind": "verifier"}, "needs a verifier"),
        ({"reward_kind": "verifier", "verifier": "python-test"}, "python-test.* is unknown"),
        ({"reward_kind": "verifier", "verifier": "regex:"}, "not of the form"),
        ({"reward_kind": "verifier", "verifier": "arithmetic:x"}, "not of the form"),
        ({"reward_kind": "verifier", "verifier": "json-schema"}, "needs a schema"),
        ({"reward_kind": "verifier", "verifier": 3}, "no name and nothing"),
        ({"reward_kind": "verifier", "verifier": "arithmetic", "tests": Path("t.py")}, "takes no tests"),
        ({"reward_kind": "judge", "verifier": "arithmetic"}, "takes no verifier"),
        ({"reward_kind": "judge,confidence,verifier,judge,judge", "verifier": "arithmetic"}, "more than 4"),
        ({"rewards": (RewardConfig("judge"),), "reward_kind": "judge"}, "reward_kind beside a list"),
        ({"rewards": (RewardConfig("judge"),), "unchecked": "ask"}, "unchecked"),
        ({"rewards": (RewardConfig("judge"),), "retries": -1}, "retries"),
        ({"rewards": (RewardConfig("judge"),), "stop_after": "code"}, "stop_after"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Trio(role(Path("d.gguf")), role(Path("t.gguf")), **settings)  # type: ignore[arg-type]
    for band in ((0.5, 0.4), (0.5, None), (-1.0, 0.5), (0.0, 1.5)):
        with pytest.raises(ConfigError):
            RewardConfig("judge", lower=band[0], upper=band[1])


@pytest.mark.parametrize("verifier", ["python-tests", "pytest:tests", "command:cat"])
def test_what_runs_code_is_refused_unless_that_is_allowed(coders: Trio, verifier: str) -> None:
    with pytest.raises(ConfigError) as told:
        Reasoner.open(replace(coders, reward_kind="verifier", verifier=verifier))
    assert "--run-code" in told.value.hint


def test_a_verifiers_threshold_is_one_and_the_short_form_of_a_cascade_has_bands() -> None:
    draft, target = role(Path("d.gguf")), role(Path("t.gguf"))
    assert Trio(draft, target, reward_kind="verifier", verifier="arithmetic").threshold == 1.0
    short = Trio(draft, target, reward_kind="verifier,confidence,judge", verifier="arithmetic")
    assert [stage.name for stage in short.stages] == ["arithmetic", "confidence", "judge"] and short.threshold == 0.7
    bands = [stage.band(last=place == 2) for place, stage in enumerate(short.stages)]
    assert bands == [(1.0, 1.0), (0.2, 0.8), None]
