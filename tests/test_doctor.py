"""``rsd doctor``: what it finds is so, and what it advises fits what is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from test_cli import rsd

from rsd_local.cli.doctor import doctor
from rsd_local.cli.wheels import advice, cuda_index, requirement
from rsd_local.runtime.devices import Device, devices
from rsd_local.sandbox import Protection, Sandbox
from rsd_local.sandbox.backends import Backend


def test_it_says_what_is_there_and_that_it_works() -> None:
    done = rsd("doctor")
    assert done.returncode == 0, done.stderr
    assert "self-test  works: (37+48)*6-129 = 381" in done.stdout and "trio       abacus: complete" in done.stdout
    report = json.loads(rsd("doctor", "--json").stdout)
    assert report["memory"]["total"] == psutil.virtual_memory().total and report["versions"]["llama-cpp-python"] >= "0.3.35"
    assert report["devices"][0]["name"] == "CPU" and report["cpu"]["features"]
    assert report["self_test"]["seconds"] < 5


def test_it_says_why_amx_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, sound, line in ((b"AMX_INT8 = 1", None, True), (b"AMX_INT8 = 1", "1", False), (b"AVX2 = 1", None, False)):
        monkeypatch.setattr("rsd_local.runtime.llama.C.llama_print_system_info", lambda said=said: b"CPU : " + said + b" | ")
        monkeypatch.setattr("rsd_local.runtime.compiler.loaded_kernels", list)
        monkeypatch.delenv("RSD_AMX", raising=False)
        if sound:
            monkeypatch.setenv("RSD_AMX", sound)
        done = CliRunner().invoke(doctor)
        assert done.exit_code == 0 and ("RSD_AMX=1" in done.stdout) == line


@pytest.mark.skipif(sys.platform == "darwin", reason="there Metal comes first")
def test_a_gpu_that_the_build_cannot_use_gets_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '| NVIDIA-SMI 565.57   Driver Version: 565.57   CUDA Version: 12.7 |'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("rsd_local.cli.wheels._loads", lambda name: None)  # the library of a card that this machine may have
    wheel, compiled, *others = advice([device for device in devices() if device.kind == "cpu"])
    index = "--only-binary llama-cpp-python --extra-index-url https://abetlen.github.io/llama-cpp-python/whl/cu125"
    assert wheel.startswith("CUDA: pip install ") and wheel.endswith(f"{index} '{requirement()}'")
    assert compiled.startswith('CUDA, compiled here: CMAKE_ARGS="-DGGML_CUDA=on" pip install') and compiled.endswith(f"'{requirement()}'")
    assert all("ROCm" in line for line in others)
    assert advice([Device("CUDA0", "a GPU", "gpu", 1, 2)]) == []


def test_the_index_is_the_newest_that_the_driver_runs() -> None:
    for driver, index in (
        ((11, 8), "cu118"),
        ((12, 0), "cu121"),  # drivers of CUDA 12 run all of its minor versions
        ((12, 4), "cu124"),
        ((12, 9), "cu125"),
        ((13, 1), "cu130"),
        ((14, 0), "cu132"),
        ((10, 2), "cu118"),
        (None, "cu124"),
    ):
        assert cuda_index(driver) == index, driver
    assert requirement().startswith("llama-cpp-python") and any(sign in requirement() for sign in "<>=~")


def test_the_indexes_of_other_makers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "darwin")
    for machine, wanted in (("arm64", ["/whl/metal "]), ("x86_64", [])):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert [word in line for word, line in zip(wanted, advice([])[::2], strict=True)] == [True] * len(wanted)
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("rsd_local.cli.wheels._loads", lambda name: object() if name == "vulkan-1.dll" else None)
    assert not (tmp_path / "rocminfo").exists() and (Path("/dev/kfd").exists() or "/whl/vulkan " in advice([])[0])


def test_a_trio_whose_files_are_not_there_is_named(tmp_path: Path) -> None:
    from rsd_local.catalogue import user_models_file

    own = user_models_file()
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text('[trio.mine]\nreward_kind = "judge"\ndraft.path = "d.gguf"\ntarget.path = "t.gguf"\n[trio.bad]\ndraft.path = "d.gguf"\n')
    try:
        report = json.loads(rsd("doctor", "--json").stdout)
        assert report["trios"]["mine"] == "d.gguf, t.gguf missing" and "'target' is missing" in report["trios"]["bad"]
        assert report["trios"]["abacus"] == "complete" and report["settings"]["there"]
    finally:
        own.unlink()


def test_it_says_what_the_sandbox_keeps_programs_from(monkeypatch: pytest.MonkeyPatch) -> None:
    report = json.loads(rsd("doctor", "--json").stdout)["sandbox"]
    held = {one["name"]: one["holds"] for one in report["protections"]}
    assert {"files", "network", "processes", "memory", "user", "time"} <= set(held) and held["time"] is True
    assert (report["advice"] == "") == all(held.values())

    weak = Sandbox(
        Backend("limits"), (Protection("network", False, "can reach the network"), Protection("time", True, "a limit on seconds"))
    )
    monkeypatch.setattr("rsd_local.sandbox.sandbox._found", [weak])
    done = CliRunner().invoke(doctor)
    assert done.exit_code == 0
    assert (
        "sandbox    limits\n           network DOES NOT HOLD: can reach the network\n           time: a limit on seconds\n" in done.stdout
    )
    if sys.platform == "linux":
        assert "           for more: install bubblewrap" in done.stdout


def test_a_machine_without_any_sandbox_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsd_local.sandbox.sandbox._found", [])
    monkeypatch.setattr("rsd_local.sandbox.sandbox._candidates", lambda: iter(()))
    done = CliRunner().invoke(doctor)
    assert done.exit_code == 0 and "sandbox    no program can be run in limits: there is no way to do it on this system\n" in done.stdout
