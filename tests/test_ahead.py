"""Reading ahead: one pass of the target over a drafted step, and nothing of it is wrong by a token, a position or a row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decisions import FEW, HALF, LIMITS, NEVER, check_each_step
from test_rewards import read_out
from test_rsd import QUESTION, own_prompt, role
from tiny import VOCABULARY, chain, write_model, write_script

from rsd_local import Limits, Params, Prompt, Reasoner, Sampling, Trio, Weighting
from rsd_local.config import Fallback, Search
from rsd_local.decoding.ahead import Ahead
from rsd_local.errors import Cancelled, ConfigError, MissingTokens
from rsd_local.events import CancelToken, Drafted, Finished, StepDone
from rsd_local.rewards.ahead import CHUNK, Past, contrast, likelihood
from rsd_local.roles import DRAFT, TARGET, Stream
from rsd_local.runtime import Draws, LocalWriter
from rsd_local.segments import Segmenter
from rsd_local.steps import Reading, Step, Trace

KINDS = ("dense", "sliding", "hybrid", "recurrent")
LIKELIHOODS = ("likelihood", "likelihood-least", "likelihood-running")
OFTEN = Weighting("step", threshold=0.03)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A draft that often writes what its target would, of each kind of memory."""
    folder, made = tmp_path_factory.mktemp("ahead"), dict[str, Path]()
    for kind in KINDS:
        for name, noise in (("draft", 0.05), ("target", 0.0)):
            made[f"{kind}-{name}"] = write_model(folder / f"{kind}-{name}.gguf", kind, 1, noise=noise)
    return made


def reading_trio(files: dict[str, Path], kind: str = "dense", reward: str = "likelihood", **settings: object) -> Trio:
    draft, target = (role(files[f"{kind}-{name}"]) for name in ("draft", "target"))
    return Trio(draft, target, reward_kind=reward, **{"reuse": False} | settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=KINDS)
