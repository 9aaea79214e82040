"""The algorithm: what it evaluates, what it keeps, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_engine import poisoned
from tiny import VOCABULARY, write_model

from rsd_local.config import Fallback, Limits, Params, RoleConfig, Sampling, Search, Trio, Weighting
from rsd_local.errors import Closed, ContextFull, DecodeFailed, MissingTokens, NoChatTemplate
from rsd_local.events import CancelToken, Drafted, Finished, StepDone
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.layouts import MathShepherd, TwoTokens
from rsd_local.rewards.reading import PendingScore, ReadReward
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws, prompt_tokens
from rsd_local.segments import Segmenter
from rsd_local.steps import Step

QUESTION = "What is the number of the day after the last one?"
HALF = Params(
    weighting=Weighting("constant", probability=0.5), limits=Limits(tokens=400, step_tokens=7, repeats=0), search=Search(fallback="off")
)


def role(path: Path, **settings: object) -> RoleConfig:
    """A role whose rounding no batch changes much; one thread is the fastest for a tiny model, above all beside other work."""
    usual = {"ctx_size": 2048, "flash_attention": "off", "cache_type": "f32", "threads": 1, "trusted": True}
    return RoleConfig(path, **usual | settings)  # type: ignore[arg-type]


def trio_of(files: dict[str, Path], kind: str = "dense", **settings: object) -> Trio:
    """A trio whose caches are empty before each prompt, so that runs can be compared with one another and with closed forms."""
    draft, target, reward = (role(files[name]) for name in (f"{kind}-draft", f"{kind}-target", f"{kind}-reward"))
    return Trio(draft, target, reward, **{"reuse": False} | settings)  # type: ignore[arg-type]


def own_prompt(reasoner: Reasoner, name: str, question: str = QUESTION) -> list[int]:
    """The tokens of a question as the draft or the target is asked."""
    return prompt_tokens(reasoner.engines()[name].model, Prompt.of(question, reasoner.config.system))  # type: ignore[index]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Draft, target and reward of two kinds of memory, each with weights of its own."""
    folder = tmp_path_factory.mktemp("trio")
    return {
        f"{kind}-{name}": write_model(folder / f"{kind}-{name}.gguf", kind, seed)
        for kind in ("dense", "hybrid")
        for seed, name in enumerate(("draft", "target", "reward"))
    }


@pytest.fixture(scope="module", params=["dense", "hybrid"])
def reasoner(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Reasoner]:
    with Reasoner.open(trio_of(files, request.param)) as opened:
        yield opened


