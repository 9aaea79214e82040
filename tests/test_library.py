"""A library of llama.cpp that does not fit the bindings is refused before it is used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest

LIBRARY = Path(llama_cpp.__file__).parent / "lib"
USE = "from rsd_local.cli import main; main(['doctor'])"
STRUCT = """
#include <stdint.h>
#include <string.h>
struct params { %s uint32_t n_ctx, n_batch, n_ubatch, n_seq_max; unsigned char rest[%d]; %s };
struct params llama_context_default_params(void) {
    static const unsigned char rest[] = {%s};
    struct params made = {.n_ctx = 512, .n_batch = 2048, .n_ubatch = 512, .n_seq_max = 1};
    memcpy(made.rest, rest, sizeof rest);
    %s
    return made;
}
"""

linux = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None or "LLAMA_CPP_LIB_PATH" in os.environ, reason="builds a library with gcc"
)


def refused(program: str, *words: str, **environment: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("rsd: llama.cpp's library") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("[('new', ctypes.c_int32)] + old", "llama_context_params.n_"),
        ("old[:5] + [('new', ctypes.c_int32)] + old[5:]", "llama_context_params.n_threads_batch is "),
        ("old[:12] + [('new', ctypes.c_float), ('newer', ctypes.c_float)] + old[12:]", "llama_context_params.attention_type is "),
        ("old[:22] + [('new', ctypes.c_void_p)] + old[22:]", "llama_context_params.type_k is "),
        ("old[:1] + old[2:]", "llama_context_params.n_ubatch is 2048, not 512"),
    ],
)
def test_a_struct_with_a_field_more_or_less_is_refused(change: str, words: str) -> None:
    shifted = (
        "import ctypes; from llama_cpp import llama_cpp as C\n"
        "old = C.llama_context_params._fields_\n"
        f"C.llama_context_params = type('llama_context_params', (ctypes.Structure,), {{'_fields_': {change}}})\n"
    )
    refused(shifted + USE, "does not fit llama-cpp-python", words, "pip install --force-reinstall")


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "amd64"), reason="only there C's own size can be seen")
def test_a_struct_that_is_longer_in_c_is_refused() -> None:
    for name in ("llama_context_params", "llama_model_params", "llama_batch"):
        shorter = (
            "import ctypes; from llama_cpp import llama_cpp as C\n"
            f"C.{name} = type('{name}', (ctypes.Structure,), {{'_fields_': C.{name}._fields_[:-1]}})\n"
        )
        if name == "llama_model_params":  # its last fields are single bytes, with room behind them
            shorter = shorter.replace("[:-1]", "[:-6]")
        refused(shorter + USE, f"{name} has ", "bytes, not")


def test_a_batch_with_other_arrays_is_refused() -> None:
    other = (
        "import ctypes; from llama_cpp import llama_cpp as C\n"
        "old = C.llama_batch._fields_\n"
        "C.llama_batch = type('llama_batch', (ctypes.Structure,), {'_fields_': old[:1] + [old[2], old[1]] + old[3:]})\n"
    )
    refused(other + USE, "llama_batch.embd is an address")


@linux
@pytest.mark.parametrize(
    ("before", "behind", "words"),
    [("uint32_t version;", "", "n_ctx is 7, not 512"), ("", "void * more;", "llama_context_params has 168 bytes")],
)
def test_another_library_with_another_struct_is_refused(tmp_path: Path, before: str, behind: str, words: str) -> None:
    """All functions but one are those of the real library, which the other one loads."""
    from llama_cpp import llama_cpp as C

    defaults = bytes(C.llama_context_default_params())
    body = STRUCT % (before, len(defaults) - 16, behind, ", ".join(map(str, defaults[16:])), "made.version = 7;" if before else "")
    (tmp_path / "other.c").write_text(body)
    link = ["-Wl,--no-as-needed", str(LIBRARY / "libllama.so"), f"-Wl,-rpath,{LIBRARY}", f"-Wl,-rpath-link,{LIBRARY}"]
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libllama.so", tmp_path / "other.c", *link], check=True)
    refused(USE, words, "unset LLAMA_CPP_LIB_PATH", str(tmp_path), LLAMA_CPP_LIB_PATH=str(tmp_path))


@linux
def test_a_library_without_a_function_or_none_at_all_is_refused(tmp_path: Path) -> None:
    refused(USE, "cannot be loaded", "unset LLAMA_CPP_LIB_PATH", LLAMA_CPP_LIB_PATH=str(tmp_path))
    (tmp_path / "libllama.so").write_text("no library")
    refused(USE, "cannot be loaded", LLAMA_CPP_LIB_PATH=str(tmp_path))
    (tmp_path / "empty.c").write_text("int nothing;")
    subprocess.run(["gcc", "-shared", "-o", tmp_path / "libllama.so", tmp_path / "empty.c"], check=True)
    refused(USE, "undefined symbol", LLAMA_CPP_LIB_PATH=str(tmp_path))
