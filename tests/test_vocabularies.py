"""Which tokens two model files have in common: by their texts and types, however their sizes were rounded up."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed import Kind, write_changed
from tiny import VOCABULARY, write_model

from rsd_local.config import RoleConfig
from rsd_local.gguf_header import read_header
from rsd_local.runtime import Model
from rsd_local.runtime.vocabulary import Vocabulary

SIZE = len(VOCABULARY)
PADDED = [*VOCABULARY, *(f"[PAD{SIZE + place}]" for place in range(40))]


def vocabulary(folder: Path, words: list[str], values: dict[str, tuple[Any, Kind]] | None = None) -> Vocabulary:
    plain = write_model(folder / "plain.gguf", vocabulary=words)
    path = write_changed(plain, folder / "changed.gguf", values or {})
    return Vocabulary.read(path, read_header(path))


def types(**new: int) -> dict[str, tuple[Any, Kind]]:
    usual = [2, 3, 3, *[6] * 256, *[1] * (SIZE - 259)]
    return {"tokenizer.ggml.token_type": ([new.get(f"t{place}", kind) for place, kind in enumerate(usual)], Kind.INT32)}


@pytest.fixture
def models(tmp_path: Path) -> Iterator[dict[str, Model]]:
    words = {"plain": VOCABULARY, "padded": PADDED, "other": [*VOCABULARY[:-1], "zz"]}
    made = {
        name: Model(RoleConfig(write_model(tmp_path / f"{name}.gguf", vocabulary=texts), trusted=True)) for name, texts in words.items()
    }
    yield made
    for model in made.values():
        model.close()


def test_models_have_their_vocabulary_in_common_whatever_its_padding(models: dict[str, Model]) -> None:
    plain, padded, other = models["plain"], models["padded"], models["other"]
    assert plain.common_tokens(plain) == SIZE and padded.common_tokens(padded) == SIZE + 40
    assert plain.common_tokens(padded) == padded.common_tokens(plain) == SIZE
    assert plain.common_tokens(other) == other.common_tokens(padded) == 0


def test_a_file_has_all_its_tokens_in_common_with_itself(tmp_path: Path, smollm2: Path) -> None:
    header = read_header(smollm2)
    assert Vocabulary.read(smollm2, header).common(Vocabulary.read(smollm2, header)) == 49_152


@pytest.mark.parametrize("place", [0, 130, SIZE - 1])
def test_one_other_text_or_type_and_nothing_is_common(place: int, tmp_path: Path) -> None:
    plain = vocabulary(tmp_path, VOCABULARY)
    assert plain.common(vocabulary(tmp_path, [*VOCABULARY[:place], "zz", *VOCABULARY[place + 1 :]])) == 0
    assert plain.common(vocabulary(tmp_path, VOCABULARY, types(**{f"t{place}": 4}))) == 0
    assert plain.common(vocabulary(tmp_path, VOCABULARY, types())) == SIZE


def test_texts_of_equal_bytes_are_compared_one_by_one(tmp_path: Path) -> None:
    one, two = vocabulary(tmp_path, [*VOCABULARY, "ab", "c"]), vocabulary(tmp_path, [*VOCABULARY, "a", "bc"])
    assert one.common(two) == 0


def test_another_kind_of_tokenizer_has_nothing_in_common(tmp_path: Path) -> None:
    other = {"tokenizer.ggml.model": ("gpt2", Kind.STRING)}
    assert vocabulary(tmp_path, VOCABULARY).common(vocabulary(tmp_path, VOCABULARY, other)) == 0


def test_what_stands_before_different_fillers_is_common(tmp_path: Path) -> None:
    padded = vocabulary(tmp_path, PADDED)
    assert padded.common(vocabulary(tmp_path, [*VOCABULARY, "<unused0>", "<unused1>"])) == SIZE
    unused = (
        types() | {"tokenizer.ggml.tokens": ([*VOCABULARY[:-2], "x", "y"], Kind.STRING)} | types(**{f"t{SIZE - 2}": 5, f"t{SIZE - 1}": 5})
    )
    fillers = vocabulary(tmp_path, VOCABULARY, unused)
    assert fillers.common(vocabulary(tmp_path, [*VOCABULARY[:-2], "[PAD1]", "dummy00001"])) == SIZE - 2


def test_further_words_are_no_padding(tmp_path: Path) -> None:
    padded = vocabulary(tmp_path, PADDED)
    assert padded.common(vocabulary(tmp_path, [*VOCABULARY, "▁day"])) == 0
    assert vocabulary(tmp_path, VOCABULARY).common(vocabulary(tmp_path, [*PADDED, "▁day"])) == 0


def test_a_file_without_token_types_has_normal_tokens(tmp_path: Path) -> None:
    none = vocabulary(tmp_path, VOCABULARY, {"tokenizer.ggml.token_type": (None, Kind.INT32)})
    assert none.common(vocabulary(tmp_path, VOCABULARY, types(**{f"t{place}": 1 for place in range(SIZE)}))) == SIZE
    assert none.common(vocabulary(tmp_path, VOCABULARY)) == 0


def test_a_file_without_tokens_has_nothing_in_common(tmp_path: Path) -> None:
    none = vocabulary(tmp_path, VOCABULARY, {"tokenizer.ggml.tokens": (None, Kind.STRING)})
    assert none.common(none) == 0 and none.repeated() is None


def test_a_text_that_two_tokens_have_is_found(tmp_path: Path) -> None:
    assert vocabulary(tmp_path, [*VOCABULARY, "ки"]).repeated() == "ки"
    assert vocabulary(tmp_path, [*VOCABULARY, "", ""]).repeated() is None, "llama.cpp gives empty ones a name"
    assert vocabulary(tmp_path, PADDED).repeated() is None


def test_large_vocabularies_are_compared_at_once() -> None:
    """150,000 tokens that part at the fillers at their end, the slowest case: some 30 ms, where llama.cpp's calls take 300."""
    words = [f"token {place}".encode() for place in range(150_000)]
    texts = b"".join(struct.pack("<Q", len(word)) + word for word in [*words, b"[PAD1]", b"[PAD2]"])
    one = Vocabulary("gpt2", 150_002, texts, np.ones(150_002, np.int32))
    two = replace(one, texts=texts.replace(b"[PAD1]", b"[PAD7]"))
    begun = time.perf_counter()
    assert one.common(two) == 150_000
    assert time.perf_counter() - begun < 0.3
