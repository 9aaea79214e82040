"""A model's multi-token head (MTP): its guesses cost or save time, and never change what is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import llama_cpp as C
from tiny_mtp import KINDS, WIDTH, write_mtp_model

from rsd_local import Params, Reasoner, RewardConfig, RoleConfig, Sampling, Trio
from rsd_local.config import Limits, Search
from rsd_local.events import Finished
from rsd_local.roles import Hint, Stream
from rsd_local.runtime import Draws, Engine, Model, Sequence
from rsd_local.runtime.mtp_support import PairBatch, X, for_head, library_has_mtp, states_of

pytestmark = pytest.mark.skipif(not library_has_mtp(), reason="this llama-cpp-python has no multi-token heads")
PROMPT = [1, 30, 31, 32, 33, 34, 35, 36]
GREEDY, WARM = Sampling(), Sampling(temperature=0.8, seed=5)


def role(path: Path, **settings: object) -> RoleConfig:
    return RoleConfig(path, **{"ctx_size": 256, "threads": 1, "cache_type": "f32", "flash_attention": "off", **settings})


@contextmanager
def opened(path: Path, slots: int = 2, **settings: object) -> Iterator[Engine]:
    model = Model(role(path, **settings), mtp=True)
    engine = Engine(model, role(path, **settings), slots, mtp=True)
    try:
        yield engine
    finally:
        engine.close()
        model.close()


@pytest.fixture(params=list(KINDS), scope="module")
def random(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mtp_model(tmp_path_factory.mktemp("mtp") / f"{request.param}.gguf", request.param)


@pytest.fixture(params=list(KINDS), scope="module")
def right(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mtp_model(tmp_path_factory.mktemp("mtp") / f"right-{request.param}.gguf", request.param, right=True)


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
    size.n_ctx = size.n_batch = size.n_ubatch = 256
    size.n_threads = size.n_threads_batch = 1
    size.type_k = size.type_v = size.flash_attn_type = size.pooling_type = 0
    target = C.llama_init_from_model(model, size)
    head = C.llama_init_from_model(model, for_head(size, target))
    for one in (target, head):
        X.llama_set_embeddings_nextn(one, True, False)
    before = len(tokens) - 1
    assert C.llama_decode(target, C.llama_batch_get_one((C.llama_token * before)(*tokens[:before]), before)) == 0
    states = [np.zeros(WIDTH, np.float32), *states_of(target, 0, before, WIDTH)]
    batch, guessed, words = PairBatch(256, model), list[int](), C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
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
def test_the_text_with_guesses_is_the_text_without(random: Path, right: Path, sampling: Sampling) -> None:
    for path in (random, right):
        with opened(path) as engine:
            plain, guessing = engine.sequence(PROMPT), engine.sequence(PROMPT)
            wanted = write(plain, sampling, 40, guessing=False)
            assert write(guessing, sampling, 40, guessing=True) == wanted
            assert guessing.counters.ahead_tokens > 0


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_right_guesses_are_kept(right: Path, sampling: Sampling) -> None:
    with opened(right) as engine:
        sequence = engine.sequence(PROMPT)
        made = write(sequence, sampling, 40, guessing=True)
        counters = sequence.counters
        assert counters.missed_guesses == 0
        assert counters.kept_tokens == counters.ahead_tokens > len(made) // 2
        assert counters.decode_calls <= len(made) // 3


def test_guesses_are_those_of_fresh_contexts_that_are_given_the_whole_text(random: Path) -> None:
    with opened(random) as engine:
        sequence = engine.sequence(PROMPT)
        for step in range(4):
            write(sequence, WARM, 7, guessing=True, step=step)
            text = list(sequence.tokens)
            assert sequence.guess(4, Draws(GREEDY, Stream(0, 1))) == guesses_from_nothing(engine.model.path, text, 4)
