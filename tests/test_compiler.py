"""A library says which compilers made it; only those known to be sound switch AMX on."""

import struct
import sys
from pathlib import Path

import pytest

from rsd_local.runtime import compiler, llama

SOUND = b"GCC: (GNU) 14.2.1 20250110 (Red Hat 14.2.1-7)\0"


def elf(comment: bytes, name: bytes = b".comment") -> bytes:
    """An ELF file of 64 bits with one section beside its table of names."""
    names = b"\0.shstrtab\0" + name + b"\0"
    table = 64 + len(names) + len(comment)
    head = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<QIHHHHHH", table, 0, 64, 0, 0, 64, 3, 1)

    def row(at: int, offset: int, length: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, offset, length, 0, 0, 1, 0)

    return head + names + comment + row(0, 0, 0) + row(1, 64, len(names)) + row(11, 64 + len(names), len(comment))


@pytest.mark.parametrize(
    ("comment", "sound"),
    [
        (SOUND, True),
        (b"GCC: (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0\0", True),
        (b"GCC: (GNU) 13.2.0\0", False),
        (b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0", False),
        (SOUND + b"GCC: (GNU) 12.2.0\0", False),  # one object of two
        (SOUND + b"clang version 18.1.3\0", False),  # not looked at
        (b"GCC: (GNU 15.1.0)\0", True),
        (b"GCC: (built by 15) \xff\0", False),
        (b"", False),
    ],
)
def test_only_a_library_of_sound_compilers_is_sound(tmp_path: Path, comment: bytes, sound: bool) -> None:
    file = tmp_path / "libggml-cpu.so"
    file.write_bytes(elf(comment))
    assert compiler.section(file, b".comment") == comment
    assert compiler.amx_is_sound(file) == sound


def test_a_section_of_another_name_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "libggml-cpu.so"
    file.write_bytes(elf(SOUND, b".commentary"))
    assert compiler.section(file, b".comment") == b"" and not compiler.amx_is_sound(file)


def test_no_damaged_file_raises_or_is_sound(tmp_path: Path) -> None:
    file, whole = tmp_path / "libggml-cpu.so", elf(SOUND)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert not compiler.amx_is_sound(file), length
    for place in range(40, 64):  # the table's place and size, and the number of the names
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        compiler.amx_is_sound(file)
    assert not compiler.amx_is_sound(tmp_path / "not there") and not compiler.amx_is_sound(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what a process has loaded")
def test_the_loaded_library_names_its_compiler() -> None:
    kernels = compiler.loaded_kernels()
    assert kernels and all(
        b"GCC" in compiler.section(path, b".comment") or b"clang" in compiler.section(path, b".comment") for path in kernels
    )


@pytest.mark.parametrize(
    ("info", "said", "comment", "repacks"),
    [
        (b"AMX_INT8 = 1", None, SOUND, True),
        (b"AMX_INT8 = 1", None, b"GCC: (GNU) 12.2.0\0", False),
        (b"AMX_INT8 = 1", "1", b"GCC: (GNU) 12.2.0\0", True),
        (b"AMX_INT8 = 1", "0", SOUND, False),
        (b"AVX2 = 1", None, b"GCC: (GNU) 12.2.0\0", True),
    ],
)
def test_weights_are_laid_out_anew_where_that_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: bytes, said: str | None, comment: bytes, repacks: bool
) -> None:
    file = tmp_path / "libggml-cpu.so"
    file.write_bytes(elf(comment))
    monkeypatch.setattr("rsd_local.runtime.llama.C.llama_print_system_info", lambda: b"CPU : " + info + b" | ")
    monkeypatch.setattr("rsd_local.runtime.compiler.loaded_kernels", lambda: [file])
    monkeypatch.setenv("RSD_AMX", said) if said else monkeypatch.delenv("RSD_AMX", raising=False)
    assert llama.repacks_safely() == repacks


def test_without_a_list_of_libraries_nothing_is_known_to_be_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsd_local.runtime.llama.C.llama_print_system_info", lambda: b"AMX_INT8 = 1")
    monkeypatch.setattr("rsd_local.runtime.compiler.loaded_kernels", list)
    monkeypatch.delenv("RSD_AMX", raising=False)
    assert not llama.repacks_safely()
