"""The verifier ``command:``, with programs that answer, and with ones that do everything else."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from rsd_local.errors import Cancelled, Closed, ConfigError, VerifierFailed
from rsd_local.events import CancelToken
from rsd_local.prompt import Message, Prompt
from rsd_local.rewards.verifier.command import Command

PROMPT = Prompt((Message("system", "Be short."), Message("user", "2 + 3?")))
LOOP = "import json, os, sys, time\nfor line in sys.stdin:\n    asked = json.loads(line)\n    "


@contextmanager
def program(folder: Path, body: str, seconds: float = 30.0) -> Iterator[Command]:
    """A verifier whose program is this Python code."""
    file = folder / "check.py"
    file.write_text(body, encoding="utf-8")
    quoted = f'"{sys.executable}" "{file}"' if sys.platform == "win32" else shlex.join([sys.executable, str(file)])
    verifier = Command(quoted, seconds)
    try:
        yield verifier
    finally:
        verifier.close()


def ends(pid: int) -> bool:
    """Whether a process is gone within five seconds; one that nobody collected counts as gone."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_a_program_is_told_the_prompt_the_steps_and_the_step(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with program(tmp_path, LOOP + f"open({str(seen)!r}, 'w').write(line)\n    print('{{\"reward\": 0.25}}', flush=True)") as verifier:
        assert verifier.check(PROMPT, ("Add.\n\n",), "2 + 3 = 5 €\n", None) == 0.25
    assert json.loads(seen.read_text()) == {
        "prompt": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 3?"}],
        "question": "2 + 3?", "steps": ["Add.\n\n"], "step": "2 + 3 = 5 €\n",
    }  # fmt: skip


def test_null_is_nothing_to_check(tmp_path: Path) -> None:
    with program(tmp_path, LOOP + "print('{\"reward\": null}', flush=True)") as verifier:
        assert verifier.check(PROMPT, (), "x", None) is None


def test_one_process_answers_many_threads_each_its_own(tmp_path: Path) -> None:
    body = LOOP + "print(json.dumps({'reward': int(asked['step']) / 100, 'pid': os.getpid()}), flush=True)"
    with program(tmp_path, body) as verifier, ThreadPoolExecutor(8) as pool:
        rewards = list(pool.map(lambda number: verifier.check(PROMPT, (), str(number), None), range(100)))
    assert rewards == [number / 100 for number in range(100)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys; sys.stdin.readline(); print('no module today', file=sys.stderr); sys.exit(3)", "exit code 3.*no module today"),
        (LOOP + "print('hello', flush=True)", "answered 'hello"),
        (LOOP + "print('[1]', flush=True)", "no reward"),
        (LOOP + "print('[' * 100000, flush=True)", "no reward"),
        (LOOP + "print('{\"score\": 1}', flush=True)", "no reward"),
        (LOOP + "print('{\"reward\": 1.5}', flush=True)", "answered 1.5"),
        (LOOP + "print('{\"reward\": -0.1}', flush=True)", "answered -0.1"),
        (LOOP + "print('{\"reward\": NaN}', flush=True)", "answered nan"),
        (LOOP + "print('{\"reward\": 1' + '0' * 400 + '}', flush=True)", "no reward"),
        (LOOP + 'print(\'{"reward": "good"}\', flush=True)', "answered 'good'"),
        (LOOP + "print('', flush=True)", "no reward"),
        (LOOP + "sys.stdout.buffer.write(b'{\"reward\": \\xff}\\n'); sys.stdout.flush()", "no reward"),
        (LOOP + "sys.stdout.write('x' * 3000000); sys.stdout.flush(); time.sleep(60)", "more than 1,048,576 bytes"),
        (LOOP + "os.close(1); time.sleep(60)", "closed its output"),
        (LOOP + "sys.stdout.write('{\"reward\"'); sys.stdout.flush(); sys.exit(0)", "exit code 0"),
        ("print('ready', flush=True)\n" + LOOP + "print('{\"reward\": 1}', flush=True)", "'ready'"),
    ],
)
def test_whatever_else_it_does_is_one_clear_line(tmp_path: Path, body: str, message: str) -> None:
    with program(tmp_path, body, seconds=20) as verifier:
        with pytest.raises(VerifierFailed, match=message) as caught:
            verifier.check(PROMPT, (), "x", None)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_program_that_is_killed_says_by_what(tmp_path: Path) -> None:
    with program(tmp_path, LOOP + "os.kill(os.getpid(), 9)") as verifier, pytest.raises(VerifierFailed, match="SIGKILL"):
        verifier.check(PROMPT, (), "x", None)


@pytest.mark.parametrize("body", [LOOP + "time.sleep(60)", "import time; time.sleep(60)"], ids=["answers late", "does not read"])
def test_a_program_that_hangs_is_ended_when_its_time_is_over(tmp_path: Path, body: str) -> None:
    began = time.monotonic()
    with program(tmp_path, body, seconds=0.5) as verifier, pytest.raises(VerifierFailed, match="did not answer within 0.5 seconds"):
        verifier.check(PROMPT, (), "x" * 1_000_000, None)
    assert time.monotonic() - began < 10


def test_a_failure_starts_the_program_anew_for_the_next_step(tmp_path: Path) -> None:
    body = LOOP + "if asked['step'] == 'bad': sys.exit(1)\n    print('{\"reward\": 1}', flush=True)"
    with program(tmp_path, body) as verifier:
        for _ in range(2):
            with pytest.raises(VerifierFailed, match="exit code 1"):
                verifier.check(PROMPT, (), "bad", None)
            assert verifier.check(PROMPT, (), "good", None) == 1.0


