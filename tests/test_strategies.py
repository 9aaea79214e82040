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
from plain_sampling import probabilities
from test_engine import held
from test_rsd import HALF, QUESTION, own_prompt, role
from tiny import VOCABULARY, write_model

from rsd_local.answers import boxed, same_answer
from rsd_local.config import Limits, Params, Sampling, Search, Strategy, Trio, Weighting, sequences_needed
from rsd_local.decoding import STRATEGIES
from rsd_local.decoding.best_of_n import aggregate
from rsd_local.decoding.majority import vote
from rsd_local.decoding.sampled import split
from rsd_local.decoding.speculation import chunk_that_pays
from rsd_local.errors import ConfigError
from rsd_local.events import CancelToken, Finished, Result
from rsd_local.reasoner import Reasoner
from rsd_local.roles import DRAFT, NO_HINT, TARGET, Hint, Stream
from rsd_local.runtime import Draws, Engine, LatencyModel, LocalWriter, Model, Sequence
from rsd_local.segments import Segmenter
from rsd_local.steps import Score, Step

WARM = Sampling(temperature=1.0, top_k=20, seed=3)
LIMITS = Limits(tokens=60, step_tokens=9, repeats=0)
SEARCH = Search(samples=3, beams=2, branches=2)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    folder = tmp_path_factory.mktemp("strategies")
    roles = [role(write_model(folder / f"{seed}.gguf", "dense", seed)) for seed in range(3)]
    return Trio(*roles, width=7, reuse=False)


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
    reward = write_model(folder / "reward.gguf", "dense", 2)
    with Reasoner.open(Trio(role(draft), role(target), role(reward), reuse=False)) as opened:
        yield opened


def assert_all_caches_are_back(reasoner: Reasoner) -> None:
    for engine in reasoner.engines().values():
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
    stream.close()
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