@pytest.mark.parametrize("steps", [5, 40])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_token_is_evaluated_twice(reasoner: Reasoner, steps: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters equal the closed form, which is linear in the steps: step 40 costs what step 5 does."""
    lengths: list[int] = []  # of every step as the reward model reads it, candidates and the target's, in order
    scored: list[int] = []  # how many of those stood there at each score
    read, score = MathShepherd.step, ReadReward.start_score

    def noted(layout: MathShepherd, index: int, step: Step) -> list[int]:
        lengths.append(len(read(layout, index, step)))
        return read(layout, index, step)

    def counted(reward: ReadReward, step: Step) -> PendingScore:
        pending = score(reward, step)
        scored.append(len(lengths))
        return pending

    monkeypatch.setattr(MathShepherd, "step", noted)
    monkeypatch.setattr(ReadReward, "start_score", counted)
    params = replace(HALF, sampling=Sampling(seed=seed), limits=Limits(tokens=10_000, steps=steps, step_tokens=7, repeats=0))
    result = reasoner.solve(QUESTION, params)
    assert result.finish_reason in ("steps", "stop") and len(result.steps) >= 0.75 * steps and 0 < result.target_share < 1
    opening = len(own_prompt(reasoner, "draft"))
    layout = MathShepherd(reasoner.engines()["reward"].model, Prompt.of(QUESTION))

    draft_rows = target_rows = 0
    unread_by_draft = unread_by_target = opening
    candidates = 0
    for step in result.steps:
        written = step.rejected or step
        draft_rows += unread_by_draft + written.tokens - 1
        candidates += written.tokens
        if step.author == "draft":
            unread_by_draft = 1
            unread_by_target += step.tokens
        else:
            unread_by_draft = step.tokens
            target_rows += unread_by_target + step.tokens - 1
            unread_by_target = 1

    # What the target wrote behind the last score is noted and never evaluated, for nothing was scored after it.
    reward_rows = len(layout.opening()) + sum(lengths[: scored[-1]])
    draft, target, reward = (result.counters[name] for name in ("draft", "target", "reward"))
    # A draft step of white space alone is not scored: each other one is read once, and so is what the target wrote instead.
    blank = sum(not (step.rejected or step).text.strip() for step in result.steps)
    assert len(scored) == len(result.steps) - blank
    assert len(lengths) == len(scored) + sum(step.author == "target" for step in result.steps[:-1])
    assert draft.evaluated_tokens == draft_rows
    assert target.evaluated_tokens == target_rows
    assert reward.evaluated_tokens == reward.prompt_tokens == reward_rows
    assert draft.generated_tokens == candidates
    assert draft.discarded_tokens == sum(step.rejected.tokens for step in result.steps if step.rejected)
    assert target.generated_tokens == sum(step.tokens for step in result.steps if step.author == "target")
    assert (draft.opening_tokens, target.opening_tokens, reward.opening_tokens) == (opening, opening, len(layout.opening()))
    assert draft.cached_tokens == target.cached_tokens == reward.cached_tokens == 0


def test_flops_are_what_the_counters_say(reasoner: Reasoner) -> None:
    result = reasoner.solve(QUESTION, HALF)
    draft, target, reward = (result.counters[name] for name in ("draft", "target", "reward"))
    n = draft.parameters
    assert n == target.parameters == reward.parameters > 10_000
    assert result.paper_flops == 2 * n * (draft.generated_tokens + target.generated_tokens + reward.prompt_tokens - reward.opening_tokens)
    assert result.full_flops == 2 * n * (draft.evaluated_tokens + target.evaluated_tokens + reward.evaluated_tokens)


def test_what_is_cached_changes_no_figure_but_those_of_what_was_evaluated(files: dict[str, Path]) -> None:
    with Reasoner.open(trio_of(files, reuse=True)) as opened:
        first, again = (opened.solve(QUESTION, HALF) for _ in range(2))
    assert again.text == first.text and again.paper_flops == first.paper_flops
    cached = {role: counters.cached_tokens for role, counters in again.counters.items()}
    assert all(counters.cached_tokens == 0 for counters in first.counters.values()) and min(cached.values()) > 0
    parameters = first.counters["draft"].parameters
    assert first.full_flops - again.full_flops == 2 * parameters * sum(cached.values())
    for role, counters in again.counters.items():
        assert counters.evaluated_tokens + cached[role] == first.counters[role].evaluated_tokens, role


def test_every_accepted_step_is_the_drafts_and_every_rejected_one_the_targets(files: dict[str, Path]) -> None:
    with Reasoner.open(trio_of(files)) as reasoner:
        texts = {}
        for probability in (0.0, 1.0):
            result = reasoner.solve(QUESTION, replace(HALF, weighting=Weighting("constant", probability=probability)))
            texts[probability] = result.text
            assert result.target_share == 1.0 - probability
            assert "".join(step.text for step in result.steps) == result.text
        for name, probability in (("draft", 1.0), ("target", 0.0)):
            sequence = reasoner.engines()[name].sequence(own_prompt(reasoner, name))  # type: ignore[index]
            alone = sequence.generate(Draws(Sampling(), Stream(0, TARGET)), HALF.limits.tokens).future.result()
            sequence.close()
            assert len(alone.tokens) == HALF.limits.tokens
            assert alone.text == texts[probability], f"the {name} alone writes the same"


@pytest.mark.parametrize("fallback", ["off", "on"])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_what_the_target_writes_in_place_of_every_step_is_its_own_text(
    files: dict[str, Path], temperature: float, fallback: Fallback
) -> None:
    """Its random numbers are its own: that the draft wrote and was refused before, at each place, changes none of them."""
    params = replace(HALF, sampling=Sampling(temperature, seed=5), weighting=Weighting("constant", probability=0.0))
    params = replace(params, search=Search(fallback=fallback))
    with Reasoner.open(trio_of(files)) as reasoner:
        alone, instead = (reasoner.solve(QUESTION, params, strategy=name) for name in ("target", "rsd"))
    assert instead.text == alone.text and [step.text for step in instead.steps] == [step.text for step in alone.steps]
    assert instead.finish_reason == alone.finish_reason and len(alone.steps) > 5


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_eight_questions_at_once_get_what_each_gets_alone(files: dict[str, Path], kind: str) -> None:
    """Without fused attention, whose rounding depends on a batch's shape, texts are equal to the last byte."""
    from concurrent.futures import ThreadPoolExecutor

    questions = [f"{QUESTION} And {number} days before?" for number in range(8)]
    with Reasoner.open(trio_of(files, kind)) as one:
        alone = [one.solve(question, HALF).text for question in questions]
    with Reasoner.open(trio_of(files, kind, parallel=8)) as many:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda question: many.solve(question, HALF).text, questions)) == alone
        cancels = [CancelToken() for _ in questions]
        with ThreadPoolExecutor(8) as pool:
            runs = [pool.submit(many.solve, question, HALF, cancel=cancel) for question, cancel in zip(questions, cancels, strict=True)]
            for number in (1, 4, 6):
                cancels[number].cancel()
            results = [run.result(timeout=60) for run in runs]
        for number, result in enumerate(results):
            if number in (1, 4, 6):
                assert result.finish_reason in ("cancelled", "length") and alone[number].startswith(result.text)
            else:
                assert result.text == alone[number]


