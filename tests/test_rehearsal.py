"""No model file ends the caller's process: what llama.cpp would end it on is refused by the header or by a child process."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import psutil
import pytest
from changed import Dtype, Kind, damaged, empty_blocks, write_changed, write_parts
from tiny import KINDS, VOCABULARY, write_model

import rsd_local
from rsd_local.config import RoleConfig, Sampling
from rsd_local.errors import NotAModel, RSDError
from rsd_local.gguf_header import read_header
from rsd_local.roles import TARGET, Stream
from rsd_local.runtime import Draws, Engine, Model, rehearsal

TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
ABACUS = Path(rsd_local.__file__).parent / "abacus/models/abacus-target.gguf"


def words(**new: str) -> dict[str, tuple[Any, Kind]]:
    """The vocabulary with other texts, given as t12="text"."""
    return {TOKENS: ([new.get(f"t{place}", text) for place, text in enumerate(VOCABULARY)], Kind.STRING)}


def kinds(token: int, kind: int) -> dict[str, tuple[Any, Kind]]:
    """Token types in which one is another; the special ones are normal."""
    return {TYPES: ([kind if place == token else 6 if 3 <= place < 259 else 1 for place in range(len(VOCABULARY))], Kind.INT32)}


def half(data: np.ndarray) -> np.ndarray:
    return data.astype(np.float16)


def tokenizer(name: str, **more: tuple[Any, Kind]) -> dict[str, tuple[Any, Kind]]:
    return {"tokenizer.ggml.model": (name, Kind.STRING)} | {f"tokenizer.ggml.{key}": value for key, value in more.items()}


def number(key: str, value: float) -> dict[str, tuple[Any, Kind]]:
    return {key: (value, Kind.UINT32 if isinstance(value, int) else Kind.FLOAT32)}


FATAL: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    # By the header, before anything else is tried.
    ("dense", number("llama.block_count", 0), {}, "claims 0 layers"),
    ("dense", number("llama.block_count", 1000), {}, "claims 1000 layers"),
    ("dense", number("llama.attention.layer_norm_rms_epsilon", -1.0), {}, "epsilon is -1.0"),
    ("sliding", number("gemma3.attention.layer_norm_rms_epsilon", float("nan")), {}, "epsilon is nan"),
    ("dense", number("llama.rope.scaling.factor", -2.0), {}, "rope.scaling.factor is -2.0"),
    ("dense", number("llama.attention.head_count", 0), {}, "0 attention heads"),
    ("dense", tokenizer("none"), {}, "no vocabulary"),
    ("dense", {TYPES: ([1] * 9, Kind.INT32)}, {}, "token_type is of 9"),
    ("dense", {}, {"output_norm.weight": half}, "F16, and must be F32"),
    ("sliding", {}, {"blk.0.attn_q_norm.weight": half}, "F16, and must be F32"),
    ("recurrent", {}, {"blk.1.ssm_dt.bias": half}, "F16, and must be F32"),
    ("dense", {}, {"token_embd.weight": lambda data: data.astype(np.int32)}, "I32, which is no type of weights"),
    ("dense", {}, {"blk.0.attn_q.weight": lambda data: data.astype(np.int8)}, "I8, which is no type of weights"),
    ("hybrid", {}, {"blk.1.ffn_up.weight": empty_blocks(Dtype.Q8_1)}, "Q8_1, which is no type of weights"),
    # By the vocabulary, before the child.
    ("dense", words(t263="ab"), {}, "two of its tokens have the text 'ab'"),
    # By the child: at load.
    ("dense", words(t260="a\0b", t261="a\0c"), {}, "loads it, it ended the process: .*token_to_id.size"),
    ("dense", {"llama.rope.scaling.type": ("bogus", Kind.STRING)}, {}, "loads it, it ended the process: .*GGML_ASSERT"),
    ("dense", number("llama.expert_count", 100_000), {}, "loads it, it ended the process: .*LLAMA_MAX_EXPERTS"),
    ("sliding", number("gemma3.expert_used_count", 3), {}, "loads it, it ended the process: .*n_expert"),
    ("hybrid", tokenizer("bert"), {}, "loads it, it ended the process: .*fatal error"),
    ("sliding", words(t68="qq"), {}, "cannot be loaded: .*substr"),
    ("dense", tokenizer("xyz"), {}, "cannot be loaded: .*unknown tokenizer"),
    ("recurrent", {}, {"output_norm.weight": lambda data: None}, "cannot be loaded: .*output_norm.weight"),
    # At tokenizing: bytes for which the vocabulary has nothing.
    ("dense", words(t68="qqq"), {}, "tokenizes text with it, it ended the process: "),
    ("recurrent", words(t243="qqq"), {}, "tokenizes text with it, it ended the process: "),
    # At decoding.
    ("sliding", number("gemma3.rope.dimension_count", 7), {}, "decodes with it, it ended the process: .*n_dims"),
    ("recurrent", {}, {"blk.0.ssm_conv1d.weight": half}, "decodes with it, it ended the process: .*GGML_ASSERT"),
    ("recurrent", {}, {"blk.0.ssm_d": half}, "decodes with it, it ended the process: .*unsupported types"),
    ("recurrent", {}, {"blk.1.ssm_x.weight": lambda data: data.astype(np.int32)}, "decodes with it, it ended the process: "),
    ("hybrid", {}, {"blk.0.shortconv.conv.weight": half}, "decodes with it, it ended the process: .*GGML_ASSERT"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "tensors", "words"), FATAL)
def test_a_file_that_would_end_the_process_is_refused_in_one_line(
    kind: str, values: dict[str, Any], tensors: dict[str, Any], words: str, tiny: dict[str, Path], tmp_path: Path
) -> None:
    path = write_changed(tiny[kind], tmp_path / "changed.gguf", values, tensors)
    with pytest.raises(NotAModel, match=words) as refused:
        rehearsal.rehearse(path, read_header(path))
    assert "\n" not in str(refused.value) and str(path) in str(refused.value) and refused.value.hint


SOUND: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dense", number("tokenizer.ggml.bos_token_id", 10**9), {}),  # llama.cpp takes the usual one
    ("dense", words(t262="", t263=""), {}),
    ("dense", number("llama.rope.scaling.factor", 0.0), {}),
    ("sliding", {}, {"blk.0.ffn_up.weight": empty_blocks(Dtype.Q4_0), "token_embd.weight": half}),
    ("recurrent", kinds(0, 2), {"blk.0.ssm_in.weight": empty_blocks(Dtype.Q8_0)}),
    ("hybrid", {}, {"blk.0.ffn_norm.weight": lambda data: data * np.float32("nan")}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "tensors"), SOUND)
def test_what_llama_puts_right_or_computes_with_is_not_refused(
    kind: str, values: dict[str, Any], tensors: dict[str, Any], tiny: dict[str, Path], tmp_path: Path
) -> None:
    path = write_changed(tiny[kind], tmp_path / "changed.gguf", values, tensors)
    rehearsal.rehearse(path, read_header(path))
    Model(RoleConfig(path)).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each of many files needs a process, and only fork makes one in milliseconds")
@pytest.mark.parametrize("kind", KINDS)
def test_of_randomly_damaged_files_those_that_end_a_process_are_refused(kind: str, tmp_path: Path) -> None:
    code = f"from test_rehearsal import try_damaged; try_damaged({kind!r}, {str(tmp_path)!r}, 100, 2.5)"
    done = run(code, GGML_NO_BACKTRACE="1", OMP_WAIT_POLICY="passive")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["wrong"] == [] and min(counts["used"], counts["refused"]) > 1, counts


def try_damaged(kind: str, folder: str, most: int, seconds: float) -> None:
    """Uses damaged files, each in a fork of this process, and rehearses those that end it; for a process of its own."""
    path = write_model(Path(folder) / "damaged.gguf", kind)
    whole, header, chance, begun = path.read_bytes(), read_header(path), random.Random(0), time.monotonic()
    counts: dict[str, Any] = {"used": 0, "refused": 0, "ended": 0, "wrong": []}
    for number in range(most):
        if time.monotonic() > begun + seconds:
            break
        path.write_bytes(damaged(whole, header, chance))
        child = os.fork()
        if not child:
            os._exit(use(path))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        counts["used" if code == 0 else "refused" if code == 1 else "ended"] += 1
        if code not in (0, 1):
            try:
                rehearsal.rehearse(path, read_header(path))
                counts["wrong"].append((number, code))
            except NotAModel:
                pass
    print(json.dumps(counts))


def use(path: Path) -> int:
    """Writes a few tokens with a file that nobody tried; 0, or 1 where it was refused. A hang ends by a signal."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.alarm(20)

    class First(Draws):
        def draw(self, logits: Any, context: Any = ()) -> int:
            return 0

    try:
        config = RoleConfig(path, ctx_size=64, threads=1, trusted=True)
        model = Model(config)
        tokens = model.tokenize("What is 12 + 345?\n\n ки 🎲", special=True)
        sequence = Engine(model, config, 1, "test").sequence()
        sequence.append(tokens[:20] or [0])
        sequence.generate(First(Sampling(), Stream(0, TARGET)), 5).future.result()
        return 0
    except RSDError:
        return 1


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environment_of(**environment))


