"""Data sets by name, fetched by huggingface_hub from a small hub on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import Hub, environment, serving

from rsd_local.bench.hub import SOURCES

GSM8K = SOURCES["gsm8k"]
QUESTIONS = b'{"question": "1+1?", "answer": "so\\n#### 2"}\n'
LOAD = (
    "import json, sys; from rsd_local.bench.datasets import load_dataset; print(json.dumps([i.answer for i in load_dataset(sys.argv[1])]))"
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    with serving({f"{GSM8K.repo}/resolve/{GSM8K.revision}/{GSM8K.file}": QUESTIONS}, tmp_path, GSM8K.revision) as settings:
        yield settings


def load(name: str, hub: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: huggingface_hub reads HF_ENDPOINT when it is imported.
    return subprocess.run([sys.executable, "-c", LOAD, name], env=environment(hub | more), capture_output=True, text=True, timeout=120)


def test_a_data_set_is_fetched_at_its_pinned_revision_and_then_kept(hub: dict[str, str]) -> None:
    first = load("gsm8k", hub)
    assert first.returncode == 0 and json.loads(first.stdout) == ["2"], first.stderr
    fetched = [line for line in Hub.asked if line.startswith("GET")]
    assert fetched == [f"GET /datasets/{GSM8K.repo}/resolve/{GSM8K.revision}/{GSM8K.file}"]
    assert json.loads(load("gsm8k", hub).stdout) == ["2"]
    away = load("gsm8k", hub, HF_ENDPOINT="http://127.0.0.1:1")
    assert json.loads(away.stdout) == ["2"], "a pinned revision needs no hub the second time"
    assert [line for line in Hub.asked if line.startswith("GET")] == fetched


def test_what_the_hub_refuses_is_an_error_with_a_mend(hub: dict[str, str]) -> None:
    missing = load("math500", hub)
    assert "RSDError: math500: the hub has no HuggingFaceH4/MATH-500/test.jsonl" in missing.stderr
    Hub.faults[SOURCES["gpqa"].file] = "gated"
    gated = load("gpqa", hub)
    assert "ConfigError: gpqa asks for an account on the hub" in gated.stderr
    away = load("minerva", hub, HF_HUB_OFFLINE="1")
    assert "RSDError: minerva" in away.stderr and "is not in the cache" in away.stderr
    Hub.faults[SOURCES["gsm8k"].file] = (503, {"X-Error-Message": "closed on Sundays", "Retry-After": "3600"}, "")
    closed = load("gsm8k", hub)
    assert "gsm8k (HuggingFaceTB/math_tasks/" in closed.stderr and "503 Service Unavailable: closed on Sundays" in closed.stderr
