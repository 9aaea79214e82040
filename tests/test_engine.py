"""The engine under use, misuse and company."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import EngineMaker
from tiny import CONTEXT, write_model

import rsd_local
from rsd_local.config import RoleConfig, Sampling
from rsd_local.errors import Cancelled, Closed, ContextFull, DecodeFailed, EngineError, ModelNotFound, NoSlot, NotAModel, SequenceBusy
from rsd_local.events import CancelToken
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws, Engine, Model, Sequence
from rsd_local.runtime.batch import Batch

PROMPT = [1, *range(20, 50)]
GREEDY = Sampling()
BATCH_ADD = Batch.add


def draws(sampling: Sampling = GREEDY) -> Draws:
    return Draws(sampling, Stream(sampling.seed, TARGET))


def written(sequence: Sequence, prompt: list[int], count: int, sampling: Sampling = GREEDY) -> list[int]:
    sequence.append(prompt)
    return sequence.generate(draws(sampling), count).future.result().tokens


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Nothing is decoded until all that is asked inside has been asked."""
    gate = threading.Event()
    engine.device.order(gate.wait)  # type: ignore[arg-type]
    try:
        yield
    finally:
        gate.set()


def prompts(count: int) -> list[list[int]]:
    return [[1, *np.random.default_rng(number).integers(3, 259, 12 + 5 * number).tolist()] for number in range(count)]


@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(temperature=0.8, seed=5), Sampling(temperature=1.0, top_k=20, top_p=0.9, min_p=0.02, seed=5)]
)
def test_sequences_in_one_batch_write_what_each_writes_alone(tiny: dict[str, Path], open_engine: EngineMaker, sampling: Sampling) -> None:
    # Without fused attention the shapes of batches change a logit by 1e-6, not by 1e-3: then draws can be compared too.
    engine = open_engine(tiny["dense"], slots=8, flash_attention="off")
    alone = []
    for prompt in prompts(8):
        sequence = engine.sequence()
        alone.append(written(sequence, prompt, 40, sampling))
        sequence.close()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: written(engine.sequence(), prompt, 40, sampling), prompts(8)))
    assert together == alone


def test_sequences_that_generate_at_once_share_their_decodes(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], slots=4)
    sequences = [engine.sequence() for _ in range(4)]
    for sequence in sequences:
        sequence.append(PROMPT)
    with held(engine):  # no decode starts until all four have asked
        futures = [sequence.generate(draws(), 50).future for sequence in sequences]
    for future in futures:
        future.result()
    rows, calls = sum(s.counters.evaluated_tokens for s in sequences), max(s.counters.decode_calls for s in sequences)
    assert rows == 4 * (len(PROMPT) + 49)
    assert calls <= 53, "each pass over the weights serves all four"


def test_a_long_prompt_holds_others_up_by_one_chunk_at_most(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], slots=2, ctx_size=CONTEXT)
    long, short = engine.sequence(), engine.sequence()
    long.append([1] * (3 * engine.chunk))
    short.append(PROMPT)
    with held(engine):
        reading, writing = long.read_logits(), short.generate(draws(), 20).future
    assert len(writing.result().tokens) == 20
    reading.result()
    assert long.counters.decode_calls >= 3


def test_a_cancelled_call_leaves_no_trace(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], ctx_size=CONTEXT)
    cancelled, untouched, cancel = engine.sequence(), engine.sequence(), CancelToken()
    cancelled.append(PROMPT)
    future = cancelled.generate(draws(), 400, cancel=cancel).future
    cancel.cancel()
    with pytest.raises(Cancelled):
        future.result()
    assert cancelled.tokens == PROMPT
    assert cancelled.generate(draws(), 30).future.result().tokens == written(untouched, PROMPT, 30)


def test_a_cancel_is_felt_within_one_chunk_of_a_long_prompt(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], ctx_size=CONTEXT)
    sequence, cancel = engine.sequence(), CancelToken()
    sequence.append([7] * CONTEXT)
    with held(engine):  # whatever was scheduled before the cancel waits here
        reading = sequence.read_logits(cancel)
        cancel.cancel()
    with pytest.raises(Cancelled):
        reading.result()
    assert sequence.counters.evaluated_tokens < 2 * engine.chunk < CONTEXT
    assert np.isfinite(sequence.read_logits().result()).all(), "and the prompt can be read on from there"
    assert sequence.counters.evaluated_tokens == CONTEXT