@pytest.mark.parametrize("ahead", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_speculation_at_any_temperature_is_the_targets_own_text(kindred: Reasoner, temperature: float, ahead: int) -> None:
    """Token for token: the target draws each token with the random number that it has for it alone, whatever was guessed."""
    limits = Limits(tokens=300, step_tokens=40, repeats=0)
    params = Params(Sampling(temperature, seed=7), limits=limits, search=Search(speculate=ahead))
    target, drafted = (kindred.solve(QUESTION, params, strategy=name) for name in ("target", "speculative"))
    assert drafted.text == target.text and drafted.finish_reason == target.finish_reason
    assert [(step.text, step.tokens) for step in drafted.steps] == [(step.text, step.tokens) for step in target.steps]
    assert drafted.counters["target"].generated_tokens == target.counters["target"].generated_tokens
    assert drafted.counters["target"].decode_calls < target.counters["target"].decode_calls
    kept, proposed = drafted.counters["target"].kept_tokens, drafted.counters["draft"]
    assert 0 < kept <= proposed.generated_tokens - proposed.discarded_tokens


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_a_draft_with_the_targets_weights_never_guesses_wrong(trio: Trio, temperature: float) -> None:
    """For it draws each token with the number that the target has for the same one."""
    params = Params(
        Sampling(temperature, top_k=20, seed=5), limits=Limits(tokens=300, step_tokens=40, repeats=0), search=Search(speculate=3)
    )
    with Reasoner.open(replace(trio, draft=trio.target)) as twins:
        target = twins.solve(QUESTION, params, strategy="speculative").counters["target"]
    assert target.missed_guesses == 0 and target.kept_tokens > 0.7 * target.generated_tokens


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_another_seed_is_another_text(kindred: Reasoner, temperature: float) -> None:
    """So the test above compares texts that could differ."""
    texts = {
        kindred.solve(QUESTION, Params(Sampling(temperature, seed=seed), limits=LIMITS), strategy="speculative").text for seed in range(4)
    }
    assert len(texts) == 4


@pytest.mark.parametrize("strategy", ["step-best-of-n", "beam", "rsd"])
def test_an_interrupted_search_gives_every_cache_back(reasoner: Reasoner, monkeypatch: pytest.MonkeyPatch, strategy: Strategy) -> None:
    """The interrupt comes while one candidate is waited for, and none of them is written yet."""
    write, begun = LocalWriter.start_writing, []

    class Interrupted:
        def result(self) -> Step:
            raise KeyboardInterrupt

    with ExitStack() as until_the_end:

        def start(writer: LocalWriter, *arguments: Any, **settings: Any) -> Interrupted:
            if not begun:
                until_the_end.enter_context(held(reasoner.trio.draft))
            begun.append(write(writer, *arguments, **settings))
            return Interrupted()

        monkeypatch.setattr(LocalWriter, "start_writing", start)
        with pytest.raises(KeyboardInterrupt):
            reasoner.solve(QUESTION, Params(WARM, search=Search(candidates=3, samples=3, beams=1, branches=3)), strategy=strategy)
        assert len(begun) == 3
    assert_all_caches_are_back(reasoner)


def test_drafted_tokens_never_share_the_prompts_batch(kindred: Reasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    """On quantized models a wide batch rounds otherwise than one of a few rows, and the target alone has single ones."""
    rows: dict[str, list[int]] = {"target": [], "speculative": []}
    for strategy, seen in rows.items():
        monkeypatch.setattr(kindred.trio.target.latency, "note", lambda count, *_, seen=seen: seen.append(count))
        kindred.solve(QUESTION, Params(limits=LIMITS, search=Search(speculate=4)), strategy=strategy)  # type: ignore[arg-type]
    assert rows["speculative"][0] == rows["target"][0] > 8
    assert set(rows["target"][1:]) == {1} and 1 < max(rows["speculative"][1:]) <= 5


@pytest.mark.parametrize(("exact", "most"), [(3, 3), (1, 4), (4, 4)])
def test_no_more_is_drafted_than_leaves_batches_exact(kindred: Reasoner, monkeypatch: pytest.MonkeyPatch, exact: int, most: int) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Sequence, "exact_rows", lambda sequence, rows: exact if rows == 4 else 0)
    monkeypatch.setattr(kindred.trio.target.latency, "note", lambda count, *_: seen.append(count))
    kindred.solve(QUESTION, Params(limits=Limits(tokens=200, step_tokens=40, repeats=0)), strategy="speculative")
    assert max(seen[1:]) == most


def kept(logits: np.ndarray, sampling: Sampling) -> list[tuple[int, float]]:
    """The tokens that can be drawn, and how likely each is."""
    chances = probabilities(logits, sampling)
    return [(int(token), float(chances[token])) for token in np.flatnonzero(chances)]


def test_speculation_above_temperature_0_has_the_targets_distribution(kindred: Reasoner) -> None:
    """The first two tokens of 2,000 runs against their exact probabilities, by a chi-squared test."""
    sampling = Sampling(temperature=1.5, top_k=3)
    engine = kindred.engines()["target"]
    expected: dict[tuple[int, int], float] = {}
    prompt = own_prompt(kindred, "target")
    sequence = engine.sequence(prompt)
    for first, p in kept(sequence.read_logits().result(), sampling):
        sequence.replace(len(prompt), [first])
        for second, q in kept(sequence.read_logits().result(), sampling):
            expected[first, second] = p * q
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


def test_a_draft_that_draws_with_the_targets_numbers_agrees_with_it_more_often(kindred: Reasoner) -> None:
    """Along one text: as often as could be hoped for with one stream, as seldom as by chance with two."""
    sampling, tokens = Sampling(temperature=1.0, top_k=20), 400
    prompt = own_prompt(kindred, "target")
    sequences = {name: kindred.engines()[name].sequence(list(prompt)) for name in ("draft", "target")}  # type: ignore[index]
    target, same, other = (Draws(sampling, Stream(3, role)) for role in (TARGET, TARGET, DRAFT))
    by_one = by_two = 0
    chance = best = 0.0
    for _ in range(tokens):
        logits = {name: sequence.read_logits().result() for name, sequence in sequences.items()}
        drafted, wanted = (probabilities(logits[name], sampling) for name in ("draft", "target"))
        chance, best = chance + float(drafted @ wanted), best + float(np.minimum(drafted, wanted).sum())
        token = target.draw(logits["target"])
        by_one += same.draw(logits["draft"]) == token
        by_two += other.draw(logits["draft"]) == token
        for sequence in sequences.values():
            sequence.append([token])
    for sequence in sequences.values():
        sequence.close()
    assert by_two == pytest.approx(chance, abs=5 * math.sqrt(tokens / 4))
    assert by_two < chance + (best - chance) / 2 < by_one <= best + 5 * math.sqrt(tokens / 4)


@pytest.mark.parametrize("proposing", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.3, seed=11), Sampling(temperature=1.0, seed=5)])
def test_a_fallback_with_the_rejected_step_writes_what_it_writes_without(
    kindred: Reasoner, sampling: Sampling, proposing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsd_local.decoding.fallback.proposing_pays", lambda *_: proposing)  # both, whatever this machine's speed
    texts: dict[str, Result] = {}
    for fallback in ("off", "on"):
        params = replace(HALF, sampling=sampling, limits=Limits(tokens=300, step_tokens=20, repeats=0), search=Search(fallback=fallback))  # type: ignore[arg-type]
        texts[fallback] = kindred.solve(QUESTION, params)
    assert texts["on"].text == texts["off"].text
    with_guess, without = texts["on"].counters["target"], texts["off"].counters["target"]
    assert with_guess.ahead_tokens > 0 == without.ahead_tokens
    assert with_guess.generated_tokens == without.generated_tokens > 20
    if proposing or sampling.temperature < 1:  # what the draft drew with numbers of its own is hardly ever the target's, too
        assert with_guess.kept_tokens > 0
        assert with_guess.decode_calls < without.decode_calls
    assert with_guess.prompt_tokens == without.prompt_tokens


def test_a_guess_changes_the_cost_and_never_the_text(tmp_path: Path) -> None:
    """Right, wrong, half right, too long: the tokens are those without a guess, and the positions are right."""
    config = role(write_model(tmp_path / "tiny.gguf"))
    model = Model(config)
    engine = Engine(model, config, 2, reuse=False)
    prompt = [1, *range(20, 50)]

    def written(hint: Hint, sampling: Sampling, count: int = 24) -> list[int]:
        sequence = engine.sequence(prompt)
        made = sequence.generate(Draws(sampling, Stream(4, TARGET)), count, hint=hint).future.result().tokens
        engine.sync_cache(sequence)
        assert engine.positions(sequence) == (0, len(sequence) - 2)
        more = sequence.generate(Draws(sampling, Stream(9, TARGET)), 5).future.result().tokens
        sequence.close()
        return made + more

    for sampling in (Sampling(), Sampling(temperature=0.7)):
        right = written(NO_HINT, sampling)
        for tokens in (right[:24], right, right[:10] + [7] * 10, [7] * 5, right[:1], right[:23]):
            for chunk in (1, 4, 31):
                assert written(Hint(tuple(tokens), chunk), sampling) == right
    model.close()


def test_writing_that_ends_where_a_hint_fails_goes_on_with_the_numbers_that_are_left(tmp_path: Path) -> None:
    config = role(write_model(tmp_path / "tiny.gguf"))
    model = Model(config)
    engine = Engine(model, config, reuse=False)
    prompt, sampling = [1, *range(20, 50)], Sampling(temperature=1.0)
    sequence = engine.sequence(prompt)
    whole = sequence.generate(Draws(sampling, Stream(4, TARGET)), 24).future.result().tokens
    for held_tokens in (0, 1, 7, 23):
        sequence.truncate(len(prompt))
        hint = Hint((*whole[:held_tokens], whole[held_tokens] ^ 1, 5, 5), 31, only=True)
        made = sequence.generate(Draws(sampling, Stream(4, TARGET)), 24, hint=hint).future.result()
        assert made.tokens == whole[: held_tokens + 1] and made.ended == ("mismatch" if held_tokens < 23 else "length")
        if held_tokens < 23:
            rest = sequence.generate(Draws(sampling, Stream(4, TARGET), len(made.tokens)), 23 - held_tokens).future.result()
            assert made.tokens + rest.tokens == whole
    model.close()


def test_the_rule_guesses_where_it_pays() -> None:
    cheap, dear, unknown = LatencyModel(), LatencyModel(), LatencyModel()
    for rows in (1, 2, 4, 8, 16, 32) * 2:
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
    """The first of them is what the draft writes alone: the best is never worse, and mostly better."""
    better = 0
    for seed in range(6):
        params = Params(replace(WARM, seed=seed), Weighting("constant", probability=1.0), Limits(tokens=27, steps=3, step_tokens=9))
        alone = reasoner.solve(QUESTION, params)
        best = reasoner.solve(QUESTION, replace(params, search=Search(candidates=6)))
        more = reasoner.solve(QUESTION, replace(params, search=Search(samples=6)), strategy="step-best-of-n")
        first, chosen = alone.steps[0].reward, best.steps[0].reward
        assert first is not None and chosen is not None and chosen >= first - 1e-6
        better += chosen > first + 1e-3
        assert more.text == best.text
    assert better >= 3


def test_models_of_two_vocabularies_cannot_speculate_and_rsd_falls_back_without(tmp_path: Path) -> None:
    draft = write_model(tmp_path / "draft.gguf", vocabulary=[*VOCABULARY[:-1], "▁day"])
    target, reward = write_model(tmp_path / "target.gguf", seed=1), write_model(tmp_path / "reward.gguf", seed=2)
    with Reasoner.open(Trio(role(draft), role(target), role(reward))) as mixed:
        with pytest.raises(ConfigError, match="one vocabulary"):
            mixed.solve(QUESTION, strategy="speculative")
        assert mixed.solve(QUESTION, replace(HALF, search=Search(fallback="on"))).counters["target"].ahead_tokens == 0


@pytest.mark.parametrize("padded", ["draft", "target"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_of_vocabularies_of_two_sizes_the_common_beginning_is_used(tmp_path: Path, padded: str, temperature: float) -> None:
    """As model families pad theirs; a random model writes words of the padding, too."""
    words = {name: [*VOCABULARY, *(f"[PAD{number}]" for number in range(40 * (name == padded)))] for name in ("draft", "target")}
    paths = [write_model(tmp_path / f"{name}.gguf", "dense", 10, vocabulary=words[name]) for name in words]
    reward = write_model(tmp_path / "reward.gguf", seed=2)
    limits = Limits(tokens=300, step_tokens=20, repeats=0)
    params = Params(Sampling(temperature, seed=3), Weighting("constant", probability=0.5), limits)
    with Reasoner.open(Trio(role(paths[0]), role(paths[1]), role(reward), reuse=False)) as mixed:
        assert mixed.trio.shared_tokens == len(VOCABULARY)
        target, drafted = (mixed.solve(QUESTION, params, strategy=name) for name in ("target", "speculative"))
        assert drafted.text == target.text
        assert drafted.counters["target"].ahead_tokens > 0
        off, on = (mixed.solve(QUESTION, replace(params, search=Search(fallback=fallback))) for fallback in ("off", "on"))
        assert on.text == off.text and 0 < off.target_share < 1
        written = mixed.solve(QUESTION, params, strategy=padded).text  # type: ignore[arg-type]
        assert "[PAD" in written, "no word of the padding was written"


def test_votes() -> None:
    assert vote(["4", "5", "5.0", None, "4", "5"]) == 1
    assert vote(["4", "5"]) == 0, "of equal counts the first"
    assert vote([None, "3"]) == 1 and vote([None, None]) == 0


def test_answers() -> None:
    assert boxed(r"so \boxed{3} or \boxed {\frac{1}{2}}") == r"\frac{1}{2}" and boxed(r"\boxed{1} and \boxed {3") is None
    assert boxed("none") is None and boxed(r"\boxed{}") == ""
    assert same_answer("1,000", "1000.0") and same_answer(r"\$5", "5") and same_answer(r"\text{ yes}", "yes")
    assert not same_answer("x", "y") and not same_answer("1,2", "12")


def test_rewards_of_a_solution_become_one() -> None:
    scores = [Score(value) for value in (0.5, 0.2, 0.8)]
    assert [aggregate(scores, how) for how in ("last", "min", "product")] == pytest.approx([0.8, 0.2, 0.08])
    blank = Score(None)
    assert [aggregate([*scores, blank], how) for how in ("last", "min", "product")] == pytest.approx([0.8, 0.2, 0.08])
    for how in ("last", "min", "product"):
        assert aggregate([blank], how) == -math.inf and aggregate([], how) == -math.inf
        assert aggregate([Score(0.5), Score(None, failed=True)], how) == aggregate([Score(None, failed=True), Score(0.5)], how) == -math.inf


def test_a_whole_solution_splits_into_the_steps_it_would_have_been_written_in(tmp_path: Path) -> None:
    model = Model(role(write_model(tmp_path / "tiny.gguf")))
    text = "\n\na b\n\nc\nd\n\n\n\ne"
    tokens = model.tokenize(text, continues=True)
    pieces = [*map(model.piece, tokens), b""]
    steps = split(Step([*tokens, 2], text.encode(), "end"), Segmenter(), pieces)
    assert [step.raw for step in steps] == [b"\n\na b\n\n", b"c\nd\n\n", b"\n\ne"]
    assert [token for step in steps for token in step.tokens] == [*tokens, 2]
    assert [step.ended for step in steps] == ["delimiter", "delimiter", "end"]
    model.close()


@pytest.mark.parametrize("strategy", ["best-of-n", "majority"])
def test_steps_of_a_chosen_solution_are_its_text_also_where_characters_are_cut(trio: Trio, strategy: Strategy) -> None:
    """The limit on steps has no say in a solution that was written whole, so no step of it is the last one before its end."""
    sampling = Sampling(temperature=1.2)
    cut = 0
    with Reasoner.open(replace(trio, delimiter="tokens:3", width=3)) as opened:
        for seed in range(12):
            params = Params(replace(sampling, seed=seed), limits=Limits(tokens=30, steps=4, repeats=0), search=Search(samples=2))
            made = opened.solve(QUESTION, params, strategy=strategy)
            assert "".join(step.text for step in made.steps) == made.text
            cut += any(ord(sign) > 127 and sign != "\ufffd" for sign in made.text)
    assert cut
