"""``rsd chat`` as people use it: through a pipe, and in a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import rsd

_BARS = ("FLOPs, paper convention", "steps, target share")


def test_lines_from_a_pipe_are_answered_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "talk.md"
    lines = [
        "(37+48)*6-129",
        "/stats",
        "who are you?",
        "",
        "/threshold 0.25",
        "/threshold much",
        "2+3",
        f"/save {file}",
        f"/save {file}",
        "/sing",
    ]
    done = rsd("chat", stdin="\n".join(lines) + "\n")
    assert done.returncode == 0 and done.stdout == "381\n5\n"
    assert all(part in done.stderr for part in _BARS) and "threshold 0.25" in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("rsd: ")]
    assert [re.split("[:;]", line)[1].strip() for line in said] == [
        "not an arithmetic expression",
        "/threshold much",
        f"{file} is there already",
        "no such command",
    ]
    assert file.read_text().startswith("## (37+48)*6-129\n\n37+48=85\n") and file.read_text().count("## ") == 2


def test_another_trio_starts_anew(tmp_path: Path, smollm2: Path) -> None:
    file = tmp_path / "small.toml"
    role = f'path = "{smollm2}"\nctx_size = 512\nthreads = 1\n'
    file.write_text(f'threshold = 0.25\nreward_kind = "confidence"\n[draft]\n{role}[target]\n{role}')
    done = rsd("chat", "-n", "12", stdin=f"2+3\n/trio {file}\nName a colour.\n/trio nobody\n/clear\n/stats\n/quit\n7+7\n")
    assert done.returncode == 0 and done.stdout.startswith("5\n") and len(done.stdout.splitlines()) >= 2
    assert f"trio {file}, threshold 0.25" in done.stderr and "'nobody'" in done.stderr and "there is no answer yet" in done.stderr
    assert "14" not in done.stdout


def test_a_trio_that_cannot_be_opened_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, but no more of it")
    file = tmp_path / "bad.toml"
    file.write_text('threshold = 0.25\nreward_kind = "confidence"\ndraft.path = "bad.gguf"\ntarget.path = "bad.gguf"\n')
    done = rsd("chat", stdin=f"2+3\n/threshold 0.5\n/trio {file}\n/threshold\n3+4\n")
    assert done.returncode == 0 and done.stdout == "5\n7\n"
    assert (
        "bad.gguf" in done.stderr
        and "back to trio abacus; the conversation starts anew" in done.stderr
        and done.stderr.count("threshold 0.5\n") == 2
    )
    assert "Traceback" not in done.stderr


def test_bytes_that_are_no_text_are_no_crash() -> None:
    command = [sys.executable, "-c", "from rsd_local.cli import main; main()", "chat", "-q"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=b"\xff\xfe\n2+3\n", capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0 and done.stdout == b"5\n" and b"Traceback" not in done.stderr


@pytest.mark.parametrize("strategy", ["target", "speculative", "majority", "beam"])
def test_every_strategy_holds_a_conversation(strategy: str) -> None:
    done = rsd("chat", "--strategy", strategy, "-q", stdin="2+3\n4*5\n")
    assert done.returncode == 0 and done.stdout.split() == ["5", "20"]


def test_mistyped_flags_are_refused() -> None:
    assert rsd("chat", "--strategy", "beams", stdin="").returncode == 2
    assert rsd("chat", "-mx", stdin="").returncode == 2
    assert rsd("chat", stdin="").returncode == 0


def test_in_a_terminal_an_interrupt_stops_the_answer_and_keeps_the_conversation(smollm2: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", "from rsd_local.cli import main; main()", "chat", "-md", str(smollm2), "-m", str(smollm2)]
    command += ["--reward-kind", "judge", "-c", "1024", "-n", "600", "--threshold", "0", "-t", "1"]
    command += ["--delimiter", "tokens:12", "--repeats", "0"]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True)
    os.close(terminal)
    seen = ""

    def until(words: str, start: int = 0) -> int:
        nonlocal seen
        deadline = time.monotonic() + 60
        while words not in seen[start:]:
            ready, _, _ = select.select([controller], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{words!r} did not come: {seen[start:]!r}"
            seen += os.read(controller, 4096).decode("utf-8", "replace")
        return seen.index(words, start) + len(words)

    until("> ")
    os.write(controller, b"Tell a long story of a king, with many parts.\n")
    at = until("[1] ")
    process.send_signal(signal.SIGINT)
    at = until("stopped", at)
    os.write(controller, b"/stats\n")
    at = until("finished: cancelled", at)
    os.write(controller, b"Tell a longer one, of a queen.\n")
    until("Tell a longer one, of a queen.", at)
    time.sleep(1.0)  # it has begun to write, or is about to, and it has much to write
    process.send_signal(signal.SIGINT)
    at = until("stopped", at)
    until("> ", at)
    os.write(controller, b"\x04")
    assert process.wait(timeout=20) == 0
    os.close(controller)
    assert "Traceback" not in seen and "\x1b[2m" in seen  # a draft was shown dim
