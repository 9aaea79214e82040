"""The reader of GGUF headers: what it reads is what the file says, and nothing that is broken gets past it."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import gguf
import pytest
from changed import write_changed
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp import llama_cpp

from rsd_local.errors import ModelNotFound, NotAModel
from rsd_local.gguf_header import BLOCKS, read_header


def test_it_reads_what_the_file_says(tiny: dict[str, Path], smollm2: Path) -> None:
    for path in (*tiny.values(), smollm2):
        header, other = read_header(path), gguf.GGUFReader(path)
        assert [tensor.name for tensor in header.tensors] == [tensor.name for tensor in other.tensors]
        assert [tensor.size for tensor in header.tensors] == [int(tensor.n_bytes) for tensor in other.tensors]
        assert [tensor.shape for tensor in header.tensors] == [tuple(int(side) for side in tensor.shape) for tensor in other.tensors]
        keys = {key for key in other.fields if not key.startswith("GGUF.")}
        assert set(header.metadata) == keys
        for key in keys:
            value = header.metadata[key]
            if isinstance(value, str | int | float):
                assert value == other.fields[key].contents()


def test_sizes_of_blocks_are_those_of_the_format() -> None:
    """Those that this llama.cpp has itself; it gives 0 for types that were taken out."""
    library = llama_cpp._lib
    library.ggml_blck_size.restype, library.ggml_type_size.restype = ctypes.c_int64, ctypes.c_size_t
    own = {kind: (library.ggml_blck_size(kind), library.ggml_type_size(kind)) for kind in range(max(BLOCKS) + 1)}
    assert {kind: sizes for kind, sizes in own.items() if sizes[1]} == BLOCKS


def broken(path: Path, data: bytes, words: str) -> None:
    path.write_bytes(data)
    with pytest.raises(NotAModel, match=words):
        read_header(path)


def test_each_rule_refuses_what_breaks_it(tiny: dict[str, Path], tmp_path: Path) -> None:
    whole = tiny["dense"].read_bytes()
    path = tmp_path / "broken.gguf"
    broken(path, b"", "is empty")
    broken(path, b"GGML" + whole[4:], "does not begin with GGUF")
    broken(path, whole[:4] + struct.pack("<I", 1) + whole[8:], "version is 1")
    broken(path, whole[:4] + struct.pack(">I", 3) + whole[8:], "big-endian")
    broken(path, whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:], "tensors, more than")
    broken(path, whole[:16] + struct.pack("<Q", 1 << 60) + whole[24:], "keys, more than")
    broken(path, whole[:24] + struct.pack("<Q", 1 << 60) + whole[32:], "a key claims")
    broken(path, whole[:2_000], "header is cut off")
    broken(path, whole[:-1], "lies outside|cut off")
    place = whole.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight")
    broken(path, whole[:place] + struct.pack("<I", 9) + whole[place + 4 :], "9 dimensions")
    broken(path, whole[: place + 4] + struct.pack("<Q", 0) + whole[place + 12 :], "has the shape")
    broken(path, whole[: place + 20] + struct.pack("<I", 99) + whole[place + 24 :], "type 99")
    broken(path, whole[: place + 24] + struct.pack("<Q", 33) + whole[place + 32 :], "not aligned")
    broken(path, whole[: place + 24] + struct.pack("<Q", 1 << 62) + whole[place + 32 :], "outside the file")
    broken(path, whole.replace(b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight"), "stands there twice")
    for missing in (tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(ModelNotFound):
            read_header(missing)


EXTREME = [0, 1, 1 << 20, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1]
SPAN = 4_000  # bytes of a tiny model's header
mutations = st.lists(
    st.one_of(
        st.tuples(st.just("byte"), st.integers(4, SPAN), st.integers(0, 255)),
        st.tuples(st.just("number"), st.integers(4, SPAN), st.sampled_from(EXTREME)),
        st.tuples(st.just("cut"), st.integers(4, SPAN), st.integers(1, 64)),
        st.tuples(st.just("double"), st.integers(4, SPAN), st.integers(1, 64)),
    ),
    min_size=1,
    max_size=3,
)


def mutated(whole: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    """The file with bytes changed, numbers made extreme, parts cut out or doubled."""
    data = bytearray(whole)
    for kind, place, amount in changes:
        if kind == "byte":
            data[place] = amount
        elif kind == "number":
            data[place : place + 8] = struct.pack("<Q", amount)
        elif kind == "cut":
            del data[place : place + amount]
        else:
            data[place:place] = data[place : place + amount]
    return bytes(data)


def test_ten_thousand_mutated_headers_are_accepted_or_refused(tiny: dict[str, Path], tmp_path: Path) -> None:
    whole, path = tiny["dense"].read_bytes(), tmp_path / "mutated.gguf"
    assert SPAN < whole.index(b"output_norm.weight") + 200
    outcomes: Counter[str] = Counter()

    @settings(max_examples=10_000, derandomize=True, database=None, deadline=timedelta(seconds=2))
    @given(mutations)
    def read(changes: list[tuple[str, int, int]]) -> None:
        path.write_bytes(mutated(whole, changes))
        try:
            read_header(path)
            outcomes["accepted"] += 1
        except NotAModel:
            outcomes["refused"] += 1

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read()
    assert outcomes.total() >= 10_000 and min(outcomes["accepted"], outcomes["refused"]) > 500, outcomes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_claim_costs_nothing(tmp_path: Path) -> None:
    """A file of 100 bytes that claims four billion texts is refused at once."""
    path = tmp_path / "claim.gguf"
    array = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 32)
    broken(path, b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array + bytes(40), "elements, more than")
    numbers = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 10, 10_000_000)
    broken(path, b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + numbers + bytes(40), "cut off")


def test_arrays_are_found_where_they_lie(tiny: dict[str, Path], smollm2: Path) -> None:
    for path in (tiny["hybrid"], smollm2):
        header, other, whole = read_header(path), gguf.GGUFReader(path), path.read_bytes()
        assert set(header.arrays) == {key for key, field in other.fields.items() if field.types[:1] == [gguf.GGUFValueType.ARRAY]}
        for key, array in header.arrays.items():
            values = other.fields[key].contents()
            assert array.count == len(values)
            if array.type == 8:
                texts = [text.encode() for text in values]
                assert whole[array.start : array.end] == b"".join(struct.pack("<Q", len(text)) + text for text in texts)
                assert array.longest == max(map(len, texts))
            else:
                form = {5: "i", 6: "f"}[array.type]
                assert list(struct.unpack(f"<{array.count}{form}", whole[array.start : array.end])) == values and array.longest == 0
        first = min(int(tensor.data_offset) for tensor in other.tensors)
        assert first - gguf.GGUF_DEFAULT_ALIGNMENT < header.end <= first


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        reading = ThreadPoolExecutor().submit(read_header, path)
        with pytest.raises(NotAModel, match="no regular file"):
            reading.result(timeout=10)


U32, F32, I32, U16 = (gguf.GGUFValueType[name] for name in ("UINT32", "FLOAT32", "INT32", "UINT16"))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("dense", {"llama.block_count": (0, U32)}, "claims 0 layers"),
        ("hybrid", {"lfm2.block_count": (40, U32)}, "claims 40 layers and has "),
        ("sliding", {"gemma3.attention.head_count": (0, U32)}, "claims 0 attention heads"),
        ("hybrid", {"lfm2.attention.head_count": ([0, 0], I32)}, "claims 0 attention heads"),
        ("dense", {"llama.attention.layer_norm_rms_epsilon": (-1e-5, F32)}, "epsilon is -"),
        ("dense", {"llama.rope.freq_base": (float("inf"), F32)}, "rope.freq_base is inf"),
        ("dense", {"tokenizer.ggml.model": ("no_vocab", gguf.GGUFValueType.STRING)}, "no vocabulary"),
        ("dense", {"tokenizer.ggml.scores": ([0.5] * 264, F32)}, "has 265 tokens, and tokenizer.ggml.scores is of 264"),
    ],
)
def test_a_value_that_no_model_has_is_refused(kind: str, values: dict[str, Any], words: str, tiny: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match=words):
        read_header(write_changed(tiny[kind], tmp_path / "changed.gguf", values))


@pytest.mark.parametrize(
    "values",
    [
        {"tokenizer.ggml.eos_token_id": (265, U32), "tokenizer.ggml.bos_token_id": ((1 << 32) - 1, U32)},
        {"llama.rope.scaling.factor": (0.0, F32), "llama.rope.freq_base": (0.0, F32)},
        {"llama.attention.layer_norm_rms_epsilon": (0.0, F32)},
        {"tokenizer.ggml.token_type": ([1] * 400, I32)},
    ],
)
def test_a_value_that_real_files_have_is_not_refused(values: dict[str, Any], tiny: dict[str, Path], tmp_path: Path) -> None:
    read_header(write_changed(tiny["dense"], tmp_path / "changed.gguf", values))