def reasoner(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[Reasoner]:
    with Reasoner.open(reading_trio(files, request.param, width=5, parallel=2)) as opened:
        yield opened


def writer_at(reasoner: Reasoner, name: str, *steps: Step) -> LocalWriter:
    writer = reasoner.trio.writer(name, Prompt.of(QUESTION, reasoner.config.system), tracing="numbers")  # type: ignore[arg-type]
    for step in steps:
        writer.read(step)
    writer.begin()
    return writer


def drafted(reasoner: Reasoner, *before: Step, tokens: int = 9, seed: int = 3) -> Step:
    with closing(writer_at(reasoner, "draft", *before)) as writer:
        return writer.start_writing(tokens, Segmenter().start(), FEW, Stream(seed, DRAFT)).result()


def test_a_reading_says_of_each_token_what_the_target_says_one_by_one(reasoner: Reasoner) -> None:
    before, step = drafted(reasoner, seed=1), drafted(reasoner, seed=2)
    engine, stream = reasoner.engines()["target"], Stream(5, TARGET, 0, 1)
    states = engine.probe_states()
    with closing(writer_at(reasoner, "target", before)) as writer:
        opening = len(writer.sequence)
        reading = writer.read_ahead(step, (FEW, stream), tokens=True, state=states).result()
        assert writer.counters().evaluated_tokens == opening + len(step.tokens)
        assert len(writer.sequence) == opening + len(step.tokens)
    sequence = engine.sequence(own_prompt(reasoner, "target") + before.tokens)
    draws, same = Draws(FEW, stream), True
    for place, token in enumerate(step.tokens):
        logits = sequence.read_logits().result()
        shares = logits - logits.max() - math.log(float(np.exp(logits - logits.max()).sum()))
        assert reading.trace.log_probabilities[place] == pytest.approx(float(shares[token]), abs=1e-3)
        assert reading.trace.entropies[place] == pytest.approx(float(-(np.exp(shares) * shares).sum()), abs=1e-3)
        if same:
            own = draws.draw(logits, sequence.tokens)
            assert reading.own[place] == own
            same = own == token
            assert reading.kept == place + same
        sequence.append([token])
    assert len(reading.own) == min(reading.kept + 1, len(step.tokens)) and len(reading.trace.entropies) == len(step.tokens)
    if states:
        np.testing.assert_allclose(reading.trace.end, sequence.read_hidden().result(), atol=1e-3)
    sequence.close()


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("tokens", [1, 2, 9, 70])
def test_what_was_read_and_refused_is_written_again_as_if_nothing_had_been_read(
    reasoner: Reasoner, temperature: float, tokens: int
) -> None:
    """Whatever is kept of it; and what is written behind it is what a writer writes that never read anything."""
    sampling, stream, kept = replace(FEW, temperature=temperature), Stream(7, TARGET), 0
    for seed in range(4):
        step = drafted(reasoner, tokens=tokens, seed=seed)
        with closing(writer_at(reasoner, "target")) as reader, closing(writer_at(reasoner, "target")) as plain:
            opening = len(reader.sequence)
            reading = reader.read_ahead(step, (sampling, stream), tokens=False, state=False).result()
            read = reader.counters().evaluated_tokens
            made = reader.start_writing(12, Segmenter().start(), sampling, stream, reading=reading).result()
            alone = plain.start_writing(12, Segmenter().start(), sampling, stream).result()
            assert (made.tokens, made.raw, made.ended) == (alone.tokens, alone.raw, alone.ended)
            counters = reader.counters()
            assert counters.generated_tokens == len(made.tokens) and counters.kept_tokens == min(reading.kept, len(made.tokens))
            assert read == opening + len(step.tokens)
            if reasoner.engines()["target"].can_cut:  # others go back to the step's start
                own = len(made.tokens) - reading.kept
                assert counters.evaluated_tokens == read + max(0, own - 1)
            kept += reading.kept
            for writer in (reader, plain):
                writer.begin()
            after, expected = (writer.start_writing(9, None, sampling, Stream(8, TARGET)).result() for writer in (reader, plain))
            assert after.tokens == expected.tokens
    assert kept > 0 or temperature < 1


def test_a_step_that_is_drafted_again_is_read_again_without_the_row_before_it(reasoner: Reasoner) -> None:
    steps, sampling, stream = [drafted(reasoner, seed=seed) for seed in range(3)], replace(FEW, temperature=1.0), Stream(7, TARGET)
    with closing(writer_at(reasoner, "target")) as reader, closing(writer_at(reasoner, "target")) as plain:
        opening = len(reader.sequence)
        for step in steps:
            reading = reader.read_ahead(step, (sampling, stream), tokens=True, state=False).result()
            if reasoner.engines()["target"].can_cut:
                opening += len(step.tokens)
                assert reader.counters().evaluated_tokens == opening
        with closing(writer_at(reasoner, "target")) as fresh:
            expected = fresh.read_ahead(steps[-1], (sampling, stream), tokens=True, state=False).result()
        np.testing.assert_allclose(reading.trace.log_probabilities, expected.trace.log_probabilities, atol=1e-3)
        assert (reading.own, reading.kept) == (expected.own, expected.kept)
        reader.forget()
        made, alone = (writer.start_writing(9, None, sampling, Stream(9, TARGET)).result() for writer in (reader, plain))
        assert made.tokens == alone.tokens


def test_what_stands_is_evaluated_once_and_its_last_output_is_the_first_of_the_next_step(reasoner: Reasoner) -> None:
    steps: list[Step] = []
    for seed in range(3):
        steps.append(drafted(reasoner, *steps, seed=seed))
    with closing(writer_at(reasoner, "target")) as reader, closing(writer_at(reasoner, "target", *steps)) as plain:
        opening = len(reader.sequence)
        for step in steps:
            reader.read_ahead(step, tokens=True, state=False).result()
            reader.correct(step)
            reader.begin()
        made, alone = (writer.start_writing(9, None, FEW, Stream(1, TARGET)).result() for writer in (reader, plain))
        assert made.tokens == alone.tokens
        assert reader.counters().evaluated_tokens == opening + sum(len(step.tokens) for step in steps) + len(made.tokens) - 1


def test_a_state_that_was_read_leaves_no_wrong_logits_behind(reasoner: Reasoner) -> None:
    """Of some kinds llama.cpp leaves logits out beside states, and until it was looked nobody knows."""
    engine = reasoner.engines()["target"]
    sequence, plain = (engine.sequence(own_prompt(reasoner, "target")) for _ in range(2))
    sequence.read_hidden().result()
    np.testing.assert_allclose(sequence.read_logits().result(), plain.read_logits().result(), atol=1e-3)
    sequence.close()
    plain.close()


def test_a_reading_that_is_cancelled_leaves_nothing_behind(reasoner: Reasoner) -> None:
    step, cancel = drafted(reasoner), CancelToken()
    cancel.cancel()
    bound = replace(reasoner.trio, cancel=cancel)
    with closing(bound.writer("target", Prompt.of(QUESTION, reasoner.config.system))) as writer:
        writer.begin()
        before = list(writer.sequence.tokens)
        with pytest.raises(Cancelled):
            writer.read_ahead(step, tokens=True, state=False).result()
        assert writer.sequence.tokens == before


@pytest.mark.parametrize("fallback", ["off", "on"])
@pytest.mark.parametrize(
    "weighting", [OFTEN, replace(OFTEN, redrafts=2), replace(OFTEN, hand_over=4), HALF], ids=["", "redraft", "hand", "half"]
)
def test_every_step_is_what_its_writer_writes_behind_the_accepted_ones(
    reasoner: Reasoner, weighting: Weighting, fallback: Fallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsd_local.decoding.fallback.proposing_pays", lambda *_: fallback == "on")
    weighting, authors = replace(weighting, threshold=middle(reasoner)), set[str]()
    for seed in (1, 2):
        params = Params(replace(FEW, seed=seed), weighting, LIMITS, Search(fallback=fallback))
        events = list(reasoner.stream(QUESTION, params))
        authors |= {event.author for event in events if isinstance(event, StepDone)}
        check_each_step(reasoner, events, params)
    assert authors == {"draft", "target"}


def middle(reasoner: Reasoner) -> float:
    """The median reward of what the draft writes alone."""
    params = Params(FEW, Weighting("step", threshold=0.0), LIMITS)
    return float(np.median([step.reward for step in reasoner.solve(QUESTION, params).steps if step.reward is not None]))


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("fallback", ["off", "auto", "on"])
def test_both_ends_are_exact(reasoner: Reasoner, temperature: float, fallback: Fallback) -> None:
    """Where nothing is accepted the text is the target's own, and at threshold 0 the draft's, each with its own random numbers."""
    params = Params(replace(FEW, temperature=temperature), NEVER, LIMITS, Search(fallback=fallback))
    alone, never = (reasoner.solve(QUESTION, params, strategy=name) for name in ("target", "rsd"))
    assert never.text == alone.text and len(never.steps) == len(alone.steps) > 5 and never.target_share == 1
    params = replace(params, weighting=Weighting("step", threshold=0.0))
    alone, always = (reasoner.solve(QUESTION, params, strategy=name) for name in ("draft", "rsd"))
    assert always.text == alone.text and always.target_share == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("redrafts", [0, 2])
@pytest.mark.parametrize("candidates", [1, 3])
def test_a_rejected_step_is_gone_before_the_next_one_is_tried(files: dict[str, Path], kind: str, redrafts: int, candidates: int) -> None:
    """Also where several are read side by side, each behind the same place."""
    params = Params(replace(FEW, seed=3), replace(NEVER, redrafts=redrafts), LIMITS, Search(candidates=candidates, fallback="off"))
    with Reasoner.open(reading_trio(files, kind, width=4)) as opened:
        assert opened.solve(QUESTION, params).text == opened.solve(QUESTION, params, strategy="target").text


@pytest.mark.parametrize("fallback", ["off", "auto", "on"])
def test_a_step_that_ends_within_what_was_kept_leaves_no_later_output_behind(fallback: Fallback, tmp_path: Path) -> None:
    """A drafted step has more tokens of the target's vocabulary than the target's own step may have."""
    letters, pairs = list("ABCDEFGHIJKLMNOP"), ["AB", "CD", "EF", "GH", "IJ", "KL", "MN", "OP"]
    target = write_script(tmp_path / "target.gguf", letters, chain(*letters))
    draft = write_script(tmp_path / "draft.gguf", pairs, chain(*pairs))
    params = Params(limits=Limits(tokens=60, step_tokens=3, repeats=0), weighting=NEVER, search=Search(fallback=fallback))
    with Reasoner.open(Trio(role(draft), role(target), reward_kind="likelihood", reuse=False)) as opened:
        made = opened.solve(QUESTION, params)
    assert made.text == "".join(letters) and made.counters["target"].kept_tokens <= made.counters["target"].generated_tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_the_targets_rows_are_the_closed_form(
    files: dict[str, Path], kind: str, probability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt, each drafted token once, and what it wrote itself but for what it kept; the last one written is never evaluated.

    A recurrent state goes back to the step's beginning alone, so there what is kept of a part of a step is evaluated once more.
    """
    ends: list[bool] = []  # of the steps that are read: whether the last token is an end of text, which is not
    again: list[tuple[int, int]] = []  # of steps of which not all is kept: tokens that are, and those known with the next one
    read_ahead, start_writing = LocalWriter.read_ahead, LocalWriter.start_writing

    def noted(writer: LocalWriter, step: Step, *given: object, **named: object) -> object:
        ends.append(step.ended == "end")
        return read_ahead(writer, step, *given, **named)  # type: ignore[arg-type]

    def written(writer: LocalWriter, *given: Any, reading: Reading | None = None, **named: Any) -> object:
        if reading is not None and not writer.abilities.verifies and len(writer.sequence) > writer._before + reading.kept:
            again.append((reading.kept, len(reading.own)))
        return start_writing(writer, *given, reading=reading, **named)

    monkeypatch.setattr(LocalWriter, "read_ahead", noted)
    monkeypatch.setattr(LocalWriter, "start_writing", written)
    weighting = Weighting("constant", probability=probability)
    for seed in (1, 2, 3):
        params = Params(replace(FEW, seed=seed), weighting, replace(LIMITS, tokens=2000, steps=30), Search(fallback="on"))
        ends.clear()
        again.clear()
        with Reasoner.open(reading_trio(files, kind)) as opened:
            opening = len(own_prompt(opened, "target"))
            events = list(opened.stream(QUESTION, params))
        end, steps = events[-1], [event for event in events if isinstance(event, StepDone)]
        assert isinstance(end, Finished) and len(steps) > 8
        read = sum((step.rejected or step).tokens for step in steps if not is_blank(step)) - sum(ends)
        assert len(ends) == sum(not is_blank(step) for step in steps)
        counters = end.counters["target"]
        unread = sum(step.tokens for step in steps if step.author == "draft" and is_blank(step))
        own = sum(step.tokens for step in steps if step.author == "target")
        assert counters.generated_tokens == own
        last = steps[-1].author == "target"
        if last and again and steps[-1].tokens == again[-1][1]:  # it ended where the reading did, so nothing had to go on from it
            again.pop()
        made = own - counters.kept_tokens + sum(kept for kept, _ in again) - last
        assert counters.evaluated_tokens == opening + read + unread + made
        assert counters.discarded_tokens == 0 and (counters.kept_tokens > 0) == (probability < 1)
        assert end.counters["reward"].evaluated_tokens == 0


def is_blank(step: StepDone) -> bool:
    return not (step.rejected or step).text.encode().strip()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_is_that_of_the_tokens(name: str) -> None:
    logs = [np.log(np.array(values, np.float32)) for values in ([0.5, 0.125], [0.25])]
    past, values = Past(), []
    for row in logs:
        value, past = likelihood(name.partition("-")[2] or "mean")(reading_of(row), Step([1] * len(row), b"x", "delimiter"), past)  # type: ignore[arg-type]
        values.append(value)
    expected = {"likelihood": [0.25, 0.25], "likelihood-least": [0.125, 0.25], "likelihood-running": [0.25, 0.25]}
    assert values == pytest.approx(expected[name])
    assert past.tokens == 3 and past.likelihood == pytest.approx(math.log(0.5 * 0.125 * 0.25))


def reading_of(logs: np.ndarray) -> Reading:
    return Reading(Trace(np.zeros((len(logs), 0), np.float32), logs, np.zeros(len(logs), np.float32)))


def own_step(logs: np.ndarray, ended: str = "delimiter") -> Step:
    return Step([1] * len(logs), b"x", ended, reading_of(logs).trace)  # type: ignore[arg-type]


def test_a_contrast_is_summed_over_chunks_of_one_length() -> None:
    """So a long step with the same difference at each token is worth what a short one is."""
    target, draft = np.full(5 * CHUNK, -0.25, np.float32), np.full(5 * CHUNK, -0.3125, np.float32)
    for tokens in (1, 3, CHUNK, CHUNK + 1, 5 * CHUNK):
        value, _ = contrast(reading_of(target[:tokens]), own_step(draft[:tokens]), Past())
        assert value == pytest.approx(1 / (1 + math.exp(-CHUNK / 16)))
    first = np.arange(CHUNK + 3, dtype=np.float32) / 64
    zeros = np.zeros_like(first)
    _, past = contrast(reading_of(first), own_step(zeros), Past())
    assert past.contrasts == tuple(first[1 - CHUNK :].tolist())
    value, _ = contrast(reading_of(zeros[:2]), own_step(zeros[:2]), past)
    assert value == pytest.approx(1 / (1 + math.exp(-float(first[2 - CHUNK :].sum()))))
    whole, _ = contrast(reading_of(first[:4]), own_step(np.append(zeros[:4], 9.0), "end"), Past())
    assert whole == pytest.approx(contrast(reading_of(first[:4]), own_step(zeros[:4]), Past())[0])
    assert math.isnan(contrast(reading_of(first[:4]), own_step(zeros[:3]), Past())[0])


def test_a_contrast_is_what_both_models_say(files: dict[str, Path]) -> None:
    params = Params(FEW, Weighting("step", threshold=0.5), LIMITS)
    with Reasoner.open(reading_trio(files, reward="contrast")) as opened:
        steps = [event for event in opened.stream(QUESTION, params) if isinstance(event, StepDone)]
        assert {step.author for step in steps} == {"draft", "target"}
        written = (steps[0].rejected or steps[0]).text.encode()
        tokens = drafted_by(opened, params).tokens
        sums = []
        for name in ("draft", "target"):
            sequence, logs = opened.engines()[name].sequence(own_prompt(opened, name)), 0.0  # type: ignore[index]
            for token in tokens:
                logits = sequence.read_logits().result()
                logs += float(logits[token] - logits.max()) - math.log(float(np.exp(logits - logits.max()).sum()))
                sequence.append([token])
            sums.append(logs)
            sequence.close()
    assert written and steps[0].reward == pytest.approx(1 / (1 + math.exp((sums[0] - sums[1]) / len(tokens) * CHUNK)), abs=1e-3)


def drafted_by(opened: Reasoner, params: Params) -> Step:
    with closing(writer_at(opened, "draft")) as writer:
        return writer.start_writing(
            params.limits.step_tokens, Segmenter().start(), params.sampling, Stream(params.sampling.seed, DRAFT)
        ).result()


@pytest.mark.parametrize("strategy", ["rsd", "best-of-n", "step-best-of-n", "beam"])
def test_every_strategy_can_ask_the_target(files: dict[str, Path], strategy: str) -> None:
    """Strategies in which the target does not write read in a cache of their own, and count it as the reward's."""
    search = Search(candidates=3, samples=3, beams=2, branches=2)
    params = Params(replace(FEW, temperature=1.0), OFTEN, replace(LIMITS, tokens=60), search)
    with Reasoner.open(reading_trio(files, width=6)) as opened:
        events = list(opened.stream(QUESTION, params, strategy=strategy))  # type: ignore[arg-type]
        end, steps = events[-1], [event for event in events if isinstance(event, StepDone)]
        assert isinstance(end, Finished) and any(step.reward for step in steps)
        assert (end.counters["reward"].evaluated_tokens == 0) == (strategy == "rsd")
        if strategy != "rsd":  # the draft's steps alone: read again from their text
            with closing(opened.trio.reward(Prompt.of(QUESTION, opened.config.system))) as reward:
                for step in steps:
                    raw = step.text.encode()
                    tokens = opened.engines()["target"].model.tokenize(raw, continues=True, followed=True)
                    score = reward.start_score(Step(tokens, raw, "delimiter")).result()
                    if step.reward is not None and "\ufffd" not in step.text:
                        assert score.value == pytest.approx(step.reward, abs=0.5)


def test_a_step_of_other_tokens_is_read_by_its_text(tmp_path: Path) -> None:
    others = [VOCABULARY[0], *VOCABULARY[1:3], *VOCABULARY[3:][::-1]]
    files = {
        "draft": write_model(tmp_path / "draft.gguf", seed=1),
        "target": write_model(tmp_path / "target.gguf", seed=2, vocabulary=[*others, "bc"]),
    }
    trio = Trio(role(files["draft"]), role(files["target"]), reward_kind="likelihood", reuse=False)
    with Reasoner.open(trio) as opened:
        assert opened.trio.shared_tokens < 10
        params = Params(FEW, NEVER, LIMITS, Search(fallback="on"))
        never, alone = (opened.solve(QUESTION, params, strategy=name) for name in ("rsd", "target"))
        assert never.text == alone.text and never.counters["target"].prompt_tokens > len(own_prompt(opened, "target"))
    with pytest.raises(MissingTokens, match="two"):
        Reasoner.open(replace(trio, reward_kind="contrast"))


def test_one_reward_of_a_cascade_is_read_ahead(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="not for likelihood and contrast"):
        Reasoner.open(reading_trio(files, reward="likelihood,contrast"))
    params = Params(FEW, Weighting("step", threshold=0.03), LIMITS)
    with Reasoner.open(reading_trio(files, reward="judge,likelihood")) as opened:
        end = opened.solve(QUESTION, params)
    assert set(end.decided_by) <= {"judge", "likelihood"} and end.decided_by["likelihood"] > 0


def test_the_same_step_is_read_once_whoever_asks_again(reasoner: Reasoner) -> None:
    step = drafted(reasoner)
    with closing(writer_at(reasoner, "target")) as writer:
        ahead = Ahead(writer, owns=False)
        first = ahead.read(step, tokens=True, state=False)
        assert ahead.read(step, tokens=True, state=False) is first and ahead.taken(None) is None


def test_a_solution_that_outgrows_the_targets_context_just_ends(files: dict[str, Path]) -> None:
    trio = reading_trio(files)
    trio = replace(trio, target=replace(trio.target, ctx_size=160))
    with Reasoner.open(trio) as opened:
        result = opened.solve(QUESTION, Params(FEW, HALF, Limits(tokens=2000, step_tokens=9, repeats=0)))
        assert result.finish_reason == "context" and result.steps
        assert opened.solve(QUESTION, Params(Sampling(), HALF, Limits(tokens=20, step_tokens=5, repeats=0))).steps


def test_drafts_are_told_as_before(files: dict[str, Path]) -> None:
    with Reasoner.open(reading_trio(files)) as opened:
        events = list(opened.stream(QUESTION, Params(FEW, OFTEN, LIMITS)))
    assert sum(isinstance(event, Drafted) for event in events) >= sum(isinstance(event, StepDone) for event in events)
    assert all(event.reward_by in ("likelihood", "") for event in events if isinstance(event, StepDone))


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_a_read_out_of_the_target_costs_it_no_row(files: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """Of the hybrid kind llama.cpp gives no logits beside states, so only what was refused is evaluated otherwise."""
    head = read_out(files[f"{kind}-target"], "target", ("last",))
    head.save(tmp_path / "head.safetensors")
    params = Params(FEW, Weighting("step", threshold=0.0), LIMITS)
    with Reasoner.open(reading_trio(files, kind, "read-out", head=tmp_path / "head.safetensors")) as opened:
        result, opening = opened.solve(QUESTION, params), len(own_prompt(opened, "target"))
        assert result.target_share == 0 and result.counters["reward"].evaluated_tokens == 0
        last = result.finish_reason == "stop"  # an end-of-text token is not read
        assert result.counters["target"].evaluated_tokens == opening + sum(step.tokens for step in result.steps) - last
        events = list(opened.stream(QUESTION, replace(params, weighting=replace(OFTEN, threshold=middle(opened)))))
        check_each_step(opened, events, params)


def test_the_target_begins_where_the_draft_would_be_unsure(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The entropy is that of the draft at the step's start, nothing of such a step is drafted, and looking costs no row."""
    seen: list[tuple[list[int], float]] = []
    entropy = LocalWriter.entropy

    def noted(writer: LocalWriter) -> float:
        seen.append((list(writer.sequence.tokens), entropy(writer)))
        return seen[-1][1]

    monkeypatch.setattr(LocalWriter, "entropy", noted)
    with Reasoner.open(reading_trio(files, parallel=2)) as opened:
        plain = Params(FEW, Weighting("step", threshold=0.0), LIMITS)
        looked = replace(plain, weighting=replace(plain.weighting, route_entropy=50.0))
        one, other = (opened.solve(QUESTION, params) for params in (plain, looked))
        assert other.text == one.text and len(seen) == len(other.steps)
        assert other.counters["draft"].evaluated_tokens == one.counters["draft"].evaluated_tokens
        bound = float(np.median([value for _, value in seen]))
        seen.clear()
        params = replace(plain, weighting=replace(plain.weighting, route_entropy=bound))
        events = list(opened.stream(QUESTION, params))
        steps = [event for event in events if isinstance(event, StepDone)]
        for tokens, value in seen:
            sequence = opened.engines()["draft"].sequence(tokens)
            logits = sequence.read_logits().result().astype(np.float64)
            shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            assert value == pytest.approx(float(-(shares * np.log(shares)).sum()), abs=1e-3)
            sequence.close()
    assert [step.author for step in steps] == ["target" if value > bound else "draft" for _, value in seen]
    assert {step.author for step in steps} == {"draft", "target"}
    assert all((step.reward_by == "first token") == (step.author == "target") for step in steps)
    assert sum(isinstance(event, Drafted) for event in events) == sum(step.author == "draft" for step in steps)
    assert isinstance(events[-1], Finished) and events[-1].unchecked_steps == 0


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("route", [0.0, 1e-6])
def test_the_target_writes_no_more_than_it_may(files: dict[str, Path], share: float, route: float) -> None:
    """A step that it could not afford is kept; what it writes may be longer than what it replaces, by a step at most."""
    weighting = Weighting("constant", probability=0.0, target_budget=share, route_entropy=route)
    with Reasoner.open(reading_trio(files)) as opened:
        steps = opened.solve(QUESTION, Params(FEW, weighting, LIMITS)).steps
    tokens = own = 0
    for step in steps:
        drafted_tokens = step.rejected.tokens if step.rejected else step.tokens
        usual = max(1, tokens // max(1, step.index))
        affords = own + (drafted_tokens if step.rejected or step.author == "draft" else usual) <= share * (tokens + drafted_tokens)
        if not route:
            assert (step.author == "target") == affords
        tokens += step.tokens
        own += step.tokens if step.author == "target" else 0
    assert own <= share * tokens + LIMITS.step_tokens and (own > 0) == (share > 0)
