"""Models in several files: all parts are found by the first, count, and what is not whole is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from changed import Kind, write_changed, write_parts
from conftest import EngineMaker

from rsd_local.config import RoleConfig
from rsd_local.errors import ModelNotFound, NotAModel
from rsd_local.fit import RoleCapacity
from rsd_local.fit.memory import Footprint
from rsd_local.gguf_header import part_names, parts, read_header


@pytest.fixture
def split(tiny: dict[str, Path], tmp_path: Path) -> tuple[Path, ...]:
    return write_parts(tiny["dense"], tmp_path / "m.gguf")


def test_a_name_tells_the_names_of_all_parts() -> None:
    assert part_names("q4/m-00002-of-00003.gguf") == tuple(f"q4/m-0000{number}-of-00003.gguf" for number in (1, 2, 3))
    for alone in ("m.gguf", "m-1-of-3.gguf", "m-00000-of-00003.gguf", "m-00004-of-00003.gguf", "m-00001-of-00003.gguf.part"):
        assert part_names(alone) == (alone,)
    assert part_names("m-00001-of-00001.gguf") == ("m-00001-of-00001.gguf",)


def test_all_parts_of_a_model_are_found_and_count(split: tuple[Path, ...], tiny: dict[str, Path]) -> None:
    assert parts(split[0]) == split and parts(tiny["dense"]) == (tiny["dense"],)
    whole, header = read_header(tiny["dense"]), read_header(split[0])
    assert header.files == split and header.size == sum(part.stat().st_size for part in split)
    assert [tensor.name for tensor in header.tensors] == [tensor.name for tensor in whole.tensors]
    one, several = (
        Footprint.of(made, RoleCapacity(RoleConfig(path), 1), on_gpu=False) for made, path in ((whole, tiny["dense"]), (header, split[0]))
    )
    assert one == several


def test_llama_cpp_loads_all_parts(split: tuple[Path, ...], tiny: dict[str, Path], open_engine: EngineMaker) -> None:
    assert open_engine(split[0]).model.n_params == open_engine(tiny["dense"]).model.n_params


@pytest.mark.parametrize("missing", [1, 2])
def test_a_part_that_is_not_there_is_named(split: tuple[Path, ...], missing: int) -> None:
    split[missing].unlink()
    for read in (parts, read_header):
        with pytest.raises(ModelNotFound, match=f"m-00001-of-00003.gguf is one of 3 parts, and {split[missing].name} is not beside it"):
            read(split[0])


def test_a_later_part_names_the_first(split: tuple[Path, ...]) -> None:
    with pytest.raises(NotAModel, match="is part 2 of 3 of a model") as caught:
        read_header(split[1])
    assert caught.value.hint == "give the first part, m-00001-of-00003.gguf"


def test_a_part_under_another_name_is_refused(split: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="is one of 3 parts, and its name does not say so"):
        parts(Path(shutil.copy(split[0], tmp_path / "renamed.gguf")))
    with pytest.raises(NotAModel, match="is one of 3 parts, and its name does not say so"):
        parts(Path(shutil.copy(split[0], tmp_path / "m-00001-of-00002.gguf")))
    shutil.copy(split[1], split[0])
    with pytest.raises(NotAModel, match=r"another part of its model than its name says: split\.no is 1"):
        parts(split[0])


def test_parts_that_do_not_belong_together_are_refused(split: tuple[Path, ...], tiny: dict[str, Path]) -> None:
    third = split[2].read_bytes()
    shutil.copy(split[1], split[2])
    with pytest.raises(NotAModel, match="m-00003-of-00003.gguf is not the part of m-00001-of-00003.gguf that its name says"):
        read_header(split[0])
    split[2].write_bytes(third[:-100])
    with pytest.raises(NotAModel, match="m-00003-of-00003.gguf is not a GGUF file that can be used"):
        read_header(split[0])
    # A whole model under the name of the last part has tensors that the first part has too.
    write_changed(tiny["dense"], split[2], {"split.no": (2, Kind.UINT16), "split.count": (3, Kind.UINT16)})
    with pytest.raises(NotAModel, match=r"both have the tensor 'token_embd\.weight'"):
        read_header(split[0])


def test_a_file_that_was_never_split_may_have_any_name(tiny: dict[str, Path], tmp_path: Path) -> None:
    for name in ("m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00001-of-00001.gguf"):
        path = Path(shutil.copy(tiny["dense"], tmp_path / name))
        assert parts(path) == read_header(path).files == (path,)
