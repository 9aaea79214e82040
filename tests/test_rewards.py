"""Rewards without a third model, and heads: what is read, what it costs, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import EngineMaker
from test_engine import PROMPT, draws, held, prompts
from test_rsd import HALF, QUESTION, own_prompt, role
from tiny import WIDTH, write_model

from rsd_local.config import Params, Sampling, Search, Trio, Weighting
from rsd_local.errors import BadHead, ConfigError, EngineError
from rsd_local.hashes import file_sha256
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.base import sigmoid
from rsd_local.rewards.features import PARTS, Course, confidence, step_features
from rsd_local.rewards.heads import ReadOut, ValueHead, read_head
from rsd_local.rewards.reading import ReadReward
from rsd_local.rewards.traced import TraceReward
from rsd_local.roles import DRAFT, Reward, Stream
from rsd_local.runtime import Sequence, Tracing
from rsd_local.segments import Segmenter
from rsd_local.steps import Score, Step, Trace

WARM = Sampling(temperature=0.8, seed=3)


def read_out(model: Path, role: str = "draft", parts: tuple[str, ...] = PARTS, seed: int = 0) -> ReadOut:
    chance = np.random.default_rng(seed)
    size = sum({"last": WIDTH, "lasts": WIDTH, "surprise": 8, "course": 15}[part] for part in parts)
    weight, mean = chance.normal(size=(2, size)).astype(np.float32)
    scale = np.full(size, 3.0, np.float32)
    return ReadOut(role, parts, weight, mean, scale, 0.25, model.name, file_sha256(model), {"steps": 12})  # type: ignore[arg-type]


def said(text: str, trace: Trace | None = None) -> Step:
    return Step([], text.encode(), "delimiter", trace)


def value(score: Score) -> float:
    assert score.value is not None and not score.failed
    return score.value


def scores_of(reward: Reward, *texts: str) -> list[float]:
    """Each step's score, behind the ones before."""
    return [value(reward.start_score(said(text)).result()) for text in texts]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


@pytest.mark.parametrize("kind", ["dense", "recurrent", "hybrid", "sliding"])
def test_a_trace_is_what_each_token_was_drawn_from(tiny: dict[str, Path], open_engine: EngineMaker, kind: str) -> None:
    engine = open_engine(tiny[kind], slots=1, flash_attention="off")
    assert engine.probe_states() == (kind != "hybrid")  # llama.cpp leaves the logits of lfm2 out beside states
    sequence = engine.sequence()
    sequence.append(PROMPT)
    made = sequence.generate(draws(WARM), 12, tracing="states").future.result()
    assert engine.positions(sequence)[1] == len(sequence) - (1 if engine.gives_states else 2)
    sequence.close()
    assert made.trace is not None and made.trace.hidden.shape == (12, engine.model.n_embd if engine.gives_states else 0)
    for place, token in enumerate([*made.tokens, None]):
        states = []
        for read in ("read_logits", "read_hidden"):
            fresh = engine.sequence()
            fresh.append(PROMPT + made.tokens[:place])
            states.append(getattr(fresh, read)().result())
            fresh.close()
        if token is None:
            assert made.trace.after is None if not engine.gives_states else np.abs(made.trace.after - states[1]).max() < 1e-3
            continue
        logs = log_softmax(states[0])
        assert made.trace.log_probabilities[place] == pytest.approx(logs[token], abs=1e-3)
        assert made.trace.entropies[place] == pytest.approx(-(np.exp(logs) * logs).sum(), abs=1e-3)
        if engine.gives_states:
            np.testing.assert_allclose(made.trace.hidden[place], states[1], atol=1e-3)