def environment_of(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(rsd_local.__file__).parents[1])])} | more


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The child processes that are started, with a cache of the test's own and nothing remembered."""
    started: list[Any] = []
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: (started.append(words), start(*words, **more))[1])
    monkeypatch.setattr(rehearsal, "_went_well", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return started


def test_a_file_is_tried_once_and_again_after_a_change(tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    for _ in range(2):
        rehearsal.rehearse(path, read_header(path))
    assert len(children) == 1
    monkeypatch.setattr(rehearsal, "_went_well", set())  # as in another process
    rehearsal.rehearse(path, read_header(path))
    assert len(children) == 1
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    rehearsal.rehearse(path, read_header(path))
    assert len(children) == 2
    state = path.stat()
    path.write_bytes(path.read_bytes().replace(b"tiny dense", b"tiny fence"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    rehearsal.rehearse(path, read_header(path))
    assert len(children) == 3, "the header's digest counts too"


def test_a_refusal_is_not_remembered(tiny: dict[str, Path], tmp_path: Path, children: list[Any]) -> None:
    path = write_changed(tiny["dense"], tmp_path / "changed.gguf", number("llama.expert_count", 100_000))
    for count in (1, 2):
        with pytest.raises(NotAModel, match="ended the process"):
            rehearsal.rehearse(path, read_header(path))
        assert len(children) == count


def test_a_cache_that_is_damaged_or_cannot_be_written_is_no_error(
    tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    rehearsal.rehearse(path, read_header(path))
    (remembered,) = (tmp_path / "cache").rglob("*.json")
    remembered.write_text("{")
    monkeypatch.setattr(rehearsal, "_went_well", set())
    rehearsal.rehearse(path, read_header(path))
    assert len(children) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file, below which there is no folder
    monkeypatch.setattr(rehearsal, "_went_well", set())
    rehearsal.rehearse(path, read_header(path))
    assert len(children) == 3


def test_trusted_files_and_those_of_the_package_are_not_tried(tmp_path: Path, children: list[Any]) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    Model(RoleConfig(path, trusted=True)).close()
    Model(RoleConfig(ABACUS)).close()
    assert children == []
    Model(RoleConfig(path)).close()
    assert len(children) == 1


@pytest.mark.parametrize("executable", ["", "/opt/blender/blender"])
def test_a_program_that_is_no_python_is_not_started(
    executable: str, tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    monkeypatch.setattr(sys, "executable", executable)
    rehearsal.rehearse(path, read_header(path))
    assert children == []


@pytest.mark.skipif(sys.platform == "win32", reason="a script as interpreter")
def test_a_child_that_fails_for_other_reasons_refuses_nothing(tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path, python = write_model(tmp_path / "tiny.gguf"), tmp_path / "python-broken"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    for executable in (python, tmp_path / "python-missing"):
        monkeypatch.setattr(sys, "executable", str(executable))
        rehearsal.rehearse(path, read_header(path))
    assert len(children) == 2 and not list((tmp_path / "cache").rglob("*.json"))


ENDS = pytest.mark.skipif(llama_cpp.__version__ == "0.3.35", reason="this llama.cpp computes with the file and ends")


def endless(tiny: dict[str, Path], folder: Path) -> Path:
    """A file that llama.cpp computes with for ever."""
    return write_changed(tiny["sliding"], folder / "endless.gguf", number("gemma3.rope.dimension_count", 0))


@ENDS
def test_a_file_without_an_end_is_refused(tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "LEAST_SECONDS", 5.0)
    path = endless(tiny, tmp_path)
    with pytest.raises(NotAModel, match="did not end within 5 s"):
        rehearsal.rehearse(path, read_header(path))


@ENDS
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to one process")
def test_ctrl_c_during_the_rehearsal_ends_both_processes(tiny: dict[str, Path], tmp_path: Path) -> None:
    path = endless(tiny, tmp_path)
    code = f"import test_rehearsal as t; t.Model(t.RoleConfig(t.Path({str(path)!r})))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment_of()) as parent:
        try:
            watched, deadline = psutil.Process(parent.pid), time.monotonic() + 60
            while not watched.children():
                assert parent.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            (child,) = watched.children()
            parent.send_signal(signal.SIGINT)
            assert parent.stderr is not None and b"KeyboardInterrupt" in parent.stderr.read()
            assert parent.wait(10) == -signal.SIGINT
            with contextlib.suppress(psutil.NoSuchProcess):
                child.wait(10)
        finally:
            parent.kill()


def test_the_parts_of_a_model_in_several_files_count(tiny: dict[str, Path], tmp_path: Path) -> None:
    files = write_parts(tiny["dense"], tmp_path / "m.gguf")
    before = rehearsal.Rehearsed.of(files[0], read_header(files[0]))
    assert before.size == sum(file.stat().st_size for file in files) and len(before.parts) == 3
    os.utime(files[2], (1, 1))
    assert rehearsal.Rehearsed.of(files[0], read_header(files[0])) != before