def test_a_second_line_is_not_taken_for_the_next_answer(tmp_path: Path) -> None:
    with program(tmp_path, LOOP + 'print(\'{"reward": 1}\\n{"reward": 0}\', flush=True)') as verifier:
        assert verifier.check(PROMPT, (), "x", None) == 1.0
        time.sleep(0.5)
        with pytest.raises(VerifierFailed, match="without being asked"):
            verifier.check(PROMPT, (), "x", None)


def test_a_program_that_goes_on_writing_fills_no_memory(tmp_path: Path) -> None:
    with program(tmp_path, LOOP + "while True: print('{\"reward\": 1}')") as verifier:
        assert verifier.check(PROMPT, (), "x", None) == 1.0
        running = verifier._program
        assert running is not None
        running._readers[0].join(30)
        assert not running._readers[0].is_alive() and running._lines.qsize() < 20
        with pytest.raises(VerifierFailed, match="without being asked"):
            verifier.check(PROMPT, (), "x", None)


def test_much_on_standard_error_does_not_hold_it_up(tmp_path: Path) -> None:
    with program(tmp_path, LOOP + "sys.stderr.write('log\\n' * 500000)\n    print('{\"reward\": 1}', flush=True)") as verifier:
        assert verifier.check(PROMPT, (), "x", None) == 1.0


def test_a_cancel_wakes_the_check_that_is_answered_and_those_that_wait(tmp_path: Path) -> None:
    with program(tmp_path, LOOP + "time.sleep(60)") as verifier, ThreadPoolExecutor(3) as pool:
        tokens = [CancelToken() for _ in range(3)]
        futures = [pool.submit(verifier.check, PROMPT, (), "x", token) for token in tokens]
        time.sleep(0.5)
        began = time.monotonic()
        for token, future in zip(reversed(tokens), reversed(futures), strict=True):
            token.cancel()
            with pytest.raises(Cancelled):
                future.result(timeout=5)
        assert time.monotonic() - began < 5


def test_a_cancelled_token_starts_nothing(tmp_path: Path) -> None:
    token = CancelToken()
    token.cancel()
    with program(tmp_path, "open('started', 'w')") as verifier, pytest.raises(Cancelled):
        verifier.check(PROMPT, (), "x", token)
    assert not Path("started").exists()


def test_closing_ends_the_check_that_waits_and_refuses_new_ones(tmp_path: Path) -> None:
    with program(tmp_path, LOOP + "time.sleep(60)") as verifier, ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(verifier.check, PROMPT, (), "x", None) for _ in range(2)]
        time.sleep(0.5)
        verifier.close()
        for future in futures:
            with pytest.raises(Closed):
                future.result(timeout=10)
        verifier.close()
        with pytest.raises(Closed):
            verifier.check(PROMPT, (), "x", None)


CHILD = "import subprocess\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n    "


@pytest.mark.skipif(sys.platform == "win32", reason="processes are asked for with POSIX signals")
def test_closing_ends_the_children_of_the_program_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    start = CHILD.replace("\n", "\n    ", 1) + f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n    "
    with program(tmp_path, LOOP + start + "print('{\"reward\": 1}', flush=True)") as verifier:
        assert verifier.check(PROMPT, (), "x", None) == 1.0
    assert all(ends(int(pid)) for pid in pids.read_text().split())


@pytest.mark.skipif(sys.platform == "win32", reason="processes are asked for with POSIX signals")
@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 2)", "os._exit(1)"], ids=["its end", "an interrupt", "a crash"])
def test_the_program_does_not_outlive_the_interpreter(tmp_path: Path, end: str) -> None:
    """It ends with its input where nobody can end it."""
    pid, check = tmp_path / "pid", tmp_path / "check.py"
    check.write_text(LOOP + f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n    print('{{\"reward\": 1}}', flush=True)")
    code = (
        "import os\nfrom rsd_local.rewards.verifier.command import Command\nfrom rsd_local.prompt import Prompt\n"
        f"verifier = Command({shlex.join([sys.executable, str(check)])!r})\nverifier.check(Prompt.of('x'), (), 'x', None)\n{end}\n"
    )
    subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=60, check=False)
    assert ends(int(pid.read_text()))


@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
def test_an_interrupt_of_the_terminal_does_not_reach_the_program(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with program(
        tmp_path, LOOP + f"open({str(seen)!r}, 'w').write(str(os.getsid(0)))\n    print('{{\"reward\": 1}}', flush=True)"
    ) as verifier:
        verifier.check(PROMPT, (), "x", None)
    assert int(seen.read_text()) != os.getsid(0)


@pytest.mark.parametrize("command", ["", "   ", "python 'check.py"])
def test_a_command_that_is_none_is_refused_at_once(command: str) -> None:
    with pytest.raises(ConfigError):
        Command(command)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VerifierFailed, match="cannot be started"):
        Command(str(tmp_path / "no-such-program")).check(PROMPT, (), "x", None)


def test_nothing_starts_before_the_first_check(tmp_path: Path) -> None:
    before = threading.active_count()
    Command(str(tmp_path / "no-such-program")).close()
    assert threading.active_count() == before and signal.getsignal(signal.SIGINT) is not None