def test_loading_reports_its_progress(tiny: dict[str, Path]) -> None:
    shares: list[float] = []
    Model(RoleConfig(tiny["dense"]), shares.append).close()
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_the_engine_goes_on_after_every_misuse(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], slots=2)
    sequence = engine.sequence()
    with pytest.raises(EngineError, match="nothing to go on from"):
        sequence.generate(draws(), 1)
    for token in (-1, engine.model.n_vocab):
        with pytest.raises(EngineError, match="outside the vocabulary"):
            sequence.append([token])
    with pytest.raises(ContextFull, match="do not fit the context of 256"):
        sequence.append([5] * 257)
    with pytest.raises(EngineError, match="cannot cut"):
        sequence.truncate(3)
    sequence.append(PROMPT)
    with held(engine):
        future = sequence.generate(draws(), 10).future
        for misuse in (lambda: sequence.append([5]), lambda: sequence.truncate(1), sequence.fork, sequence.read_logits, sequence.mark):
            with pytest.raises(SequenceBusy):
                misuse()
    assert len(future.result().tokens) == 10
    other = engine.sequence()
    with pytest.raises(NoSlot):
        engine.sequence()
    other.close()
    other.close()
    with pytest.raises(Closed):
        other.append([5])
    assert len(written(engine.sequence(), PROMPT, 5)) == 5


def test_a_full_context_ends_a_generation_and_not_the_engine(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], ctx_size=64)
    sequence = engine.sequence()
    sequence.append(PROMPT)
    made = sequence.generate(draws(), 1000).future.result()
    assert (made.ended, len(sequence)) == ("context", 64)
    assert engine.positions(sequence) == (0, 62)
    assert len(written(engine.sequence(), PROMPT, 5)) == 5


