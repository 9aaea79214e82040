"""A model's multi-token head (MTP): its guesses cost or save time, and never change what is written."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
from llama_cpp import llama_cpp as C
from tiny_mtp import KINDS, WIDTH, write_mtp_model

from rsd_local import Limits, Params, Reasoner, RoleConfig, Sampling, Trio, Weighting
from rsd_local.config import Fallback, Search, Strategy
from rsd_local.decoding.own_guesses import OwnGuesses
from rsd_local.roles import Hint, Stream
from rsd_local.runtime import Draws, Engine, Model, Sequence, rehearsal
from rsd_local.runtime.mtp_support import PairBatch, X, for_head, library_has_mtp, states_of

pytestmark = pytest.mark.skipif(not library_has_mtp(), reason="this llama-cpp-python has no multi-token heads")
PROMPT = [1, 30, 31, 32, 33, 34, 35, 36]
NAMES = [f"{kind}{right}" for kind in KINDS for right in ("", "-right")]
GREEDY, WARM = Sampling(), Sampling(temperature=0.8, seed=5)


def role(path: Path, **settings: object) -> RoleConfig:
    usual = {"ctx_size": 256, "threads": 1, "cache_type": "f32", "flash_attention": "off", "trusted": True}
    return RoleConfig(path, **usual | settings)  # type: ignore[arg-type]


@contextmanager
def opened(path: Path, slots: int = 2, *, mtp: bool = True, needed: bool = True, **settings: object) -> Iterator[Engine]:
    model = Model(role(path, **settings), mtp=mtp)
    engine = Engine(model, role(path, **settings), slots, mtp=mtp)
    if needed and engine.head is None:
        model.close()
        pytest.skip("this llama.cpp does not run a head of such a model")
    try:
        yield engine
    finally:
        engine.close()
        model.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A target of each kind of memory, with a head that guesses anything and with one that guesses right, and a draft."""
    folder, made = tmp_path_factory.mktemp("mtp"), dict[str, Path]()
    for kind in KINDS:
        made[kind] = write_mtp_model(folder / f"{kind}.gguf", kind, 2)
        made[f"{kind}-right"] = write_mtp_model(folder / f"{kind}-right.gguf", kind, 1, right=True)
    return made | {"draft": write_mtp_model(folder / "draft.gguf", seed=3, head=False)}


def write(sequence: Sequence, sampling: Sampling, tokens: int, guessing: bool, step: int = 0) -> list[int]:
    """Some tokens, as the target writes them."""
    made: list[int] = []
    while len(made) < tokens:
        stream, skip, most = Stream(sampling.seed, 1, step=step), len(made), min(4, tokens - len(made))
        guessed = sequence.guess(most, Draws(sampling, stream, skip)) if guessing else []
        hint = Hint(tuple(guessed), len(guessed), only=True, own=True)
        got = sequence.generate(Draws(sampling, stream, skip), tokens - len(made), hint=hint).future.result()
        made += got.tokens
        if got.ended == "end":
            break
    return made


def guesses_from_nothing(path: Path, tokens: list[int], most: int) -> list[int]:
    """What fresh contexts guess behind some tokens, of which the last is not decoded by the model itself."""
    params = C.llama_model_default_params()
    params.load_mtp, params.n_gpu_layers = True, 0
    model = C.llama_model_load_from_file(str(path).encode(), params)
    size = C.llama_context_default_params()
    size.n_ctx = size.n_batch = size.n_ubatch = 512
    size.n_threads = size.n_threads_batch = 1
    size.type_k = size.type_v = size.flash_attn_type = size.pooling_type = 0
    target = C.llama_init_from_model(model, size)
    head = C.llama_init_from_model(model, for_head(size, target))
    for one in (target, head):
        X.llama_set_embeddings_nextn(one, True, False)
    before = len(tokens) - 1
    assert C.llama_decode(target, C.llama_batch_get_one((C.llama_token * before)(*tokens[:before]), before)) == 0
    states = [np.zeros(WIDTH, np.float32), *states_of(target, 0, before, WIDTH)]
    batch, guessed, words = PairBatch(512, model), list[int](), C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
    batch.add_pairs(0, 0, tokens, states, 1)
    row = before
    while len(guessed) < most:
        assert C.llama_decode(head, batch.struct) == 0
        guessed.append(int(np.ctypeslib.as_array(C.llama_get_logits_ith(head, row), (words,)).argmax()))
        state = states_of(head, row, 1, WIDTH)
        batch.clear()
        batch.add_pairs(0, before + len(guessed), guessed[-1:], state, 1)
        row = 0
    C.llama_free(head)
    C.llama_free(target)
    C.llama_model_free(model)
    return guessed


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_with_guesses_is_the_text_without(files: dict[str, Path], name: str, sampling: Sampling) -> None:
    with opened(files[name], mtp=False, needed=False) as engine:
        wanted = write(engine.sequence(PROMPT), sampling, 40, guessing=False)
        assert engine.head is None and len(set(wanted)) > 3
    with opened(files[name]) as engine:
        plain, guessing = engine.sequence(PROMPT), engine.sequence(PROMPT)
        assert write(plain, sampling, 40, guessing=False) == wanted
        assert write(guessing, sampling, 40, guessing=True) == wanted
        counters = guessing.counters
        more = counters.evaluated_tokens - plain.counters.evaluated_tokens
        wrong = counters.ahead_tokens - counters.kept_tokens
        assert counters.ahead_tokens > 0 and more - wrong in (0, 1)  # 1: the last token of all was a guess


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("kind", KINDS)
def test_right_guesses_are_kept(files: dict[str, Path], kind: str, sampling: Sampling) -> None:
    with opened(files[f"{kind}-right"]) as engine:
        sequence = engine.sequence(PROMPT)
        made = write(sequence, sampling, 40, guessing=True)
        counters = sequence.counters
        assert counters.missed_guesses == 0
        assert counters.kept_tokens == counters.ahead_tokens > len(made) // 2
        assert counters.decode_calls <= 2 + len(made) // 5


