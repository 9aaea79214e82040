"""Several outputs of a sequence from one pass: the same as one after another, each row evaluated once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import EngineMaker
from test_engine import draws, held, prompts
from test_rewards import said, scores_of
from test_rsd import QUESTION, role
from tiny import VOCABULARY, WIDTH, write_model

from rsd_local.catalogue import find_trio
from rsd_local.config import Aggregate, Limits, Params, RewardConfig, Sampling, Search, Trio
from rsd_local.errors import Cancelled, ContextFull, EngineError
from rsd_local.events import CancelToken
from rsd_local.prompt import Prompt
from rsd_local.reasoner import Reasoner
from rsd_local.rewards.cascade import Cascade
from rsd_local.rewards.heads import ValueHead
from rsd_local.rewards.reading import ReadReward
from rsd_local.roles import DRAFT, Reward, RewardAbilities, Stream
from rsd_local.runtime import Sequence
from rsd_local.steps import SKIPPED, Score, Step

TEXT = [1, *np.random.default_rng(4).integers(3, 259, 219).tolist()]
PLACES = [0, 1, 2, 30, 31, 90, 141, 142, 200, 219]
NEAR = 2e-3  # what batches of other shapes change in a logit; a slip of one position changes 0.1 and more
KINDS = ("dense", "sliding", "recurrent", "hybrid")
STEPS = ["one and one", "is two", "so two and two", "is four", "and that is all"]


def one_by_one(sequence: Sequence, *, hidden: bool) -> list[np.ndarray]:
    """The outputs at the places, each from a read of its own behind the text before it."""
    made, first = [], len(sequence)
    for place in PLACES:
        sequence.append(TEXT[first : place + 1])
        first = place + 1
        made.append((sequence.read_hidden() if hidden else sequence.read_logits()).result())
    return made


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_several_outputs_are_those_that_are_read_one_by_one(
    tiny: dict[str, Path], open_engine: EngineMaker, kind: str, hidden: bool
) -> None:
    """Of a text that is longer than a batch; each row is evaluated once, and the batches are no more than there must be."""
    engine = open_engine(tiny[kind], slots=2, flash_attention="off", threads=1, reads_states=True)
    apart, whole = engine.sequence(), engine.sequence()
    wanted = one_by_one(apart, hidden=hidden)
    whole.append(TEXT)
    made = whole.read_at(PLACES, hidden=hidden, take=np.copy).future.result()
    np.testing.assert_allclose(made, wanted, atol=NEAR)
    assert whole.counters.evaluated_tokens == whole.counters.prompt_tokens == len(TEXT)
    most = engine.loop._sizes.outputs if hidden else engine.loop._sizes.rows
    assert whole.counters.decode_calls == math.ceil(len(TEXT) / most) < apart.counters.decode_calls
    # Both go on in the same way: the cache is as it was.
    for sequence in (apart, whole):
        sequence.append([7])
    goes_on = [sequence.generate(draws(), 5).future.result().tokens for sequence in (apart, whole)]
    assert goes_on[0] == goes_on[1]


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_several_sequences_are_read_and_written_side_by_side(
    tiny: dict[str, Path], open_engine: EngineMaker, kind: str, hidden: bool
) -> None:
    """With texts of several lengths, and others that write and read one output meanwhile."""
    engine = open_engine(tiny[kind], slots=6, flash_attention="off", threads=1)
    texts = prompts(4)
    wanted = []
    for text in texts:
        for place in (3, 9, len(text) - 1):
            with closing(engine.sequence(text[: place + 1])) as sequence:
                wanted.append((sequence.read_hidden() if hidden else sequence.read_logits()).result())
    with closing(engine.sequence(texts[0])) as alone:
        tokens = alone.generate(draws(), 12).future.result().tokens
    together = [engine.sequence(text) for text in texts]
    writer, reader = engine.sequence(texts[0]), engine.sequence(texts[1])
    with held(engine):
        waiting = [one.read_at([3, 9, len(one) - 1], hidden=hidden, take=np.copy) for one in together]
        written, read = writer.generate(draws(), 12), reader.start_reading(hidden=True)
    made = [values for one in waiting for values in one.future.result(timeout=30)]
    np.testing.assert_allclose(made, wanted, atol=NEAR)
    assert written.future.result(timeout=30).tokens == tokens and read.future.result(timeout=30).shape == (WIDTH,)
    assert [one.counters.evaluated_tokens for one in together] == [len(text) for text in texts]


def test_outputs_of_what_is_cached_already_are_evaluated_again_from_the_first_of_them_on(
    tiny: dict[str, Path], open_engine: EngineMaker
) -> None:
    engine = open_engine(tiny["dense"], slots=1, flash_attention="off", threads=1)
    sequence = engine.sequence(TEXT[:100])
    wanted = sequence.read_at([60, 99], hidden=False, take=np.copy).future.result()
    again = sequence.read_at([60, 99], hidden=False, take=np.copy).future.result()
    np.testing.assert_allclose(again, wanted, atol=NEAR)
    assert sequence.counters.evaluated_tokens == 100 + 40


def test_positions_that_are_none_are_refused(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    sequence = open_engine(tiny["dense"], slots=1).sequence(TEXT[:10])
    for places in ([], [10], [-1, 3], [3, 3], [5, 2]):
        with pytest.raises(EngineError, match="no ascending positions of 10 tokens"):
            sequence.read_at(places, hidden=False, take=np.copy)


def test_a_reading_that_is_cancelled_or_goes_wrong_leaves_the_sequence_as_it_was(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], slots=1, flash_attention="off", threads=1)
    sequence, cancel = engine.sequence(TEXT), CancelToken()
    with held(engine):
        reading = sequence.read_at(PLACES, hidden=False, take=np.copy, cancel=cancel)
        cancel.cancel()
    with pytest.raises(Cancelled):
        reading.future.result()
    with pytest.raises(ZeroDivisionError):
        sequence.read_at(PLACES, hidden=False, take=lambda _: 1 // 0).future.result()
    assert sequence.tokens == TEXT
    assert len(sequence.read_at(PLACES, hidden=False, take=np.copy).future.result()) == len(PLACES)


def trios(folder: Path) -> dict[str, Trio]:
    """A trio with each reward that reads a step where it ends, and some that do not."""
    marks = [*VOCABULARY, "<extra_0>"]
    files = [role(write_model(folder / f"{seed}.gguf", "dense", seed, vocabulary=marks)) for seed in (1, 2, 3)]
    made = {}
    for layout, sizes in (("skywork", ((1, WIDTH),)), ("qwen-prm", ((WIDTH, WIDTH), (2, WIDTH))), ("trl", ((2, WIDTH),))):
        chance = np.random.default_rng(0)
        layers = tuple((chance.normal(size=size).astype(np.float32), chance.normal(size=size[0]).astype(np.float32)) for size in sizes)
        path = folder / f"{layout}.safetensors"
        ValueHead(layout, layers).save(path)  # type: ignore[arg-type]
        made[layout] = Trio(*files, "value-head", head=path)
    made["tag-logits"] = Trio(*files)
    made["judge"] = Trio(*files, "judge")
    made["confidence"] = Trio(*files[:2], None, "confidence")
    made["verifier"] = Trio(*files[:2], None, "verifier", verifier=lambda prompt, steps, step: len(step) % 7 / 7)
    cheap, dear = RewardConfig("tag-logits", files[2], lower=0.45, upper=0.55), RewardConfig("tag-logits", files[1])
    made["cascade"] = Trio(*files[:2], rewards=(cheap, dear))
    made["cascade with a judge"] = Trio(*files[:2], rewards=(cheap, RewardConfig("judge", files[1])))
    return {name: replace(trio, width=5, reuse=False, delimiter="tokens:6") for name, trio in made.items()}


NAMES = ["skywork", "qwen-prm", "trl", "tag-logits", "judge", "confidence", "verifier", "cascade", "cascade with a judge"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reasoner]]:
    made = {name: Reasoner.open(trio) for name, trio in trios(tmp_path_factory.mktemp("rewards")).items()}
    yield made
    for reasoner in made.values():
        reasoner.close()


def drafted(reasoner: Reasoner, seed: int, count: int = 5) -> list[Step]:
    """Steps of the draft, each with the trace that the reward needs."""
    limits, sampling = Limits(tokens=9 * count, step_tokens=9, repeats=0), Sampling(temperature=1.0, seed=seed)
    writer = reasoner.trio.writer("draft", Prompt.of(QUESTION), traced=True)
    steps = []
    for place in range(count):
        writer.begin()
        steps.append(writer.start_writing(limits.step_tokens, None, sampling, Stream(seed, DRAFT, 0, place)).result())
    writer.close()
    return steps


def values(scores: list[Score]) -> list[float]:
    return [-1.0 if score.value is None else score.value for score in scores]


@pytest.mark.parametrize("asked", [(0, 1, 2, 3, 4), (1, 3), ()])
@pytest.mark.parametrize("name", NAMES)
def test_all_steps_of_a_text_get_the_scores_that_they_get_one_by_one(
    opened: dict[str, Reasoner], name: str, asked: tuple[int, ...]
) -> None:
    reasoner = opened[name]
    steps = drafted(reasoner, 3)
    apart, whole = reasoner.trio.reward(Prompt.of(QUESTION)), reasoner.trio.reward(Prompt.of(QUESTION))
    wanted = []
    for place, step in enumerate(steps):
        if place in asked:
            wanted.append(apart.start_score(step).result())
        else:
            apart.read(step)
            wanted.append(SKIPPED)
    made = whole.start_scores(steps, frozenset(asked)).result()
    assert values(made) == pytest.approx(values(wanted), abs=NEAR)
    assert [(score.by, score.threshold, score.skipped) for score in made] == [
        (score.by, score.threshold, score.skipped) for score in wanted
    ]
    for part, counters in whole.counters().items():
        assert counters.evaluated_tokens == apart.counters()[part].evaluated_tokens
        if asked and whole.abilities.whole:
            assert counters.decode_calls <= apart.counters()[part].decode_calls
    apart.close()
    whole.close()
    assert whole.abilities.whole == (name not in ("judge", "verifier", "cascade with a judge"))


@pytest.mark.parametrize("name", ["tag-logits", "skywork"])
def test_a_text_is_scored_in_one_call_that_evaluates_each_row_once(opened: dict[str, Reasoner], name: str) -> None:
    """The opening but for its last token, which stands for all forks, and one batch for the rest."""
    reasoner = opened[name]
    reward = reasoner.trio.reward(Prompt.of(QUESTION))
    reward.settle()
    fork = reward.fork()
    assert isinstance(reward, ReadReward) and isinstance(fork, ReadReward)
    fork.start_scores([said(text) for text in STEPS], frozenset(range(5))).result()
    counters, opening = fork._sequence.counters, len(reward._sequence)
    assert (counters.evaluated_tokens, counters.decode_calls) == (len(fork._sequence) - (opening - 1), 1)
    fork.close()
    reward.close()


@contextmanager
def step_by_step(kind: type[Reward]) -> Iterator[None]:
    """Rewards of a kind say that they look at one step after another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "abilities", RewardAbilities())
        yield


