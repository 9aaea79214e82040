"""The strategies: what each writes, that guesses change nothing but the cost, and that all caches come back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rsd_local.decoding.steps import Step, Writer, Writing
from test_rsd import HALF, QUESTION, role
from tiny import VOCABULARY, write_model

from rsd_local.answers import boxed, same_answer
from rsd_local.config import Limits, Params, Sampling, Search, Strategy, Trio, Weighting, sequences_needed
from rsd_local.decoding import STRATEGIES
from rsd_local.decoding.best_of_n import aggregate
from rsd_local.decoding.majority import vote
from rsd_local.decoding.sampled import split
from rsd_local.decoding.speculation import Proposer, Verifier, chunk_that_pays
from rsd_local.errors import ConfigError
from rsd_local.events import CancelToken, Finished, Result
from rsd_local.reasoner import Reasoner
from rsd_local.runtime import Engine, Guess, Model, Pace, Sampler, Sequence, chat_tokens, distribution

WARM = Sampling(temperature=1.0, top_k=20, seed=3)
LIMITS = Limits(tokens=60, step_tokens=9, repeats=99)
SEARCH = Search(samples=3, beams=2, branches=2)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    folder = tmp_path_factory.mktemp("strategies")
    roles = [role(write_model(folder / f"{seed}.gguf", "dense", seed)) for seed in range(3)]
    return Trio(*roles, width=7)


@pytest.fixture(scope="module")
def reasoner(trio: Trio) -> Iterator[Reasoner]:
    with Reasoner.open(trio) as opened:
        yield opened


@pytest.fixture(scope="module")
def kindred(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reasoner]:
    """A draft that often writes what its target would: the same weights with a little noise."""
    folder = tmp_path_factory.mktemp("kindred")
    target = write_model(folder / "target.gguf", "dense", 1)
    draft = write_model(folder / "draft.gguf", "dense", 1, noise=0.05)
    with Reasoner.open(Trio(role(draft), role(target), role(write_model(folder / "reward.gguf", "dense", 2)))) as opened:
        yield opened


def assert_all_caches_are_back(reasoner: Reasoner) -> None:
    for engine in (engine for pool in reasoner.engines().values() for engine in pool.engines):
        sequences = [engine.sequence() for _ in range(engine.slots)]
        assert all(engine.positions(sequence) == (-1, -1) for sequence in sequences)
        for sequence in sequences:
            sequence.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("sampling", [Sampling(), WARM])
def test_every_strategy_answers_the_same_again(reasoner: Reasoner, strategy: Strategy, sampling: Sampling) -> None:
    params = Params(sampling, Weighting("constant", probability=0.5), LIMITS, SEARCH)
    events = list(reasoner.stream(QUESTION, params, strategy=strategy))
    end = events[-1]
    assert isinstance(end, Finished) and end.reason in ("length", "stop", "steps")
    assert len(end.text) > 10 and end.counters
    again = reasoner.solve(QUESTION, params, strategy=strategy)
    assert again.text == end.text
    assert_all_caches_are_back(reasoner)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_can_be_left_and_cancelled(reasoner: Reasoner, strategy: Strategy) -> None:
    params = Params(WARM, Weighting("constant", probability=0.5), LIMITS, replace(SEARCH, candidates=3))
    stream = reasoner.stream(QUESTION, params, strategy=strategy)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert_all_caches_are_back(reasoner)
    cancel = CancelToken()
    cancel.cancel()
    assert reasoner.solve(QUESTION, params, strategy=strategy, cancel=cancel).finish_reason == "cancelled"
    assert_all_caches_are_back(reasoner)


def test_a_trio_opened_too_narrow_says_how_wide(trio: Trio) -> None:
    with Reasoner.open(replace(trio, width=2)) as narrow:
        for strategy in STRATEGIES:
            needed = sequences_needed(strategy, SEARCH)
            if needed > 2:
                with pytest.raises(ConfigError, match=f"{strategy} needs {needed} sequences"):
                    narrow.solve(QUESTION, Params(search=SEARCH), strategy=strategy)


def test_speculation_at_temperature_0_is_the_targets_own_text(kindred: Reasoner) -> None:
    limits = Limits(tokens=300, step_tokens=40, repeats=99)
    for ahead in (1, 3, 8):
        params = Params(limits=limits, search=Search(speculate=ahead))
        target, drafted = (kindred.solve(QUESTION, params, strategy=name) for name in ("target", "speculative"))
        assert drafted.text == target.text and drafted.finish_reason == target.finish_reason
        assert drafted.counters["target"].decode_calls < target.counters["target"].decode_calls
        assert drafted.counters["target"].kept_tokens > 0


@pytest.mark.parametrize("strategy", ["step-best-of-n", "beam", "rsd"])
def test_an_interrupted_search_gives_every_cache_back(reasoner: Reasoner, monkeypatch: pytest.MonkeyPatch, strategy: Strategy) -> None:
    """The interrupt comes while one candidate is waited for, and none of them is written yet."""
    write, begun = Writer.start_writing, []
    (draft,) = reasoner.trio.draft.engines

    def interrupt() -> Step:
        raise KeyboardInterrupt

    with ExitStack() as held:

        def start(writer: Writer, *arguments: Any, **settings: Any) -> Writing:
            if not begun:
                held.enter_context(draft.model.lane.turn())
            begun.append(write(writer, *arguments, **settings))
            return interrupt

        monkeypatch.setattr(Writer, "start_writing", start)
        with pytest.raises(KeyboardInterrupt):
            reasoner.solve(QUESTION, Params(WARM, search=Search(candidates=3, samples=3, beams=1, branches=3)), strategy=strategy)
        assert len(begun) == 3
    assert_all_caches_are_back(reasoner)


def test_drafted_tokens_never_share_the_prompts_batch(kindred: Reasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    """On quantized models a wide batch rounds otherwise than one of a few rows, and the target alone has single ones."""
    rows: dict[str, list[int]] = {"target": [], "speculative": []}
    for strategy, seen in rows.items():
        monkeypatch.setattr(kindred.trio.target.engines[0].pace, "note", lambda count, _, seen=seen: seen.append(count))
        kindred.solve(QUESTION, Params(limits=LIMITS, search=Search(speculate=4)), strategy=strategy)  # type: ignore[arg-type]
    assert rows["speculative"][0] == rows["target"][0] > 8
    assert set(rows["target"][1:]) == {1} and 1 < max(rows["speculative"][1:]) <= 5


@pytest.mark.parametrize(("exact", "most"), [(3, 3), (1, 5), (5, 5)])
def test_no_more_is_drafted_than_leaves_batches_exact(kindred: Reasoner, monkeypatch: pytest.MonkeyPatch, exact: int, most: int) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Sequence, "exact_rows", lambda sequence, rows: exact if rows == 5 else 0)
    monkeypatch.setattr(kindred.trio.target.engines[0].pace, "note", lambda count, _: seen.append(count))
    kindred.solve(QUESTION, Params(limits=Limits(tokens=200, step_tokens=40, repeats=99)), strategy="speculative")
    assert max(seen[1:]) == most


def test_speculation_above_temperature_0_has_the_targets_distribution(kindred: Reasoner) -> None:
    """The first two tokens of 2,000 runs against their exact probabilities, by a chi-squared test."""
    sampling = Sampling(temperature=1.5, top_k=3)
    engine = kindred.engines()["target"]
    messages = [{"role": "system", "content": kindred.config.system}, {"role": "user", "content": QUESTION}]
    expected: dict[tuple[int, int], float] = {}
    sequence = engine.sequence()
    sequence.append(chat_tokens(engine.model, messages))
    length = len(sequence)
    for first, p in zip(*distribution(sequence.read_logits().result(), sampling), strict=True):
        sequence.truncate(length)
        sequence.append([int(first)])
        for second, q in zip(*distribution(sequence.read_logits().result(), sampling), strict=True):
            expected[int(first), int(second)] = p * q
    sequence.close()
    runs = 2_000
    seen: Counter[str] = Counter()
    for seed in range(runs):
        params = Params(replace(sampling, seed=seed), limits=Limits(tokens=2), search=Search(speculate=2))
        seen[kindred.solve(QUESTION, params, strategy="speculative").text] += 1
    joined: dict[str, float] = {}
    for pair, p in expected.items():
        text = b"".join(engine.model.piece(token) for token in pair).decode("utf-8", "replace")
        joined[text] = joined.get(text, 0.0) + p
    assert set(seen) <= set(joined) and len(joined) >= 5
    statistic = sum((seen[text] - runs * p) ** 2 / (runs * p) for text, p in joined.items())
    freedom = len(joined) - 1
    assert statistic < freedom + 4.5 * math.sqrt(2 * freedom), "beyond the 99.99th percentile"


def test_rejection_sampling_draws_from_the_target_and_plain_matching_would_not_need_q() -> None:
    chance = np.random.default_rng(0)
    target, draft = chance.normal(size=6).astype(np.float32), chance.normal(size=6).astype(np.float32)
    sampling = Sampling(temperature=1.0)
    proposer, verifier = Proposer(replace(sampling, seed=1)), Verifier(replace(sampling, seed=2))
    count = np.zeros(6)
    for _ in range(40_000):
        proposer.made.clear()
        proposer.draw(draft)
        verifier.expect(proposer.made)
        count[verifier.draw(target)] += 1
    wanted = np.exp(target) / np.exp(target).sum()
    assert (((count - 40_000 * wanted) ** 2) / (40_000 * wanted)).sum() < 5 + 4.5 * math.sqrt(10)
    drafted = np.exp(draft) / np.exp(draft).sum()
    assert (((40_000 * drafted - 40_000 * wanted) ** 2) / (40_000 * wanted)).sum() > 1_000, "the draft's own would be seen"


@pytest.mark.parametrize("proposing", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.3, seed=11)])
def test_a_fallback_with_the_rejected_step_writes_what_it_writes_without(
    kindred: Reasoner, sampling: Sampling, proposing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsd_local.decoding.fallback.proposing_pays", lambda *_: proposing)  # both, whatever this machine's pace
    texts: dict[str, Result] = {}
    for fallback in ("off", "on"):
        params = replace(HALF, sampling=sampling, limits=Limits(tokens=300, step_tokens=20, repeats=99), search=Search(fallback=fallback))  # type: ignore[arg-type]
        texts[fallback] = kindred.solve(QUESTION, params)
    assert texts["on"].text == texts["off"].text
    with_guess, without = texts["on"].counters["target"], texts["off"].counters["target"]
    assert with_guess.kept_tokens > 0 == without.ahead_tokens
    assert with_guess.generated_tokens == without.generated_tokens
    assert with_guess.decode_calls < without.decode_calls
    assert with_guess.prompt_tokens == without.prompt_tokens


def test_a_guess_changes_the_cost_and_never_the_text(tmp_path: Path) -> None:
    """Right, wrong, half right, too long: the tokens are those without a guess, and the positions are right."""
    config = role(write_model(tmp_path / "tiny.gguf"))
    model = Model(config)
    engine = Engine(model, config, 2)
    prompt = [1, *range(20, 50)]

    def written(guess: Guess, sampling: Sampling, count: int = 24) -> list[int]:
        sequence = engine.sequence()
        sequence.append(prompt)
        made = sequence.generate(Sampler(sampling), count, guess=guess).result().tokens
        engine.settle(sequence)
        assert engine.positions(sequence) == (0, len(sequence) - 2)
        more = sequence.generate(Sampler(replace(sampling, seed=9)), 5).result().tokens
        sequence.close()
        return made + more

    for sampling in (Sampling(), Sampling(temperature=0.7, seed=4)):
        right = written(Guess(), sampling)
        for tokens in (right[:24], right, right[:10] + [7] * 10, [7] * 5, right[:1], right[:23]):
            for chunk in (1, 4, 31):
                assert written(Guess(tokens, chunk), sampling) == right
    model.close()


def test_the_rule_guesses_where_it_pays() -> None:
    cheap, dear, unknown = Pace(), Pace(), Pace()
    for rows in (1, 2, 4, 8, 16, 32):
        cheap.note(rows, 1.0)  # a GPU: a batch costs what a token does
        dear.note(rows, float(rows))  # no gain from batches at all
    assert chunk_that_pays(cheap, 0.8) == 31
    assert chunk_that_pays(dear, 0.99) == 0
    assert chunk_that_pays(unknown, 0.8) > 0, "what was never measured is tried"


def test_candidates_share_the_evaluation_of_their_prefix(reasoner: Reasoner) -> None:
    single = reasoner.solve(QUESTION, Params(WARM, Weighting("constant", probability=1.0), Limits(tokens=9, steps=1, step_tokens=9)))
    several = reasoner.solve(
        QUESTION, Params(WARM, Weighting("constant", probability=1.0), Limits(tokens=9, steps=1, step_tokens=9), Search(candidates=4))
    )
    one, four = single.counters["draft"], several.counters["draft"]
    # Each candidate evaluates the prompt's last token and its own but the last; the rest of the prompt only once.
    assert four.evaluated_tokens == (one.opening_tokens - 1) + 4 * (1 + 9 - 1)
    assert four.generated_tokens == 36 and four.discarded_tokens == 27
    assert one.evaluated_tokens == one.opening_tokens + 9 - 1


def test_the_best_candidate_comes_forward(reasoner: Reasoner) -> None:
    params = Params(WARM, Weighting("constant", probability=1.0), Limits(tokens=27, steps=3, step_tokens=9))
    alone = reasoner.solve(QUESTION, params)
    best = reasoner.solve(QUESTION, replace(params, search=Search(candidates=6)))
    more = reasoner.solve(QUESTION, replace(params, search=Search(samples=6)), strategy="step-best-of-n")
    assert best.steps[0].reward is not None and alone.steps[0].reward is not None
    assert best.steps[0].reward > alone.steps[0].reward
    assert more.text == best.text


def test_models_of_two_vocabularies_cannot_speculate_and_rsd_falls_back_without(tmp_path: Path) -> None:
    draft = write_model(tmp_path / "draft.gguf", vocabulary=[*VOCABULARY, "▁day"])
    target, reward = write_model(tmp_path / "target.gguf", seed=1), write_model(tmp_path / "reward.gguf", seed=2)
    with Reasoner.open(Trio(role(draft), role(target), role(reward))) as mixed:
        with pytest.raises(ConfigError, match="one vocabulary"):
            mixed.solve(QUESTION, strategy="speculative")
        assert mixed.solve(QUESTION, replace(HALF, search=Search(fallback="on"))).counters["target"].ahead_tokens == 0


def test_votes() -> None:
    assert vote(["4", "5", "5.0", None, "4", "5"]) == 1
    assert vote(["4", "5"]) == 0, "of equal counts the first"
    assert vote([None, "3"]) == 1 and vote([None, None]) == 0


def test_answers() -> None:
    assert boxed(r"so \boxed{\frac{1}{2}} and \boxed {3") == r"\frac{1}{2}"
    assert boxed("none") is None and boxed(r"\boxed{}") == ""
    assert same_answer("1,000", "1000.0") and same_answer(r"\$5", "5") and same_answer(r"\text{ yes}", "yes")
    assert not same_answer("x", "y") and not same_answer("1,2", "12")


def test_rewards_of_a_solution_become_one() -> None:
    assert [aggregate([0.5, 0.2, 0.8], how) for how in ("last", "min", "product")] == pytest.approx([0.8, 0.2, 0.08])
    assert aggregate([None], "last") == -math.inf and aggregate([0.5, math.nan], "last") == -math.inf


def test_a_whole_solution_splits_into_the_steps_it_would_have_been_written_in(tmp_path: Path) -> None:
    model = Model(role(write_model(tmp_path / "tiny.gguf")))
    text = "\n\na b\n\nc\nd\n\n\n\ne"
    tokens = model.tokenize(text, continues=True)
    steps = split(Step([*tokens, 2], text.encode(), "end"), model)
    assert [step.raw for step in steps] == [b"\n\na b\n\n", b"c\nd\n\n", b"\n\ne"]
    assert [token for step in steps for token in step.tokens] == [*tokens, 2]
    assert [step.ended for step in steps] == ["delimiter", "delimiter", "end"]
    model.close()