@pytest.mark.parametrize("kind", KINDS)
def test_guesses_are_those_of_fresh_contexts_that_are_given_the_whole_text(files: dict[str, Path], kind: str) -> None:
    """Wherever the sequence has been before: a slip of one position, token or state changes what a random head guesses."""

    def check(sequence: Sequence) -> None:
        wanted = guesses_from_nothing(files[kind], list(sequence.tokens), 4)
        got = sequence.guess(4, Draws(GREEDY, Stream(0, 1)))
        assert got == wanted[: len(got)] and (len(got) == 4 or engine.model.is_end(got[-1]))
        checked.extend(got)

    checked: list[int] = []
    with opened(files[kind], slots=3) as engine:
        one = engine.sequence(PROMPT)
        assert one.guess(4, Draws(GREEDY, Stream(0, 1))) == []  # nothing is evaluated yet
        one.mark()
        write(one, WARM, 7, guessing=True)
        check(one)
        check(one)
        one.mark()
        write(one, WARM, 9, guessing=True, step=1)
        other = one.fork()
        write(other, WARM, 5, guessing=True, step=2)
        check(other)
        check(one)
        one.replace(len(one) - 6, [40, 41, 42])
        write(one, WARM, 3, guessing=True, step=3)
        check(one)
        check(other)
        text = list(other.tokens)
        other.close()
        again = engine.sequence([*text, 45, 46])  # goes on from what the closed one left
        write(again, WARM, 4, guessing=True, step=4)
        assert again.counters.cached_tokens > 0
        check(again)
    assert len(checked) > 20


@pytest.mark.parametrize("wrong", [1, 3, 4])
def test_a_recurrent_state_is_cut_only_where_llama_cpp_has_kept_it(files: dict[str, Path], wrong: int) -> None:
    """Otherwise the sequence goes back to its mark and evaluates again, and its state is right all the same."""
    with opened(files["hybrid"], slots=2) as engine:
        one = engine.sequence(PROMPT)
        one.mark()
        right = write(one, GREEDY, 9, guessing=False)
        one.truncate(len(PROMPT) + 2)
        hint = Hint((*right[2 : 6 - wrong], *[250] * wrong), 4, only=True)
        made = one.generate(Draws(GREEDY, Stream(0, 1)), 9, hint=hint).future.result().tokens
        assert made == right[2 : 7 - wrong]
        evaluated = one.counters.evaluated_tokens
        check_state(engine, one)
        assert one.counters.evaluated_tokens == evaluated + 1  # the last token: what was wrong is cut, and no more
        one.truncate(len(PROMPT) + 2)
        check_state(engine, one)
        assert one.counters.evaluated_tokens == evaluated + 3  # both tokens behind the mark


def check_state(engine: Engine, one: Sequence) -> None:
    fresh = engine.sequence(list(one.tokens))
    assert np.allclose(fresh.read_logits().result(), one.read_logits().result(), atol=1e-4)
    fresh.close()


