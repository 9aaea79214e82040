"""Completion: what a shell offers, asked of the program itself and of real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rsd_local.cli.completion import SCRIPTS, complete


def values(*words: str) -> list[str]:
    return [line.split("\t")[0] for line in complete(words)]


def test_commands_and_flags_are_offered() -> None:
    assert values("so") == ["solve"] and {"solve", "train-reward", "completion"} <= set(values(""))
    assert values("solve", "--tri") == ["--trio"]
    assert "--version" in values("--")
    assert "-md" in values("solve", "-m") and "--draft" in values("solve", "--d")
    assert "--trio" not in values("solve", "--trio", "small", "--"), "it can be given once"
    assert "--stop" in values("solve", "--stop", "x", "--"), "it can be given again"
    assert values("nonesuch", "") == []


def test_values_are_those_of_the_option() -> None:
    assert values("solve", "--trio", "sm") == ["small", ":file"]
    assert values("solve", "--trio=sm") == ["--trio=small", ":file"]
    assert values("solve", "--reward-kind", "ju") == ["judge"]
    assert values("solve", "--reward-kind", "judge,ju") == [] and "judge,confidence" in values("solve", "--reward-kind", "judge,c")
    assert values("solve", "--strategy", "be") == ["beam"] or "best-of-n" in values("solve", "--strategy", "be")
    assert values("bench", "gsm8k", "--strategy", "bes") == ["best-of-n"]
    assert values("solve", "-fa", "o") == ["on", "off"] and "draft=" in values("solve", "-fa", "d")
    assert values("solve", "-fa", "draft=o") == ["draft=on", "draft=off"]
    assert values("solve", "--tests", "x") == [":file"] and values("bench", "gsm8k", "--out", "x") == [":dir"]
    assert values("solve", "--system", "x") == []


def test_arguments_are_models_trios_data_sets_and_folders() -> None:
    assert values("bench", "gs") == ["gsm8k", ":file"] and values("tune", "--data", "math5") == ["math500", ":file"]
    assert {"small", "qwen2.5-0.5b-q8_0"} <= set(values("pull", ""))
    for command in ("pull", "show", "rm", "verify"):
        assert values(command, "qwen2.5-0.5") == ["qwen2.5-0.5b-q8_0"], command
    assert values("fit", "sm") == ["small", ":file"]
    assert values("report", "") == [":dir"]
    assert values("completion", "z") == ["zsh"] and values("help", "be") == ["bench"]


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``rsd`` is this checkout's."""
    if sys.platform == "win32":
        pytest.skip("shells of POSIX")
    program = tmp_path / "bin" / "rsd"
    program.parent.mkdir()
    root = Path(__file__).parent.parent
    program.write_text(f"#!/bin/sh\nPYTHONPATH='{root}' exec '{sys.executable}' -c 'from rsd_local.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    return os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}


def bash(env: dict[str, str], cwd: Path, *words: str) -> list[str]:
    script = (
        'eval "$(rsd completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        'complete -p rsd >/dev/null && _rsd_completion rsd && printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, env=env, cwd=cwd, timeout=60)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash_completes(path: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "small talk.toml").write_text("")
    (tmp_path / "smoke").mkdir()
    assert bash(path, tmp_path, "rsd", "tun") == ["tune"]
    assert bash(path, tmp_path, "rsd", "solve", "--thresh") == ["--threshold"]
    assert sorted(bash(path, tmp_path, "rsd", "solve", "--trio", "sm")) == ["small", "small talk.toml", "smoke"]
    assert sorted(bash(path, tmp_path, "rsd", "solve", "--trio", "=", "sm")) == ["small", "small talk.toml", "smoke"]
    assert bash(path, tmp_path, "rsd", "solve", "-fa", "draft", "=", "of") == ["off"]
    assert "coder" in bash(path, tmp_path, "rsd", "solve", "--trio", "=")
    assert bash(path, tmp_path, "rsd", "report", "s") == ["smoke"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script(path: dict[str, str]) -> None:
    script = 'autoload -U compinit; compinit -u -D; eval "$(rsd completion zsh)"; print $_comps[rsd]'
    assert subprocess.run(["zsh", "-fc", script], capture_output=True, text=True, env=path, timeout=60).stdout == "_rsd\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(path: dict[str, str]) -> None:
    script = "rsd completion fish | source; complete -C 'rsd solve --trio sm'"
    assert "small\t" in subprocess.run(["fish", "-c", script], capture_output=True, text=True, env=path, timeout=60).stdout


def test_each_script_asks_the_program_and_registers_itself(path: dict[str, str]) -> None:
    for shell, registers in (("bash", "complete -F _rsd_completion rsd"), ("zsh", "compdef _rsd rsd"), ("fish", "complete -c rsd -f")):
        done = subprocess.run(["rsd", "completion", shell], capture_output=True, text=True, env=path, timeout=60)
        assert done.stdout.strip() == SCRIPTS[shell].strip() and registers in done.stdout
        assert f"completion {shell} --" in done.stdout and ":file" in done.stdout and ":dir" in done.stdout
    for words in ([], ["tcsh"]):
        done = subprocess.run(["rsd", "completion", *words], capture_output=True, text=True, env=path, timeout=60)
        assert done.returncode == 2 and "bash, zsh, fish" in done.stderr.replace("'", "")


def test_settings_that_are_not_right_offer_nothing(path: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "rsd").mkdir()
    (tmp_path / "rsd" / "models.toml").write_text("= =")
    env = path | {"XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(["rsd", "completion", "zsh", "--", "solve", "--trio", ""], capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