def test_more_questions_than_parallel_wait_for_their_turn(files: dict[str, Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Reasoner.open(trio_of(files, parallel=2)) as reasoner, ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: reasoner.solve(QUESTION, HALF), range(6), timeout=60))
    assert len({result.text for result in results}) == 1


def test_leaving_a_stream_early_gives_every_cache_back(files: dict[str, Path]) -> None:
    with Reasoner.open(trio_of(files)) as reasoner:
        for _ in range(3):
            stream = reasoner.stream(QUESTION, HALF)
            next(stream)
            stream.close()
        for engine in reasoner.engines().values():
            sequence = engine.sequence()
            assert engine.positions(sequence) == (-1, -1)
            sequence.close()
        assert reasoner.solve(QUESTION, HALF).steps


def test_models_of_three_vocabularies_answer_together(tmp_path: Path) -> None:
    vocabularies = [VOCABULARY, [*VOCABULARY[:-1], "▁day"], [*VOCABULARY[:-2], "▁after", "▁last", "ab"]]
    paths = [write_model(tmp_path / f"{n}.gguf", "dense", n, vocabulary=v) for n, v in enumerate(vocabularies)]
    with Reasoner.open(Trio(*(role(path) for path in paths))) as reasoner:
        assert reasoner.trio.shared_tokens == 0
        result = reasoner.solve(QUESTION, HALF)
        assert 0 < result.target_share < 1


def test_a_shared_file_is_loaded_once(files: dict[str, Path]) -> None:
    judged = Trio(role(files["dense-draft"]), role(files["dense-target"]), role(files["dense-target"]), reward_kind="judge")
    with Reasoner.open(judged) as reasoner:
        engines = reasoner.engines()
        assert engines["reward"].model is engines["target"].model is not engines["draft"].model
        assert reasoner.solve(QUESTION, HALF).counters["reward"].evaluated_tokens > 0


def test_a_reward_that_is_no_number_is_never_accepted(files: dict[str, Path], tmp_path: Path) -> None:
    trio = trio_of(files)
    with Reasoner.open(replace(trio, reward=role(poisoned(files["dense-reward"], tmp_path)))) as reasoner:
        result = reasoner.solve(QUESTION, Params(weighting=Weighting("step", threshold=0.0), limits=Limits(tokens=40, step_tokens=7)))
    assert result.target_share == 1.0
    assert result.non_finite_rewards == len(result.steps) > 0
    assert all(step.reward is None and step.reward_failed and step.reward_by == "tag-logits" for step in result.steps)
    assert result.unchecked_steps == 0


def test_a_damaged_draft_ends_in_an_error_that_says_so(files: dict[str, Path], tmp_path: Path) -> None:
    trio = replace(trio_of(files), draft=role(poisoned(files["dense-draft"], tmp_path)))
    with Reasoner.open(trio) as reasoner, pytest.raises(DecodeFailed, match="not finite"):
        reasoner.solve(QUESTION, HALF)