def test_a_prompt_longer_than_a_batch_is_read_by_the_head_too(files: dict[str, Path]) -> None:
    prompt = [1, *(30 + place * 7 % 100 for place in range(420))]
    with opened(files["attention"], slots=1, ctx_size=500) as engine:
        sequence = engine.sequence(prompt)
        write(sequence, GREEDY, 1, guessing=True)
        wanted = guesses_from_nothing(files["attention"], list(sequence.tokens), 3)
        assert sequence.guess(3, Draws(GREEDY, Stream(0, 1))) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_several_texts_at_once_are_those_of_each_alone(files: dict[str, Path], kind: str) -> None:
    """Batches of one come between a batch of another and what is taken back of it."""
    prompts = [[*PROMPT, 40 + place] for place in range(3)]
    with opened(files[kind], slots=3) as engine:
        wanted = []
        for prompt in prompts:
            sequence = engine.sequence(prompt)
            wanted.append(write(sequence, WARM, 30, guessing=False))
            sequence.close()
        sequences = [engine.sequence(prompt) for prompt in prompts]
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(lambda one: write(one, WARM, 30, guessing=True), sequences))
        assert made == wanted


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("name", NAMES)
def test_a_target_writes_the_same_with_and_without_guesses(files: dict[str, Path], name: str, sampling: Sampling) -> None:
    strategies: list[Strategy] = ["target", "rsd", *(["speculative"] if name.startswith("attention") else [])]  # type: ignore[list-item]
    limits = Limits(tokens=60, step_tokens=15, repeats=0)
    trio = Trio(role(files["draft"]), role(files[name]), reward_kind="confidence", reuse=False)
    with opened(files[name]), Reasoner.open(trio) as reasoner:
        assert reasoner.engines()["target"].head is not None and reasoner.engines()["draft"].head is None
        for strategy in strategies:
            made = {}
            for fallback in get_args(Fallback):
                weighting = Weighting("constant", probability=0.3)
                params = Params(sampling, weighting, limits, Search(fallback=fallback))
                made[fallback] = reasoner.solve("1+1", params, strategy=strategy)
            assert made["on"].text == made["auto"].text == made["off"].text
            assert made["on"].counters["target"].ahead_tokens > 0
            if strategy == "target":
                assert made["off"].counters["target"].ahead_tokens == 0
                assert (made["on"].counters["target"].missed_guesses == 0) == name.endswith("right")


def test_a_head_that_ends_the_process_is_left_out(tmp_path: Path) -> None:
    path = write_mtp_model(tmp_path / "broken.gguf", experts=False)
    with opened(path, needed=False) as engine:
        assert engine.head is None
        assert len(write(engine.sequence(PROMPT), WARM, 5, guessing=True)) == 5


def test_a_head_is_tried_in_a_child_process_and_that_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mtp_model(tmp_path / "hybrid.gguf", "hybrid")
    with opened(path) as engine:
        assert engine.head is not None
    monkeypatch.setattr(rehearsal, "_try", None)
    monkeypatch.setattr(rehearsal, "_went_well", set())
    with opened(path) as engine:
        assert engine.head is not None


def test_without_a_head_or_the_calls_for_it_nothing_is_guessed(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(files["draft"], needed=False) as engine:
        assert engine.head is None
    monkeypatch.setattr("rsd_local.runtime.model.library_has_mtp", lambda: False)
    with opened(files["hybrid"], needed=False) as engine:
        assert engine.head is None and engine.takes_back == 0
        assert len(write(engine.sequence(PROMPT), WARM, 5, guessing=True)) == 5


class _Times:
    def __init__(self, first: float, more: float = 0.0) -> None:
        self.first, self.more = first, more

    def seconds(self, rows: int) -> float | None:
        return self.first + self.more * (rows - 1) if self.first else None


@pytest.mark.parametrize(("head", "pays"), [(_Times(0.0), True), (_Times(0.01), True), (_Times(0.9), False)])
def test_guesses_are_made_until_times_are_known_and_then_where_they_pay(head: _Times, pays: bool) -> None:
    target = SimpleNamespace(latency=_Times(1.0, 0.05), exact_rows=lambda most: most)
    own = OwnGuesses(cast("Any", target), cast("Any", SimpleNamespace(latency=head)), "auto")
    assert own.pays is pays
    assert own.beats(_Times(0.5), 0.8) is pays and OwnGuesses(target, SimpleNamespace(latency=head), "on").pays  # type: ignore[arg-type]
    for _ in range(40):
        own._note((5, 6, 7), [8])
    assert own.pays is (head.first == 0.0)