def test_a_trace_changes_no_token_and_costs_one_row_at_most(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    """Beside long prompts that are read at the same time, some of them traced too."""
    engine = open_engine(tiny["dense"], slots=8, flash_attention="off")
    alone, rows = [], []
    for prompt in prompts(8):
        sequence = engine.sequence()
        sequence.append(prompt)
        alone.append(sequence.generate(draws(WARM), 20).future.result().tokens)
        rows.append(sequence.counters.evaluated_tokens)
        sequence.close()
    together = [engine.sequence() for _ in range(8)]
    for sequence, prompt in zip(together, prompts(8), strict=True):
        sequence.append(prompt)
    with held(engine):
        waiting = [sequence.generate(draws(WARM), 20, tracing="off" if place % 2 else "states") for place, sequence in enumerate(together)]
    made = [generation.future.result() for generation in waiting]
    assert [one.tokens for one in made] == alone
    assert [one.trace is not None for one in made] == [place % 2 == 0 for place in range(8)]
    # Untraced, the last token waits; for the state after it, it is evaluated.
    assert [sequence.counters.evaluated_tokens for sequence in together] == [row + (place % 2 == 0) for place, row in enumerate(rows)]
    assert [engine.positions(sequence)[1] - len(sequence) for sequence in together] == [-1, -2] * 4


@pytest.mark.parametrize("kind", ["dense", "recurrent", "sliding"])
def test_a_step_goes_on_from_the_row_that_gave_the_state_before_it(tiny: dict[str, Path], open_engine: EngineMaker, kind: str) -> None:
    """Steps written one after another, taken back, replaced and forked: the tokens and rows are those of no trace at all."""
    engine = open_engine(tiny[kind], slots=2, flash_attention="off", cache_type="f32")

    def run(tracing: Tracing) -> tuple[list[list[int]], int]:
        sequence, made = engine.sequence(), list[list[int]]()

        def write(count: int, within: Sequence = sequence) -> None:
            made.append(within.generate(draws(replace(WARM, seed=len(made))), count, tracing=tracing).future.result().tokens)

        sequence.append(PROMPT)
        write(5)
        write(1)
        write(4)
        before = len(sequence)
        sequence.mark()
        write(3)
        sequence.truncate(before)
        sequence.append(made[-1][:2] + [made[-1][2] ^ 1])  # as long as what was taken back, and other
        write(4)
        sequence.append([7])  # behind a row whose outputs are held
        write(2)
        fork = sequence.fork()
        write(3, fork)
        write(3)
        made.append([round(1e3 * float(value)) for value in sequence.read_logits().result()[:5]])
        fork.close()
        sequence.close()
        return made, sequence.counters.evaluated_tokens

    engine.probe_states()
    (plain, rows), (traced, more) = run("off"), run("states")
    assert traced == plain
    if kind != "recurrent":  # which evaluates again from its last mark
        assert more - rows == 1  # the last token of the step that was taken back


def test_features_by_hand() -> None:
    trace = Trace(np.array([[1, 2], [3, 6]], np.float32), np.log(np.array([0.5, 0.125], np.float32)), np.array([0.2, 0.6], np.float32))
    assert confidence(trace) == pytest.approx(0.25)
    np.testing.assert_allclose(step_features(trace, Course(1), ("last",)), [3, 6])
    wanted = [math.log(0.25), math.log(0.125), 0.25, 0.4, 0.6, 0.2, math.log(2), math.log(2)]
    np.testing.assert_allclose(step_features(trace, Course(1), ("surprise",)), wanted, rtol=1e-5)
    assert trace.rows(1, 2).hidden.tolist() == [[3, 6]] and trace.rows(1, 2).after is None and trace.end.tolist() == [3, 6]
    assert trace.rows(0, 1).after is not None and trace.rows(0, 1).end.tolist() == [3, 6]  # what the next token was drawn from


def test_the_course_of_a_solution_by_hand() -> None:
    def trace(logs: list[float], entropies: list[float]) -> Trace:
        return Trace(np.outer(logs, [1, -2]).astype(np.float32), np.array(logs, np.float32), np.array(entropies, np.float32))

    steps = [trace([-1, -3], [0.5, 0.1]), None, trace([-1, -1, -1, -5], [0.2, 0.2, 0.2, 1.4])]  # the target wrote the second one
    course = Course()
    for step in steps[:-1]:
        course = course.after(step)
    assert course.steps == 2 and len(course.surprises) == 1
    assert steps[-1] is not None
    wanted = [-2, -4, math.exp(-2), 0.4, 0.95, 0.35, math.log(8) / 2, math.log(3) / 2]  # means of the two; the last is the third step
    wanted += [-2, -5, math.exp(-2), 0.5, 1.4, 0.5, -12 / 6]
    np.testing.assert_allclose(step_features(steps[-1], course, ("course",)), wanted, rtol=1e-5)
    np.testing.assert_allclose(step_features(steps[-1], course, ("last", "lasts")), [-5, 10, -4, 8])  # the last tokens: −3 and −5


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_trace_reward_keeps_the_course_of_what_stands(forgotten: bool) -> None:
    traces = [Trace(np.zeros((1, 0), np.float32), np.array([value], np.float32), np.array([0.5], np.float32)) for value in (-1, -2, -4)]
    seen: list[tuple[int, list[float]]] = []

    def score(_: Trace, before: Course) -> float:
        seen.append((before.steps, [float(numbers[0]) for numbers in before.surprises]))
        return 0.5

    reward = TraceReward(score, "test")
    reward.start_score(said("a", traces[0]))
    if forgotten:
        reward.forget()
        reward.read(said("what the target wrote"))
    fork = reward.fork()
    fork.start_score(said("b", traces[1]))
    reward.adopt(fork)
    reward.start_score(said("c", traces[2]))
    reward.forget()
    reward.start_score(said("d", traces[0]))
    accepted = [] if forgotten else [-1.0]
    assert seen == [(0, []), (1, accepted), (2, [*accepted, -2.0]), (2, [*accepted, -2.0])]


def test_a_reward_of_traces_that_is_no_number_has_failed_and_a_step_without_a_trace_is_an_error() -> None:
    trace = Trace(np.zeros((1, 0), np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32))
    for number in (math.nan, math.inf, -math.inf):
        scored = TraceReward(lambda *_, number=number: number, "test").start_score(said("a", trace)).result()
        assert scored == Score(None, "test", failed=True)
    assert TraceReward(lambda *_: 0.25, "test").start_score(said("a", trace)).result() == Score(0.25, "test")
    with pytest.raises(EngineError, match="not traced"):
        TraceReward(lambda *_: 0.25, "test").start_score(said("a"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return {name: write_model(folder / f"{name}.gguf", "dense", seed) for seed, name in enumerate(("draft", "target"))}


@pytest.fixture(params=["confidence", "draft read-out"])
def pair(request: pytest.FixtureRequest, files: dict[str, Path], tmp_path: Path) -> Iterator[Reasoner]:
    trio = Trio(role(files["draft"]), role(files["target"]), reward_kind="confidence", width=4, reuse=False)
    if request.param != "confidence":
        read_out(files["draft"]).save(tmp_path / "head.safetensors")
        trio = replace(trio, reward_kind="read-out", head=tmp_path / "head.safetensors")
    with Reasoner.open(trio) as opened:
        yield opened


@pytest.mark.parametrize("strategy", ["rsd", "best-of-n", "step-best-of-n", "beam"])
def test_the_drafts_own_trace_scores_without_a_reward_token(pair: Reasoner, strategy: str) -> None:
    params = Params(WARM, Weighting(threshold=0.5), HALF.limits, Search(samples=3, beams=1, branches=3, fallback="off"))
    result = pair.solve(QUESTION, params, strategy=strategy)  # type: ignore[arg-type]
    rewards = [step.reward for step in result.steps if step.reward is not None]
    assert rewards and (len(set(rewards)) > 1 or strategy == "best-of-n") and all(0 < reward < 1 for reward in rewards)
    assert result.counters["reward"].evaluated_tokens == 0 == result.counters["reward"].decode_calls
    assert "reward" not in pair.engines()
    assert {step.reward_by for step in result.steps if step.reward is not None} == {pair.config.reward_kind}


@pytest.mark.parametrize("strategy", ["draft", "majority", "speculative"])
def test_a_strategy_that_scores_nothing_traces_nothing(pair: Reasoner, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tracing] = []
    generate = Sequence.generate
    monkeypatch.setattr(
        Sequence, "generate", lambda sequence, *rest, **more: asked.append(more["tracing"]) or generate(sequence, *rest, **more)
    )
    params = Params(WARM, limits=HALF.limits, search=Search(samples=2))
    assert pair.solve(QUESTION, params, strategy=strategy).steps and set(asked) == {"off"}  # type: ignore[arg-type]


def test_a_read_out_of_the_draft_is_the_head_on_the_steps_trace(files: dict[str, Path], tmp_path: Path) -> None:
    head = read_out(files["draft"])
    head.save(tmp_path / "head.safetensors")
    trio = Trio(role(files["draft"]), role(files["target"]), reward_kind="read-out", head=tmp_path / "head.safetensors")
    params = Params(Sampling(), Weighting(threshold=0.0), HALF.limits, HALF.search)
    with Reasoner.open(trio) as opened:
        steps = opened.solve(QUESTION, params).steps
        writer = opened.trio.writer("draft", Prompt.of(QUESTION, opened.config.system), tracing="states")
        course, scan = Course(), Segmenter().start()
        for step in steps[:6]:
            scan.begin()
            written = writer.start_writing(params.limits.step_tokens, scan, Sampling(), Stream(0, DRAFT)).result()
            assert written.trace is not None and len(written.tokens) == step.tokens
            assert step.reward == pytest.approx(head.reward(step_features(written.trace, course, PARTS)), abs=1e-4)
            course = course.after(written.trace)
        writer.close()


def test_a_read_out_of_the_target_reads_the_targets_own_state(files: dict[str, Path], tmp_path: Path) -> None:
    head = read_out(files["target"], "target", ("last",))
    head.save(tmp_path / "head.safetensors")
    trio = Trio(role(files["draft"]), role(files["target"]), reward_kind="read-out", head=tmp_path / "head.safetensors", parallel=2)
    trio = replace(trio, reuse=False)
    texts = ("one and one\n\n", "is two\n\n")
    with Reasoner.open(trio) as opened:
        engines = opened.engines()
        assert set(engines) == {"draft", "target"}
        reward = opened.trio.reward(Prompt.of(QUESTION, opened.config.system))
        scores = scores_of(reward, *texts)
        reward.forget()
        assert scores_of(reward, texts[1]) == pytest.approx(scores[1:], abs=1e-6)
        model = engines["target"].model
        sequence = engines["target"].sequence(own_prompt(opened, "target"))
        for text, score in zip(texts, scores, strict=True):
            sequence.append(model.tokenize(text, continues=True))
            assert head.reward(sequence.read_hidden().result()) == pytest.approx(score, abs=1e-4)
        assert reward.counters()["reward"].evaluated_tokens == 1 + len(sequence) + len(model.tokenize(texts[1], continues=True))
        sequence.close()
        reward.close()


def test_heads_that_do_not_belong_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    read_out(files["draft"]).save(path)
    made = read_head(path)
    assert isinstance(made, ReadOut) and made.about == {"steps": 12}
    np.testing.assert_array_equal(made.weight, read_out(files["draft"]).weight)
    with pytest.raises(BadHead, match=r"fitted on draft\.gguf, and target\.gguf is another file"):
        made.check(files["target"])

    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[-3] ^= 1
    for name, data in {"bit": bytes(damaged), "cut": whole[:-9], "begun": whole[:20], "text": b"no head", "none": b""}.items():
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(data)
        with pytest.raises(BadHead, match=name):
            read_head(bad)
    with pytest.raises(BadHead, match="No such file"):
        read_head(tmp_path / "absent.safetensors")

    trio = Trio(role(files["draft"]), role(files["target"]), reward_kind="read-out", head=path)
    with pytest.raises(BadHead, match="another file"):
        Reasoner.open(replace(trio, draft=trio.target))
    with pytest.raises(BadHead, match="no value-head"):
        Reasoner.open(replace(trio, reward=trio.target, reward_kind="value-head"))
    value = tmp_path / "value.safetensors"
    ValueHead("skywork", ((np.ones((1, WIDTH + 1), np.float32), np.zeros(1, np.float32)),)).save(value)
    with pytest.raises(BadHead, match=f"not for states of {WIDTH} numbers"):
        Reasoner.open(replace(trio, reward=trio.target, reward_kind="value-head", head=value))


def test_kinds_say_what_they_need(files: dict[str, Path]) -> None:
    two = {"draft": role(files["draft"]), "target": role(files["target"])}
    for settings, words in (
        ({}, "needs a reward model"),
        ({"reward_kind": "read-out"}, "needs a head"),
        ({"reward_kind": "confidence", "reward": two["target"]}, "takes no reward model"),
        ({"reward_kind": "judge", "head": Path("x")}, "takes no head"),
    ):
        with pytest.raises(ConfigError, match=words):
            Trio(**two, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["skywork", "qwen-prm"])
def test_a_value_head_is_applied_to_the_state_at_the_steps_end(tmp_path: Path, layout: str) -> None:
    from tiny import VOCABULARY

    body = write_model(tmp_path / "prm.gguf", "dense", 5, vocabulary=[*VOCABULARY, "<extra_0>"])
    chance = np.random.default_rng(0)
    sizes = ((1, WIDTH),) if layout == "skywork" else ((WIDTH, WIDTH), (2, WIDTH))
    layers = tuple((chance.normal(size=size).astype(np.float32), chance.normal(size=size[0]).astype(np.float32)) for size in sizes)
    ValueHead(layout, layers).save(tmp_path / "head.safetensors")  # type: ignore[arg-type]
    trio = Trio(role(body), role(body), role(body), "value-head", head=tmp_path / "head.safetensors", width=2, reuse=False)
    with Reasoner.open(trio) as opened:
        reward, fresh = opened.trio.reward(Prompt.of(QUESTION)), opened.trio.reward(Prompt.of(QUESTION))
        scores = scores_of(reward, "one and one", "is two")
        fresh.read(said("one and one"))
        assert scores_of(fresh, "is two") == pytest.approx(scores[1:], abs=1e-5)
        assert isinstance(fresh, ReadReward)
        sequence = opened.trio.target.sequence(list(fresh._sequence.tokens))
        hidden = sequence.read_hidden().result()
        if layout == "skywork":
            wanted = sigmoid(float((layers[0][0] @ hidden + layers[0][1])[0]))
        else:
            bad, good = layers[1][0] @ np.maximum(layers[0][0] @ hidden + layers[0][1], 0) + layers[1][1]
            wanted = sigmoid(float(good - bad))
        assert scores[1] == pytest.approx(wanted, abs=1e-4) and scores[0] != scores[1]
        for one in (reward, fresh, sequence):
            one.close()