def test_a_question_longer_than_a_context_is_refused_and_a_long_solution_just_ends(files: dict[str, Path]) -> None:
    trio = trio_of(files)
    with Reasoner.open(replace(trio, target=role(files["dense-target"], ctx_size=200))) as reasoner:
        with pytest.raises(ContextFull, match=r"target: a prompt of \d+ tokens leaves no room in the context of 200"):
            reasoner.solve("x" * 300, HALF)
        result = reasoner.solve("x", HALF)
    assert result.finish_reason == "context" and result.steps


def test_models_that_do_not_fit_their_role_are_refused_at_once(files: dict[str, Path], tmp_path: Path) -> None:
    trio = trio_of(files)
    plain = role(write_model(tmp_path / "plain.gguf", template=None))
    with pytest.raises(NoChatTemplate, match="has no chat template"):
        Reasoner.open(replace(trio, draft=plain))
    tagless = role(write_model(tmp_path / "tagless.gguf", vocabulary=[piece for piece in VOCABULARY if piece != "ки"]))
    with pytest.raises(MissingTokens, match="no token for ' ки'"):
        Reasoner.open(replace(trio, reward=tagless))


def test_a_closed_reasoner_says_so(files: dict[str, Path]) -> None:
    reasoner = Reasoner.open(trio_of(files))
    reasoner.close()
    reasoner.close()
    with pytest.raises(Closed):
        reasoner.solve(QUESTION)


def test_the_softmax_of_two_logits() -> None:
    def share(logit: float, other: float) -> float:
        return TwoTokens(1, 0).reward(np.array([other, logit], np.float32))

    assert share(2.0, 2.0) == 0.5
    assert share(1.0, 0.0) == pytest.approx(math.e / (1 + math.e))
    assert share(-1e4, 1e4) == pytest.approx(0.0) and share(1e4, -1e4) == 1.0
    assert math.isnan(share(math.nan, 0.0)) and math.isnan(share(0.0, math.inf))


def test_a_step_ends_with_the_token_that_completes_the_delimiter(files: dict[str, Path]) -> None:
    """A scripted model: the sampler is given the tokens to draw."""
    from rsd_local.runtime import Engine, Model

    config = role(files["dense-draft"])
    model = Model(config)
    engine = Engine(model, config)

    class Scripted:
        def __init__(self, tokens: list[int]) -> None:
            self.tokens = iter(tokens)

        def draw(self, logits: object, context: object) -> int:
            return next(self.tokens)

    newline, letter = model.tokenize("\n")[-1], model.tokenize("a")[-1]
    sequence = engine.sequence()
    sequence.append([1, 5, 6])
    for script, ended in (
        ([letter, newline, newline, letter], [letter, newline, newline]),
        (
            [newline, newline, newline, letter, newline, letter, newline, newline],
            [newline] * 3 + [letter, newline, letter, newline, newline],
        ),
        ([letter, 2, letter], [letter, 2]),
    ):
        made = sequence.generate(Scripted(script), 50, until=Segmenter().start()).future.result()  # type: ignore[arg-type]
        assert made.tokens == ended
    model.close()


def test_a_run_on_a_real_model_from_start_to_end(smollm2: Path) -> None:
    real = RoleConfig(smollm2, ctx_size=1024, threads=1)
    trio = Trio(real, real, real, reward_kind="judge")
    params = Params(weighting=Weighting("step", threshold=0.5), limits=Limits(tokens=90, step_tokens=40))
    with Reasoner.open(trio) as reasoner:
        events = list(reasoner.stream("Tom has 3 apples and buys 4 more. How many apples has he?", params))
    *steps, end = events
    assert isinstance(end, Finished) and [type(event) for event in steps] == [Drafted, StepDone] * (len(steps) // 2)
    assert end.text == "".join(event.text for event in steps if isinstance(event, StepDone))
    assert "apples" in end.text and all(
        0 <= event.reward <= 1 for event in steps if isinstance(event, StepDone) and event.reward is not None
    )
    assert end.counters["draft"].generated_tokens > 0 < end.counters["reward"].evaluated_tokens