def test_closing_ends_what_is_in_flight(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"], ctx_size=CONTEXT)
    kept, closed = engine.sequence(), engine.sequence()
    for sequence in (kept, closed):
        sequence.append(PROMPT)
    with held(engine):
        futures = [sequence.generate(draws(), 400).future for sequence in (closed, kept)]
        closed.close()
    with pytest.raises(Closed):
        futures[0].result()
    engine.close()
    with pytest.raises(Closed):
        futures[1].result()
    engine.close()
    for late in (engine.sequence, kept.read_logits, lambda: engine.positions(kept)):
        with pytest.raises(Closed):
            late()


def test_a_closed_model_closes_its_engines_first(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"])
    sequence = engine.sequence()
    sequence.append(PROMPT)
    engine.model.close()
    engine.model.close()
    for late in (sequence.read_logits, lambda: engine.model.tokenize("text"), lambda: engine.model.piece(200)):
        with pytest.raises(Closed):
            late()


def test_a_decode_that_llama_refuses_fails_alone(tiny: dict[str, Path], open_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that slips past the check makes llama.cpp refuse the whole batch; the others in it go on."""
    engine = open_engine(tiny["dense"], slots=3)
    good, bad = engine.sequence(), engine.sequence()
    good.append(PROMPT)
    bad.append(PROMPT)
    bad.tokens[-1] = 10**6
    with held(engine):
        right, wrong = good.generate(draws(), 20).future, bad.generate(draws(), 20).future
    with pytest.raises(DecodeFailed, match="could not be decoded"):
        wrong.result()
    assert right.result().tokens == written(engine.sequence(), PROMPT, 20)


def test_logits_that_are_no_numbers_are_an_error(tiny: dict[str, Path], tmp_path: Path, open_engine: EngineMaker) -> None:
    engine = open_engine(poisoned(tiny["dense"], tmp_path))
    sequence = engine.sequence()
    sequence.append(PROMPT)
    with pytest.raises(DecodeFailed, match="not finite"):
        sequence.generate(draws(), 3).future.result()


def poisoned(path: Path, folder: Path) -> Path:
    """A copy of a model whose final norm is NaN."""
    data = bytearray(path.read_bytes())
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "output_norm.weight")
    data[tensor.data_offset : tensor.data_offset + tensor.n_bytes] = np.full(tensor.n_bytes // 4, np.nan, np.float32).tobytes()
    made = folder / "poisoned.gguf"
    made.write_bytes(data)
    return made


def test_hidden_states_are_those_that_the_head_sees(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["dense"])
    sequence = engine.sequence()
    sequence.append(PROMPT)
    hidden = sequence.read_hidden().result()
    logits = engine.sequence()
    logits.append(PROMPT)
    head = next(t.data for t in gguf.GGUFReader(tiny["dense"]).tensors if t.name == "token_embd.weight")
    np.testing.assert_allclose(np.asarray(head) @ hidden, logits.read_logits().result(), atol=1e-3)


def test_files_that_are_no_models_are_refused_with_their_cause(tiny: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model file"):
        Model(RoleConfig(tmp_path / "absent.gguf"))
    with pytest.raises(ModelNotFound, match="directory"):
        Model(RoleConfig(tmp_path))
    text = tmp_path / "text.gguf"
    text.write_text("no model at all")
    with pytest.raises(NotAModel, match="not a GGUF file"):
        Model(RoleConfig(text))
    whole = tiny["dense"].read_bytes()
    for share in (0.001, 0.2, 0.6, 0.99):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(NotAModel, match="not a GGUF file that can be used: .+"):
            Model(RoleConfig(cut))


def test_a_quantized_cache_and_forced_flash_attention_reach_llama(tmp_path: Path, tiny: dict[str, Path]) -> None:
    """A quantized V cache without flash attention is something only llama.cpp refuses: the settings get there."""
    refused = RoleConfig(tiny["dense"], ctx_size=64, cache_type="q8_0", flash_attention="off")
    model = Model(refused)
    with pytest.raises(EngineError, match="cannot make a context"):
        Engine(model, refused)
    model.close()


def test_text_goes_in_and_out_unchanged(tmp_path: Path) -> None:
    model = Model(RoleConfig(write_model(tmp_path / "tiny.gguf")))
    for text in ("plain", "naïve – ки 日本 🎲", "a\n\nb ", "<s>", "\ud800"):
        tokens = model.tokenize(text)
        joined = b"".join(map(model.piece, tokens)).decode()
        assert joined.removeprefix(" ") == text.encode("utf-8", "replace").decode()
        continued = model.tokenize(text, continues=True)
        assert b"".join(map(model.piece, continued)).decode() == text.encode("utf-8", "replace").decode()
    assert model.tokenize("<s>") != [1] and model.tokenize("<s>", special=True)[-1] == 1
    model.close()


@pytest.mark.parametrize("name", ["dense", "smollm2", "abacus-target"])
def test_exact_rows_are_those_whose_logits_a_batch_does_not_change(
    name: str, tiny: dict[str, Path], smollm2: Path, open_engine: EngineMaker
) -> None:
    abacus = Path(rsd_local.__file__).parent / "abacus/models/abacus-target.gguf"
    engine = open_engine({"dense": tiny["dense"], "smollm2": smollm2, "abacus-target": abacus}[name], cache_type="f16", threads=1)

    def after(parts: list[list[int]]) -> np.ndarray:
        sequence = engine.sequence()
        for part in parts:
            sequence.append(part)
            logits = sequence.read_logits().result()
        sequence.close()
        return logits

    tokens = np.random.default_rng(1).integers(3, 200, 28).tolist()
    prefix, rest = tokens[:20], tokens[20:]
    free = engine.sequence()
    exact = free.exact_rows(8)
    for rows in range(2, 9):
        same = np.array_equal(after([prefix, rest[:rows]]), after([prefix, *([token] for token in rest[:rows])]))
        assert same or rows > exact
        assert not same or rows != exact + 1  # how many are exact is the machine's; that no more are claimed, and no fewer, is not
    assert engine.positions(free) == (-1, -1) and free.exact_rows(2) == min(exact, 2)
    written(free, prefix, 1)
    assert free.exact_rows(8) == exact
    assert engine.positions(free) == (0, len(prefix) - 1)
    before = free.read_logits().result()
    assert free.exact_rows(3) == min(exact, 3) and engine.positions(free) == (-1, -1)  # tried in its slot, which is emptied for it
    np.testing.assert_allclose(free.read_logits().result(), before, atol=0.5)


def test_models_that_cannot_cut_have_no_exact_batches(tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    engine = open_engine(tiny["recurrent"])
    assert engine.sequence().exact_rows(8) == 1


def test_what_fails_between_two_batches_reaches_its_caller_and_the_engine_goes_on(
    tiny: dict[str, Path], open_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(tiny["dense"])
    with monkeypatch.context() as patch:
        patch.setattr(engine._rounding, "_batch", Batch(256))  # a row outside the cache is refused by llama.cpp
        patch.setattr(Batch, "add", lambda self, slot, position, tokens, outputs: BATCH_ADD(self, 99, position, tokens, outputs))
        with pytest.raises(DecodeFailed):
            engine.sequence().exact_rows(4)
    assert engine.sequence().exact_rows(4) == 1
    assert len(written(engine.sequence(), PROMPT, 5)) == 5