@pytest.mark.parametrize("aggregate", ["last", "min", "product"])
@pytest.mark.parametrize("name", ["tag-logits", "trl", "cascade"])
def test_best_of_n_chooses_what_it_would_choose_step_by_step(opened: dict[str, Reasoner], name: str, aggregate: Aggregate) -> None:
    limits, search = Limits(tokens=60, step_tokens=9, repeats=0), Search(samples=4, aggregate=aggregate)
    params = Params(Sampling(temperature=1.0, seed=2), limits=limits, search=search)
    whole = opened[name].solve(QUESTION, params, strategy="best-of-n")
    with step_by_step(Cascade if name == "cascade" else ReadReward):
        apart = opened[name].solve(QUESTION, params, strategy="best-of-n")
    assert whole.text == apart.text
    assert [step.reward for step in whole.steps] == pytest.approx([step.reward for step in apart.steps], abs=NEAR)
    for part in ("reward", "reward-2") if name == "cascade" else ("reward",):
        made, other = whole.counters[part], apart.counters[part]  # type: ignore[index]
        assert made.evaluated_tokens == other.evaluated_tokens
        assert made.decode_calls < other.decode_calls + (part == "reward-2")  # which may be asked about a single step


def test_a_text_that_does_not_fit_is_refused_whole_and_shorter_ones_are_scored(opened: dict[str, Reasoner]) -> None:
    reasoner = opened["tag-logits"]
    reward = reasoner.trio.reward(Prompt.of(QUESTION))
    longer = [said("and one more " * 30)] * 9
    with pytest.raises(ContextFull):
        reward.start_scores(longer, frozenset(range(9)))
    assert values(reward.start_scores([said("one and one")], frozenset({0})).result()) == pytest.approx(
        scores_of(reasoner.trio.reward(Prompt.of(QUESTION)), "one and one"), abs=NEAR
    )


def test_abacus_reward_says_of_whole_solutions_what_it_says_step_by_step() -> None:
    params = Params(Sampling(temperature=0.7, seed=5), search=Search(samples=6, aggregate="min"))
    with Reasoner.open(replace(find_trio("abacus"), width=7, reuse=False)) as reasoner:
        whole = reasoner.solve("2+3*(4-1)-5", params, strategy="best-of-n")
        with step_by_step(ReadReward):
            apart = reasoner.solve("2+3*(4-1)-5", params, strategy="best-of-n")
    assert (whole.text, whole.answer) == (apart.text, apart.answer) and len(whole.steps) > 2
    assert [step.reward for step in whole.steps] == pytest.approx([step.reward for step in apart.steps], abs=1e-4)
    made, other = whole.counters["reward"], apart.counters["reward"]
    assert made.evaluated_tokens == other.evaluated_tokens and made.decode_calls < other.decode_calls
