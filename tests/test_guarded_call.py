"""Python functions that C calls: whatever they raise, and Ctrl-C at any moment, reaches the caller once C has returned."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rsd_local
from rsd_local.config import RoleConfig
from rsd_local.runtime import Model
from rsd_local.runtime.llama import GuardedCall


class Odd(BaseException):
    """Nothing that anybody would catch by accident."""


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), Odd("mine")])
def test_what_the_progress_function_raises_ends_the_load(error: BaseException, smollm2: Path) -> None:
    calls = []

    def progress(share: float) -> None:
        calls.append(share)
        if len(calls) == 3:
            raise error

    with pytest.raises(type(error)) as raised:
        Model(RoleConfig(smollm2, trusted=True), progress)
    assert raised.value is error and len(calls) == 3
    Model(RoleConfig(smollm2, trusted=True)).close()


@pytest.fixture
def broken_log() -> Iterator[None]:
    """A filter that raises at every line of llama.cpp's log."""

    def refuse(_: logging.LogRecord) -> bool:
        raise ValueError("the log is broken")

    log = logging.getLogger("rsd_local.llama")
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addFilter(refuse)
    yield
    log.removeFilter(refuse)
    log.setLevel(level)


def test_what_a_log_handler_raises_ends_the_load(smollm2: Path, broken_log: None) -> None:
    with pytest.raises(ValueError, match="the log is broken"):
        Model(RoleConfig(smollm2, trusted=True))


def test_a_result_that_nobody_gets_is_freed() -> None:
    freed: list[str] = []
    guarded = GuardedCall()
    callback = guarded.callback(int, -1)

    def call() -> str:
        assert callback("5") == 5 and callback("five") == -1 and callback("5") == -1, "after the first error it only says stop"
        return "a model"

    with pytest.raises(ValueError, match="five"):
        guarded.run(call, freed.append)
    assert freed == ["a model"]
    assert GuardedCall().run(lambda: "kept", freed.append) == "kept" and freed == ["a model"]
    with pytest.raises(ZeroDivisionError):
        GuardedCall().run(lambda: 1 // 0, freed.append)


def test_an_interrupt_waits_for_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is over when run raises, or what it works on would be freed under it."""
    begun, over = threading.Event(), threading.Event()

    def call() -> int:
        begun.set()
        time.sleep(0.5)
        over.set()
        return 0

    wait, seconds = threading.Event.wait, iter([True])

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        if begun.is_set() and next(seconds, False):
            raise KeyboardInterrupt
        return wait(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GuardedCall().run(call, print)
    assert over.is_set()


LOADING = """
import sys, time
from pathlib import Path
from rsd_local.config import RoleConfig
from rsd_local.runtime import Model
def slowly(share):
    print("loading", flush=True)
    time.sleep(0.01)
try:
    Model(RoleConfig(Path(sys.argv[1]), trusted=True), slowly)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to one process")
def test_ctrl_c_while_a_model_loads_is_never_lost(smollm2: Path) -> None:
    chance = random.Random(0)
    environment = os.environ | {"PYTHONPATH": str(Path(rsd_local.__file__).parents[1])}
    for _ in range(8):
        words = [sys.executable, "-c", LOADING, str(smollm2)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None and child.stdout.readline() == b"loading\n"
            time.sleep(chance.uniform(0, 0.5))
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=20)
        assert (child.returncode, said) == (130, b"")
